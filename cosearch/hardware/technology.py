"""Energy and area by technology: named tables, the source beside each constant.

Published constants disagree (an 8-bit multiply-accumulate takes 0.3 pJ in Horowitz's table and 1.15 pJ in Aladdin's,
both at 45 nm), so the table is a named choice: `TECHNOLOGIES` lists the names, `technology` gives the table.

Sources:

- *Horowitz 2014*: "Computing's energy problem (and what we can do about it)", ISSCC, figure 1.1.9: 45 nm, 0.9 V.
- *Jouppi 2021*: "Ten lessons from three generations shaped Google's TPUv4i", ISCA, table 2: 45 nm and 7 nm.
- *Stillmaker & Baas 2017*: "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to
  7 nm", Integration 58: area factors and energy polynomials of the high-performance nodes.
- *Aladdin*: Shao et al. 2014 (ISCA), its 40 nm cell table as packaged in hwcomponents.
- *CACTI*: Balasubramonian et al. 2017, single-bank SRAM with 128-bit words, rows as given by hwcomponents-cacti, which
  extrapolates below 22 nm.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from cosearch.errors import NotFoundError, did_you_mean
from cosearch.hardware.templates import ACCUMULATOR_BITS

__all__ = ["TECHNOLOGIES", "Sram", "Technology", "technology"]


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
class Technology:
    """What arithmetic and memory cost.

    A multiplier of w x a bits costs ``at8 * (w * a / 64) ** exponent``: the power law through the source's 8- and
    32-bit multipliers (an array multiplier has w * a full adders, so the exponent is near 1).

    Attributes:
        name: as in `TECHNOLOGIES`.
        node_nm: feature size.
        add_pj: energy of a 32-bit integer addition (the accumulator).
        multiply_pj: energy of an 8 x 8 bit integer multiplication.
        multiply_exponent: its growth with the product of the widths.
        add_um2: area of a 32-bit adder.
        multiply_um2: area of an 8 x 8 bit multiplier.
        area_exponent: its growth with the product of the widths.
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
    add_pj: float
    multiply_pj: float
    multiply_exponent: float
    add_um2: float
    multiply_um2: float
    area_exponent: float
    register_pj_per_bit: float
    register_um2_per_bit: float
    leak_uw: float
    leak_uw_per_bit2: float
    sram: Sram
    dram_pj_per_bit: float
    sources: Mapping[str, str]

    def mac_pj(self, a_bits: int, b_bits: int) -> float:
        """Returns pJ of multiplying ``a_bits`` by ``b_bits`` and adding the product to a 32-bit sum."""
        return self.multiply_pj * math.pow(a_bits * b_bits / 64, self.multiply_exponent) + self.add_pj

    def mac_um2(self, bits: int) -> float:
        """Returns um2 of a processing element: multiplier, adder, two operand registers and the accumulator."""
        registers = (2 * bits + ACCUMULATOR_BITS) * self.register_um2_per_bit
        return self.multiply_um2 * math.pow(bits * bits / 64, self.area_exponent) + self.add_um2 + registers

    def mac_leak_w(self, bits: int) -> float:
        """Returns watts that a processing element leaks."""
        return 1e-6 * (self.leak_uw + self.leak_uw_per_bit2 * bits * bits)


def _power_law(x: float, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    right = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    return y0 * math.pow(x / x0, math.log(y1 / y0) / math.log(x1 / x0))


_CACTI_KIB = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 2048.0)


def _cacti(
    read_pj: tuple[float, ...], write_pj: tuple[float, ...], mm2: tuple[float, ...], leak_mw: tuple[float, ...]
) -> Sram:
    """Returns CACTI's rows; energies are given per access of 128 bits."""
    return Sram(
        kib=_CACTI_KIB,
        read_pj_per_bit=tuple(pj / 128 for pj in read_pj),
        write_pj_per_bit=tuple(pj / 128 for pj in write_pj),
        area_kib=_CACTI_KIB,
        mm2=mm2,
        leak_mw=leak_mw,
    )


