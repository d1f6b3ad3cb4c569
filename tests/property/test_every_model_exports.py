"""Every kind of model trains, and as an ONNX graph gives the logits that it gives in torch."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosearch.export import PixelModel, follow, onnx_graph
from cosearch.export._agreement import logits, session
from cosearch.formats import number_format
from cosearch.model import Linear, VisionTransformer, build_model, calibrate
from cosearch.model.formats import IntegerQuantizer
from cosearch.spec import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import FORMATS, random_model

METHODS = list(TOKEN_METHODS)
FLOAT_SEEDS = range(27)
STEPS = 40
TASK = TaskShape(image=(8, 8), channels=1, classes=4)


def float_model(seed: int) -> ModelSpec:
    return random_model(seed, token_method=METHODS[seed % len(METHODS)], formats=("fp32",))


def data(task: TaskShape, seed: int) -> tuple[Tensor, Tensor]:
    """32 images, shape (32, channels, height, width), of as many kinds as there are answers, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(task.classes, (32, task.labels), generator=generator)
    kinds = torch.randn(task.labels, task.classes, task.channels, *task.image, generator=generator)
    images = sum(kinds[label, labels[:, label]] for label in range(task.labels))
    return images + 0.3 * torch.randn(32, task.channels, *task.image, generator=generator), labels


def train(spec: ModelSpec, seed: int = 0, *, most: int = STEPS) -> tuple[VisionTransformer, list[float]]:
    """Returns a model that was trained a little, ready for inference, and the losses on the way.

    It takes ``STEPS`` steps, and where the loss has not fallen by then, goes on until it has, up to ``most``.
    """
    model, losses = build_model(spec, seed), []
    images, labels = data(spec.task, seed)
    calibrate(model, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(most):
        if step >= STEPS and falls(losses):
            break
        model.progress(min(1.0, step / STEPS))
        loss = nn.functional.cross_entropy(model(images).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.progress(1.0)
    return model.eval(), losses


def falls(losses: list[float]) -> bool:
    return sum(losses[-5:]) / 5 < 0.8 * losses[0]


def sees(spec: ModelSpec) -> bool:
    """Whether what an image shows can reach the logits: without any mixing the class token never hears of it."""
    mixed = any(block.mixer != "identity" for block in spec.blocks)
    return mixed or spec.pool != "class" or spec.core_tokens is not None


def pixels(spec: ModelSpec, seed: int, count: int = 5) -> NDArray[np.uint8]:
    shape = (count, *spec.task.image, spec.task.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def normalisation(spec: ModelSpec) -> tuple[list[float], list[float]]:
    return [0.5] * spec.task.channels, [0.25] * spec.task.channels


def difference(model: VisionTransformer, graph: bytes, images: NDArray[np.uint8]) -> float:
    """Largest difference of logits in torch and onnxruntime, relative to the largest logit."""
    with torch.no_grad():
        ours = PixelModel(model, *normalisation(model.spec))(torch.from_numpy(images)).numpy()
    assert float(np.abs(ours).max()) > 0
    return float(np.abs(logits(session(graph), images) - ours).max() / np.abs(ours).max())


def test_the_float_models_hold_everything() -> None:
    specs = [float_model(seed) for seed in FLOAT_SEEDS]
    blocks = [block for spec in specs for block in spec.blocks]
    assert {spec.token_method for spec in specs} == set(TOKEN_METHODS)
    assert {block.mixer for block in blocks} == set(MIXERS)
    assert {block.mlp for block in blocks} == set(MLPS)
    assert {spec.norm for spec in specs} == set(NORMS)
    assert {spec.pool for spec in specs} == set(POOLS)
    assert {block.sparsity for block in blocks} >= {(1, 1), (2, 4), (1, 4)}
    assert any(block.rank for block in blocks)
    assert any(block.query_heads for block in blocks)
    assert any(block.kv_heads for block in blocks)


@pytest.mark.slow
@pytest.mark.parametrize("seed", FLOAT_SEEDS)
def test_floating_point_trains_and_gives_the_same_logits(seed: int) -> None:
    spec = float_model(seed)
    model, losses = train(spec, seed)
    assert falls(losses) or not sees(spec), losses
    graph = onnx_graph(model, *normalisation(spec), {})
    assert difference(model, graph, pixels(spec, seed)) < 1e-4, spec


def stored(graph: bytes) -> dict[str, NDArray[np.generic]]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(graph).graph.initializer}


def check_weights(model: VisionTransformer, graph: bytes) -> None:
    """Integer weights are codes; all weights have zeros where they are not kept."""
    constants = stored(graph)
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear):
            continue
        weight = layer.quantized_weight().detach().numpy()
        found = constants.get(f"{name}.weight.codes")
        assert (found is not None) == isinstance(layer.weight_quantizer, IntegerQuantizer), name
        if found is not None:
            value = found * constants[f"{name}.weight.scale"]
        else:
            likely = [one for one in constants.values() if one.size == weight.size and one.dtype == np.float32]
            value = next(v for v in likely if np.array_equal(v, weight) or np.array_equal(v, weight.T))
        assert np.array_equal(value, weight) or np.array_equal(value, weight.T), name
        kept, of = layer.sparsity
        assert np.count_nonzero(value) <= kept / of * value.size, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "fp32"])
