"""Technology tables against the files and papers that they come from, and scaling between nodes."""

from __future__ import annotations

import csv
import itertools
from itertools import pairwise
from pathlib import Path

import pytest

from cosearch.errors import NotFoundError, SpecError
from cosearch.hardware.technology import (
    CACTI,
    DRAMS,
    NODES,
    NOMINAL_VOLTS,
    TECHNOLOGIES,
    Technology,
    area_factor,
    dram,
    energy_factor,
    scale,
    technology,
)

PUBLISHED = Path(__file__).parent.parent / "published"
HOROWITZ = technology("horowitz_45nm")


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_aladdin_tables_are_the_file_of_hwcomponents() -> None:
    seen = set()
    for row in rows("hwcomponents_mac.csv"):
        tech = technology(f"aladdin_{row['tech_nm']}nm")
        w, a = int(row["w_bits"]), int(row["a_bits"])
        assert tech.mac_pj(a, w) == pytest.approx(float(row["energy_pJ"]), rel=1e-3)
        assert tech.multiplier_um2(a, w) + tech.add_um2 == pytest.approx(float(row["area_um2"]), rel=1e-3)
        leak_uw = tech.leak_uw + tech.leak_uw_per_bit2 * w * a
        assert leak_uw == pytest.approx(float(row["leak_uW"]), rel=1e-3)
        seen.add(tech.name)
    assert seen == {name for name in TECHNOLOGIES if name.startswith("aladdin")}


def test_scratchpads_are_the_file_of_hwcomponents() -> None:
    seen = 0
    for row in rows("hwcomponents_sram_cacti.csv"):
        if row["width_bits"] != "128":
            continue
        sram, kib = CACTI[int(row["tech_nm"])], float(row["size_KiB"])
        assert 128 * sram.read_pj(kib) == pytest.approx(float(row["read_pJ_per_access"]))
        assert 128 * sram.write_pj(kib) == pytest.approx(float(row["write_pJ_per_access"]))
        assert sram.area_mm2(kib) == pytest.approx(float(row["area_mm2"]))
        if kib >= 64:  # below, the file has one digit or none, and the table continues the larger sizes
            assert 1e3 * sram.leak_w(kib) == pytest.approx(float(row["leak_mW"]))
        seen += 1
    assert seen == sum(len(sram.kib) for sram in CACTI.values())


def test_published_operations_come_out() -> None:
    # Horowitz 2014, figure 1.1.9, in pJ and um2: the rows that the tables are not made of
    assert HOROWITZ.adder_pj(8) == pytest.approx(0.03, rel=0.2)
    assert HOROWITZ.adder_um2(8) == pytest.approx(36, rel=0.06)
    # and those that they are
    assert HOROWITZ.multiplier_pj(32, 32) == pytest.approx(3.1)
    assert HOROWITZ.multiplier_um2(32, 32) == pytest.approx(3495)
    for tech, add, multiply in (
        (HOROWITZ, (0.4, 0.9), (1.1, 3.7)),
        (technology("jouppi_7nm"), (0.16, 0.38), (0.34, 1.31)),
    ):
        assert (tech.float_add_pj(11), tech.float_add_pj(24)) == pytest.approx(add)
        assert (tech.float_multiply_pj(11, 11, 5), tech.float_multiply_pj(24, 24, 8)) == pytest.approx(multiply)
    assert HOROWITZ.float_multiply_um2(11, 11, 5) == pytest.approx(1640)
    assert HOROWITZ.float_multiply_um2(24, 24, 8) == pytest.approx(7700)
    assert (HOROWITZ.float_add_um2(11), HOROWITZ.float_add_um2(24)) == pytest.approx((1360, 4184))


def test_bfloat16_is_predicted_not_fitted() -> None:
    tech = technology("jouppi_7nm")  # Jouppi 2021, table 2: bfloat16 add 0.11, multiply 0.21 pJ
    assert tech.float_multiply_pj(8, 8, 8) == pytest.approx(0.21, rel=0.06)
    assert tech.float_add_pj(8) == pytest.approx(0.11, rel=0.03)


@pytest.mark.parametrize("name", TECHNOLOGIES)
def test_tables_are_sound(name: str) -> None:
    tech = technology(name)
    assert tech.name == name
    assert hash(tech) == hash(technology(name))
    assert tech.floats.source
    assert all(tech.sources.values())
    assert tech.volts > 0
    for price in (tech.adder_pj, tech.adder_um2, tech.float_add_pj, tech.float_add_um2):
        assert all(0 < low < high for low, high in pairwise(price(bits) for bits in range(2, 25)))
    for price2 in (tech.multiplier_pj, tech.multiplier_um2, tech.shifter_pj, tech.shifter_um2):
        assert all(0 < low < high for low, high in pairwise(price2(bits, 4) for bits in range(1, 33)))
    for bits in range(2, 25):
        assert 0 < tech.float_multiply_pj(bits, bits, 5) < tech.float_multiply_pj(bits + 1, bits, 5)
        assert 0 < tech.float_multiply_um2(bits, bits, 4) < tech.float_multiply_um2(bits, bits, 5)