# leakage of the smallest sizes is printed as 0.0 or with one digit; those rows take the largest size's leakage per KiB
_CACTI_45 = _cacti(
    (3.3785, 4.4268, 10.7481, 39.332, 76.1191, 153.433, 205.041),
    (5.1128, 11.8899, 23.2224, 36.0435, 63.6773, 129.128, 170.368),
    (0.00532, 0.014268, 0.050649, 0.187953, 0.887609, 3.24735, 6.80215),
    (2.4e-5, 9.5e-5, 3.8e-4, 0.0017, 0.0063, 0.0249, 0.0484),
)
_CACTI_22 = _cacti(
    (0.7626, 1.5901, 3.8298, 8.9659, 17.7687, 36.3379, 51.1217),
    (1.1471, 2.1794, 4.1921, 7.6014, 15.2845, 31.4505, 46.2343),
    (0.001267, 0.003854, 0.012745, 0.054281, 0.255441, 0.856273, 1.6912),
    (1.35e-4, 5.4e-4, 2.2e-3, 0.0094, 0.0357, 0.1386, 0.2773),
)
_CACTI_7 = _cacti(
    (0.4302, 0.8969, 2.1603, 5.0574, 10.0229, 20.4973, 28.8365),
    (0.647, 1.2293, 2.3647, 4.2878, 8.6216, 17.7405, 26.0797),
    (0.000403, 0.001226, 0.004055, 0.017271, 0.081277, 0.272451, 0.538109),
    (6.0e-5, 2.4e-4, 9.7e-4, 0.0042, 0.0159, 0.0618, 0.1236),
)
_JOUPPI_7_SRAM = Sram(
    kib=(8.0, 32.0, 1024.0),
    read_pj_per_bit=(7.5 / 64, 8.5 / 64, 14 / 64),  # Jouppi 2021, table 2, 7 nm, 64-bit access
    write_pj_per_bit=(7.5 / 64, 8.5 / 64, 14 / 64),  # the table does not tell writes from reads
    area_kib=_CACTI_KIB,
    mm2=_CACTI_7.mm2,
    leak_mw=_CACTI_7.leak_mw,
)

_DDR_PJ_PER_BIT = 1300 / 64
"""1.3 nJ for 64 bits: Horowitz 2014 (1.3 to 2.6 nJ) and Jouppi 2021, table 2 (DDR3/4, the same at 45 and 7 nm)."""

_REGISTER_PJ, _REGISTER_UM2 = 9.011e-3, 5.981
"""A register bit in Aladdin's 40 nm table (REG_6ns_dynamic_energy, REG_area)."""


def _exponent(at8: float, at32: float) -> float:
    """Returns the exponent of the power law through 8 x 8 and 32 x 32 bits (a factor of 16 in their product)."""
    return math.log(at32 / at8) / math.log(16)


_HOROWITZ_SOURCES: Mapping[str, str] = {
    "arithmetic energy": "Horowitz 2014: int add 32b 0.1 pJ, int multiply 8b 0.2 pJ and 32b 3.1 pJ",
    "arithmetic area": "Horowitz 2014: int add 32b 137 um2, int multiply 8b 282 um2 and 32b 3495 um2",
    "registers": "Aladdin, 40 nm, taken as 45 nm",
    "leakage": "Aladdin at 45 nm (logic), CACTI at 45 nm (SRAM)",
    "SRAM": "CACTI at 45 nm",
    "DRAM": "Horowitz 2014, lower end: 1.3 nJ for 64 bits",
}


def _horowitz() -> Technology:
    return Technology(
        name="horowitz_45nm",
        node_nm=45,
        add_pj=0.1,
        multiply_pj=0.2,
        multiply_exponent=_exponent(0.2, 3.1),
        add_um2=137.0,
        multiply_um2=282.0,
        area_exponent=_exponent(282.0, 3495.0),
        register_pj_per_bit=_REGISTER_PJ,
        register_um2_per_bit=_REGISTER_UM2,
        leak_uw=2.7619,
        leak_uw_per_bit2=0.089906,
        sram=_CACTI_45,
        dram_pj_per_bit=_DDR_PJ_PER_BIT,
        sources=_HOROWITZ_SOURCES,
    )


def _aladdin() -> Technology:
    # the packaged rows are exactly linear in w * a: 0.24166 + 0.01425 w a pJ and 406.31 + 9.0633 w a um2
    return Technology(
        name="aladdin_45nm",
        node_nm=45,
        add_pj=0.24166,
        multiply_pj=0.01425 * 64,
        multiply_exponent=1.0,
        add_um2=406.31,
        multiply_um2=9.0633 * 64,
        area_exponent=1.0,
        register_pj_per_bit=_REGISTER_PJ,
        register_um2_per_bit=_REGISTER_UM2,
        leak_uw=2.7619,
        leak_uw_per_bit2=0.089906,
        sram=_CACTI_45,
        dram_pj_per_bit=_DDR_PJ_PER_BIT,
        sources=dict(_HOROWITZ_SOURCES)
        | {
            "arithmetic energy": "Aladdin, scaled to 45 nm by hwcomponents: 8-bit MAC 1.154 pJ",
            "arithmetic area": "Aladdin, scaled to 45 nm by hwcomponents: 8-bit MAC 986 um2",
        },
    )


