"""The values that one element of a format can take, before any scale, and their codes.

Rounding is to the nearest value; it saturates. Everything in ``nearest`` is exact in single precision and made of
operations that ONNX has, so that an exported model rounds as this one does.

Sources: *OFP8*: OCP 8-bit Floating Point Specification, revision 1.0, 2023. *MX*: OCP Microscaling Formats
specification v1.0, 2023. *INQ*: Zhou et al., "Incremental Network Quantization", ICLR 2017,
https://arxiv.org/abs/1702.03044.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat

__all__ = ["FloatGrid", "Grid", "IntegerGrid", "PowerOfTwoGrid", "code_range", "grid_of", "integer_grid", "power_below"]

_WHOLE = 2.0**23
"""From here on single-precision numbers are whole."""

_EXPONENT = 0x7F800000
"""Bits of a single-precision number that hold its exponent."""

_HUGE = 2.0**96
"""From here on `power_below_by_products` scales its argument down first, or it would overflow."""


def code_range(bits: int, *, signed: bool = True) -> tuple[int, int]:
    """Returns the smallest and the largest code of a ``bits`` wide integer.

    Raises:
        SpecError: ``bits`` is not 2 to 16.
    """
    if not 2 <= bits <= 16:
        raise SpecError("bits", f"is {bits}, but integers have 2 to 16 bits", "write 2 to 16")
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def power_below(x: Tensor) -> Tensor:
    """Returns the largest power of two that is at most ``x``; 0 for 0. Exact for every finite ``x`` from 2**-126 on.

    Args:
        x: single precision, 0 or more.
    """
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        return power_below_by_products(x)
    power = (x.view(torch.int32) & _EXPONENT).view(torch.float32)
    return power + (x - x)  # NaN for NaN and infinity, as the other way


def power_below_by_products(x: Tensor) -> Tensor:
    """Returns what `power_below` does in operations that ONNX has: none of its operators looks at bits.

    Rump's unit in the first place (BIT Numerical Mathematics 63, 2023, https://doi.org/10.1007/s10543-023-00970-2), in
    a form for rounding to the nearest (from memory, hence tested for every exponent).
    """
    factor = torch.where(x < _HUGE, 1.0, 2.0**-32)
    shifted = x * factor
    wide = shifted * (_WHOLE + 1.0)
    # not wide * (1 - 2**-24): the exporter's optimiser takes a factor so near to 1 for 1
    return (wide - (wide - wide / (2 * _WHOLE))).abs() / factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid(ABC):
    """The values of one element; made by `grid_of` or `integer_grid`.

    Attributes:
        low: the smallest value.
        high: the largest value.
        positive: number of finite values above 0.
        nan: whether there is a code for NaN.
        power_scales: whether a scale in front of it must be a power of two.
    """

    low: float
    high: float
    positive: int
    nan: bool = False
    power_scales: bool = False

    @abstractmethod
    def nearest(self, v: Tensor) -> Tensor:
        """Returns the nearest value to each of ``v``; NaN for NaN."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Returns the codes (int32) of values as `nearest` returns them."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerGrid(Grid):
    """Whole numbers times ``step``, a power of two; halves go to the even one. The whole number is the code."""

    step: float = 1.0

    def nearest(self, v: Tensor) -> Tensor:
        """Returns the nearest value to each of ``v``; NaN for NaN."""
        return v.clamp(self.low, self.high).div(self.step).round() * self.step

    def encode(self, values: Tensor) -> Tensor:
        """Returns the codes (int32, the whole numbers) of values as `nearest` returns them."""
        return values.div(self.step).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of codes."""
        return codes.to(torch.float32) * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatGrid(Grid):
    """Floating point of at most 8 bits, with subnormals; ties go to the even mantissa (OFP8 and MX).

    A code is the bit pattern: sign, exponent, mantissa. Conversion saturates, as OFP8's saturating mode does: infinite
    and too large values become the largest one. Codes of infinities (E5M2) are read, but never written. NaN is written
    as all ones below the sign bit 0; formats without NaN (FP6, FP4) have no code for it.

    Args:
        format: a floating-point format, or an MX format for its elements.
    """

    format: NumberFormat

    @property
    def _smallest_normal(self) -> float:
        return 2.0 ** (2 - (1 << (self.format.exponent_bits - 1)))

    def _quantum(self, magnitude: Tensor) -> Tensor:
        """Returns the distance between the values around each magnitude."""
        return power_below(magnitude).clamp_min(self._smallest_normal) * 2.0**-self.format.mantissa_bits

    def nearest(self, v: Tensor) -> Tensor:
        """Returns the nearest value to each of ``v``; NaN for NaN."""
        clipped = v.clamp(self.low, self.high)
        quantum = self._quantum(clipped.abs())
        return (clipped / quantum).round() * quantum

    def encode(self, values: Tensor) -> Tensor:
        """Returns the bit patterns (int32) of values as `nearest` returns them."""
        magnitude = torch.nan_to_num(values.abs(), nan=0.0)
        quantum = self._quantum(magnitude)
        # codes of one sign count up through subnormals and binades, which share the quantum of the first binade
        binade = torch.frexp(quantum).exponent - math.frexp(self._smallest_normal * 2.0**-self.format.mantissa_bits)[1]
        codes = (magnitude / quantum).to(torch.int32) + (binade << self.format.mantissa_bits)
        top = self.format.bits - 1
        codes = codes | (torch.signbit(values).to(torch.int32) << top)
        return torch.where(torch.isnan(values), (1 << top) - 1, codes).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of bit patterns."""
        return torch.tensor(_float_values(self.format), dtype=torch.float32, device=codes.device)[codes.long()]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOfTwoGrid(Grid):
    """Zero and 1, 1/2, 1/4, ..., 2**-shifts with either sign; multiplying by them is shifting.

    The nearest value is taken, and of two that are as near the larger one (INQ, equation 4: of neighbours alpha and
    beta, beta takes (alpha + beta) / 2 to 3 beta / 2). A code is a sign bit above 0 for zero, or the shift plus 1.
    Zero with the sign bit is read as zero, and never written.

    Args:
        shifts: the longest shift.
        bits: width of a code.
    """

    shifts: int
    bits: int

    def nearest(self, v: Tensor) -> Tensor:
        """Returns the nearest value to each of ``v``; NaN for NaN."""
        smallest = 2.0**-self.shifts
        clipped = v.clamp(-1.0, 1.0)
        magnitude = clipped.abs()
        below = power_below(magnitude)
        power = torch.where(magnitude >= 1.5 * below, 2.0 * below, below).clamp(smallest, 1.0)
        return torch.where(magnitude < smallest / 2, 0.0, power) * clipped.sign()

    def encode(self, values: Tensor) -> Tensor:
        """Returns the codes (int32) of values as `nearest` returns them."""
        shift = 1 - torch.frexp(values.abs()).exponent
        code = torch.where(values == 0, 0, shift + 1)
        return (code | ((values < 0).to(torch.int32) << (self.bits - 1))).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of codes."""
        positive = [0.0, *(2.0**-shift for shift in range(self.shifts + 1))]
        table = torch.tensor(positive + [-value for value in positive], dtype=torch.float32, device=codes.device)
        return table[codes.long()] + 0.0  # -0 becomes 0


def integer_grid(first: int, last: int, step: float = 1.0) -> IntegerGrid:
    """Returns the whole numbers from ``first`` to ``last`` times ``step``."""
    return IntegerGrid(low=first * step, high=last * step, positive=last, step=step)


def grid_of(number_format: NumberFormat) -> Grid:
    """Returns the values of one element of ``number_format``: an integer, ternary or power-of-two format, or a
    floating-point one of at most 8 bits; of an MX format, its elements'.

    MXINT8 leaves its lowest code unused, so that values are symmetric. MX permits that (secondary source: microxcaling,
    the MX authors' emulation library, whose largest magnitude of int8 elements is 127/64 for both signs).
    """
    if number_format.is_float:
        values, high = _float_values(number_format), number_format.max_value
        positive = sum(1 for value in values if 0 < value < math.inf)
        nan = number_format.special != "none"
        return FloatGrid(low=-high, high=high, positive=positive, nan=nan, format=number_format)
    if number_format.family == "power_of_two":
        shifts, bits = number_format.max_shift, number_format.bits
        return PowerOfTwoGrid(low=-1.0, high=1.0, positive=shifts + 1, power_scales=True, shifts=shifts, bits=bits)
    if number_format.family == "ternary":
        return integer_grid(-1, 1)
    first, last = code_range(number_format.bits, signed=number_format.signed)
    if number_format.family == "mx":
        return integer_grid(-last, last, number_format.max_value / last)
    return integer_grid(first, last)


def _float_values(number_format: NumberFormat) -> list[float]:
    """Returns the value of every bit pattern of a floating-point format, by the usual formula (OFP8 and MX)."""
    return [_float_value(number_format, code) for code in range(1 << number_format.bits)]


def _float_value(number_format: NumberFormat, code: int) -> float:
    mantissa_bits, exponent_bits = number_format.mantissa_bits, number_format.exponent_bits
    sign = -1.0 if code >> (number_format.bits - 1) else 1.0
    exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    if exponent == (1 << exponent_bits) - 1:
        if number_format.special == "ieee":
            return sign * math.inf if mantissa == 0 else math.nan
        if number_format.special == "nan" and mantissa == (1 << mantissa_bits) - 1:
            return math.nan
    whole = mantissa + (1 << mantissa_bits) * (exponent > 0)
    bias = (1 << (exponent_bits - 1)) - 1
    return sign * math.ldexp(whole, max(exponent, 1) - bias - mantissa_bits)
