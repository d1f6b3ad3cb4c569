"""Elements for floating point and MX blocks: energy and area from a technology's parts."""

from __future__ import annotations

import math

from cosearch.formats import NumberFormat
from cosearch.hardware.arithmetic._dynamic import Dynamic
from cosearch.hardware.arithmetic.element import FLOAT_WIDTHS, ProcessingElement
from cosearch.hardware.technology import Technology
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = [
    "floating",
    "floating_um2",
    "l_mul",
    "l_mul_um2",
    "mx_float",
    "mx_float_um2",
    "mx_integer",
    "mx_integer_um2",
]

_BLOCK, _BLOCK_CARRY, _SCALE_BITS = 32, 5, 8
"""Elements of an MX block, bits by which a sum of that many grows, and the width of a shared scale."""

_CARRY = 12
"""Bits by which an exact sum over a matrix product grows: 4096 terms (assumption)."""


def floating(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    if pe.accumulator == "fixed":
        return _exact(t, a, b, _CARRY)
    multiply = t.float_multiply_pj(a.significand_bits, b.significand_bits, max(a.exponent_bits, b.exponent_bits))
    return _one(a, b, multiply + t.float_add_pj(_sum_significand(pe)), _sum_bits(pe))


def _one(a: NumberFormat, b: NumberFormat, pj: float, sum_bits: float) -> Dynamic:
    return Dynamic(pj=pj, a_bits=a.bits, b_bits=b.bits, sum_bits=sum_bits)


def floating_um2(t: Technology, pe: ProcessingElement) -> float:
    exponent, mantissa = FLOAT_WIDTHS[pe.bits]
    if pe.accumulator == "fixed":
        return _exact_um2(t, pe, _CARRY)
    multiplier = t.float_multiply_um2(mantissa + 1, mantissa + 1, exponent)
    return multiplier + t.float_add_um2(_sum_significand(pe)) + _registers_um2(t, pe, _sum_bits(pe))


def _sum_significand(pe: ProcessingElement) -> int:
    return 24 if pe.accumulator == "fp32" else 11


def _sum_bits(pe: ProcessingElement) -> int:
    return 32 if pe.accumulator == "fp32" else 16


def _registers_um2(t: Technology, pe: ProcessingElement, sum_bits: int) -> float:
    return (2 * pe.bits + sum_bits) * t.register_um2_per_bit


def _exact(t: Technology, a: NumberFormat, b: NumberFormat, carry: int) -> Dynamic:
    """The product of the significands, shifted by the sum of the exponents, added to a sum wide enough for any.

    Without the carries that is 2**ea + ma + 2**eb + mb - 1 bits (Uguen & de Dinechin 2017, by Aggarwal et al. 2024).
    """
    product, reach = a.significand_bits + b.significand_bits, _reach(a) + _reach(b)
    width = product + reach
    pj = (
        t.multiplier_pj(a.significand_bits, b.significand_bits)
        + t.adder_pj(max(a.exponent_bits, b.exponent_bits))
        + t.shifter_pj(width, math.ceil(math.log2(reach + 1)))
        + t.adder_pj(width + carry + 1)  # and the sign
    )
    return _one(a, b, pj, width + carry + 1)


def _reach(x: NumberFormat) -> int:
    """Returns by how many places the exponents of ``x`` differ; a subnormal stands where the smallest normal does."""
    return (1 << x.exponent_bits) - (3 if x.special == "ieee" else 2)


def _exact_um2(t: Technology, pe: ProcessingElement, carry: int) -> float:
    exponent, mantissa = FLOAT_WIDTHS[pe.bits]
    reach = 2 * ((1 << exponent) - 2)
    width = 2 * (mantissa + 1) + reach
    return (
        t.multiplier_um2(mantissa + 1, mantissa + 1)
        + t.adder_um2(exponent)
        + t.shifter_um2(width, math.ceil(math.log2(reach + 1)))
        + t.adder_um2(width + carry + 1)
        + _registers_um2(t, pe, width + carry + 1)
    )


def l_mul(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """One integer addition over exponent and mantissa together, as the paper counts it, then the accumulator."""
    return _one(a, b, t.adder_pj(max(a.bits, b.bits)) + t.float_add_pj(_sum_significand(pe)), _sum_bits(pe))


def l_mul_um2(t: Technology, pe: ProcessingElement) -> float:
    return t.adder_um2(pe.bits) + t.float_add_um2(_sum_significand(pe)) + _registers_um2(t, pe, _sum_bits(pe))


def mx_float(t: Technology, _pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """Exact sums in a block, then the scales' addition and one of binary32, a 32nd of each for an element."""
    inside = _exact(t, a, b, _BLOCK_CARRY)
    return _one(a, b, inside.pj + _scale_pj(t), inside.sum_bits + ACCUMULATOR_BITS / _BLOCK)


def mx_float_um2(t: Technology, pe: ProcessingElement) -> float:
    return _exact_um2(t, pe, _BLOCK_CARRY) + _scale_um2(t)


def mx_integer(t: Technology, _pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """As ``mx_float`` with integer products, which need no shift."""
    width = a.bits + b.bits + _BLOCK_CARRY
    pj = t.multiplier_pj(a.bits, b.bits) + t.adder_pj(width) + _scale_pj(t)
    return _one(a, b, pj, width + ACCUMULATOR_BITS / _BLOCK)


def mx_integer_um2(t: Technology, pe: ProcessingElement) -> float:
    width = 2 * pe.bits + _BLOCK_CARRY
    return t.multiplier_um2(pe.bits, pe.bits) + t.adder_um2(width) + _registers_um2(t, pe, width) + _scale_um2(t)


def _scale_pj(t: Technology) -> float:
    return (t.adder_pj(_SCALE_BITS) + t.float_add_pj(24)) / _BLOCK


def _scale_um2(t: Technology) -> float:
    """Returns um2 of the units that work once a block, shared by as many elements as a block has (assumption)."""
    registers = (2 * _SCALE_BITS + ACCUMULATOR_BITS) * t.register_um2_per_bit
    return (t.adder_um2(_SCALE_BITS) + t.float_add_um2(24) + registers) / _BLOCK
