"""What a technology table holds, and how costs of other widths follow from its rows."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["FloatUnits", "Sram", "Technology"]

_SHIFTER_PJ, _SHIFTER_UM2 = 0.4178342 / 0.21, 249.6461 / 278.0
"""A 32-bit barrel shifter (5 stages) against a 32-bit adder: Aladdin's 40 nm table as gem5-aladdin has it (6 ns)."""

_SIGNIFICANDS = (11, 24)
"""Significand widths of binary16 and binary32, which sources give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sram:
    """Energy, area and leakage of a scratchpad against its capacity, for capacities that a source gives.

    Between the rows, and beyond them with the slope of the last pair, values follow a power of the capacity.

    Attributes:
        kib: capacities in KiB, rising; one entry per row.
        read_pj_per_bit: energy to read one bit.
        write_pj_per_bit: energy to write one bit.
        area_kib: capacities of the area and leakage rows, rising.
        mm2: area.
        leak_mw: leakage power.
    """

    kib: tuple[float, ...]
    read_pj_per_bit: tuple[float, ...]
    write_pj_per_bit: tuple[float, ...]
    area_kib: tuple[float, ...]
    mm2: tuple[float, ...]
    leak_mw: tuple[float, ...]

    def read_pj(self, kib: float) -> float:
        """Returns pJ to read a bit from a scratchpad of ``kib``."""
        return _power_law(kib, self.kib, self.read_pj_per_bit)

    def write_pj(self, kib: float) -> float:
        """Returns pJ to write a bit to a scratchpad of ``kib``."""
        return _power_law(kib, self.kib, self.write_pj_per_bit)

    def area_mm2(self, kib: float) -> float:
        """Returns mm2 of a scratchpad of ``kib``."""
        return _power_law(kib, self.area_kib, self.mm2)

    def leak_w(self, kib: float) -> float:
        """Returns watts that a scratchpad of ``kib`` leaks."""
        return 1e-3 * _power_law(kib, self.area_kib, self.leak_mw)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatUnits:
    """Floating-point adders and multipliers of binary16 and binary32, in this order.

    Attributes:
        add_pj: energy of an addition.
        multiply_pj: energy of a multiplication.
        add_um2: area of an adder.
        multiply_um2: area of a multiplier.
        source: where they come from, and whether the figures were checked there.
    """

    add_pj: tuple[float, float]
    multiply_pj: tuple[float, float]
    add_um2: tuple[float, float]
    multiply_um2: tuple[float, float]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Technology:
    """What arithmetic and memory cost.

    A multiplier of w x a bits costs ``at8 * (w * a / 64) ** exponent``: the power law through the source's 8- and
    32-bit multipliers (an array multiplier has w * a full adders, so the exponent is near 1). An adder costs in
    proportion to its width: Horowitz's 8-bit row is 0.03 pJ and 36 um2, a quarter of the 32-bit one 0.025 and 34.

    A floating-point multiplier is an exponent adder beside a significand multiplier with its rounding; the latter
    follows the power law of the product of significand widths through binary16 and binary32 less their exponent
    adders. A floating-point adder follows the power law of its significand. Held against the one row that no table was
    fitted to, bfloat16 at 7 nm (Jouppi 2021): multiply 0.200 pJ for 0.21, add 0.112 for 0.11.

    Attributes:
        name: as in `TECHNOLOGIES`.
        node_nm: feature size.
        volts: supply that the energies are for.
        add_pj: energy of a 32-bit integer addition (the accumulator).
        multiply_pj: energy of an 8 x 8 bit integer multiplication.
        multiply_exponent: its growth with the product of the widths.
        add_um2: area of a 32-bit adder.
        multiply_um2: area of an 8 x 8 bit multiplier.
        area_exponent: its growth with the product of the widths.
        floats: floating-point units.
        register_pj_per_bit: energy to write a bit of a pipeline register.
        register_um2_per_bit: its area.
        leak_uw: leakage of a multiply-accumulate unit, the part that does not depend on width.
        leak_uw_per_bit2: and the part per product of widths.
        sram: scratchpads.
        dram_pj_per_bit: DRAM, device and interface.
        sources: where each of the above comes from.
    """

    name: str
    node_nm: int
    volts: float
    add_pj: float
    multiply_pj: float
    multiply_exponent: float
    add_um2: float
    multiply_um2: float
    area_exponent: float
    floats: FloatUnits
    register_pj_per_bit: float
    register_um2_per_bit: float
    leak_uw: float
    leak_uw_per_bit2: float
    sram: Sram
    dram_pj_per_bit: float
    sources: Mapping[str, str] = field(hash=False)

    def mac_pj(self, a_bits: int, b_bits: int) -> float:
        """Returns pJ of multiplying ``a_bits`` by ``b_bits`` and adding the product to a 32-bit sum."""
        return self.multiplier_pj(a_bits, b_bits) + self.add_pj

    def mac_um2(self, bits: int) -> float:
        """Returns um2 of a processing element: multiplier, adder, two operand registers and the accumulator."""
        registers = (2 * bits + ACCUMULATOR_BITS) * self.register_um2_per_bit
        return self.multiplier_um2(bits, bits) + self.add_um2 + registers

    def mac_leak_w(self, bits: int) -> float:
        """Returns watts that a processing element leaks."""
        return 1e-6 * (self.leak_uw + self.leak_uw_per_bit2 * bits * bits)

    def multiplier_pj(self, a_bits: int, b_bits: int) -> float:
        """Returns pJ of an integer multiplication."""
        return self.multiply_pj * math.pow(a_bits * b_bits / 64, self.multiply_exponent)

    def multiplier_um2(self, a_bits: int, b_bits: int) -> float:
        """Returns um2 of an integer multiplier."""
        return self.multiply_um2 * math.pow(a_bits * b_bits / 64, self.area_exponent)

    def adder_pj(self, bits: float) -> float:
        """Returns pJ of an integer addition."""
        return self.add_pj * bits / 32

    def adder_um2(self, bits: float) -> float:
        """Returns um2 of an integer adder."""
        return self.add_um2 * bits / 32

    def shifter_pj(self, bits: int, stages: int) -> float:
        """Returns pJ of a barrel shifter of ``stages`` rows of 2:1 multiplexers; one stage is a multiplexer."""
        return _SHIFTER_PJ * self.add_pj * (bits * stages / 160)

    def shifter_um2(self, bits: int, stages: int) -> float:
        """Returns um2 of that shifter."""
        return _SHIFTER_UM2 * self.add_um2 * (bits * stages / 160)

    def float_add_pj(self, significand_bits: int) -> float:
        """Returns pJ of a floating-point addition: compare, align, add, normalise."""
        return _through(self.floats.add_pj, _SIGNIFICANDS, significand_bits)

    def float_add_um2(self, significand_bits: int) -> float:
        """Returns um2 of a floating-point adder."""
        return _through(self.floats.add_um2, _SIGNIFICANDS, significand_bits)

    def float_multiply_pj(self, a_significand: int, b_significand: int, exponent_bits: int) -> float:
        """Returns pJ of a floating-point multiplication; significands count the leading one."""
        of16, of32 = self.floats.multiply_pj
        array = (of16 - self.adder_pj(5), of32 - self.adder_pj(8))
        return _through(array, (11 * 11, 24 * 24), a_significand * b_significand) + self.adder_pj(exponent_bits)

    def float_multiply_um2(self, a_significand: int, b_significand: int, exponent_bits: int) -> float:
        """Returns um2 of a floating-point multiplier."""
        of16, of32 = self.floats.multiply_um2
        array = (of16 - self.adder_um2(5), of32 - self.adder_um2(8))
        return _through(array, (11 * 11, 24 * 24), a_significand * b_significand) + self.adder_um2(exponent_bits)


def _through(values: tuple[float, float], at: tuple[int, int], x: int) -> float:
    """Returns the power law through two points; exactly the points at ``at``."""
    if x == at[1]:
        return values[1]
    return values[0] * math.pow(x / at[0], math.log(values[1] / values[0]) / math.log(at[1] / at[0]))


def _power_law(x: float, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 * math.pow(x / x0, math.log(y1 / y0) / math.log(x1 / x0))