def test_smaller_nodes_cost_less() -> None:
    for family in ("aladdin", "stillmaker"):
        tables = sorted((t for t in TECHNOLOGIES.values() if t.name.startswith(family)), key=lambda t: t.node_nm)
        assert len(tables) >= 6
        for small, large in pairwise(tables):
            assert small.mac_pj(8, 8) < large.mac_pj(8, 8)
            assert small.mac_um2(8) < large.mac_um2(8)
            assert small.sram.read_pj(64) <= large.sram.read_pj(64)
            assert small.sram.area_mm2(64) <= large.sram.area_mm2(64)


def test_area_factors_agree_with_each_other() -> None:
    for a, b in itertools.product(NODES, repeat=2):
        # two digits are printed
        assert area_factor(a, b) * area_factor(b, a) == pytest.approx(1, rel=0.12)
    for a, b in pairwise(NODES):
        assert area_factor(a, b) < 1


def test_energy_rises_with_the_supply_and_falls_with_the_node() -> None:
    for node in NODES:
        volts = [NOMINAL_VOLTS[node] * share for share in (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)]
        energies = [energy_factor(45, 0.9, node, v) for v in volts]
        assert all(0 < low < high for low, high in pairwise(energies)), node
    for large, small in pairwise(NODES):
        assert energy_factor(large, NOMINAL_VOLTS[large], small, NOMINAL_VOLTS[small]) < 1


def test_scaling_by_hand() -> None:
    # 45 nm at 0.9 V to 7 nm at 0.7 V, the polynomials written out
    factor = (0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447) / (1.018 * 0.81 - 0.3107 * 0.9 + 0.1539)
    assert energy_factor(45, 0.9, 7, 0.7) == pytest.approx(factor)
    scaled = scale(HOROWITZ, 7)
    assert scaled.mac_pj(8, 8) == pytest.approx(0.3 * factor)
    assert scaled.add_um2 == 137.0 * 0.059
    assert scaled.floats.multiply_pj[1] == pytest.approx(3.7 * factor)
    assert scaled.name == "horowitz_45nm_at_7nm"
    assert f"x {factor:.4f}" in scaled.sources["arithmetic energy"]
    assert scale(HOROWITZ, 7, name="stillmaker_7nm") == technology("stillmaker_7nm")


def test_scaling_goes_there_and_back() -> None:
    there = scale(HOROWITZ, 16, 0.8)
    back = scale(there, 45, HOROWITZ.volts)
    assert back.mac_pj(8, 8) == pytest.approx(HOROWITZ.mac_pj(8, 8))
    assert back.mac_um2(8) == pytest.approx(HOROWITZ.mac_um2(8), rel=0.02)
    assert back.sram == HOROWITZ.sram


def test_a_lower_supply_saves_energy() -> None:
    assert scale(HOROWITZ, 7, 0.6).mac_pj(8, 8) < scale(HOROWITZ, 7, 0.7).mac_pj(8, 8)


@pytest.mark.parametrize(
    ("node", "volts", "text"),
    [
        (28, None, "node_nm is 28, which the scaling equations do not cover; choose one of 180, 130, 90"),
        (7, 1.2, r"volts is 1.2, but the scaling equations are used from 0.49 to 0.84 V at 7 nm; write 0.7"),
        (7, float("nan"), "volts is nan"),
    ],
)
def test_scaling_says_what_it_cannot(node: int, volts: float | None, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        scale(HOROWITZ, node, volts)


def test_a_table_at_no_node_of_the_equations_cannot_be_scaled() -> None:
    with pytest.raises(SpecError, match="node_nm is 28"):
        scale(technology("aladdin_28nm"), 7)


def test_dram_kinds() -> None:
    for name, kind in DRAMS.items():
        low, high = kind.range_pj_per_bit
        assert (kind.name, kind.source != "") == (name, True)
        assert low <= kind.pj_per_bit <= high
    assert dram("hbm2").pj_per_bit == pytest.approx(3.97, rel=0.02)  # O'Connor et al. 2017
    assert dram("lpddr4").pj_per_bit < dram("ddr4").pj_per_bit == HOROWITZ.dram_pj_per_bit
    with pytest.raises(NotFoundError, match=r"DRAM 'lpdr4' is unknown; did you mean 'lpddr4'"):
        dram("lpdr4")


def test_another_dram_is_named_in_the_table() -> None:
    tech = technology("jouppi_7nm+hbm2")
    assert tech.name == "jouppi_7nm+hbm2"
    assert tech.dram_pj_per_bit == dram("hbm2").pj_per_bit
    assert "hbm2, 3.91 pJ/bit" in tech.sources["DRAM"]
    assert tech.sram == technology("jouppi_7nm").sram
    with pytest.raises(NotFoundError, match="DRAM 'hbm' is unknown; did you mean 'hbm2'"):
        technology("jouppi_7nm+hbm")
    with pytest.raises(NotFoundError, match=r"technology 'joupi_7nm\+hbm2' is unknown; did you mean 'jouppi_7nm'"):
        technology("joupi_7nm+hbm2")


def test_published_tables_disagree() -> None:
    """The reason why the table is a named choice: were this to fail, one would do."""

    def pj(name: str) -> float:
        found: Technology = technology(name)
        return found.mac_pj(8, 8)

    assert 3 < pj("aladdin_45nm") / pj("horowitz_45nm") < 5
    assert 4 < pj("jouppi_7nm") / pj("stillmaker_7nm") < 6
