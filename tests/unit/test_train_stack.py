"""Training in a stack: what a model alone becomes, whatever shares the stack, and one's failure is no other's."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cosearch.data import load_task
from cosearch.errors import EvaluationError
from cosearch.model import build_model, calibrate
from cosearch.spec import BlockSpec, ModelSpec
from cosearch.train import Recipe, stackable, stacks, train, train_stack, weights_to_bytes
from cosearch.train.batches import Batches
from cosearch.train.optim import Packed
from cosearch.train.stack import stack_losses
from cosearch.train.stacked import StackedTransformer

SHORT = Recipe(steps=4, batch=16, calibration=32)
KEEPS = {"none": (None, None), "prune": (10, 6), "merge": (10, 6)}


@pytest.fixture
def task():
    return load_task({"name": "digit-pairs"})


def spec(task, bits=4, method="none", **changes):
    blocks = tuple(
        BlockSpec(heads=2, mlp_hidden=32, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
        for keep in KEEPS[method]
    )
    fields = {"patch": 4, "dim": 16, "overlap": 2, "stem_hidden": 32, "edge_bits": 8 if bits < 32 else 32}
    return ModelSpec(task=task.shape, blocks=blocks, token_method=method, **{**fields, **changes})


def drawn(task, count, batch=16):
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(len(task.train), (count, batch), generator=generator)
    batches = Batches(task.train, task)
    return torch.stack([batches.images(row) for row in picked]), batches.labels[picked]


def ready(specs, task):
    models = [build_model(one, seed) for seed, one in enumerate(specs)]
    for seed, model in enumerate(models):
        calibrate(model, Batches(task.train, task).images(torch.arange(seed, seed + 64)))
    return models


# What a stack computes


@pytest.mark.parametrize("method", KEEPS)
@pytest.mark.parametrize("bits", [(2, 4, 8), (32, 32, 32), (2, 10, 5)])
@pytest.mark.parametrize("changes", [{}, {"overlap": 0, "stem_hidden": 0, "patch": 4}])
def test_logits_losses_and_gradients_are_those_of_the_models_alone(task, method, bits, changes):
    models = ready([spec(task, own, method, **changes) for own in bits], task)
    images, labels = drawn(task, len(models))
    stack = StackedTransformer(models)
    logits = stack(images)
    losses = stack_losses(logits, labels, 0.1)
    losses.sum().backward()
    for index, model in enumerate(models):
        own = model(images[index])
        loss = F.cross_entropy(own.flatten(0, 1), labels[index].flatten(), label_smoothing=0.1)
        loss.backward()
        torch.testing.assert_close(logits[index], own, rtol=1e-5, atol=1e-5)
        assert losses[index].item() == pytest.approx(loss.item(), rel=1e-5)
        for name, parameter in model.named_parameters():
            # a scale's gradient is the difference of two sums, which in many bits are nearly the same
            share = 0.02 if name.endswith("scale") and bits[index] >= 8 else 2e-3
            found, most = stack.parameters[name].grad[index], parameter.grad.abs().max().item()
            torch.testing.assert_close(found, parameter.grad, rtol=share, atol=share * most + 1e-9, msg=name)


def test_values_on_the_edge_of_the_range_are_clipped_as_alone(task):
    """LSQ gives no gradient where x / scale is the last code itself, and pruned or blank tokens often are there."""
    models = ready([spec(task, 2), spec(task, 4)], task)
    with torch.no_grad():
        for model in models:
            quantizer, weight = model.blocks[0].mlp.fc1.weight_quantizer, model.blocks[0].mlp.fc1.weight
            quantizer.scale.fill_(0.25)
            weight.copy_(0.25 * torch.randint(-8, 8, weight.shape, generator=torch.Generator().manual_seed(1)))
    images, labels = drawn(task, 2)
    stack = StackedTransformer(models)
    stack_losses(stack(images), labels, 0.0).sum().backward()
    found = stack.parameters["blocks.0.mlp.fc1.weight"].grad
    for index, model in enumerate(models):
        F.cross_entropy(model(images[index]).flatten(0, 1), labels[index].flatten()).backward()
        expected = model.blocks[0].mlp.fc1.weight.grad
        assert torch.equal(found[index] == 0, expected == 0)
        assert (expected == 0).any()
        assert (expected != 0).any()


# What training in a stack gives


@pytest.mark.parametrize("method", KEEPS)
def test_in_floating_point_a_training_ends_where_it_ends_alone(task, method):
    specs, recipe = [spec(task, 32, method)] * 3, Recipe(steps=8, batch=32, calibration=32)
    for found, seed in zip(train_stack(specs, task, recipe, [4, 5, 6]), (4, 5, 6), strict=True):
        alone = train(specs[0], task, recipe, seed)
        assert found.score.loss == pytest.approx(alone.score.loss, rel=1e-5)
        assert found.score.accuracy == pytest.approx(alone.score.accuracy, abs=2e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_in_low_bits_the_first_step_is_that_of_the_model_alone(task, optimizer):
    specs = [spec(task, bits) for bits in (2, 4, 8)]
    recipe = dataclasses.replace(SHORT, steps=1, optimizer=optimizer)
    for found, one, seed in zip(train_stack(specs, task, recipe, [1, 2, 3]), specs, (1, 2, 3), strict=True):
        alone = train(one, task, recipe, seed)
        assert found.score.loss == pytest.approx(alone.score.loss, rel=1e-4)  # a few values fall to other codes
        for name, parameter in alone.model.named_parameters():
            if not name.endswith("qkv.bias"):  # keys' biases cancel out in the softmax: Adam scales up what is noise
                other = found.model.get_parameter(name)
                torch.testing.assert_close(other, parameter, rtol=1e-3, atol=1e-4, msg=name)


def test_images_are_shifted_and_mirrored_as_alone(task):
    one, recipe = spec(task, 32), dataclasses.replace(SHORT, shift=1, flip=True)
    for found, seed in zip(train_stack([one, one], task, recipe, [7, 8]), (7, 8), strict=True):
        assert found.score.loss == pytest.approx(train(one, task, recipe, seed).score.loss, rel=1e-5)


@pytest.mark.parametrize("method", KEEPS)
def test_who_shares_the_stack_changes_no_bit(task, method):
    specs, recipe = [spec(task, bits, method) for bits in (2, 4, 8, 3)], dataclasses.replace(SHORT, steps=6)
    together = [weights_to_bytes(one.model) for one in train_stack(specs, task, recipe, [1, 2, 3, 4])]
    alone = [
        weights_to_bytes(train_stack([one], task, recipe, [seed])[0].model)
        for one, seed in zip(specs, (1, 2, 3, 4), strict=True)
    ]
    turned = train_stack(specs[::-1], task, recipe, [4, 3, 2, 1], most=3)[::-1]
    assert together == alone
    assert together == [weights_to_bytes(one.model) for one in turned]


def test_a_model_that_diverges_leaves_the_others_alone(task, monkeypatch):
    def poisoned(one, seed):
        model = build_model(one, seed)
        if seed == 2:
            with torch.no_grad():
                model.head.bias[0] = torch.nan
        return model

    specs = [spec(task, 4)] * 3
    sound = train_stack(specs, task, SHORT, [1, 2, 3])
    monkeypatch.setattr("cosearch.train.stack.build_model", poisoned)
    found = train_stack(specs, task, SHORT, [1, 2, 3])
    assert isinstance(found[1], EvaluationError)
    assert str(found[1]) == "training diverged at step 0 of 4: loss is nan"
    for index in (0, 2):
        assert weights_to_bytes(found[index].model) == weights_to_bytes(sound[index].model)


def test_all_diverging_is_told_for_each(task):
    recipe = Recipe(steps=20, batch=16, lr=1e30, matrix_lr=1e30, calibration=32)
    found = train_stack([spec(task, 8)] * 2, task, recipe, [0, 1])
    assert [str(one).startswith("training diverged at step ") for one in found] == [True, True]


def test_threads_come_back(task):
    before = torch.get_num_threads()
    train_stack([spec(task)], task, SHORT, [0])
    assert torch.get_num_threads() == before


# What may share a stack


def test_bits_may_differ_and_nothing_else(task):
    one = spec(task, 4)
    assert stackable(one, spec(task, 7))
    assert stackable(one, dataclasses.replace(one, edge_bits=4))
    for other in (
        spec(task, 32),
        spec(task, 4, dim=32),
        spec(task, 4, patch=8),
        spec(task, 4, overlap=1),
        spec(task, 4, stem_hidden=16),
        spec(task, 4, "prune"),
        dataclasses.replace(one, blocks=one.blocks[:1]),
        dataclasses.replace(one, blocks=(dataclasses.replace(one.blocks[0], heads=4), one.blocks[1])),
        dataclasses.replace(one, blocks=(dataclasses.replace(one.blocks[0], weight_bits=32), one.blocks[1])),
    ):
        assert not stackable(one, other)
        assert stackable(other, other)
    assert not stackable(spec(task, 4, "prune"), spec(task, 4, "merge"))


def test_groups_keep_the_order_and_their_size(task):
    small, large = spec(task, 4), spec(task, 4, dim=32)
    assert stacks([small, large, small, small, large, small], 3) == [[0, 2, 3], [1, 4], [5]]
    assert stacks([], 3) == []


def test_models_of_several_shapes_come_back_in_their_places(task):
    specs = [spec(task, 4), spec(task, 4, dim=32), spec(task, 6)]
    found = train_stack(specs, task, SHORT, [1, 2, 3])
    assert [one.model.spec for one in found] == specs
    assert all(not one.model.training for one in found)


def test_what_no_stack_computes_is_trained_alone(task, monkeypatch):
    monkeypatch.setattr("cosearch.train.stack._KNOWN_METHODS", {"none"})
    one = spec(task, 4, "prune")
    assert not stackable(one, one)
    found = train_stack([one, one], task, SHORT, [1, 2])
    for seed, result in zip((1, 2), found, strict=True):
        assert weights_to_bytes(result.model) == weights_to_bytes(train(one, task, SHORT, seed).model)


def test_large_models_gain_nothing_and_are_trained_alone(task):
    large = spec(task, 4, dim=48)  # 17 tokens
    assert not stackable(large, large)
    assert stackable(spec(task, 4, dim=32), spec(task, 4, dim=32))
    found = train_stack([large], task, SHORT, [3])[0]
    assert weights_to_bytes(found.model) == weights_to_bytes(train(large, task, SHORT, 3).model)


def test_a_field_that_the_stack_does_not_know_must_be_at_its_default(task, monkeypatch):
    one = spec(task, 4)
    monkeypatch.setattr("cosearch.train.stack._KNOWN_MODEL", {"task", "patch", "dim", "blocks", "edge_bits"})
    assert not stackable(one, one)  # overlap and stem_hidden are not
    plain = dataclasses.replace(one, overlap=0, stem_hidden=0)
    assert stackable(plain, plain)


def test_seeds_must_be_as_many_as_models(task):
    with pytest.raises(ValueError, match=r"^2 models, but 1 seeds$"):
        train_stack([spec(task)] * 2, task, SHORT, [0])


# Packing


def test_packed_parameters_go_there_and_back_in_whole_vectors():
    parameters = [nn.Parameter(torch.randn(3, *shape)) for shape in ((5,), (2, 3), (20,))]
    packed = Packed(parameters)
    assert packed.values.shape == (3, 32)
    parameters[0].grad = torch.ones(3, 5)
    packed.gather()
    assert packed.values.grad.sum(1).tolist() == [5, 5, 5]
    with torch.no_grad():
        packed.values += 1
    before = [parameter.detach().clone() for parameter in parameters]
    packed.scatter()
    for parameter, old in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.detach(), old + 1)
