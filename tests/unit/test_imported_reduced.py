"""Weights that are there already, with fewer tokens and fewer bits than they were trained with."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from cosearch_evaluators.post_training import PostTraining
from torch import Tensor, nn

from cosearch.data import load_task
from cosearch.errors import EvaluationError, SpecError, UserError
from cosearch.evaluator import Context, Evaluator
from cosearch.imported import (
    adopted_from_file,
    as_model,
    quantise,
    with_weights,
)
from cosearch.model import Linear, build_model, calibrate
from cosearch.spec import TOKEN_METHODS, AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.train import model_from_file, normalised, score, weights_to_bytes

AFTER = sorted(name for name, method in TOKEN_METHODS.items() if method.after_training and name != "none")


def logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()(images).flatten(1)


def images(task: TaskShape, seed: int = 1) -> Tensor:
    return torch.randn(3, task.channels, *task.image, generator=torch.Generator().manual_seed(seed))


# fewer tokens and bits


def plain(**changes) -> ModelSpec:
    task = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
    block = BlockSpec(heads=2, mlp_hidden=32)
    return ModelSpec(**{"task": task, "patch": 4, "dim": 16, "blocks": (block, block), **changes})


def reduced(spec: ModelSpec, method: str = "none", keep: int = 10, **fields) -> ModelSpec:
    blocks = tuple(dataclasses.replace(block, **fields) for block in spec.blocks)
    if method != "none":
        blocks = (dataclasses.replace(blocks[0], keep_tokens=keep), *blocks[1:])
    return dataclasses.replace(spec, blocks=blocks, token_method=method)


@pytest.mark.parametrize("method", AFTER)
def test_every_method_that_needs_no_training_takes_the_weights(method):
    spec = plain()
    model = build_model(spec, seed=3).eval()
    made = with_weights(reduced(spec, method), spec, model.state_dict())
    x = images(spec.task)
    assert made.blocks[0](made._embedded(x)).x.shape[1] == 11
    assert torch.equal(made.head.weight, model.head.weight)
    difference = (logits(made, x) - logits(model, x)).abs().max()
    assert 0 < difference < logits(model, x).abs().max()


def test_all_tokens_and_all_bits_change_nothing():
    spec = plain()
    model = build_model(spec, seed=3).eval()
    made = with_weights(spec, spec, model.state_dict())
    assert torch.equal(logits(made, images(spec.task)), logits(model, images(spec.task)))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (plain(dim=32), "dim is 32, but the weights are those of a model with 16"),
        (plain(pool="mean"), "pool is mean, but the weights are those of a model with class"),
        (plain(blocks=(BlockSpec(heads=2, mlp_hidden=32),)), "depth is 1, but .* with 2"),
        (reduced(plain(), mlp_hidden=8), r"blocks\[0\].mlp_hidden is 8"),
        (reduced(plain(), mixer="sigmoid"), r"blocks\[0\].mixer is sigmoid"),
        (reduced(plain(), "lookup"), "token method 'lookup' needs training; take one of"),
        (plain(training=(("steps", 3),)), r"changes its recipe \(steps\), but nothing is trained"),
    ],
)
def test_what_the_weights_cannot_serve(wanted, said):
    spec = plain()
    with pytest.raises(EvaluationError, match=said):
        with_weights(wanted, spec, build_model(spec).state_dict())


def test_weights_that_were_trained_with_fewer_bits_and_tokens(tmp_path):
    spec = reduced(plain(), "merge", weight_bits=4, activation_bits=8)
    model = build_model(spec, seed=2).eval()
    calibrate(model, images(spec.task))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_to_bytes(model))
    found = adopted_from_file(path)
    assert found.spec == plain()
    assert torch.equal(found.weights["head.weight"], model.head.weight)
    assert not any("quantizer" in name for name in found.weights)


def test_sparse_weights(tmp_path):
    """Weights take sparsity like bits; those that were trained with it keep the zeros that they computed with."""
    sparse = reduced(plain(), sparsity=(2, 4))
    model = build_model(sparse, seed=2).eval()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_to_bytes(model))
    found = adopted_from_file(path)
    assert found.spec == plain()
    assert (found.weights["blocks.0.mlp.fc1.weight"] == 0).double().mean() == 0.5
    x = images(sparse.task)
    assert torch.equal(logits(as_model(found), x), logits(model, x))
    assert torch.equal(logits(with_weights(sparse, found.spec, found.weights), x), logits(model, x))
    dense = build_model(plain(), seed=2).eval()
    assert not torch.equal(logits(with_weights(sparse, plain(), dense.state_dict()), x), logits(dense, x))


def test_weights_of_a_method_with_weights_of_its_own(tmp_path):
    spec = reduced(plain(), "lookup", keep=4)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_to_bytes(build_model(spec)))
    with pytest.raises(SpecError, match="give weights that were trained without 'lookup'"):
        adopted_from_file(path)


@pytest.mark.parametrize("name", ["int8", "int4", "fp8_e4m3", "mxfp4", "ternary"])
@pytest.mark.parametrize("rounding", ["nearest", "adaround"])
def test_formats(name, rounding):
    from cosearch.spec import bits_and_format

    spec = plain()
    model = build_model(spec, seed=3).eval()
    bits, fmt = bits_and_format(name)
    made = with_weights(reduced(spec, weight_bits=bits, weight_format=fmt, activation_bits=8), spec, model.state_dict())
    x = torch.randn(16, 1, 16, 16)
    quantise(made, x, rounding=rounding, steps=50)
    difference = (logits(made, x) - logits(model, x)).norm() / logits(model, x).norm()
    assert 0 < difference < (0.05 if name == "int8" else 1.2)


def test_learned_rounding_errs_less_where_it_was_learnt():
    spec = plain()
    model = build_model(spec, seed=3).eval()
    x = torch.randn(64, 1, 16, 16)
    errors = {}
    for rounding in ("nearest", "adaround"):
        made = with_weights(reduced(spec, weight_bits=3), spec, model.state_dict())
        quantise(made, x, rounding=rounding)
        layer = made.blocks[0].mixer.qkv
        assert isinstance(layer, Linear)
        inputs = model.blocks[0].norm1(model._embedded(x).x)
        with torch.no_grad():
            errors[rounding] = float((layer(inputs) - model.blocks[0].mixer.qkv(inputs)).square().mean())
        again = layer.weight_quantizer(layer.weight)
        if rounding == "adaround":
            torch.testing.assert_close(layer.weight, again, rtol=0, atol=1e-6)
            nearest = layer.weight_quantizer.codes(model.blocks[0].mixer.qkv.weight)
            assert (layer.weight_quantizer.codes(layer.weight) - nearest).abs().max() == 1
    assert errors["adaround"] < 0.9 * errors["nearest"]


@pytest.mark.parametrize("wrong", [{"calibration": "absmean"}, {"calibration": "x"}, {"rounding": "up"}])
def test_options_of_quantising(wrong):
    with pytest.raises(SpecError, match="write one of"):
        quantise(build_model(plain()), torch.zeros(1, 1, 16, 16), **wrong)


def test_calibrations_differ():
    spec = reduced(plain(), weight_bits=4, activation_bits=4)
    model = build_model(plain(), seed=3)
    x = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    scales = []
    for calibration in ("mse", "minmax", "percentile"):
        made = with_weights(spec, plain(), model.state_dict())
        quantise(made, x, calibration=calibration)
        scales.append(made.blocks[0].mlp.fc2.input_quantizer.scale.item())
    assert len(set(scales)) == 3
    assert max(scales) == scales[1], "min-max clips nothing"


# the evaluator


@pytest.fixture
def weights(tmp_path):
    spec = plain()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_to_bytes(build_model(spec, seed=3)))
    return path


def evaluated(evaluator: PostTraining, spec: ModelSpec) -> tuple[dict[str, float], Context]:
    context = Context(seed=5, task={"name": "digit-pairs", "size": 16})
    candidate = Candidate(model=spec, accelerator=AcceleratorSpec.of("systolic", {"rows": 8, "cols": 8}))
    return dict(evaluator.evaluate(candidate, context)), context


def test_the_evaluator_scores_the_weights(weights):
    evaluator = PostTraining(str(weights))
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.scope, evaluator.cheap) == ("model", False)
    task = load_task({"name": "digit-pairs", "size": 16})
    found, context = evaluated(evaluator, plain())
    wanted = score(build_model(plain(), seed=3), task.validation, task)
    assert found == {"accuracy": wanted.accuracy, "exact": wanted.exact, "loss": pytest.approx(wanted.loss)}
    assert sorted(found) == sorted(metric.name for metric in evaluator.metrics)
    assert json.loads(context.artifacts["post_training.json"])["images"] == 64


def test_what_it_leaves_is_what_it_scored(weights, tmp_path):
    spec = reduced(plain(), "merge", weight_bits=4, activation_bits=8)
    found, context = evaluated(PostTraining(str(weights), rounding="adaround", steps=30), spec)
    left = tmp_path / "left.safetensors"
    left.write_bytes(context.artifacts["weights.safetensors"])
    task = load_task({"name": "digit-pairs", "size": 16})
    again = score(model_from_file(left), task.validation, task)
    assert (again.accuracy, again.loss) == (found["accuracy"], found["loss"])
    assert model_from_file(left).spec == spec


def test_it_gives_the_same_twice(weights):
    spec = reduced(plain(), "prune", weight_bits=3, activation_bits=4)
    assert evaluated(PostTraining(str(weights)), spec)[0] == evaluated(PostTraining(str(weights)), spec)[0]


def test_pixels_of_its_own(weights):
    task = load_task({"name": "digit-pairs", "size": 16})
    same = evaluated(PostTraining(str(weights), mean=list(task.mean), std=list(task.std)), plain())[0]
    assert same["loss"] == pytest.approx(evaluated(PostTraining(str(weights)), plain())[0]["loss"], rel=1e-5)
    mean, std = [0.5], [0.25]
    other = evaluated(PostTraining(str(weights), mean=mean, std=std), plain())[0]["loss"]
    model = build_model(plain(), seed=3).eval()
    pixels = normalised(task.validation.images, task) * task.std[0] + task.mean[0]
    with torch.no_grad():
        wanted = F.cross_entropy(
            model((pixels - 0.5) / 0.25).flatten(0, 1), torch.tensor(task.validation.labels).flatten()
        )
    assert other == pytest.approx(float(wanted), rel=1e-4)
    with pytest.raises(EvaluationError, match="give one value for each"):
        evaluated(PostTraining(str(weights), mean=[0.1, 0.2], std=[1.0, 1.0]), plain())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"calibration": "max"}, "calibration is 'max'; "),
        ({"rounding": "up"}, "rounding is 'up'; "),
        ({"images": 0}, "images is 0; write a whole number of at least 1"),
        ({"steps": True}, "steps is True"),
        ({"mean": [0.5]}, "std is missing; give both or neither"),
        ({"mean": [0.5], "std": [0.0]}, "std is "),
    ],
)
def test_options(weights, options, said):
    with pytest.raises(UserError, match=said):
        PostTraining(str(weights), **options)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"weights: .* cannot be read \(No such file or directory\); check the path"):
        PostTraining(str(tmp_path / "none.safetensors"))
