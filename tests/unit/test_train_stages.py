"""Recipes beyond plain training: mixing, teachers, warm starts, stages, plateaus; each does what it says."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cosearch.data import load_task
from cosearch.errors import EvaluationError, UserError
from cosearch.model import build_model
from cosearch.spec import BlockSpec, ModelSpec
from cosearch.train import Recipe, model_from_file, score, train, train_stack, weights_to_bytes
from cosearch.train import loop as loop_module
from cosearch.train.batches import Batches, augmented, drawn
from cosearch.train.loop import Plateau, Training, curve
from cosearch.train.teachers import distillation_loss, large_spec
from cosearch.train.twins import copy_fitting, float_twin, stage, unreduced

SHORT = Recipe(steps=6, batch=16, calibration=32)


@pytest.fixture
def task():
    return load_task({"name": "digit-pairs"})


def spec(task, bits=4, method="prune", **changes):
    blocks = tuple(
        BlockSpec(heads=2, mlp_hidden=32, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
        for keep in ((10, 6) if method != "none" else (None, None))
    )
    fields = {"patch": 4, "dim": 16, "overlap": 2, "stem_hidden": 32, "edge_bits": 8 if bits < 32 else 32}
    return ModelSpec(task=task.shape, blocks=blocks, token_method=method, **{**fields, **changes})


def with_changes(**changes):
    return dataclasses.replace(SHORT, **changes)


# Images


def test_mixing_keeps_the_share_that_it_says(task):
    batches = Batches(task.train, task)
    kinds = set()
    for seed in range(12):
        plain = drawn(batches, SHORT, torch.Generator().manual_seed(seed))
        mixed = drawn(batches, with_changes(mixup=0.5, cutmix=0.4), torch.Generator().manual_seed(seed))
        assert torch.equal(plain.labels, mixed.labels)
        if mixed.others is None:
            assert torch.equal(plain.images, mixed.images)
            kinds.add("neither")
            continue
        assert torch.equal(mixed.others, plain.labels.flip(0))
        averaged = mixed.share * plain.images + (1 - mixed.share) * plain.images.flip(0)
        if torch.allclose(mixed.images, averaged, atol=1e-5):
            kinds.add("mixup")
            continue
        kinds.add("cutmix")
        own, other = (mixed.images == plain.images), (mixed.images == plain.images.flip(0))
        assert bool((own | other).all())
        assert own.all(dim=0).float().mean().item() == pytest.approx(mixed.share, abs=0.15)  # pixels may be equal
    assert {"mixup", "cutmix"} <= kinds


def test_a_share_of_the_images_loses_a_rectangle():
    images = torch.full((400, 1, 16, 16), 9.0)
    found = augmented(images, Recipe(erase=0.25), torch.Generator().manual_seed(1))
    changed = (found != 9).flatten(1).sum(1)
    assert 0.18 < (changed > 0).double().mean() < 0.32
    assert changed.max() <= 0.45 * 256
    assert bool((images == 9).all())  # the originals stay
    rows, columns = np.nonzero((found[int(changed.argmax()), 0] != 9).numpy())
    assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_mixing_and_erasing_in_a_stack_are_those_alone(task):
    recipe = with_changes(mixup=0.4, cutmix=0.4, erase=0.3, shift=1)
    one = spec(task, 32, "none")
    for found, seed in zip(train_stack([one] * 3, task, recipe, [1, 2, 3]), (1, 2, 3), strict=True):
        alone = train(one, task, recipe, seed)
        assert found.score.loss == pytest.approx(alone.score.loss, rel=1e-4)
        assert [loss for _, loss in found.curve] == pytest.approx([loss for _, loss in alone.curve], rel=1e-4)


# Teachers


def test_distillation_is_hintons_and_deits():
    student, taught = torch.randn(5, 2, 7), torch.randn(5, 2, 7)
    p, q = (taught / 2).softmax(2), (student / 2).softmax(2)
    expected = 4 * (p * (p / q).log()).sum(2).mean()
    torch.testing.assert_close(distillation_loss(student, taught, 2.0), expected)
    hard = F.cross_entropy(student.view(10, 7), taught.view(10, 7).argmax(1))
    torch.testing.assert_close(distillation_loss(student, taught, 0.0), hard)
    assert distillation_loss(taught, taught, 3.0).abs() < 1e-6


def test_a_student_of_weight_1_learns_what_its_teacher_says_and_not_the_labels(task, tmp_path):
    teacher = build_model(spec(task, 32, "none"), 9).eval()
    with torch.no_grad():
        teacher.head.weight.zero_()
        teacher.head.bias.copy_(8.0 * F.one_hot(torch.tensor([3, 7]), 10).flatten())
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(weights_to_bytes(teacher))
    recipe = Recipe(steps=25, batch=16, calibration=32, distill=1.0, teacher=str(path), temperature=1.0)
    model = train(spec(task, 32, "none"), task, recipe, 0).model
    read = model(Batches(task.validation, task).images(torch.arange(200))).argmax(2)
    assert (read == torch.tensor([3, 7])).double().mean() > 0.95


def test_learning_from_oneself_differs_and_repeats_itself(task):
    plain = train(spec(task), task, SHORT, 3)
    own = [train(spec(task), task, with_changes(distill=0.5), 3) for _ in range(2)]
    assert weights_to_bytes(own[0].model) == weights_to_bytes(own[1].model)
    assert weights_to_bytes(own[0].model) != weights_to_bytes(plain.model)


def test_the_large_teacher_is_trained_once_for_a_task(task, monkeypatch):
    from cosearch.train import teachers

    teachers.large_teacher.cache_clear()
    monkeypatch.setattr(teachers, "LARGE_RECIPE", with_changes(steps=2))
    first, again = teachers.large_teacher(task), teachers.large_teacher(task)
    teachers.large_teacher.cache_clear()
    assert first is again
    assert first.spec == large_spec(task.shape)
    assert large_spec(task.shape).patches == 64


def test_a_teacher_of_another_task_or_without_a_spec_is_refused(task, tmp_path):
    other = load_task({"name": "digits"})
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_to_bytes(build_model(spec(other, 32, "none", overlap=0), 0)))
    recipe = with_changes(distill=0.5, teacher=str(path))
    with pytest.raises(EvaluationError, match=r"w\.safetensors was trained on TaskShape\(.*give a teacher of the same"):
        train(spec(task), task, recipe, 0)
    path.write_bytes(weights_to_bytes(torch.nn.Linear(2, 2)))
    with pytest.raises(UserError, match=r"holds weights but not the model's spec; give weights that a run left"):
        train(spec(task), task, recipe, 0)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"is no safetensors file"):
        train(spec(task), task, recipe, 0)
    path.unlink()
    with pytest.raises(UserError, match=r"w\.safetensors is not a file; give the path"):
        train(spec(task), task, recipe, 0)


def test_weights_hold_their_models_spec(task, tmp_path):
    trained = train(spec(task), task, SHORT, 3)
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_to_bytes(trained.model))
    again = model_from_file(path)
    assert again.spec == trained.model.spec
    assert score(again, task.validation, task) == trained.score


# Warm starts


def test_a_warm_start_begins_where_the_weights_are(task, tmp_path):
    source = train(spec(task, 32, "none"), task, Recipe(steps=60, batch=32), 0)
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_to_bytes(source.model))
    still = with_changes(steps=1, lr=1e-9, matrix_lr=1e-9, scale_lr=0.0)
    warm = train(spec(task, 8, "none"), task, dataclasses.replace(still, warm_start=str(path)), 1)
    cold = train(spec(task, 8, "none"), task, still, 1)
    assert warm.score.accuracy == pytest.approx(source.score.accuracy, abs=0.05)
    assert cold.score.accuracy < source.score.accuracy - 0.1


def test_what_does_not_fit_stays_as_drawn_and_nothing_fitting_is_told(task, tmp_path):
    small, wide = build_model(spec(task, 32), 1), build_model(spec(task, 32, dim=32), 2)
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    fitting = {name for name, value in small.state_dict().items() if value.shape == before[name].shape}
    assert copy_fitting(wide, small.state_dict()) == len(fitting) > 0
    for name, value in wide.state_dict().items():
        assert torch.equal(value, small.state_dict()[name] if name in fitting else before[name])
    path = tmp_path / "other.safetensors"
    path.write_bytes(weights_to_bytes(torch.nn.Linear(3, 5)))
    with pytest.raises(EvaluationError, match=r"^recipe\.warm_start: no weight of .*other\.safetensors .*fits dim 16"):
        train(spec(task), task, with_changes(warm_start=str(path)), 0)


# Stages


def test_twins_have_the_rest_of_the_model(task):
    one = spec(task, 4)
    assert unreduced(float_twin(one)) == spec(task, 32, "none")
    recipe = with_changes(quantise_from=0.5, reduce_from=0.75)
    assert stage(one, recipe, 0.4) == spec(task, 32, "none")
    assert stage(one, recipe, 0.5) == spec(task, 4, "none")
    assert stage(one, recipe, 0.75) == stage(one, recipe, 1.0) == one


def test_stages_change_at_their_share_of_the_steps(task, monkeypatch):
    seen = []
    advance = Training.advance
    monkeypatch.setattr(Training, "advance", lambda self: seen.append(self.model.spec) or advance(self))
    one = spec(task, 4)
    found = train(one, task, with_changes(quantise_from=0.5, reduce_from=1.0), 0)
    assert seen == [spec(task, 32, "none")] * 3 + [spec(task, 4, "none")] * 3
    assert found.model.spec == one


def test_reducing_after_training_leaves_every_weight_as_training_left_it(task):
    after = train(spec(task), task, with_changes(reduce_from=1.0), 3).model
    whole = train(spec(task, 4, "none"), task, SHORT, 3).model
    assert after.spec == spec(task)
    assert {name: value.tolist() for name, value in after.state_dict().items()} == {
        name: value.tolist() for name, value in whole.state_dict().items()
    }


def test_a_stage_that_changes_nothing_changes_no_bit(task):
    one = spec(task, 32, "none")
    plain, staged = (
        train(one, task, recipe, 3) for recipe in (SHORT, with_changes(quantise_from=0.5, reduce_from=1.0))
    )
    assert weights_to_bytes(plain.model) == weights_to_bytes(staged.model)


def test_optimisers_go_on_through_a_stage(task):
    """With an identical model in its place, training goes on as if nothing had happened."""
    one, batches = spec(task, 4), Batches(task.train, task)

    def trained(swapped):
        model, generator = build_model(one, 0), torch.Generator().manual_seed(0)
        training = Training(model, batches, SHORT, generator)
        for step in range(SHORT.steps):
            if swapped and step == 3:
                training.model.spec = dataclasses.replace(one, training=(("steps", 6),))
                training.become(one, batches.images(torch.arange(8)), 5)
            training.advance()
        return weights_to_bytes(training.model)

    assert trained(True) == trained(False)


def test_weights_that_were_never_trained_do_not_reduce(task, monkeypatch):
    needy = {
        "prune": dataclasses.replace(
            loop_module.check_stages.__globals__["TOKEN_METHODS"]["prune"], after_training=False
        )
    }
    monkeypatch.setattr("cosearch.train.twins.TOKEN_METHODS", needy)
    with pytest.raises(EvaluationError, match=r"^recipe\.reduce_from is 1, but token method 'prune' needs training"):
        train(spec(task), task, with_changes(reduce_from=1.0), 0)


def test_a_model_hears_how_far_training_has_come(task, monkeypatch):
    heard = []
    cls = type(build_model(spec(task), 0))
    monkeypatch.setattr(cls, "progress", lambda self, done: heard.append(done), raising=False)
    train(spec(task), task, with_changes(steps=4), 0)
    assert heard == [0.25, 0.5, 0.75, 1.0]


# Plateaus


def test_a_plateau_is_seen_once_the_loss_stops_falling():
    plateau = Plateau(5)
    falling = [plateau.reached(2.0 * 0.9**step) for step in range(30)]
    assert not any(falling)
    level = [plateau.reached(2.0 * 0.9**29) for _ in range(60)]
    assert any(level)
    assert not level[4]


def test_standing_still_at_chance_is_no_plateau():
    plateau = Plateau(5)
    assert not any(plateau.reached(2.3) for _ in range(100))
    assert not any(plateau.reached(2.3 * 0.97**step) for step in range(40))
    assert any(plateau.reached(0.7) for _ in range(60))


def test_a_training_that_has_learnt_is_as_one_of_fewer_steps(task, monkeypatch):
    monkeypatch.setattr(Plateau, "LEAST_FALL", 0.9)  # no loss falls by this much
    monkeypatch.setattr(Plateau, "BEGUN", 2.0)  # so that the first steps count
    recipe = Recipe(steps=100, batch=16, calibration=32, patience=3, warmup=0.0, hold=0.5)
    found = train(spec(task), task, recipe, 0)
    assert found.steps == 8  # the first is a fall from infinity, three are none, and as many again follow
    assert found.curve[-1][0] == 8
    patient = train(spec(task), task, dataclasses.replace(recipe, steps=4, patience=50), 0)
    assert patient.steps == 4


def test_the_curve_covers_all_steps():
    assert curve([4.0, 2.0, 3.0]) == ((1, 4.0), (2, 2.0), (3, 3.0))
    found = curve([float(step) for step in range(100)])
    assert len(found) == 20
    assert found[0] == (5, 2.0)
    assert found[-1] == (100, 97.0)


# Precision and compiling; what a model's spec changes


@pytest.mark.parametrize("bits", [4, 32])
def test_bfloat16_learns_and_weights_stay_in_single_precision(task, bits):
    recipe = Recipe(steps=30, batch=32, calibration=32, dtype="bfloat16")
    found = train(spec(task, bits, "none"), task, recipe, 0)
    assert found.curve[-1][1] < found.curve[0][1]
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


def test_a_models_own_recipe_is_taken_and_never_stacked_with_anothers(task):
    one = dataclasses.replace(spec(task), training=(("steps", 2), ("warm_start", "self")))
    other = dataclasses.replace(spec(task), training=(("steps", 3),))
    found = train_stack([one, other, spec(task)], task, SHORT, [1, 2, 3])
    assert [result.steps for result in found] == [2, 3, 6]
    assert found[0].recipe == with_changes(steps=2, warm_start="self")
    with pytest.raises(UserError, match=r"^recipe\.step is not a field"):
        train(dataclasses.replace(one, training=(("step", 2),)), task, SHORT, 0)
