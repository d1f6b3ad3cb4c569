from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from cosearch.errors import NotFoundError, SpecError
from cosearch.hardware import TECHNOLOGIES, TEMPLATES, SystolicArray, SystolicArrays, build, technology
from cosearch.spec import AcceleratorSpec

GOOD = {
    "rows": 16,
    "cols": 8,
    "dataflow": "ws",
    "ifmap_kib": 32,
    "filter_kib": 64,
    "ofmap_kib": 16,
    "dram_bytes_per_s": 4e9,
    "clock_hz": 500e6,
}


def make(**changes: object) -> SystolicArray:
    return build(AcceleratorSpec.of("systolic", GOOD | changes))


def test_build_fills_in_defaults() -> None:
    array = make()
    assert array == SystolicArray(**GOOD)
    assert (array.pe_bits, array.vector_lanes, array.overlap) == (8, 16, "scalesim")


def test_whole_and_real_clock_are_the_same_array() -> None:
    assert make(clock_hz=500_000_000) == make(clock_hz=5e8)
    assert hash(make(clock_hz=500_000_000)) == hash(make(clock_hz=5e8))


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"rows": 0}, "rows", "rows is 0, but a systolic array has 1 to 4096 rows; write 1 to 4096"),
        ({"rows": 5000}, "rows", "5000"),
        ({"cols": 8.0}, "cols", "cols is 8.0; write a whole number of columns"),
        ({"rows": True}, "rows", "rows is True"),
        ({"dataflow": "wos"}, "dataflow", "choose one of os, ws, is"),
        ({"dataflow": True}, "dataflow", "dataflow is True"),
        ({"pe_bits": 3}, "pe_bits", "write one of 2, 4, 8, 16"),
        ({"overlap": "none"}, "overlap", "choose one of scalesim, double_buffered"),
        ({"ifmap_kib": 0}, "ifmap_kib", "ifmap_kib is 0, but"),
        ({"filter_kib": 1, "rows": 512}, "filter_kib", "write at least"),
        ({"ofmap_kib": 1, "cols": 256}, "ofmap_kib", "write at least 2, or make the array smaller"),
        ({"dram_bytes_per_s": 0.0}, "dram_bytes_per_s", "bytes/s"),
        ({"dram_bytes_per_s": float("nan")}, "dram_bytes_per_s", "nan"),
        ({"clock_hz": "fast"}, "clock_hz", "clock_hz is 'fast'; write a number of Hz"),
        ({"vector_lanes": -1}, "vector_lanes", "-1"),
        ({"colls": 4}, "colls", "did you mean 'cols'?"),
    ],
)
def test_bad_values_name_field_value_and_remedy(changes: dict[str, object], field: str, text: str) -> None:
    changes = {"ifmap_kib": 64} | changes
    with pytest.raises(SpecError) as caught:
        make(**changes)
    assert caught.value.field == field
    assert text in str(caught.value)


def test_missing_parameter_is_named() -> None:
    with pytest.raises(SpecError, match="rows is missing from the 'systolic' accelerator; add it"):
        build(AcceleratorSpec.of("systolic", {name: value for name, value in GOOD.items() if name != "rows"}))


def test_unknown_template_suggests_one() -> None:
    with pytest.raises(SpecError, match="did you mean 'systolic'"):
        build(AcceleratorSpec.of("systolik", GOOD))


def test_templates_are_frozen_dataclasses() -> None:
    for template in TEMPLATES.values():
        assert dataclasses.is_dataclass(template)
        assert template.__dataclass_params__.frozen


def test_arrays_hold_what_objects_hold() -> None:
    arrays = SystolicArrays.of([make(), make(dataflow="os", overlap="double_buffered", pe_bits=4)])
    assert len(arrays) == 2
    assert arrays.dataflow.tolist() == [1, 0]
    assert arrays.overlap.tolist() == [0, 1]
    assert arrays.pe_bits.tolist() == [8.0, 4.0]
    assert len(SystolicArrays.of([])) == 0


def columns(**changes: object) -> dict[str, object]:
    fields = {item.name for item in dataclasses.fields(SystolicArray)}
    arrays = SystolicArrays.of([make(), make()])
    return {name: getattr(arrays, name) for name in fields} | changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": np.array([4.0, 0.0])}, r"accelerators\[1\].rows is 0, but"),
        ({"rows": np.array([4.0, 2.5])}, r"accelerators\[1\].rows is 2.5; write a whole"),
        ({"clock_hz": np.array([np.nan, 1e9])}, r"accelerators\[0\].clock_hz is nan"),
        ({"pe_bits": np.array([8.0, 5.0])}, r"accelerators\[1\].pe_bits is 5"),
        ({"cols": np.array([8.0, 4096.0])}, r"accelerators\[1\].ofmap_kib is 16"),
        ({"dataflow": np.array([0, 3])}, "dataflow holds a code out of range"),
        ({"rows": np.ones(3)}, r"has shape \(2,\)"),
    ],
)
def test_arrays_refuse_what_objects_refuse(changes: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        SystolicArrays(**columns(ifmap_kib=np.full(2, 64.0), **changes))


def test_unknown_technology_suggests_one() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'horowitz_45nm'"):
        technology("horowitz45")


@pytest.mark.parametrize("name", TECHNOLOGIES)
def test_technologies_are_complete_and_rise(name: str) -> None:
    tech = technology(name)
    assert tech.name == name
    assert set(tech.sources) == {"arithmetic energy", "arithmetic area", "registers", "leakage", "SRAM", "DRAM"}
    for price in (tech.sram.read_pj, tech.sram.write_pj, tech.sram.area_mm2, tech.sram.leak_w):
        values = [price(kib) for kib in (1, 2, 8, 100, 2048, 8192)]
        assert all(0 < low < high for low, high in pairwise(values))
    macs = [tech.mac_pj(bits, bits) for bits in range(2, 17)]
    assert all(0 < low < high for low, high in pairwise(macs))


def test_published_constants_come_out() -> None:
    horowitz = technology("horowitz_45nm")
    assert horowitz.mac_pj(8, 8) == pytest.approx(0.3)  # ISSCC 2014, figure 1.1.9: 0.2 + 0.1
    assert horowitz.mac_pj(32, 32) == pytest.approx(3.2)  # 3.1 + 0.1
    assert technology("jouppi_7nm").mac_pj(8, 8) == pytest.approx(0.1)  # ISCA 2021, table 2: 0.07 + 0.03
    aladdin = technology("aladdin_45nm")
    for (w, a), pj in {(2, 2): 0.29866, (4, 8): 0.69766, (8, 8): 1.15366, (16, 16): 3.88963}.items():
        assert aladdin.mac_pj(a, w) == pytest.approx(pj, rel=1e-4)
    # CACTI, 45 nm, 64 KiB, 128-bit words
    assert horowitz.sram.read_pj(64) == pytest.approx(39.332 / 128)
    assert horowitz.sram.area_mm2(64) == pytest.approx(0.187953)
    # Stillmaker & Baas 2017: between its rows, energy from 45 nm at 0.9 V to 7 nm at 0.7 V
    assert technology("stillmaker_7nm").add_pj / horowitz.add_pj == pytest.approx(0.0684, abs=2e-4)
