"""Linear layers of low rank and with sparse weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosearch.model.linear import Linear, LowRank, block_linear, keep_largest, operand
from cosearch.spec import BlockSpec

PATTERNS = [(1, 2), (2, 4), (1, 4), (3, 8), (5, 16)]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(inputs: int = 16, outputs: int = 12, **fields: object) -> Linear | LowRank:
    return block_linear(BlockSpec(heads=1, mlp_hidden=4, **fields), inputs, outputs, rows=5)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.sampled_from(PATTERNS), st.integers(0, 10**6), st.booleans())
def test_exactly_so_many_of_each_group_stay_and_they_are_the_largest(
    pattern: tuple[int, int], seed: int, coarse: bool
) -> None:
    kept, of = pattern
    weight = numbers(seed, 6, 3 * of)
    weight = weight.round() + 0.5 if coarse else weight  # many of the same size, none of them 0
    out = keep_largest(weight, pattern)
    groups, before = out.view(6, 3, of), weight.view(6, 3, of)
    assert bool(((groups != 0).sum(2) == kept).all())
    assert bool(((groups == before) | (groups == 0)).all())
    for row, group in itertools.product(range(6), range(3)):
        size = before[row, group].abs()
        stays = groups[row, group] != 0
        assert float(size[stays].min()) >= float(size[~stays].max())
        edge = size[stays].min()
        if bool((size[~stays] == edge).any()):  # of equals the earlier stays
            assert max(torch.nonzero(stays & (size == edge))) < min(torch.nonzero(~stays & (size == edge)))


def test_the_gradient_is_sr_stes() -> None:
    weight = numbers(0, 4, 8).requires_grad_()
    out = keep_largest(weight, (2, 4))
    dy = numbers(1, 4, 8)
    out.backward(dy)
    masked = (out == 0).float()
    torch.testing.assert_close(weight.grad, dy + 2e-4 * masked * weight.detach())
    assert 0 < float(masked.sum()) < masked.numel()


def test_a_weight_that_grows_comes_back() -> None:
    weight = torch.tensor([[1.0, 0.9, 0.5, 0.1]], requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        (-keep_largest(weight, (2, 4))[0, 2] * 3 + keep_largest(weight, (2, 4))[0, 1]).backward()
        optimizer.step()
    assert [bool(v) for v in keep_largest(weight, (2, 4))[0] != 0] == [True, False, True, False]


@pytest.mark.parametrize("bits", [32, 8, 3])
def test_sparse_layers_multiply_what_is_kept_quantised_or_not(bits: int) -> None:
    sparse, x = layer(sparsity=(2, 4), weight_bits=bits), numbers(0, 3, 16)
    assert isinstance(sparse, Linear)
    weight = sparse.quantized_weight()
    assert bool(((weight.view(12, 4, 4) != 0).sum(2) <= 2).all())
    assert bool((weight[keep_largest(sparse.weight, (2, 4)) == 0] == 0).all())
    torch.testing.assert_close(sparse(x), x @ weight.T + sparse.bias)
    if bits == 32:
        assert torch.equal(weight, keep_largest(sparse.weight, (2, 4)))
    else:  # the kept weights alone set the scales
        assert sparse.weight_quantizer is not None
        twin = operand(f"int{bits}", 16, channels=12)
        assert twin is not None
        twin.calibrate(keep_largest(sparse.weight, (2, 4)))
        torch.testing.assert_close(sparse.weight_quantizer.scale, twin.scale)


def test_low_rank_is_the_product_of_the_two_matrices() -> None:
    low, x = layer(rank=4), numbers(0, 3, 5, 16)
    assert isinstance(low, LowRank)
    assert (low.down.weight.shape, low.up.weight.shape) == ((4, 16), (12, 4))
    with torch.no_grad():
        low.down.bias.copy_(numbers(1, 4))
        low.up.bias.copy_(numbers(2, 12))
    whole = low.up.weight @ low.down.weight
    torch.testing.assert_close(low(x), x @ whole.T + low.up.weight @ low.down.bias + low.up.bias, rtol=1e-4, atol=1e-5)
    assert torch.linalg.matrix_rank(whole) == 4


def test_a_layer_stays_whole_where_two_factors_hold_more() -> None:
    assert isinstance(layer(rank=7), Linear)  # 7 * 28 is 196 of 192
    assert isinstance(layer(rank=6), LowRank)
    assert isinstance(layer(), Linear)


def test_both_factors_have_the_blocks_formats_and_sparsity() -> None:
    low = layer(rank=4, sparsity=(2, 4), weight_bits=4, activation_bits=8, activation_format="fp8_e4m3")
    assert isinstance(low, LowRank)
    for part in (low.down, low.up):
        assert part.sparsity == (2, 4)
        assert part.weight_quantizer is not None
        assert part.weight_quantizer.format.name == "int4"
        assert part.input_quantizer is not None
        assert part.input_quantizer.format.name == "fp8_e4m3"


def test_what_cannot_be_negative_is_unsigned_where_it_is_an_integer() -> None:
    found = {name: operand(name, signed=False) for name in ("int4", "fp8_e4m3", "mxint8", "ternary")}
    assert {name: one.format.name for name, one in found.items() if one is not None} == {
        "int4": "uint4",
        "fp8_e4m3": "fp8_e4m3",
        "mxint8": "mxint8",
        "ternary": "ternary",
    }
    assert operand("fp32") is None
