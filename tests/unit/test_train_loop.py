"""Training: it learns, it repeats itself, it says when it diverged; the evaluator leaves what it trained."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cosearch_evaluators.trained import Trained
from torch import nn

from cosearch.data import Split, load_task, make_task
from cosearch.errors import EvaluationError, UserError
from cosearch.evaluator import BriefEvaluator, Context, Evaluator
from cosearch.model import build_model
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec
from cosearch.train import Recipe, accuracy, normalised, score, train, weights_from_bytes, weights_to_bytes
from cosearch.train.batches import Batches, augmented
from cosearch.train.optim import ScaleAdam

SHORT = Recipe(steps=4, batch=16, calibration=32)
PAIRS = {"name": "digit-pairs", "size": 16}


@pytest.fixture
def task():
    return load_task(PAIRS)


def spec(task, bits=8, dim=32):
    block = BlockSpec(heads=2, mlp_hidden=32, weight_bits=bits, activation_bits=bits)
    return ModelSpec(task=task.shape, patch=4, dim=dim, overlap=2, stem_hidden=32, edge_bits=bits, blocks=(block,) * 2)


def weights(model):
    return weights_to_bytes(model)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("bits", [4, 32])
def test_a_short_training_is_far_better_than_chance(optimizer, bits):
    task = load_task({"name": "digits"})
    recipe = Recipe(steps=60, batch=32, optimizer=optimizer, calibration=64)
    result = train(dataclasses.replace(spec(task, bits), overlap=0), task, recipe, 0).score
    assert result.accuracy > 0.5  # chance is 0.1
    assert result.loss < math.log(10)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(task):
    first, again, other = (train(spec(task), task, SHORT, seed) for seed in (5, 5, 6))
    assert weights(first.model) == weights(again.model)
    assert first.score == again.score
    assert weights(first.model) != weights(other.model)


def test_what_ran_before_does_not_matter_and_the_threads_come_back(task):
    before = torch.get_num_threads()
    torch.manual_seed(1)
    first = train(spec(task), task, SHORT, 5)
    torch.set_num_threads(2)
    torch.manual_seed(2)
    try:
        again = train(spec(task), task, SHORT, 5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert weights(first.model) == weights(again.model)


def test_training_never_sees_validation_or_test(task):
    """Other images and labels in those splits leave every weight as it is."""
    blank = Split(images=np.zeros_like(task.validation.images), labels=np.zeros_like(task.validation.labels))
    changed = dataclasses.replace(task, validation=blank, test=blank)
    first, again = train(spec(task), task, SHORT, 5), train(spec(task), changed, SHORT, 5)
    assert weights(first.model) == weights(again.model)
    assert first.score != again.score


@pytest.mark.parametrize("bits", [8, 32])
def test_divergence_is_told(task, bits):
    with pytest.raises(EvaluationError, match=r"^training diverged at step \d+ of 20: loss is (nan|inf)$"):
        train(spec(task, bits), task, Recipe(steps=20, batch=16, lr=1e30, matrix_lr=1e30, calibration=32), 0)


def test_outputs_that_are_no_numbers_are_told(task):
    model = build_model(spec(task, 32), 0)
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with pytest.raises(EvaluationError, match=r"outputs are not all numbers"):
        score(model, task.validation, task)


class Oracle(nn.Module):
    """Knows the answers, but for the second label of every fourth image."""

    def __init__(self, labels):
        super().__init__()
        self.logits = 20.0 * F.one_hot(torch.tensor(labels), 10).float()
        self.logits[::4, 1] = self.logits[::4, 1].roll(1, 1)
        self.at = 0

    def forward(self, images):
        self.at += len(images)
        return self.logits[self.at - len(images) : self.at]


def test_accuracy_counts_labels_and_exact_counts_images(task):
    split = task.validation
    result = score(Oracle(split.labels), split, task)
    assert result.accuracy == pytest.approx(1 - 1 / 8)
    assert result.exact == pytest.approx(1 - 1 / 4)
    assert result.loss == pytest.approx(20 / 8, rel=1e-3)
    assert accuracy(Oracle(split.labels), split, task) == result.accuracy


def test_scoring_leaves_the_mode_as_it_was(task):
    model = build_model(spec(task, 32), 0)
    for training in (True, False):
        model.train(training)
        score(model, task.validation, task)
        assert model.training is training


def test_normalised_training_images_have_mean_0_and_deviation_1(task):
    images = normalised(task.train.images, task)
    assert images.shape == (len(task.train), 1, 16, 16)
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


def test_a_batch_is_normalised_as_the_whole_split_is(task):
    picked = torch.tensor([7, 0, 7, 8191])
    batches = Batches(task.train, task)
    assert torch.equal(batches.images(picked), normalised(task.train.images, task)[picked])
    assert batches.labels[picked].tolist() == task.train.labels[picked.numpy()].tolist()


def test_training_needs_no_more_than_one_image_a_class():
    few = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    split = Split(images=few, labels=np.array([[0], [1]]))
    tiny = make_task("tiny", ("a", "b"), split, split, split)
    result = train(spec(tiny, 4), tiny, SHORT, 0)
    assert 0 <= result.score.accuracy <= 1


def test_the_training_split_is_never_held_in_floating_point(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cosearch.train.batches.normalised", lambda images, of: seen.append(len(images)) or normalised(images, of)
    )
    train(spec(task), task, SHORT, 5)
    assert seen == [SHORT.calibration] + [SHORT.batch] * SHORT.steps


def test_shifting_moves_whole_images_and_flipping_mirrors_some():
    images = torch.zeros(64, 1, 8, 8)
    images[:, :, 4, 2] = 1
    generator = torch.Generator().manual_seed(0)
    shifted = augmented(images, Recipe(shift=1), generator)
    places = {tuple(place) for place in shifted.nonzero()[:, 2:].tolist()}
    assert len(shifted.nonzero()) == 64
    assert places == {(row, column) for row in (3, 4, 5) for column in (1, 2, 3)}
    flipped = augmented(images, Recipe(flip=True), generator)
    assert {tuple(place) for place in flipped.nonzero()[:, 2:].tolist()} == {(4, 2), (4, 5)}


def test_scales_stay_positive_and_move_by_their_share_against_the_gradient():
    scales = [nn.Parameter(torch.tensor([1e-4, 1e-2])), nn.Parameter(torch.tensor([1.0]))]
    optimizer = ScaleAdam(scales)
    for parameter, gradient in zip(scales, ([1e6, -1e-6], [3.0]), strict=True):
        parameter.grad = torch.tensor(gradient)
    optimizer.step(0.1)
    moved = torch.cat([scale.detach() for scale in scales])
    expected = torch.tensor([1e-4, 1e-2, 1.0]) * torch.exp(torch.tensor([-0.1, 0.1, -0.1]))
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=0)


def test_weights_come_back_from_bytes(task):
    trained = train(spec(task), task, SHORT, 5)
    fresh = build_model(spec(task), 9).eval()
    weights_from_bytes(fresh, weights(trained.model))
    assert score(fresh, task.validation, task) == trained.score


@pytest.mark.parametrize("damage", [lambda data: b"junk", lambda data: data[:100], lambda data: b""])
def test_bytes_that_are_no_weights_are_refused(task, damage):
    model = build_model(spec(task), 0)
    with pytest.raises(UserError, match=r"^these weights are not this model's"):
        weights_from_bytes(model, damage(weights(model)))


def test_another_models_weights_are_refused(task):
    with pytest.raises(UserError, match=r"^these weights are not this model's \(size mismatch"):
        weights_from_bytes(build_model(spec(task), 0), weights(build_model(spec(task, dim=48), 0)))


def test_the_evaluator_gives_its_metrics_and_keeps_the_weights(task):
    evaluator = Trained({"steps": 4, "batch": 16, "calibration": 32})
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.scope, evaluator.cheap) == ("model", False)
    context = Context(seed=5, task=PAIRS)
    candidate = Candidate(model=spec(task), accelerator=AcceleratorSpec.of("systolic", {}))
    values = evaluator.evaluate(candidate, context)
    assert list(values) == [metric.name for metric in evaluator.metrics]
    assert [metric.direction for metric in evaluator.metrics] == ["max", "max", "min"]
    expected = train(spec(task), task, SHORT, 5)
    assert values == dataclasses.asdict(expected.score)
    assert context.artifacts["weights.safetensors"] == weights(expected.model)
    course = json.loads(context.artifacts["training.json"])
    assert course["recipe"] == dataclasses.asdict(evaluator.recipe)
    assert course["steps"] == course["curve"][-1][0] == 4


def test_a_guess_is_a_short_training_that_leaves_nothing(task):
    evaluator = Trained({"steps": 32, "batch": 16, "calibration": 128, "lr": 0.01})
    assert isinstance(evaluator, BriefEvaluator)
    assert evaluator.brief == Recipe(steps=4, batch=8, calibration=64, lr=0.01, quantise_from=0.75)
    assert evaluator.brief_share == 1 / 8 * 3 / 4
    context = Context(seed=5, task=PAIRS, brief=True)
    candidate = Candidate(model=spec(task), accelerator=AcceleratorSpec.of("systolic", {}))
    values = evaluator.evaluate(candidate, context)
    assert list(values) == [metric.name for metric in evaluator.metrics]
    few = Split(images=task.validation.images[:256], labels=task.validation.labels[:256])
    less = dataclasses.replace(task, validation=few)
    assert values == dataclasses.asdict(train(spec(task), less, evaluator.brief, 5).score)
    assert not context.artifacts


def test_a_guess_that_costs_as_much_is_refused():
    with pytest.raises(UserError, match="a brief training of 40 steps of 16 images is no shorter than the full one"):
        Trained({"steps": 20, "batch": 16}, brief={"steps": 40, "batch": 16})


def test_the_evaluator_refuses_a_wrong_recipe_when_it_is_made():
    with pytest.raises(UserError, match=r"^recipe\.lrate is not a field of a recipe; "):
        Trained({"lrate": 1})


def test_moved_images_are_cut_from_ones_with_their_border_drawn_out() -> None:
    images = torch.randn(40, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    moved = augmented(images, Recipe(shift=2), torch.Generator().manual_seed(1))
    wide = F.pad(images, (2,) * 4, mode="replicate")
    places = [(down, right) for down in range(5) for right in range(5)]
    found = [
        [place for place in places if torch.equal(one, large[:, place[0] : place[0] + 5, place[1] : place[1] + 7])]
        for one, large in zip(moved, wide, strict=True)
    ]
    assert all(found)
    assert {down for (down, _), *_ in found} == {right for (_, right), *_ in found} == set(range(5))
