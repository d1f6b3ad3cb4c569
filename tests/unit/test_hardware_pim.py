from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.ledger import Items, Ledger, breakdown, total
from cosearch.hardware.pim import ATTENTIONS, PIM, adc_bits_needed, isaac, pim_ledger
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TECH = technology("horowitz_45nm")
FAST = {"dram_bytes_per_s": 1e15}


def deit(dim: int = 192, depth: int = 1, bits: int = 8, method: str = "none", keep: int | None = None) -> Workload:
    block = BlockSpec(heads=dim // 64, mlp_hidden=4 * dim, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
    rest = dataclasses.replace(block, keep_tokens=None)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    blocks = (block, *(rest,) * (depth - 1))
    return workload(ModelSpec(task=task, patch=16, dim=dim, blocks=blocks, token_method=method, edge_bits=8))


def ledger(load: Workload, *items: PIM) -> Ledger:
    return pim_ledger(load, Items(items), TECH)


def row(load: Workload, costs: Ledger, name: str) -> int:
    return costs.members[next(i for i, op in enumerate(load.operators) if op.name == name)]


def crossbars(load: Workload, size: int = 128, cell_bits: int = 2) -> int:
    """Returns the crossbars of all layers."""
    weights = [op for op in load.operators if op.weights]
    return sum(math.ceil(op.k / size) * math.ceil(op.n * math.ceil(op.b_bits / cell_bits) / size) for op in weights)


@pytest.mark.parametrize(
    ("rows", "cell", "dac", "bits"), [(128, 2, 1, 8), (128, 2, 2, 10), (256, 1, 1, 8), (64, 4, 1, 9)]
)
def test_adc_bits_hold_the_largest_sum(rows: int, cell: int, dac: int, bits: int) -> None:
    assert adc_bits_needed(rows, cell, dac) == bits
    largest = rows * (2**cell - 1) * (2**dac - 1)
    assert largest.bit_length() <= bits + 1  # the encoding saves one


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"crossbar_size": 4}, "crossbar_size", "is 4, but a processing-in-memory accelerator has 8 to 1024 rows"),
        ({"adc_bits": 7}, "adc_bits", "need 8 (ISAAC, section V); write at least 8"),
        ({"cell_bits": 4}, "adc_bits", "write at least 10, or use smaller crossbars, cells or DACs"),
        ({"columns_per_adc": 256}, "columns_per_adc", "write at most 128"),
        ({"tiles": 0}, "tiles", "write 1 to 65536"),
        ({"tiles": True}, "tiles", "is True"),
        ({"attention": "analogue"}, "attention", "choose one of digital, crossbar"),
        ({"clock_hz": float("inf")}, "clock_hz", "inf"),
    ],
)
def test_bad_fields_say_what_to_write(changes: dict[str, object], field: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        PIM(**changes)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert text in str(caught.value)


def test_floating_point_operands_are_refused() -> None:
    block = BlockSpec(heads=2, mlp_hidden=16)
    task = TaskShape(image=(16, 16), channels=1, classes=2)
    with pytest.raises(SpecError, match="a processing-in-memory accelerator"):
        ledger(workload(ModelSpec(task=task, patch=4, dim=8, blocks=(block,))), PIM())


def test_isaacs_parts_add_up_to_its_unit() -> None:
    """Eight crossbars with their ADCs take 24.1 mW and 0.0131 mm2 (table I; secondary sources, see `isaac`)."""
    reads = 8 * 128
    joules = reads * (isaac.adc_j(8) + isaac.SAMPLE_J + isaac.DAC_J + isaac.REGISTER_IN_J_PER_BIT + 128 * isaac.CELL_J)
    assert joules / isaac.READ_S == pytest.approx(24.1e-3, rel=5e-3)
    mm2 = 8 * isaac.adc_mm2(8) + reads * (isaac.DAC_MM2 + isaac.REGISTER_MM2_PER_ROW + 128 * isaac.CELL_MM2)
    assert mm2 == pytest.approx(0.0131, rel=5e-3)


def test_weights_that_fit_are_copied_and_never_fetched() -> None:
    load = deit()
    need, cap = crossbars(load), 168 * 96
    costs = ledger(load, PIM())
    at = row(load, costs, "block0.qkv")
    reads = math.ceil(197 / (cap // need)) * 8
    assert costs.compute_cycles[at, 0] == math.ceil(reads * 100e-9 * 1.2e9)
    assert costs.stall_cycles[at, 0] == 0
    assert costs.dram_bytes[at, 0] == 0


def test_weights_that_do_not_fit_are_fetched_and_written() -> None:
    load = deit()
    need, cap = crossbars(load), 2 * 96
    layers = [math.ceil(o.k / 128) * math.ceil(o.n * 4 / 128) for o in load.operators if o.weights]
    largest = max(layers)
    costs = ledger(load, PIM(tiles=2, tile_buffer_kib=2048, **FAST))
    share = (need - (cap - largest)) / need
    assert 0 < share < 1
    at = row(load, costs, "block0.fc1")
    assert costs.dram_bytes[at, 0] == math.ceil(share * 192 * 768)
    assert costs.stall_cycles[at, 0] == math.ceil(share * 128 * isaac.WRITE_ROW_S * 1.2e9)
    assert costs.compute_cycles[at, 0] == math.ceil(197 * 8 * 100e-9 * 1.2e9)


def test_a_layer_larger_than_the_chip_takes_rounds() -> None:
    load = deit()
    costs = ledger(load, PIM(tiles=1, crossbars_per_tile=10, tile_buffer_kib=4096, **FAST))
    down, across = 2, 24
    at = row(load, costs, "block0.fc1")
    assert costs.compute_cycles[at, 0] == math.ceil(math.ceil(down * across / 10) * 197 * 8 * 100e-9 * 1.2e9)
    assert costs.dram_bytes[at, 0] == 192 * 768


def test_bits_count_linearly_in_cells_and_reads() -> None:
    loads = [deit(bits=bits) for bits in (8, 4)]
    single = PIM(tiles=crossbars(loads[0]), crossbars_per_tile=1)  # no room for copies
    high, low = (ledger(load, single) for load in loads)
    at = [row(load, costs, "block0.fc1") for load, costs in zip(loads, (high, low), strict=True)]
    assert high.busy[at[0], 0] == pytest.approx(4 * low.busy[at[1], 0])
    ratio = high.mac_j[at[0], 0] / low.mac_j[at[1], 0]
    assert ratio == pytest.approx(4.0, rel=1e-9)


def test_attention_in_crossbars_is_written_for_every_image() -> None:
    load = deit()
    digital, crossbar = (ledger(load, PIM(attention=name)) for name in ATTENTIONS)  # type: ignore[arg-type]
    at = row(load, crossbar, "block0.scores")
    assert crossbar.stall_cycles[at, 0] == math.ceil(64 * isaac.WRITE_ROW_S * 1.2e9)
    assert crossbar.compute_cycles[at, 0] == math.ceil(197 * 8 * 100e-9 * 1.2e9)
    assert digital.stall_cycles[at, 0] == 0
    assert digital.compute_cycles[at, 0] == 3 * 7 * 7 * 64  # ceil(197 / 32) blocks a side
    writes = 3 * 64 * 197 * 4 * isaac.WRITE_CELL_J
    reads = 3 * 197 * 8 * (197 * 4 * (isaac.adc_j(8) + isaac.SAMPLE_J) + 64 * 197 * 4 * isaac.CELL_J)
    drives = 3 * 197 * 8 * 64 * 7 * (isaac.DAC_J + isaac.REGISTER_IN_J_PER_BIT)
    assert crossbar.mac_j[at, 0] == pytest.approx(writes + reads + drives)
    assert crossbar.area_mm2[0] < digital.area_mm2[0]


def test_slower_adcs_stretch_a_read() -> None:
    load = deit()
    costs = ledger(
        load, PIM(columns_per_adc=128), PIM(columns_per_adc=64), PIM(crossbar_size=256, columns_per_adc=256, adc_bits=9)
    )
    at = row(load, costs, "block0.qkv")
    assert costs.compute_cycles[at, 0] == costs.compute_cycles[at, 1]
    assert costs.area_mm2[1] > costs.area_mm2[0]
    need = crossbars(load, 256)
    reads = math.ceil(197 / (168 * 96 // need)) * 8
    assert costs.compute_cycles[at, 2] == math.ceil(reads * 200e-9 * 1.2e9)


def test_activations_beyond_the_buffers_go_through_dram() -> None:
    load = deit()
    costs = ledger(load, PIM(tile_buffer_kib=1), PIM())
    at = row(load, costs, "block0.softmax")
    assert costs.dram_bytes[at, 0] > 0 == costs.dram_bytes[at, 1]
    # with room for everything, only the image comes in and the classes go out
    assert np.sum(costs.dram_bytes[:, 1]) == 224 * 224 * 3 + 1000 * 4


def test_every_operator_costs_and_rows_add_up() -> None:
    for load in (deit(), deit(depth=2, method="prune", keep=100), deit(depth=2, method="merge", keep=120)):
        for attention in ATTENTIONS:
            costs = ledger(load, PIM(attention=attention))  # type: ignore[arg-type]
            whole = breakdown(load, costs, TECH)
            assert whole.cycles == pytest.approx(sum(op.cycles for op in whole.operators))
            assert all(op.cycles > 0 and op.energy_j > 0 for op in whole.operators)
            assert total(costs).latency_s[0] == whole.latency_s
