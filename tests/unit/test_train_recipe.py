"""Recipes: checked when made; the learning rate rises, holds and falls."""

import pytest

from cosearch.errors import UserError
from cosearch.train import Recipe


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"step": 100}, r"^recipe\.step is not a field of a recipe; did you mean 'steps'\? Known: "),
        ({"steps": 0}, r"^recipe\.steps is 0; write at least 1$"),
        ({"steps": "many"}, r"^recipe\.steps is 'many'; write a whole number$"),
        ({"steps": 1.5}, r"^recipe\.steps is 1\.5; write a whole number$"),
        ({"steps": True}, r"^recipe\.steps is True; write a whole number$"),
        ({"batch": 0}, r"^recipe\.batch is 0; write at least 1$"),
        ({"optimizer": "sgd"}, r"^recipe\.optimizer is 'sgd'; write one of muon, adamw$"),
        ({"lr": 0}, r"^recipe\.lr is 0; write above 0$"),
        ({"lr": float("nan")}, r"^recipe\.lr is nan; write a finite number$"),
        ({"lr": float("inf")}, r"^recipe\.lr is inf; write a finite number$"),
        ({"matrix_lr": -1.0}, r"^recipe\.matrix_lr is -1\.0; write above 0$"),
        ({"scale_lr": -1.0}, r"^recipe\.scale_lr is -1\.0; write 0 or more$"),
        ({"momentum": 1.0}, r"^recipe\.momentum is 1\.0; write 0 to below 1$"),
        ({"weight_decay": -0.1}, r"^recipe\.weight_decay is -0\.1; write 0 or more$"),
        ({"warmup": 2}, r"^recipe\.warmup is 2; write 0 to 1$"),
        ({"warmup": 0.5}, r"^recipe\.hold is 0\.3; write warmup \(0\.5\) to 1$"),
        ({"label_smoothing": 1}, r"^recipe\.label_smoothing is 1; write 0 to below 1$"),
        ({"shift": -1}, r"^recipe\.shift is -1; write 0 or more$"),
        ({"flip": "no"}, r"^recipe\.flip is 'no'; write true or false$"),
        ({"calibration": 0}, r"^recipe\.calibration is 0; write at least 1$"),
        ({"schedule": "step"}, r"^recipe\.schedule is 'step'; write one of wsd, cosine, linear$"),
        ({"mixup": -0.1}, r"^recipe\.mixup is -0\.1; write 0 to 1$"),
        ({"mixup": 0.5, "cutmix": 0.6}, r"^recipe\.cutmix is 0\.6; write 0 to 1 - mixup \(0\.5\)$"),
        ({"erase": 2}, r"^recipe\.erase is 2; write 0 to 1$"),
        ({"distill": 1.5}, r"^recipe\.distill is 1\.5; write 0 to 1$"),
        ({"temperature": -1}, r"^recipe\.temperature is -1; write 0 or more$"),
        ({"teacher": "me"}, r"^recipe\.teacher is 'me'; write large, self, or a path to a \.safetensors file$"),
        ({"warm_start": "large"}, r"^recipe\.warm_start is 'large'; write self, or a path to a \.safetensors file, or"),
        ({"reduce_from": 1.1}, r"^recipe\.reduce_from is 1\.1; write 0 to 1$"),
        ({"quantise_from": -1}, r"^recipe\.quantise_from is -1; write 0 to 1$"),
        ({"patience": -1}, r"^recipe\.patience is -1; write 0, or more with schedule wsd and hold above 0$"),
        ({"patience": 5, "schedule": "cosine"}, r"^recipe\.patience is 5; write 0, or more with schedule wsd"),
        ({"dtype": "float16"}, r"^recipe\.dtype is 'float16'; write one of float32, bfloat16$"),
        ({"compile": 1}, r"^recipe\.compile is 1; write true or false$"),
    ],
)
def test_each_mistake_is_named(config, message):
    with pytest.raises(UserError, match=message):
        Recipe.from_config(config)


def test_a_config_sets_what_it_names_and_nothing_else():
    assert Recipe.from_config({}) == Recipe()
    assert Recipe.from_config({"steps": 9, "lr": 1}) == Recipe(steps=9, lr=1)


def test_the_learning_rate_rises_holds_and_falls_to_nearly_nothing():
    recipe = Recipe(steps=100, warmup=0.1, hold=0.5)
    factors = [recipe.learning_rate_factor(step) for step in range(100)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:50] == [1.0] * 40
    assert factors[50:] == sorted(factors[50:], reverse=True)
    assert factors[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("edges", [{"warmup": 0, "hold": 0}, {"warmup": 1, "hold": 1}, {"warmup": 0, "hold": 1}])
def test_a_schedule_may_lack_any_of_its_parts(edges):
    recipe = Recipe(steps=7, **edges)
    assert all(0 < recipe.learning_rate_factor(step) <= 1 for step in range(7))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_other_schedules_rise_and_fall_to_nothing(schedule):
    recipe = Recipe(steps=100, warmup=0.1, schedule=schedule)
    factors = [recipe.learning_rate_factor(step) for step in range(100)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.02


def test_a_model_may_change_the_recipe_and_is_checked_alike():
    assert Recipe(steps=9).overridden(()) == Recipe(steps=9)
    assert Recipe(steps=9).overridden((("lr", 0.5), ("shift", 1))) == Recipe(steps=9, lr=0.5, shift=1)
    with pytest.raises(UserError, match=r"^recipe\.step is not a field of a recipe; did you mean 'steps'"):
        Recipe().overridden((("step", 9),))
    with pytest.raises(UserError, match=r"^recipe\.hold is 0\.3; write warmup \(0\.5\) to 1$"):
        Recipe().overridden((("warmup", 0.5),))


def test_only_what_all_do_at_one_pace_from_labels_alone_is_trained_in_a_stack():
    assert Recipe(mixup=0.5, erase=0.2, schedule="cosine", optimizer="adamw").stackable
    for changes in ({"distill": 0.5}, {"warm_start": "self"}, {"reduce_from": 0.5}, {"quantise_from": 1.0}):
        assert not Recipe(**changes).stackable
    for changes in ({"patience": 5}, {"dtype": "bfloat16"}, {"compile": True}):
        assert not Recipe(**changes).stackable