def _stillmaker(
    name: str, node: int, energy: float, area: float, leak: tuple[float, float], sram: Sram, sram_source: str
) -> Technology:
    """Returns Horowitz's logic scaled by ``energy`` and ``area``."""
    base = _horowitz()
    how = f"Horowitz 2014 and Aladdin, scaled by Stillmaker & Baas 2017 (energy x {energy:.4f}, area x {area})"
    return Technology(
        name=name,
        node_nm=node,
        add_pj=base.add_pj * energy,
        multiply_pj=base.multiply_pj * energy,
        multiply_exponent=base.multiply_exponent,
        add_um2=base.add_um2 * area,
        multiply_um2=base.multiply_um2 * area,
        area_exponent=base.area_exponent,
        register_pj_per_bit=base.register_pj_per_bit * energy,
        register_um2_per_bit=base.register_um2_per_bit * area,
        leak_uw=leak[0],
        leak_uw_per_bit2=leak[1],
        sram=sram,
        dram_pj_per_bit=_DDR_PJ_PER_BIT,
        sources={
            "arithmetic energy": how,
            "arithmetic area": how,
            "registers": how,
            "leakage": f"Aladdin scaled by hwcomponents (logic), {sram_source} (SRAM)",
            "SRAM": sram_source,
            "DRAM": "Horowitz 2014 and Jouppi 2021: 1.3 nJ for 64 bits of DDR",
        },
    )


def _energy_factor(volts: float, square: float, linear: float, constant: float) -> float:
    """Returns the energy polynomial of Stillmaker & Baas 2017 at a supply voltage."""
    return square * volts * volts + linear * volts + constant


_FACTOR_45 = _energy_factor(0.9, 1.018, -0.3107, 0.1539)  # Horowitz's table is for 0.9 V
_FACTOR_20 = _energy_factor(0.9, 0.373, -0.1582, 0.04104)  # nominal supply of the 20 nm high-performance model
_FACTOR_7 = _energy_factor(0.7, 0.1776, -0.09097, 0.02447)  # and of the 7 nm one


def _jouppi() -> Technology:
    area = 0.059  # Stillmaker & Baas 2017, area from 45 to 7 nm; Jouppi gives no areas
    scaled = f"Horowitz 2014 and Aladdin areas x {area} (Stillmaker & Baas 2017)"
    return Technology(
        name="jouppi_7nm",
        node_nm=7,
        add_pj=0.03,
        multiply_pj=0.07,
        multiply_exponent=_exponent(0.07, 1.48),
        add_um2=137.0 * area,
        multiply_um2=282.0 * area,
        area_exponent=_exponent(282.0, 3495.0),
        register_pj_per_bit=_REGISTER_PJ * _FACTOR_7 / _FACTOR_45,
        register_um2_per_bit=_REGISTER_UM2 * area,
        leak_uw=0.26049,
        leak_uw_per_bit2=0.0084783,
        sram=_JOUPPI_7_SRAM,
        dram_pj_per_bit=_DDR_PJ_PER_BIT,
        sources={
            "arithmetic energy": "Jouppi 2021, table 2: int add 32b 0.03 pJ, int multiply 8b 0.07 pJ and 32b 1.48 pJ",
            "arithmetic area": scaled,
            "registers": f"Aladdin, 40 nm, energy x {_FACTOR_7 / _FACTOR_45:.4f} (Stillmaker & Baas 2017)",
            "leakage": "Aladdin scaled by hwcomponents (logic), CACTI at 7 nm, extrapolated (SRAM)",
            "SRAM": "energy: Jouppi 2021, table 2 (8 KB, 32 KB, 1 MB); area: CACTI at 7 nm, extrapolated",
            "DRAM": "Jouppi 2021, table 2: DDR3/4, 1300 pJ for 64 bits",
        },
    )


TECHNOLOGIES: Mapping[str, Technology] = {
    "aladdin_45nm": _aladdin(),
    "horowitz_45nm": _horowitz(),
    "jouppi_7nm": _jouppi(),
    "stillmaker_20nm": _stillmaker(
        "stillmaker_20nm",
        20,
        _FACTOR_20 / _FACTOR_45,
        0.21,  # area from 45 to 20 nm
        (0.81233, 0.026442),  # Aladdin scaled to 22 nm by hwcomponents
        _CACTI_22,
        "CACTI at 22 nm",
    ),
    "stillmaker_7nm": _stillmaker(
        "stillmaker_7nm",
        7,
        _FACTOR_7 / _FACTOR_45,
        0.059,  # area from 45 to 7 nm
        (0.26049, 0.0084783),  # Aladdin scaled to 7 nm by hwcomponents
        _CACTI_7,
        "CACTI at 7 nm, extrapolated",
    ),
}
"""Every technology by name."""


def technology(name: str) -> Technology:
    """Returns the technology called ``name``.

    Raises:
        NotFoundError: there is none.
    """
    found = TECHNOLOGIES.get(name)
    if found is None:
        raise NotFoundError(f"technology {name!r} is unknown; {did_you_mean(name, TECHNOLOGIES)}")
    return found
