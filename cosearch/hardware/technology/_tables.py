"""The named tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cosearch.hardware.technology import _sram as sram
from cosearch.hardware.technology._dram import DRAMS, dram
from cosearch.hardware.technology._scaling import NODES, NOMINAL_VOLTS, area_factor, energy_factor
from cosearch.hardware.technology._table import FloatUnits, Technology

__all__ = ["all_tables", "scale", "with_dram"]

# what "checked" means below: the papers were not at hand; the figures were held against other people's transcriptions
_CHECKED = "checked in secondary sources"
_AREAS = (
    "areas not checked but for the ratios of 8b integer to 16b floating point, which Jouppi et al. 2017 (ISCA) repeat"
)

_REGISTER_PJ, _REGISTER_UM2 = 9.011e-3, 5.981
"""A register bit in Aladdin's 40 nm table (REG_6ns_dynamic_energy, REG_area)."""

# Aladdin, 40 nm, at 6 ns as gem5-aladdin has it: three-stage single-precision units, and the three cycles of power that
# its table counts for an operation. Half precision is not given; it takes Horowitz's ratios to single precision.
_ALADDIN_FLOATS = FloatUnits(
    add_pj=(7.9284 * 0.4 / 0.9, 7.9284),
    multiply_pj=(24.23928 * 1.1 / 3.7, 24.23928),
    add_um2=(2063.594 * 1360 / 4184, 2063.594),
    multiply_um2=(4889.35 * 1640 / 7700, 4889.35),
    source=(
        "Aladdin's 40 nm single-precision units at 6 ns (gem5-aladdin, checked there); 16b by Horowitz's ratios of 16b "
        "to 32b (assumption)"
    ),
)
_HOROWITZ_FLOATS = FloatUnits(
    add_pj=(0.4, 0.9),
    multiply_pj=(1.1, 3.7),
    add_um2=(1360.0, 4184.0),
    multiply_um2=(1640.0, 7700.0),
    source=(
        "Horowitz 2014, 16b and 32b: add 0.4 and 0.9 pJ, 1360 and 4184 um2; multiply 1.1 and 3.7 pJ, 1640 and 7700 um2 "
        f"(energies {_CHECKED}; {_AREAS})"
    ),
)

# node: 32-bit add pJ, pJ per product of widths; um2 likewise; leakage uW likewise. The rows of
# tests/published/hwcomponents_mac.csv are linear in w * a; a test holds all of them against these
_ALADDIN: Mapping[int, tuple[float, float, float, float, float, float]] = {
    45: (0.24166, 0.01425, 406.31, 9.0633, 2.7619, 0.089906),
    40: (0.21, 0.0123828, 278.0, 6.20117, 2.4, 0.078125),
    28: (0.124033, 0.0073138, 152.116, 3.39315, 1.4175, 0.046143),
    22: (0.071076, 0.0041910, 101.863, 2.27217, 0.81233, 0.026442),
    16: (0.041940, 0.0024730, 76.3443, 1.702936, 0.47931, 0.015602),
    7: (0.022791, 0.0013439, 23.9939, 0.535208, 0.26049, 0.0084783),
}

_HOROWITZ_SOURCES: Mapping[str, str] = {
    "arithmetic energy": (f"Horowitz 2014: int add 32b 0.1 pJ, int multiply 8b 0.2 pJ and 32b 3.1 pJ ({_CHECKED})"),
    "arithmetic area": (f"Horowitz 2014: int add 32b 137 um2, int multiply 8b 282 um2 and 32b 3495 um2 ({_AREAS})"),
    "registers": "Aladdin, 40 nm, taken as 45 nm",
    "leakage": "Aladdin at 45 nm (logic), CACTI at 45 nm (SRAM)",
    "SRAM": "CACTI at 45 nm",
    "DRAM": "Horowitz 2014, lower end: 1.3 nJ for 64 bits",
}


def _exponent(at8: float, at32: float) -> float:
    """Returns the exponent of the power law through 8 x 8 and 32 x 32 bits (a factor of 16 in their product)."""
    return math.log(at32 / at8) / math.log(16)


def _horowitz() -> Technology:
    return Technology(
        name="horowitz_45nm",
        node_nm=45,
        volts=0.9,
        add_pj=0.1,
        multiply_pj=0.2,
        multiply_exponent=_exponent(0.2, 3.1),
        add_um2=137.0,
        multiply_um2=282.0,
        area_exponent=_exponent(282.0, 3495.0),
        floats=_HOROWITZ_FLOATS,
        register_pj_per_bit=_REGISTER_PJ,
        register_um2_per_bit=_REGISTER_UM2,
        leak_uw=_ALADDIN[45][4],
        leak_uw_per_bit2=_ALADDIN[45][5],
        sram=sram.CACTI[45],
        dram_pj_per_bit=DRAMS["ddr3"].pj_per_bit,
        sources=_HOROWITZ_SOURCES,
    )


