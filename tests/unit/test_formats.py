"""Number formats: widths, ranges and what a value takes in memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cosearch.errors import NotFoundError
from cosearch.formats import NUMBER_FORMATS, integer_format, number_format

# OCP MX v1.0: largest element of each concrete format; storage is bits + 8 / 32
MX = {
    "mxfp8_e4m3": (448.0, 8.25),
    "mxfp8_e5m2": (57344.0, 8.25),
    "mxfp6_e3m2": (28.0, 6.25),
    "mxfp6_e2m3": (7.5, 6.25),
    "mxfp4": (6.0, 4.25),
    "mxint8": (1.984375, 8.25),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
        ("fp8_e4m3", torch.float8_e4m3fn),
        ("fp8_e5m2", torch.float8_e5m2),
    ],
)
def test_floats_are_torchs(name: str, dtype: torch.dtype) -> None:
    ours, theirs = number_format(name), torch.finfo(dtype)
    assert (ours.bits, ours.max_value) == (theirs.bits, theirs.max)
    assert 2.0**-ours.mantissa_bits == theirs.eps


@pytest.mark.parametrize(
    ("name", "dtype"), [("int8", torch.int8), ("int16", torch.int16), ("uint8", torch.uint8), ("uint16", torch.uint16)]
)
def test_integers_are_torchs(name: str, dtype: torch.dtype) -> None:
    assert number_format(name).max_value == torch.iinfo(dtype).max


@pytest.mark.parametrize("name", MX)
def test_mx_blocks_share_a_scale(name: str) -> None:
    found = number_format(name)
    assert (found.max_value, found.storage_bits_per_value) == MX[name]
    assert (found.block_size, found.shared_bits) == (32, 8)


def test_storage_of_the_others() -> None:
    assert number_format("ternary").storage_bits_per_value == 2
    assert number_format("ternary_packed").storage_bits_per_value == 1.6
    for name, found in NUMBER_FORMATS.items():
        if found.family in ("integer", "float", "power_of_two"):
            assert found.storage_bits_per_value == found.bits, name


def test_significands_are_what_the_multiplier_sees() -> None:
    widths = {"int5": 5, "uint5": 5, "fp32": 24, "bf16": 8, "fp8_e4m3": 4, "mxfp4": 2, "mxint8": 8}
    assert {name: number_format(name).significand_bits for name in widths} == widths
    assert number_format("ternary").significand_bits == number_format("pow2_4").significand_bits == 1


def test_powers_of_two_shift_as_far_as_their_codes_reach() -> None:
    # a sign, and 2**(bits - 1) codes of which one is zero
    assert [number_format(f"pow2_{bits}").max_shift for bits in range(2, 6)] == [0, 2, 6, 14]
    assert number_format("int8").max_shift == 0


def test_every_format_adds_up_and_says_where_it_is_from() -> None:
    for name, found in NUMBER_FORMATS.items():
        assert found.name == name
        assert found.source
        if found.is_float:
            assert found.bits == 1 + found.exponent_bits + found.mantissa_bits
        assert found.max_value > 0
    assert len(set(map(dataclasses.astuple, NUMBER_FORMATS.values()))) == len(NUMBER_FORMATS)


def test_unknown_names_have_a_way_out() -> None:
    with pytest.raises(NotFoundError, match=r"number format 'mxfp44' is unknown; did you mean 'mxfp4'\? Known: bf16, "):
        number_format("mxfp44")
    with pytest.raises(NotFoundError, match="'int1' is unknown"):
        integer_format(1)
    assert integer_format(4) is number_format("int4")


def test_formats_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        NUMBER_FORMATS["int8"] = number_format("int4")  # type: ignore[index]
