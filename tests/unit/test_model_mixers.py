"""Token mixers, each against its formula written out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cosearch.formats import number_format
from cosearch.model import build_model
from cosearch.model.mixers import Attention, HashedAttention, LinearAttention, Pooling, by_state, divided, make_mixer
from cosearch.model.mlp import MLP
from cosearch.spec import MIXERS, MLPS, BlockSpec, ModelSpec, TaskShape, bits_and_format
from cosearch.testing.models import FORMATS

TOKENS, DIM = 7, 12
TASK = TaskShape(image=(8, 12), channels=1, classes=3)
LEAST = 1e-2
"""What linear attention adds to what it divides by."""


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixer(kind: str, **fields: Any) -> Any:
    block = BlockSpec(**({"heads": 3, "mlp_hidden": 4, "mixer": kind} | fields))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = make_mixer(ModelSpec(task=TASK, patch=4, dim=DIM, blocks=(block,)), block, TOKENS)
    assert found is not None
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith(".scale"):
                continue  # the first tensor sets it
            parameter.add_(0.1 * numbers(parameter.numel(), *parameter.shape))
    return found


def parts(found: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, shape (batch, heads, tokens, depth), from the layer's weights alone."""
    qkv = (x @ found.qkv.weight.T + found.qkv.bias).view(len(x), x.shape[1], -1, found.depth).transpose(1, 2)
    q, k, v = qkv.split([found.asked, found.shared, found.shared], dim=1)
    times = found.asked // found.shared
    order = [head // times for head in range(found.asked)]
    return q, k[:, order], v[:, order]


def projected(found: Any, context: Tensor) -> Tensor:
    """``context``: shape (batch, heads, tokens, depth)."""
    rows = context.transpose(1, 2).flatten(2)
    return rows @ found.proj.weight.T + found.proj.bias


SIZE = torch.tensor([[1.0, 1, 3, 2, 1, 5, 1], [1, 2, 2, 1, 4, 1, 1]])


@pytest.mark.parametrize("fields", [{}, {"query_heads": 2}, {"heads": 4, "query_heads": 2, "kv_heads": 1}])
@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_attention_is_its_formula(kind: str, size: Tensor | None, fields: dict[str, int]) -> None:
    found, x = mixer(kind, **fields), numbers(0, 2, TOKENS, DIM)
    assert isinstance(found, Attention)
    q, k, v = parts(found, x)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(found.depth)
    if size is not None:
        scores = scores + size.log()[:, None, None, :]
    if kind == "softmax":
        attention = scores.exp() / scores.exp().sum(3, keepdim=True)
    else:
        attention = 1 / (1 + (-(scores - math.log(TOKENS))).exp())
    mixed = found(x, size)
    torch.testing.assert_close(mixed.map, attention, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixed.out, projected(found, attention @ v), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.keys, k, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.values, v, rtol=1e-4, atol=1e-5)


def test_the_fused_kernel_and_the_two_products_are_the_same() -> None:
    block = BlockSpec(heads=2, mlp_hidden=4, query_heads=1)
    x, size = numbers(1, 2, 70, DIM), 1 + numbers(2, 2, 70).abs()
    fused = Attention(DIM, block, 70, gain=1.0, needs_map=False)
    plain = Attention(DIM, block, 70, gain=1.0, needs_map=True)
    plain.load_state_dict(fused.state_dict())
    for weights in (None, size):
        assert fused(x, weights).map is None
        assert plain(x, weights).map is not None
        torch.testing.assert_close(fused(x, weights).out, plain(x, weights).out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_shared_keys_and_values_are_those_of_repeated_weights(kind: str) -> None:
    few, all_of_them = mixer(kind, heads=4, query_heads=2, kv_heads=1), mixer(kind, heads=4, query_heads=2)
    depth = few.depth
    state = few.state_dict()
    for name in ("qkv.weight", "qkv.bias"):
        q, k, v = state[name].split([2 * depth, depth, depth])
        state[name] = torch.cat((q, k, k, v, v))
    all_of_them.load_state_dict(state)
    x = numbers(1, 2, TOKENS, DIM)
    torch.testing.assert_close(few(x, None).out, all_of_them(x, None).out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_fewer_query_heads_are_full_attention_whose_other_heads_say_nothing(kind: str) -> None:
    few, full = mixer(kind, heads=4, query_heads=2), mixer(kind, heads=4)
    depth, state = few.depth, few.state_dict()
    for name in ("qkv.weight", "qkv.bias"):
        q, k, v = state[name].chunk(3)
        other = numbers(5, *q.shape)
        state[name] = torch.cat((q, other, k, other, v, other))
    state["proj.weight"] = torch.cat((state["proj.weight"], torch.zeros(DIM, 2 * depth)), dim=1)
    full.load_state_dict(state)
    x = numbers(1, 2, TOKENS, DIM)
    torch.testing.assert_close(few(x, SIZE).out, full(x, SIZE).out, rtol=1e-4, atol=1e-5)


def quadratic(kernel: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
    """Rows of ``kernel``, shape (batch, heads, queries, tokens), over their sum, times values; sums are means."""
    tokens = v.shape[2]
    if size is not None:
        kernel = kernel * size[:, None, None, :]
    return (kernel @ v / tokens) / (kernel.sum(3, keepdim=True) / tokens + LEAST)


@pytest.mark.parametrize("size", [None, SIZE])
def test_linear_attention_is_the_quadratic_one(size: Tensor | None) -> None:
    found, x = mixer("linear"), numbers(0, 2, TOKENS, DIM)
    assert isinstance(found, LinearAttention)
    q, k, v = parts(found, x)
    kernel = q.relu() @ k.relu().transpose(2, 3)
    torch.testing.assert_close(found(x, size).out, projected(found, quadratic(kernel, v, size)), rtol=1e-4, atol=1e-5)
    assert found(x, size).map is None


@pytest.mark.parametrize("size", [None, SIZE])
def test_hashed_attention_counts_the_bits_that_codes_share(size: Tensor | None) -> None:
    found, x = mixer("hashed"), numbers(0, 2, TOKENS, DIM)
    assert isinstance(found, HashedAttention)
    q, k, v = parts(found, x)
    codes = [(part @ found.hash.weight.T + found.hash.bias) >= 0 for part in (q, k)]
    kernel = torch.zeros(2, 3, TOKENS, TOKENS)
    for i in range(TOKENS):
        for j in range(TOKENS):
            alike = (codes[0][:, :, i] == codes[1][:, :, j]).sum(2)
            kernel[:, :, i, j] = 2 * alike / found.depth  # 1 + c c' / depth
    assert bool((kernel >= 0).all())
    assert float(kernel.min()) == 0  # the least there can be is there
    assert float(kernel.max()) == 2
    torch.testing.assert_close(found(x, size).out, projected(found, quadratic(kernel, v, size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "hashed"])
def test_merged_tokens_count_as_often_as_they_have_patches(kind: str) -> None:
    """Four tokens of which two are equal, and three of which one stands for two."""
    found, x = mixer(kind), numbers(0, 1, 4, DIM)
    x[:, 3] = x[:, 2]
    # means over 4 and 3 tokens: the constant that is added weighs 4 / 3 as much in the latter, so it is tiny here
    size = torch.tensor([[1.0, 1.0, 2.0]])
    q, k, v = parts(found, x)
    features = (q.relu(), k.relu()) if kind == "linear" else tuple(torch.ones_like(part) for part in (q, k))
    whole = divided(by_state(features[0], features[1], v, None))
    weighed = divided(by_state(features[0][:, :, :3], features[1][:, :, :3] * size.view(1, 1, 3, 1), v[:, :, :3], None))
    torch.testing.assert_close(weighed, whole[:, :3], rtol=0.05, atol=2e-2)
    torch.testing.assert_close(found(x[:, :3], size).out, found(x, None).out[:, :3], rtol=0.05, atol=2e-2)


def test_linear_attention_of_nothing_is_nothing() -> None:
    """Rectified queries that are all 0 share nothing with any key: the context is 0, not NaN."""
    zero = torch.zeros(1, 1, 3, 4)
    assert torch.equal(divided(by_state(zero, zero, numbers(0, 1, 1, 3, 4), None)), torch.zeros(1, 3, 4))


def test_signs_pass_gradients_near_zero() -> None:
    found, x = mixer("hashed"), numbers(0, 2, TOKENS, DIM)
    found(x, None).out.square().sum().backward()
    assert float(found.hash.weight.grad.abs().sum()) > 0
    # far from zero nothing passes
    with torch.no_grad():
        found.hash.bias.fill_(50.0)
    found.hash.weight.grad = None
    found(x, None).out.square().sum().backward()
    assert float(found.hash.weight.grad.abs().sum()) == 0


def test_pooling_is_the_mean_of_neighbours_less_the_token() -> None:
    rows, columns = 3, 4
    x = numbers(0, 2, 1 + rows * columns, 5)
    out = Pooling((rows, columns))(x, None).out
    torch.testing.assert_close(out[:, 0], x[:, 1:].mean(1) - x[:, 0])
    for row in range(rows):
        for column in range(columns):
            near = [
                1 + r * columns + c
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, column - 1), min(columns, column + 2))
            ]
            own = 1 + row * columns + column
            torch.testing.assert_close(out[:, own], x[:, near].mean(1) - x[:, own])


def test_every_mixer_is_made_and_identity_is_none() -> None:
    for kind in MIXERS:
        block = BlockSpec(heads=1, mlp_hidden=4, mixer=kind)
        found = make_mixer(ModelSpec(task=TASK, patch=4, dim=DIM, blocks=(block,)), block, TOKENS)
        assert (found is None) == (kind == "identity")


@pytest.mark.parametrize("kind", MLPS)
def test_mlps_are_their_formulas(kind: str) -> None:
    if kind == "none":
        model = build_model(
            ModelSpec(task=TASK, patch=4, dim=DIM, blocks=(BlockSpec(heads=1, mlp_hidden=0, mlp="none"),))
        )
        assert model.blocks[0].mlp is None
        assert model.blocks[0].norm2 is None
        return
    block = BlockSpec(heads=1, mlp_hidden=10, mlp=kind)
    mlp, x = MLP(ModelSpec(task=TASK, patch=4, dim=DIM, blocks=(block,)), block, TOKENS), numbers(0, 2, TOKENS, DIM)
    up = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * up * (1 + torch.erf(up / math.sqrt(2)))
    active = gelu if kind == "gelu" else gelu[..., :10] * up[..., 10:]
    torch.testing.assert_close(mlp(x), active @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "linear", "hashed"])
def test_formats_of_sixteen_bits_change_little_and_those_of_fewer_change_something(kind: str, name: str) -> None:
    bits, written = bits_and_format(name)
    fields = {"heads": 4, "query_heads": 2, "kv_heads": 1} if MIXERS[kind].map else {}
    plain = mixer(kind, **fields)
    coarse = mixer(kind, **fields, activation_bits=bits, activation_format=written)
    coarse.load_state_dict(plain.state_dict(), strict=False)
    x = numbers(0, 2, TOKENS, DIM)
    with torch.no_grad():
        want, got = plain(x, None).out, coarse(x, None).out
    assert bool(torch.isfinite(got).all())
    error = float((got - want).square().mean() / want.square().mean())
    assert (error == 0) == (name == "fp32")
    if number_format(name).bits == 16 and kind != "hashed":
        assert error < 1e-3


@pytest.mark.parametrize("name", ["int4", "mxfp4", "fp8_e4m3"])
@pytest.mark.parametrize("method", ["merge", "cluster"])
@pytest.mark.parametrize("kind", ["linear", "hashed"])
def test_keys_of_merged_tokens_are_quantised_with_their_sizes(kind: str, method: str, name: str) -> None:
    """The state's operands are what the format holds, and there is nothing to weigh before a merge."""
    bits, written = bits_and_format(name)
    formats = {"activation_bits": bits, "activation_format": written}
    first, block = (
        BlockSpec(heads=2, mlp_hidden=4, keep_tokens=4),
        BlockSpec(heads=2, mlp_hidden=4, mixer=kind, **formats),
    )
    spec = ModelSpec(task=TASK, patch=4, dim=DIM, blocks=(first, block), token_method=method)
    model = build_model(spec)
    model(numbers(1, 2, 1, 8, 12))  # sets the scales
    quantizer = model.blocks[1].mixer.weigh_quantizer
    seen: list[Tensor] = []
    quantizer.register_forward_hook(lambda m, args, out: seen.extend((args[0], out)))
    model(numbers(1, 2, 1, 8, 12))
    before, after = seen
    assert before.shape == (2, 2, 5, DIM // 2)
    assert kind == "hashed" or not torch.equal(before, after)  # small whole numbers are values of most formats
    torch.testing.assert_close(quantizer(after), after)
    assert float((before - after).detach().square().mean()) < 0.05 * float(before.detach().square().mean())
    plain = build_model(dataclasses.replace(spec, blocks=(block, block), token_method="none"))
    assert [b.mixer.weigh_quantizer for b in plain.blocks] == [None, None]


def test_mx_blocks_run_along_what_a_product_sums_over() -> None:
    axes = {}
    for kind in ("softmax", "linear", "hashed"):
        found = mixer(kind, activation_bits=4, activation_format="mxfp4")
        axes[kind] = (found.q_quantizer.axis, found.k_quantizer.axis, found.v_quantizer.axis)
    # q k^T over the depth and map v over tokens; k^T v over tokens; the hash over the depth, codes^T v over tokens
    assert axes == {"softmax": (-1, -1, -2), "linear": (-1, -2, -2), "hashed": (-1, -1, -2)}
