"""Every code of every format: what it decodes to, that it comes back, order, symmetry, saturation, NaN, infinities."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from cosearch.errors import SpecError
from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.model.formats import MXQuantizer, Quantizer, pack_ternary, quantizer, unpack_ternary
from cosearch.model.formats.grids import grid_of

SCALE = 0.037
ELEMENTS = [
    name for name, found in NUMBER_FORMATS.items() if found.family in ("integer", "ternary", "power_of_two", "float")
]
SMALL_FLOATS = ["fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1"]
CASTS = ["fp32", "fp16", "bf16"]
MX = [name for name, found in NUMBER_FORMATS.items() if found.family == "mx"]
REFERENCE = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
}
"""The formats as another library has them."""


def of(name: str, scale: float = SCALE) -> Quantizer:
    made = quantizer(name)
    if name not in CASTS:
        made.load_state_dict({"scale": torch.tensor([scale])})
    return made


def all_codes(name: str) -> Tensor:
    found = number_format(name)
    if found.family == "ternary":
        return torch.tensor([-1, 0, 1], dtype=torch.int32)
    if found.family == "integer":
        low = -(1 << (found.bits - 1)) if found.signed else 0
        return torch.arange(low, low + (1 << found.bits), dtype=torch.int32)
    if name == "fp32":  # all 65536 sign and exponent patterns with some of the mantissas
        top = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int64) << 16
        return (top | (torch.arange(1 << 16) * 40503 & 0xFFFF)).to(torch.int32)
    return torch.arange(1 << found.bits, dtype=torch.int32)


@pytest.mark.parametrize("name", ELEMENTS)
def test_every_code_comes_back(name: str) -> None:
    made, codes = of(name), all_codes(name)
    values = made.decode(codes)
    back = made.codes(torch.where(values.isfinite(), values, 0.0))
    kept = values.isfinite()
    if name.startswith("pow2"):
        kept &= codes != 1 << (number_format(name).bits - 1)  # minus zero, read as zero and never written
    assert torch.equal(back[kept], codes[kept])
    assert int((~kept).sum()) <= {"fp8_e4m3": 2, "fp8_e5m2": 8, "fp16": 2048, "bf16": 256, "fp32": 512}.get(name, 1)
    with torch.no_grad():
        assert torch.equal(made(values[kept]), values[kept])
    assert torch.equal(made(values[kept].requires_grad_()).detach(), values[kept])


@pytest.mark.parametrize("name", ELEMENTS)
def test_order_symmetry_and_the_largest_value(name: str) -> None:
    made, found = of(name, 1.0), number_format(name)
    values = made.decode(all_codes(name))
    values = values[values.isfinite()].sort().values
    assert float(values[-1]) == found.max_value or name == "fp32"
    if found.family == "integer":
        assert len(values.unique()) == 2**found.bits
        assert float(values[0]) == (-(2.0 ** (found.bits - 1)) if found.signed else 0.0)
    elif name not in CASTS:
        assert torch.equal(values, -values.flip(0))
    if name == "fp32":
        return
    between = torch.cat((values, (values[1:] + values[:-1]) / 2)).sort().values
    with torch.no_grad():
        rounded = made(between)
    assert bool((rounded.diff() >= 0).all())
    assert set(rounded.tolist()) <= set(values.tolist())


@pytest.mark.parametrize("name", ELEMENTS)
def test_too_large_values_and_infinities_saturate(name: str) -> None:
    made, found = of(name), number_format(name)
    scale = 1.0 if name in CASTS else SCALE
    if found.family == "power_of_two":
        scale = 2.0**-5  # the power of two nearest to 0.037 on a logarithmic axis
    high = torch.tensor(found.max_value) * scale
    low = torch.tensor(grid_of(found).low) * scale if name not in CASTS else -high
    for big in (torch.tensor([math.inf]), torch.tensor([3e38])):
        if name in ("bf16", "fp32") and math.isfinite(float(big)):
            continue  # in range
        assert torch.equal(made.decode(made.codes(torch.cat((big, -big)))), torch.stack((high, low)))
        with torch.no_grad():
            assert torch.equal(made(torch.cat((big, -big))), torch.stack((high, low)))


@pytest.mark.parametrize("name", [*ELEMENTS, *MX])
def test_nan_stays_nan_and_has_a_code_only_where_the_format_has_one(name: str) -> None:
    made = quantizer(name) if name in MX else of(name)
    x = torch.tensor([1.0, math.nan])
    assert bool(made(x)[1].isnan())
    if name in CASTS or name in MX or name in ("fp8_e4m3", "fp8_e5m2"):
        assert bool(made.decode(made.codes(x))[1].isnan())
    else:
        with pytest.raises(SpecError, match=f"x holds NaN, but {name.removesuffix('_packed')}"):
            made.codes(x)


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_small_floats_are_those_of_another_library(name: str) -> None:
    grid, codes = grid_of(number_format(name)), all_codes(name)
    theirs = codes.numpy().astype(np.uint8).view(REFERENCE[name]).astype(np.float32)
    np.testing.assert_array_equal(grid.decode(codes).numpy(), theirs)

    values = np.unique(theirs[np.isfinite(theirs)])
    middles = (values[1:] + values[:-1]) / 2
    above, below = (np.nextafter(middles, np.float32(limit)) for limit in (1e9, -1e9))
    noise = np.random.default_rng(0).normal(0, grid.high / 3, 50_000).astype(np.float32)
    inputs = np.concatenate((values, middles, above, below, noise, np.float32([-0.0, 1e-30])))
    clipped = inputs.clip(grid.low, grid.high)
    expected = clipped.astype(REFERENCE[name])
    rounded = grid.nearest(torch.from_numpy(inputs))
    np.testing.assert_array_equal(rounded.numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(grid.encode(rounded).numpy(), expected.view(np.uint8))


@pytest.mark.parametrize(("name", "dtype"), [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
def test_eight_bits_are_torchs(name: str, dtype: torch.dtype) -> None:
    grid, codes = grid_of(number_format(name)), all_codes(name)
    theirs = codes.to(torch.uint8).view(dtype).to(torch.float32)
    torch.testing.assert_close(grid.decode(codes), theirs, rtol=0, atol=0, equal_nan=True)
    values = theirs[theirs.isfinite()].unique()
    middles = (values[1:] + values[:-1]) / 2
    inputs = torch.cat((values, middles, middles.nextafter(torch.tensor(1e9)), middles.nextafter(torch.tensor(-1e9))))
    inputs = torch.cat((inputs, torch.tensor([math.nan, -0.0])))
    expected = inputs.to(dtype)
    assert torch.equal(grid.encode(grid.nearest(inputs)), expected.view(torch.uint8).to(torch.int32))


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_sixteen_bits_are_torchs(name: str, dtype: torch.dtype) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    made = quantizer(name)
    assert torch.equal(made(x), x.to(dtype).float())
    assert torch.equal(made.codes(x), x.to(dtype).view(torch.int16).to(torch.int32) & 0xFFFF)


def test_halves_of_powers_of_two_go_up_and_codes_are_shifts() -> None:
    made = of("pow2_3", 1.0)  # 1, 1/2, 1/4
    x = torch.tensor([0.124, 0.125, 0.374, 0.375, 0.74, 0.75, -0.75, -0.1, 9.0])
    assert made.codes(x).tolist() == [0, 3, 3, 2, 2, 1, 5, 0, 1]
    assert made.decode(made.codes(x)).tolist() == [0.0, 0.25, 0.25, 0.5, 0.5, 1.0, -1.0, 0.0, 1.0]


def test_five_ternary_values_fit_a_byte_and_come_back() -> None:
    codes = torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 5).to(torch.int32)
    packed = pack_ternary(codes)
    assert packed.dtype == torch.uint8
    assert sorted(packed.tolist()) == list(range(243))
    assert torch.equal(unpack_ternary(packed, tuple(codes.shape)), codes)
    ragged = torch.tensor([[1, -1, 0], [1, 1, -1], [0, 0, 1]], dtype=torch.int32)
    assert len(pack_ternary(ragged)) == 2
    assert torch.equal(unpack_ternary(pack_ternary(ragged), (3, 3)), ragged)
    with pytest.raises(SpecError, match="values other than -1, 0 and 1"):
        pack_ternary(torch.tensor([2]))


def element_codes(name: str) -> Tensor:
    """Codes of elements that are numbers and that an encoder writes."""
    codes = torch.arange(1 << number_format(name).bits, dtype=torch.int32)
    if name == "mxint8":
        return codes[codes != 128]
    values = grid_of(number_format(name)).decode(codes)
    return codes[values.isfinite()]


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("scale_code", [0, 1, 100, 127, 130, 230])
def test_every_element_of_a_block_comes_back(name: str, scale_code: int) -> None:
    """The largest value's exponent stands in each block, so the block's scale is what an encoder would choose."""
    made, found = quantizer(name), number_format(name)
    assert isinstance(made, MXQuantizer)
    elements = element_codes(name)
    elements = torch.nn.functional.pad(elements, (0, -len(elements) % 31)).view(-1, 31)
    top = {"mxint8": 127}.get(name) or int(grid_of(found).encode(torch.tensor([found.max_value])))
    blocks = torch.cat((torch.full((len(elements), 1), top, dtype=torch.int32), elements), dim=1)
    codes = blocks | scale_code << found.bits
    values = made.decode(codes)
    assert torch.equal(made.codes(values), codes)
    stored, scales = made.stored(codes)
    assert scales.shape == (len(blocks), 1)
    assert scales.unique().tolist() == [scale_code]
    if name == "mxint8":
        assert int(stored.min()) == -127
    else:
        assert torch.equal(stored, blocks)


def test_scales_of_blocks_are_torchs_e8m0() -> None:
    made, bits = quantizer("mxfp4"), number_format("mxfp4").bits
    one = int(grid_of(number_format("mxfp4")).encode(torch.tensor([1.0])))
    scales = torch.arange(256, dtype=torch.int32)
    theirs = scales.to(torch.uint8).view(torch.float8_e8m0fnu).to(torch.float32)
    torch.testing.assert_close(made.decode(scales << bits | one), theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", MX)
def test_blocks_are_the_specifications_arithmetic(name: str) -> None:
    found, x = number_format(name), torch.randn(7, 96, generator=torch.Generator().manual_seed(1)) * 0.3
    x[0, :32] = 0
    made = quantizer(name)
    with torch.no_grad():
        got = made(x)
    grid = grid_of(found)
    emax = math.floor(math.log2(found.max_value))
    for row in range(7):
        for block in range(3):
            values = x[row, 32 * block : 32 * block + 32]
            most = float(values.abs().max())
            shared = 2.0 ** (math.floor(math.log2(most)) - emax) if most else 1.0
            expected = grid.nearest(values / shared) * shared
            assert torch.equal(got[row, 32 * block : 32 * block + 32], expected)
    codes = made.codes(x)
    assert torch.equal(made.decode(codes), got)
    assert int(made.stored(codes)[1][0, 0]) == 0  # a block of zeros


@pytest.mark.parametrize("name", MX)
def test_a_short_last_block_has_a_scale_of_its_own_and_the_axis_is_followed(name: str) -> None:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))
    x[:, 32:] *= 1e-3
    made = quantizer(name)
    with torch.no_grad():
        whole, tail = made(x), made(x[:, 32:])
        down = quantizer(name, axis=0)(x.T)
    assert torch.equal(whole[:, 32:], tail)
    assert torch.equal(down, whole.T)
    assert made.stored(made.codes(x))[1].shape == (3, 2)
    across = quantizer(name, axis=0)
    assert isinstance(across, MXQuantizer)
    assert across.stored(across.codes(x.T))[1].shape == (2, 3)


def test_a_block_with_an_infinity_is_nan_as_a_whole_and_others_are_not() -> None:
    made = quantizer("mxfp4")
    x = torch.ones(64)
    x[3] = math.inf
    out = made(x)
    assert bool(out[:32].isnan().all())
    assert bool((out[32:] == 1).all())
    assert isinstance(made, MXQuantizer)
    assert made.stored(made.codes(x))[1].tolist() == [255, 125]  # 1 is 2**2 times 2**-2


def test_elements_of_mx_saturate_above_their_largest_mantissa() -> None:
    # 7.9 has exponent 2, that of the largest FP4 value, 6
    assert quantizer("mxfp4")(torch.tensor([7.9, -7.9, 1.2])).tolist() == [6.0, -6.0, 1.0]
    assert quantizer("mxint8")(torch.tensor([1.999, -1.999])).tolist() == [127 / 64, -127 / 64]
