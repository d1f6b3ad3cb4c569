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