def test_every_format_gives_the_same_logits(name: str) -> None:
    """After the decisions that onnxruntime took where two values are as near (`cosearch.export.follow`)."""
    seed = FORMATS.index(name)
    spec = random_model(seed, token_method=METHODS[seed % len(METHODS)], formats=(name,))
    model, losses = train(spec, seed)
    assert all(np.isfinite(losses))
    graph = onnx_graph(model, *normalisation(spec), {})
    check_weights(model, graph)
    images = pixels(spec, seed)
    if name == "bf16":  # a cast is no rounding that can be followed; one step of a value is 1 / 256 of it
        assert difference(model, graph, images) < 1 / 256
        return
    found = follow(PixelModel(model, *normalisation(spec)), graph, images)
    assert found.decisions > 0 or number_format(name).family == "power_of_two"
    assert found.borders <= 1e-3 * max(found.decisions, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 24))
def test_mixtures_of_formats_give_the_same_logits(seed: int) -> None:
    formats = tuple(name for name in FORMATS if name != "bf16")
    spec = random_model(seed, formats=formats)
    model, _ = train(spec, seed)
    graph = onnx_graph(model, *normalisation(spec), {})
    check_weights(model, graph)
    assert follow(PixelModel(model, *normalisation(spec)), graph, pixels(spec, seed)).images == 5


BLOCK = BlockSpec(heads=2, mlp_hidden=16)
PLAIN = ModelSpec(task=TASK, patch=2, dim=16, blocks=(BLOCK, BLOCK))
KEPT = {name: None if name == "none" else 8 for name in TOKEN_METHODS}


def variant(field: str, value: object) -> ModelSpec:
    if field == "token_method":
        first = dataclasses.replace(BLOCK, keep_tokens=KEPT[str(value)])
        return dataclasses.replace(PLAIN, token_method=str(value), blocks=(first, BLOCK))
    if field in ("norm", "pool"):
        return dataclasses.replace(PLAIN, **{field: value})
    changes: dict[str, object] = {field: value}
    if field == "mixer" and not MIXERS[str(value)].heads:
        changes["heads"] = 1
    if value == "none":
        changes["mlp_hidden"] = 0
    pool = "mean" if value == "identity" else "class"
    block = dataclasses.replace(BLOCK, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(PLAIN, blocks=(block, block), pool=pool)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("token_method", name) for name in TOKEN_METHODS),
        *(("mixer", name) for name in MIXERS),
        *(("mlp", name) for name in MLPS),
        *(("norm", name) for name in NORMS),
        *(("pool", name) for name in POOLS),
        *(("rank", rank) for rank in (2, 4)),
        *(("sparsity", pattern) for pattern in ((2, 4), (1, 4), (1, 8))),
        ("query_heads", 1),
        ("kv_heads", 1),
    ],
)
def test_each_kind_trains(field: str, value: object) -> None:
    spec = variant(field, value)
    model, losses = train(spec)
    assert falls(losses), losses
    images, labels = data(spec.task, 0)
    with torch.no_grad():  # in inference too: what was learnt does not hang on the batch
        right = (model(images).argmax(2) == labels).float().mean()
        alone = torch.cat([model(image.unsqueeze(0)) for image in images[:4]])
        torch.testing.assert_close(alone, model(images[:4]), rtol=1e-3, atol=1e-4)
    assert float(right) > 0.5


@pytest.mark.parametrize("method", list(TOKEN_METHODS))
def test_each_method_trains_quantised(method: str) -> None:
    spec = variant("token_method", method)
    for weights, activations in (((4, ""), (8, "")), ((4, "mxfp4"), (8, "fp8_e4m3"))):
        blocks = tuple(
            dataclasses.replace(
                block,
                weight_bits=weights[0],
                weight_format=weights[1],
                activation_bits=activations[0],
                activation_format=activations[1],
            )
            for block in spec.blocks
        )
        # with seed 0 one of these models stays at chance, whatever its class token begins with
        _, losses = train(dataclasses.replace(spec, blocks=blocks, edge_bits=8), 1, most=4 * STEPS)
        assert falls(losses), (weights, losses)
