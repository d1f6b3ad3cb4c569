"""Elements for integers, ternary values and powers of two: energy, cycles and area from a technology's parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from cosearch.formats import NumberFormat
from cosearch.hardware.arithmetic._dynamic import Dynamic
from cosearch.hardware.arithmetic.element import PeKind, ProcessingElement
from cosearch.hardware.technology import Technology
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = [
    "bit_fusion",
    "bit_fusion_um2",
    "bit_parallel",
    "bit_parallel_um2",
    "serial",
    "serial_um2",
    "shift",
    "shift_um2",
    "stripes",
    "stripes_um2",
    "ternary",
    "ternary_um2",
]

_LANES: Mapping[PeKind, int] = MappingProxyType({"stripes": 16, "loom": 16, "bismo": 64})
"""Lanes that share an adder tree and an accumulator: 16 in Stripes' and Loom's inner-product units, 64 in the narrowest
of BISMO's dot products (assumptions: not checked in the papers)."""

_FUSION_PJ, _FUSION_UM2 = 279960 / 148845, 1733.129989 / 687.6072
"""A Bit Fusion unit of 8 down to 2 bits against a fixed 8-bit unit: rows N = M = 1 of the authors' own synthesis
(github.com/hsharma35/bitfusion, results/systolic_array_synth.csv, 45 nm, 500 MHz): dynamic power and area. In their
arrays of up to 16 units, whose accumulators are shared, the ratios are 1.8 to 2.3 and 2.3 to 3.5."""

_TERNARY_NONZERO = math.erfc(0.7 * math.sqrt(2 / math.pi) / math.sqrt(2))
"""Weights that are not zero: normal ones beyond TWN's threshold, 0.7 of their mean magnitude (Li & Liu 2016)."""

_POWER_BITS, _POWER_SHIFT = 4, 14
"""Exponent bits and longest shift of the widest power of two, ``pow2_5``."""


def _slices(bits: int, width: int) -> tuple[int, int]:
    """Returns in how many slices an operand is taken, and how wide the widest is."""
    return math.ceil(bits / width), min(bits, width)


def bit_parallel(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    (a_passes, a_bits), (b_passes, b_bits) = _slices(a.bits, pe.bits), _slices(b.bits, pe.bits)
    passes = a_passes * b_passes
    return Dynamic(
        pj=passes * t.mac_pj(a_bits, b_bits),
        cycles=passes,
        a_bits=passes * a_bits,
        b_bits=passes * b_bits,
        sum_bits=passes * ACCUMULATOR_BITS,
    )


def bit_parallel_um2(t: Technology, pe: ProcessingElement) -> float:
    return t.mac_um2(pe.bits)


def stripes(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """A cycle gates the weight by one activation bit and adds it into a tree over the lanes; the accumulator is shared.

    The gate and the tree's adder cost a cell of an array multiplier for each bit, and the tree is wider than the weight
    by half of its 4 levels.
    """
    b_passes, b_bits = _slices(b.bits, pe.bits)
    cycles, lanes = a.bits * b_passes, _LANES[pe.kind]
    pj = cycles * ((b_bits + 2) * t.multiply_pj / 64 + t.add_pj / lanes)
    return Dynamic(
        pj=pj, cycles=cycles, a_bits=cycles, b_bits=b_passes * b_bits, sum_bits=cycles * ACCUMULATOR_BITS / lanes
    )


def stripes_um2(t: Technology, pe: ProcessingElement) -> float:
    shared = t.add_um2 + ACCUMULATOR_BITS * t.register_um2_per_bit
    return (pe.bits + 2) * t.multiply_um2 / 64 + shared / _LANES[pe.kind] + (pe.bits + 1) * t.register_um2_per_bit


def serial(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """A cycle multiplies a bit by a bit: an AND gate and one full adder of the tree that counts them over the lanes."""
    cycles, lanes = a.bits * b.bits, _LANES[pe.kind]
    return Dynamic(
        pj=cycles * (t.multiply_pj / 64 + t.add_pj / lanes),
        cycles=cycles,
        a_bits=cycles,
        b_bits=cycles,
        sum_bits=cycles * ACCUMULATOR_BITS / lanes,
    )


def serial_um2(t: Technology, pe: ProcessingElement) -> float:
    shared = t.add_um2 + ACCUMULATOR_BITS * t.register_um2_per_bit
    return t.multiply_um2 / 64 + shared / _LANES[pe.kind] + 2 * t.register_um2_per_bit


def bit_fusion(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """All 16 bricks work every cycle: 16 / ((a / 2) * (b / 2)) products, widths rounded up to 2, 4 or 8 bits."""
    (a_passes, a_bits), (b_passes, b_bits) = _slices(a.bits, pe.bits), _slices(b.bits, pe.bits)
    a_bits, b_bits, passes = _power_of_two(a_bits), _power_of_two(b_bits), a_passes * b_passes
    cycles = passes * (a_bits // 2) * (b_bits // 2) / 16
    return Dynamic(
        pj=cycles * _FUSION_PJ * t.mac_pj(pe.bits, pe.bits),
        cycles=cycles,
        a_bits=passes * a_bits,
        b_bits=passes * b_bits,
        sum_bits=cycles * ACCUMULATOR_BITS,
    )


def bit_fusion_um2(t: Technology, pe: ProcessingElement) -> float:
    return _FUSION_UM2 * t.mac_um2(pe.bits)


def _power_of_two(bits: int) -> int:
    return 1 << math.ceil(math.log2(bits))


def ternary(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """A row of multiplexers inverts the integer to subtract it; zeros are gated."""
    first = a.family == "ternary" and b.family != "ternary"
    passes, bits = _slices(b.bits if first else a.bits, pe.bits)
    added = passes * _TERNARY_NONZERO
    return Dynamic(
        pj=added * (t.shifter_pj(bits, 1) + t.add_pj),
        cycles=passes,
        a_bits=passes * (2 if first else bits),
        b_bits=passes * (bits if first else 2),
        sum_bits=added * ACCUMULATOR_BITS,
    )


def ternary_um2(t: Technology, pe: ProcessingElement) -> float:
    registers = (pe.bits + 2 + ACCUMULATOR_BITS) * t.register_um2_per_bit
    return t.shifter_um2(pe.bits, 1) + t.add_um2 + registers


def shift(t: Technology, pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> Dynamic:
    """A barrel shifter as wide as its result, a row of multiplexers for the sign, and the accumulator."""
    first = a.family == "power_of_two"
    power, integer = (a, b) if first else (b, a)
    passes, bits = _slices(integer.bits, pe.bits)
    stages = math.ceil(math.log2(power.max_shift + 1))
    return Dynamic(
        pj=passes * (t.shifter_pj(bits + power.max_shift, stages + 1) + t.add_pj),
        cycles=passes,
        a_bits=passes * (power.bits if first else bits),
        b_bits=passes * (bits if first else power.bits),
        sum_bits=passes * ACCUMULATOR_BITS,
    )


def shift_um2(t: Technology, pe: ProcessingElement) -> float:
    registers = (pe.bits + 1 + _POWER_BITS + ACCUMULATOR_BITS) * t.register_um2_per_bit
    return t.shifter_um2(pe.bits + _POWER_SHIFT, _POWER_BITS + 1) + t.add_um2 + registers
