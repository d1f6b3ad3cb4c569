"""Core tokens: their cells, their exchange with the image's tokens, and one set of weights for several counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.model.core import LookupExchange, MemoryExchange, core_grid, core_tokens
from cosearch.model.tokens import Stream
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

TASK = TaskShape(image=(8, 12), channels=2, classes=3)
METHODS = ["lookup", "memory"]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spec_of(method: str, count: int, depth: int = 2, **fields: Any) -> ModelSpec:
    block = BlockSpec(heads=2, mlp_hidden=10, **fields)
    first = dataclasses.replace(block, keep_tokens=count)
    return ModelSpec(task=TASK, patch=2, dim=8, blocks=(first, *(block,) * (depth - 1)), token_method=method)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_core_tokens_are_adaptive_average_pooling(rows: int, columns: int, data: Any) -> None:
    core = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    image = numbers(rows * 10 + columns, 2, rows * columns, 3)
    pooled = nn.functional.adaptive_avg_pool2d(image.transpose(1, 2).reshape(2, 3, rows, columns), core)
    torch.testing.assert_close(
        core_tokens(image, (rows, columns), core), pooled.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("count", "rows", "columns", "grid"),
    [(4, 4, 4, (2, 2)), (16, 8, 8, (4, 4)), (6, 4, 6, (2, 3)), (6, 6, 4, (3, 2)), (2, 4, 8, (1, 2)), (7, 4, 4, (1, 7))],
)
def test_the_grid_has_the_images_shape(count: int, rows: int, columns: int, grid: tuple[int, int]) -> None:
    assert core_grid(count, rows, columns) == grid


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_any_count_has_a_grid_even_one_finer_than_the_image(rows: int, columns: int, data: Any) -> None:
    count = data.draw(st.integers(1, rows * columns))
    grid = core_grid(count, rows, columns)
    assert grid[0] * grid[1] == count
    out = core_tokens(torch.ones(1, rows * columns, 2), (rows, columns), grid)
    torch.testing.assert_close(out, torch.ones(1, count, 2))


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("method", METHODS)
def test_one_set_of_weights_serves_several_counts(method: str, bits: int) -> None:
    fields = {"weight_bits": bits, "activation_bits": bits}
    trained = build_model(spec_of(method, 6, **fields), seed=1)
    images = numbers(0, 16, 2, 8, 12)
    calibrate(trained, images)
    outs = []
    for count in (1, 2, 6, 12, 23):
        spec = spec_of(method, count, **fields)
        model = build_model(spec, seed=2).eval()
        model.load_state_dict(trained.state_dict())
        outs.append(model(images).detach())
        assert bool(torch.isfinite(outs[-1]).all())
        assert spec.tokens == ((count + 1, count + 1),) * 2
    assert torch.equal(outs[2], trained.eval()(images))
    gaps = [float((out - outs[2]).abs().max()) for out in outs]
    assert gaps[2] == 0
    assert min(gaps[:2] + gaps[3:]) > 0


def stream_of(count: int) -> Stream:
    return Stream(numbers(1, 2, count + 1, 8), image=numbers(2, 2, 24, 8))


def heads(x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], 2, 4).transpose(1, 2)


def affine(layer: Any, x: Tensor) -> Tensor:
    return x @ layer.weight.T + layer.bias


def test_lookup_reads_and_writes_by_the_same_scores() -> None:
    model = build_model(spec_of("lookup", 6))
    exchange, stream = model.blocks[0].exchange, stream_of(6)
    assert isinstance(exchange, LookupExchange)
    q = heads(affine(exchange.q, exchange.ask(stream.x)))
    k, v = (heads(part) for part in affine(exchange.kv, exchange.tell(stream.image)).chunk(2, dim=2))
    scores = q @ k.transpose(2, 3) / 2
    context = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    read, kept = exchange.read(stream)
    torch.testing.assert_close(read.x, stream.x + affine(exchange.proj, context), rtol=1e-4, atol=1e-5)
    assert read.image is stream.image
    v = heads(affine(exchange.v, exchange.back(read.x)))
    context = (scores.transpose(2, 3).softmax(3) @ v).transpose(1, 2).flatten(2)
    written = exchange.write(read, kept)
    torch.testing.assert_close(written.image, stream.image + affine(exchange.out, context), rtol=1e-4, atol=1e-5)
    assert written.x is read.x


def test_memory_is_read_and_written_by_linear_attention() -> None:
    model = build_model(spec_of("memory", 6))
    exchange, stream = model.blocks[0].exchange, stream_of(6)
    assert isinstance(exchange, MemoryExchange)

    def moved(part: Any, x: Tensor, others: Tensor) -> Tensor:
        told = part.tell(others)
        kernel = affine(part.q, part.ask(x)).relu() @ affine(part.k, told).relu().transpose(1, 2) / others.shape[1]
        return kernel @ told / (kernel.sum(2, keepdim=True) + 1e-2)

    read, kept = exchange.read(stream)
    torch.testing.assert_close(read.x, stream.x + moved(exchange.reader, stream.x, stream.image), rtol=1e-4, atol=1e-5)
    written = exchange.write(read, kept)
    expected = stream.image + moved(exchange.writer, stream.image, read.x)
    torch.testing.assert_close(written.image, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_core_tokens_begin_as_averages_beside_the_class_token(method: str) -> None:
    model = build_model(spec_of(method, 6))
    images = numbers(0, 3, 2, 8, 12)
    stream = model._embedded(images)
    patches = model.stem(images) + model.position[1:]
    torch.testing.assert_close(stream.image, patches)
    torch.testing.assert_close(stream.x[:, 0], (model.class_token + model.position[0]).expand(3, -1))
    assert stream.x.shape == (3, 7, 8)
    cells = patches.view(3, 4, 6, 8)
    torch.testing.assert_close(stream.x[:, 1], cells[:, :2, :2].mean((1, 2)))


def images_of(model: VisionTransformer, images: Tensor) -> list[Tensor]:
    """The image tokens after each block."""
    seen: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda m, args, out: seen.append(out.image))
    model(images)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_the_last_block_writes_nothing_and_the_others_do(method: str) -> None:
    model = build_model(spec_of(method, 6, depth=3))
    images = numbers(0, 2, 2, 8, 12)
    begin = model._embedded(images).image
    after = images_of(model, images)
    assert not torch.equal(after[0], begin)
    assert not torch.equal(after[1], after[0])
    assert torch.equal(after[2], after[1])
    names = {name for name, _ in model.blocks[2].exchange.named_parameters()}
    more = {name for name, _ in model.blocks[1].exchange.named_parameters()} - names
    assert more
    model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_what_every_patch_shows_reaches_the_logits(method: str) -> None:
    model = build_model(spec_of(method, 2))
    images = numbers(0, 1, 2, 8, 12).requires_grad_()
    model(images)[0, 0, 0].backward()
    assert bool((images.grad.abs().sum(1) > 0).all())