def _aladdin(node: int) -> Technology:
    add, bit2, add_um2, bit2_um2, leak, leak_bit2 = _ALADDIN[node]
    energy, area = add / _ALADDIN[40][0], add_um2 / _ALADDIN[40][2]
    # at 45 nm the registers stay as the 40 nm table has them, as in Horowitz's
    register_energy, register_area = (1.0, 1.0) if node == 45 else (energy, area)
    how = "Aladdin's 40 nm cells" if node == 40 else f"Aladdin's 40 nm cells, scaled to {node} nm by hwcomponents"
    cacti = sram.nearest(node)
    return replace(
        _horowitz(),
        name=f"aladdin_{node}nm",
        node_nm=node,
        volts=_nearest_volts(node),
        add_pj=add,
        multiply_pj=bit2 * 64,
        multiply_exponent=1.0,
        add_um2=add_um2,
        multiply_um2=bit2_um2 * 64,
        area_exponent=1.0,
        floats=_scaled_floats(_ALADDIN_FLOATS, energy, area, how),
        register_pj_per_bit=_REGISTER_PJ * register_energy,
        register_um2_per_bit=_REGISTER_UM2 * register_area,
        leak_uw=leak,
        leak_uw_per_bit2=leak_bit2,
        sram=sram.CACTI[cacti],
        sources={
            "arithmetic energy": f"{how}: 8-bit MAC {add + 64 * bit2:.3f} pJ (the file of hwcomponents)",
            "arithmetic area": f"{how}: 8-bit MAC {add_um2 + 64 * bit2_um2:.0f} um2 (the file of hwcomponents)",
            "registers": {40: "Aladdin, 40 nm", 45: _HOROWITZ_SOURCES["registers"]}.get(
                node, "Aladdin, 40 nm, scaled like the arithmetic"
            ),
            "leakage": f"{how} (logic), {_cacti_name(cacti)} (SRAM)",
            "SRAM": _cacti_name(cacti),
            "DRAM": _HOROWITZ_SOURCES["DRAM"],
        },
    )


def _cacti_name(node: int) -> str:
    return f"CACTI at {node} nm" + (", extrapolated" if node < 22 else "")


def _nearest_volts(node: int) -> float:
    return NOMINAL_VOLTS[min(NODES, key=lambda known: abs(math.log(known / node)))]


def _scaled_floats(floats: FloatUnits, energy: float, area: float, how: str) -> FloatUnits:
    def times(values: tuple[float, float], factor: float) -> tuple[float, float]:
        return values[0] * factor, values[1] * factor

    return FloatUnits(
        add_pj=times(floats.add_pj, energy),
        multiply_pj=times(floats.multiply_pj, energy),
        add_um2=times(floats.add_um2, area),
        multiply_um2=times(floats.multiply_um2, area),
        source=floats.source if energy == 1.0 else f"{floats.source}; {how}",
    )


def scale(technology: Technology, node_nm: int, volts: float | None = None, *, name: str = "") -> Technology:
    """Returns ``technology`` at another node, by the equations of Stillmaker & Baas 2017.

    Arithmetic and registers scale by the factors of energy and area. Scratchpads and leakage of logic are not
    scaled but replaced, by CACTI's rows and Aladdin's leakage at the nearest node that they are given for; above 45 nm
    those at 45 nm times the factors. DRAM stays as it is.

    Args:
        technology: at one of the nodes that the equations cover.
        node_nm: the node to scale to, likewise.
        volts: its supply; nominal where left out.
        name: of the result; made from the given one where left out.

    Raises:
        SpecError: the equations do not cover a node or a supply.
    """
    volts = NOMINAL_VOLTS.get(node_nm, 1.0) if volts is None else volts
    energy = energy_factor(technology.node_nm, technology.volts, node_nm, volts)
    area = area_factor(technology.node_nm, node_nm)
    first = technology.sources["arithmetic energy"].split(":")[0]
    how = f"{first} and Aladdin, scaled by Stillmaker & Baas 2017 (energy x {energy:.4f}, area x {area})"
    cacti = sram.nearest(node_nm)
    memory, memory_source, leak = sram.CACTI[cacti], _cacti_name(cacti), _ALADDIN[_nearest_aladdin(node_nm)][4:]
    logic = f"Aladdin at {_nearest_aladdin(node_nm)} nm (hwcomponents)"
    if node_nm > 45:
        up, up_area = energy_factor(45, NOMINAL_VOLTS[45], node_nm, volts), area_factor(45, node_nm)
        memory, leak = sram.scaled(memory, up, up_area), (leak[0] * up, leak[1] * up)
        factors = f" x {up:.3g} (Stillmaker & Baas 2017)"
        memory_source, logic = memory_source + factors, logic + factors
    return replace(
        technology,
        name=name or f"{technology.name}_at_{node_nm}nm",
        node_nm=node_nm,
        volts=volts,
        add_pj=technology.add_pj * energy,
        multiply_pj=technology.multiply_pj * energy,
        add_um2=technology.add_um2 * area,
        multiply_um2=technology.multiply_um2 * area,
        floats=_scaled_floats(technology.floats, energy, area, how),
        register_pj_per_bit=technology.register_pj_per_bit * energy,
        register_um2_per_bit=technology.register_um2_per_bit * area,
        leak_uw=leak[0],
        leak_uw_per_bit2=leak[1],
        sram=memory,
        sources={
            "arithmetic energy": how,
            "arithmetic area": how,
            "registers": how,
            "leakage": f"{logic} (logic), {memory_source} (SRAM)",
            "SRAM": memory_source,
            "DRAM": "Horowitz 2014 and Jouppi 2021: 1.3 nJ for 64 bits of DDR",
        },
    )


