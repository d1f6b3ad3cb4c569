"""For any values: codes say what forward gives, rounding is to the nearest, and doing it twice changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.model.formats import ScaledQuantizer, power_below, quantizer
from cosearch.model.formats.grids import grid_of, power_below_by_products

SCALED = [name for name in NUMBER_FORMATS if name not in ("fp32",)]
values = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=40),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SCALED), values, st.booleans())
def test_codes_decode_to_what_forward_gives(name: str, x: np.ndarray, per_channel: bool) -> None:
    given_values = torch.from_numpy(x)
    made = quantizer(name, channels=len(x) if per_channel else None, calibration="minmax")
    made.calibrate(given_values)
    out = made(given_values).detach()
    codes = made.codes(given_values)
    assert codes.dtype == torch.int32
    assert codes.shape == given_values.shape
    assert torch.equal(made.decode(codes), out)
    assert torch.equal(made(out).detach(), out)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([n for n, f in NUMBER_FORMATS.items() if f.bits <= 8 and f.family != "mx"]), values)
def test_no_other_value_is_nearer(name: str, x: np.ndarray) -> None:
    found = number_format(name)
    grid = grid_of(found)
    codes = torch.arange(-(1 << (found.bits - 1)), 1 << found.bits) if found.family in ("integer", "ternary") else None
    table = grid.decode(torch.arange(1 << found.bits)) if codes is None else codes.float().clamp(grid.low, grid.high)
    table = table[table.isfinite()].unique().double()
    v = torch.from_numpy(x).flatten()[:64]
    near = grid.nearest(v).double()
    clipped = v.clamp(grid.low, grid.high).double()
    assert torch.equal((near - clipped).abs(), (table[:, None] - clipped).abs().amin(0))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([n for n, f in NUMBER_FORMATS.items() if f.family == "mx"]), values)
def test_a_block_errs_by_at_most_half_a_step_of_its_largest_binade(name: str, x: np.ndarray) -> None:
    found, v = number_format(name), torch.from_numpy(x)
    made = quantizer(name)
    out = made(v).detach()
    mantissa = found.mantissa_bits if found.is_float else 6
    # half a step where nothing saturates; from the largest value to the next power of two where something does
    bits = 2.0 ** -(mantissa + 1)
    gap = 2.0 ** (np.floor(np.log2(found.max_value)) + 1) - found.max_value
    bound = max(bits, gap / 2.0 ** np.floor(np.log2(found.max_value)))
    padded = torch.nn.functional.pad(v, (0, -v.shape[-1] % 32)).unflatten(-1, (-1, 32))
    error = torch.nn.functional.pad(v - out, (0, -v.shape[-1] % 32)).unflatten(-1, (-1, 32)).abs()
    allowed = power_below(padded.abs().amax(-1, keepdim=True)) * bound
    floor = 2.0**-127 * found.max_value  # E8M0 has no smaller scale
    assert bool((error <= allowed + floor).all())


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0**-126, 2.0**127 * 1.75, width=32, allow_subnormal=False))
def test_the_power_below_is_exact(x: float) -> None:
    expected = 2.0 ** (np.frexp(np.float32(x))[1] - 1)
    found = torch.tensor([x], dtype=torch.float32)
    assert float(power_below(found)) == float(power_below_by_products(found)) == expected


@pytest.mark.parametrize("way", [power_below, power_below_by_products])
def test_the_power_below_nothing_is_nothing_and_what_is_no_number_stays_so(way: Callable[[Tensor], Tensor]) -> None:
    found = way(torch.tensor([0.0, math.nan, math.inf]))
    assert found[0] == 0
    assert bool(found[1:].isnan().all())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([f"pow2_{bits}" for bits in range(2, 6)]), values)
def test_powers_of_two_times_their_scale_are_powers_of_two(name: str, x: np.ndarray) -> None:
    made = quantizer(name)
    assert isinstance(made, ScaledQuantizer)
    out = made(torch.from_numpy(x)).detach().abs()
    mantissa = torch.frexp(out[out > 0]).mantissa
    assert bool((mantissa == 0.5).all())
