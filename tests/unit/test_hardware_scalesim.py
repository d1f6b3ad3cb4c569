from __future__ import annotations

import configparser
import csv
from pathlib import Path

import pytest

from cosearch.hardware import (
    SystolicArray,
    scalesim_config,
    scalesim_counts,
    scalesim_memory,
    scalesim_topology,
)
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

TABLE = Path(__file__).parent.parent / "published" / "scalesim_v3.csv"
EXACT = ("compute_cycles", "ifmap_sram_reads", "filter_sram_reads", "ofmap_sram_writes")


def rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def array_of(row: dict[str, str]) -> SystolicArray:
    return SystolicArray(
        rows=int(row["rows"]),
        cols=int(row["cols"]),
        dataflow=row["dataflow"],
        ifmap_kib=int(row["ifmap_kb"]),
        filter_kib=int(row["filter_kb"]),
        ofmap_kib=int(row["ofmap_kb"]),
        dram_bytes_per_s=max(1, int(row["bandwidth"])) * 1e9,
        clock_hz=1e9,
    )


def test_cycles_and_sram_counts_are_scalesims_on_every_row() -> None:
    table = rows()
    assert len(table) == 325
    for row in table:
        counts = scalesim_counts(int(row["M"]), int(row["K"]), int(row["N"]), array_of(row))
        assert {name: getattr(counts, name) for name in EXACT} == {name: int(row[name]) for name in EXACT}, row


MEMORY = ("stall_cycles", "ifmap_dram_reads", "filter_dram_reads", "ofmap_dram_writes")


def check_memory(row: dict[str, str]) -> None:
    replay = scalesim_memory(
        int(row["M"]),
        int(row["K"]),
        int(row["N"]),
        array_of(row),
        bandwidth=row["bandwidth_mode"],
        words_per_cycle=max(1, int(row["bandwidth"])),
    )
    assert {name: getattr(replay, name) for name in MEMORY} == {name: int(row[name]) for name in MEMORY}, row


def test_stalls_and_dram_counts_are_scalesims_at_limited_bandwidth() -> None:
    limited = [row for row in rows() if row["bandwidth_mode"] == "USER"]
    assert len(limited) == 75
    for row in limited:
        check_memory(row)


def test_dram_counts_are_scalesims_at_ample_bandwidth() -> None:
    small = [row for row in rows() if row["bandwidth_mode"] == "CALC" and int(row["ofmap_sram_writes"]) < 40_000]
    assert len(small) > 100
    for row in small:
        check_memory(row)


@pytest.mark.slow
def test_dram_counts_are_scalesims_on_every_large_row() -> None:
    for row in rows():
        if row["bandwidth_mode"] == "CALC" and int(row["ofmap_sram_writes"]) >= 40_000:
            check_memory(row)


def test_counts_ignore_overlap_and_bits() -> None:
    row = rows()[0]
    plain = array_of(row)
    other = SystolicArray(
        rows=plain.rows,
        cols=plain.cols,
        dataflow=plain.dataflow,
        ifmap_kib=8,
        filter_kib=8,
        ofmap_kib=8,
        dram_bytes_per_s=1e9,
        clock_hz=1e9,
        pe_bits=2,
        overlap="double_buffered",
    )
    first, second = scalesim_counts(99, 64, 99, plain), scalesim_counts(99, 64, 99, other)
    assert all(getattr(first, name) == getattr(second, name) for name in EXACT)


def test_config_has_every_field_that_the_tool_reads() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(scalesim_config(array_of(rows()[1]), name="pick", bandwidth="USER"))
    assert parser.get("general", "run_name") == "pick"
    preset = parser["architecture_presets"]
    assert (preset.getint("ArrayHeight"), preset.getint("ArrayWidth"), preset["Dataflow"]) == (16, 16, "ws")
    sizes = [preset.getint(name) for name in ("IfmapSramSzkB", "FilterSramSzkB", "OfmapSramSzkB")]
    assert sizes == [2, 2, 2]
    assert preset.getint("Bandwidth") == 4
    for name in ("IfmapOffset", "FilterOffset", "OfmapOffset", "ReadRequestBuffer", "WriteRequestBuffer"):
        preset.getint(name)
    for operand in ("Ifmap", "Filter"):
        assert parser.getboolean("layout", f"{operand}CustomLayout") is False
        for name in ("BankBandwidth", "BankNum", "BankPort"):
            assert parser.getint("layout", f"{operand}SRAM{name}") >= 1
    assert parser.get("run_presets", "InterfaceBandwidth") == "USER"
    assert parser.get("run_presets", "UseRamulatorTrace") == "False"
    assert parser.get("sparsity", "SparsitySupport") == "false"


def test_topology_lists_every_product_in_the_tools_order() -> None:
    block = BlockSpec(heads=2, mlp_hidden=24, weight_bits=8, activation_bits=8)
    model = ModelSpec(
        task=TaskShape(image=(16, 16), channels=1, classes=10), patch=4, dim=12, blocks=(block,), edge_bits=8
    )
    load = workload(model)
    lines = scalesim_topology(load).splitlines()
    assert lines[0] == "Layer,M,N,K,"
    assert "block0.fc1,17,24,12," in lines
    assert {"block0.scores.0,17,17,6,", "block0.scores.1,17,17,6,"} <= set(lines)
    macs = 0
    for line in lines[1:]:
        _, m, n, k, rest = line.split(",")
        assert rest == ""  # the tool drops what follows the last comma
        macs += int(m) * int(n) * int(k)
    assert macs == load.macs


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_one_fold_by_hand(dataflow: str) -> None:
    array = SystolicArray(
        rows=4,
        cols=6,
        dataflow=dataflow,
        ifmap_kib=1,
        filter_kib=1,
        ofmap_kib=1,
        dram_bytes_per_s=1e9,
        clock_hz=1e9,
    )
    counts = scalesim_counts(4, 4, 4, array)
    assert counts.compute_cycles == {"os": 4 + 6 + 4 - 2, "ws": 8 + 6 + 4 - 2, "is": 8 + 6 + 4 - 2}[dataflow] - 1
    assert counts.ifmap_sram_reads == counts.filter_sram_reads == 16