def _nearest_aladdin(node_nm: int) -> int:
    return min(_ALADDIN, key=lambda node: abs(math.log(node / node_nm)))


def _jouppi_45() -> Technology:
    return replace(
        _horowitz(),
        name="jouppi_45nm",
        sram=sram.JOUPPI_45,
        sources=dict(_HOROWITZ_SOURCES)
        | {
            "arithmetic energy": f"Jouppi 2021, table 2, 45 nm, which repeats Horowitz 2014 ({_CHECKED})",
            "SRAM": (
                "energy: Jouppi 2021, table 2, 45 nm: 10, 20, 100 pJ for 64 bits of 8 KB, 32 KB, 1 MB, as Horowitz "
                f"({_CHECKED}); area: CACTI"
            ),
            "DRAM": "Jouppi 2021, table 2: DDR3/4, 1300 pJ for 64 bits",
        },
    )


def _jouppi_7() -> Technology:
    base, area = _horowitz(), area_factor(45, 7)  # Jouppi gives no areas
    energy = energy_factor(45, 0.9, 7, 0.7)
    scaled = f"Horowitz 2014 and Aladdin areas x {area} (Stillmaker & Baas 2017)"
    return Technology(
        name="jouppi_7nm",
        node_nm=7,
        volts=NOMINAL_VOLTS[7],
        add_pj=0.03,
        multiply_pj=0.07,
        multiply_exponent=_exponent(0.07, 1.48),
        add_um2=base.add_um2 * area,
        multiply_um2=base.multiply_um2 * area,
        area_exponent=base.area_exponent,
        floats=replace(
            _scaled_floats(base.floats, energy, area, scaled),
            add_pj=(0.16, 0.38),
            multiply_pj=(0.34, 1.31),
            source=(
                "energy: Jouppi 2021, table 2, 7 nm: add 0.16 and 0.38 pJ, multiply 0.34 and 1.31 pJ "
                f"({_CHECKED}, the 32b addition not); area: {scaled}"
            ),
        ),
        register_pj_per_bit=_REGISTER_PJ * energy,
        register_um2_per_bit=_REGISTER_UM2 * area,
        leak_uw=_ALADDIN[7][4],
        leak_uw_per_bit2=_ALADDIN[7][5],
        sram=sram.JOUPPI_7,
        dram_pj_per_bit=DRAMS["ddr4"].pj_per_bit,
        sources={
            "arithmetic energy": (
                "Jouppi 2021, table 2: int add 32b 0.03 pJ, int multiply 8b 0.07 pJ and 32b 1.48 pJ "
                f"({_CHECKED}, the 32b multiply not)"
            ),
            "arithmetic area": scaled,
            "registers": f"Aladdin, 40 nm, energy x {energy:.4f} (Stillmaker & Baas 2017)",
            "leakage": "Aladdin scaled by hwcomponents (logic), CACTI at 7 nm, extrapolated (SRAM)",
            "SRAM": (
                "energy: Jouppi 2021, table 2: 7.5, 8.5, 14 pJ for 64 bits of 8 KB, 32 KB, 1 MB (a secondary source "
                "has them rounded, for a bit); area: CACTI at 7 nm, extrapolated"
            ),
            "DRAM": "Jouppi 2021, table 2: DDR3/4, 1300 pJ for 64 bits",
        },
    )


def with_dram(technology: Technology, kind: str) -> Technology:
    """Returns ``technology`` with another kind of DRAM, called ``table+kind``.

    Raises:
        NotFoundError: there is no such DRAM.
    """
    found = dram(kind)
    return replace(
        technology,
        name=f"{technology.name}+{found.name}",
        dram_pj_per_bit=found.pj_per_bit,
        sources={**technology.sources, "DRAM": f"{found.name}, {found.pj_per_bit:.3g} pJ/bit: {found.source}"},
    )


def all_tables() -> tuple[Technology, ...]:
    """Returns every named table."""
    horowitz = _horowitz()
    # 180 nm is left to `scale`: one of the two transcriptions has its polynomial, and it does not continue the others
    scaled = [scale(horowitz, node, name=f"stillmaker_{node}nm") for node in NODES if node not in (45, 180)]
    return (horowitz, _jouppi_45(), _jouppi_7(), *(_aladdin(node) for node in _ALADDIN), *scaled)
