"""What stays on the chip between operators and between images."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from cosearch.hardware import BatchCost, SystolicArray, SystolicArrays, estimate, estimate_batch, technology
from cosearch.hardware.systolic.model import _ledger, _moved
from cosearch.hardware.systolic.prices import Prices
from cosearch.hardware.systolic.residency import layout
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TECH = technology("horowitz_45nm")


def vit(blocks: int = 2, bits: int = 8) -> Workload:
    block = BlockSpec(heads=2, mlp_hidden=48, weight_bits=bits, activation_bits=bits)
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    return workload(ModelSpec(task=task, patch=4, dim=24, blocks=(block,) * blocks, edge_bits=8))


def array(**changes: object) -> SystolicArray:
    base: dict[str, object] = {
        "rows": 8,
        "cols": 8,
        "dataflow": "ws",
        "ifmap_kib": 64,
        "filter_kib": 64,
        "ofmap_kib": 64,
        "dram_bytes_per_s": 1e9,
        "clock_hz": 1e9,
    }
    return SystolicArray(**(base | changes))  # type: ignore[arg-type]


def test_enough_memory_leaves_what_must_come_and_go() -> None:
    load = vit()
    cost = estimate(load, array(activation_kib=256), TECH)
    image, logits = 16 * 16, 10 * 4
    assert cost.dram_bytes == image + logits + load.weight_bytes
    both = estimate(load, array(activation_kib=256, weight_kib=256), TECH)
    assert both.dram_bytes == image + logits
    assert both.latency_s < cost.latency_s
    assert both.area_mm2 > cost.area_mm2


def test_weights_beyond_the_memory_are_fetched_for_each_image() -> None:
    load = vit()
    none = estimate(load, array(), TECH)
    some = estimate(load, array(weight_kib=4), TECH)
    saved = none.dram_bytes - some.dram_bytes
    # a byte may be lost to rounding in each product
    assert saved == pytest.approx(4096, abs=sum(op.weights for op in load.operators))


def test_memories_cost_energy_where_they_are_used() -> None:
    load = vit()
    plain, kept = estimate(load, array(), TECH), estimate(load, array(activation_kib=256), TECH)
    assert kept.dram_j < plain.dram_j
    assert kept.sram_j > plain.sram_j
    assert kept.mac_j == plain.mac_j
    assert kept.peak_onchip_bytes > plain.peak_onchip_bytes


@pytest.mark.parametrize("kib", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("changes", [{}, {"ifmap_kib": 1}, {"dataflow": "os", "filter_kib": 1}, {"mapping": "search"}])
def test_the_plan_is_the_best_that_fits(kib: int, changes: dict[str, object]) -> None:
    """Of all plans, one by one, the array takes that with the fewest bytes."""
    load, one = vit(), array(activation_kib=kib, **changes)
    batch = SystolicArrays.of([one])
    rows = layout(load, fused=False, resident=True)
    moved = _moved(rows, batch, one.dataflow, np.zeros(1))
    ledger = _ledger(moved, rows, batch, Prices.of(batch, TECH), TECH, np.zeros(1), load.weight_bytes)
    totals = [
        math.fsum(ledger.dram_bytes[rows.rows[:, plan], 0])
        for plan in range(rows.peak_bytes.size)
        if rows.peak_bytes[plan] <= 1024 * kib
    ]
    assert estimate(load, one, TECH).dram_bytes == min(totals)
    assert rows.peak_bytes[0] == 0


def test_more_memory_never_adds_traffic() -> None:
    load = vit(4)
    sizes = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    for changes in ({}, {"ifmap_kib": 1, "ofmap_kib": 1}, {"attention": "fused"}, {"dataflow": "is", "filter_kib": 1}):
        traffic = [estimate(load, array(activation_kib=kib, **changes), TECH).dram_bytes for kib in sizes]
        assert traffic == sorted(traffic, reverse=True)
        assert traffic[-1] < traffic[0]


def test_operators_add_up_in_every_mode() -> None:
    load = vit(3, bits=5)
    choices = {
        "dataflow": ("ws", "os", "is"),
        "overlap": ("scalesim", "double_buffered"),
        "mapping": ("folds", "search"),
        "attention": ("unfused", "fused"),
        "activation_kib": (0, 3, 64),
        "weight_kib": (0, 2),
    }
    arrays = [
        array(ifmap_kib=2, filter_kib=2, ofmap_kib=4, **dict(zip(choices, values, strict=True)))
        for values in itertools.product(*choices.values())
    ]
    together = estimate_batch(load, arrays, TECH)
    for position, one in enumerate(arrays):
        cost = estimate(load, one, TECH)
        for name in ("compute_cycles", "vector_cycles", "stall_cycles", "dram_bytes", "cycles"):
            assert sum(getattr(op, name) for op in cost.operators) == getattr(cost, name), (name, one)
        assert math.fsum(op.energy_j for op in cost.operators) == pytest.approx(cost.energy_j, rel=1e-12)
        for item in dataclasses.fields(BatchCost):
            assert getattr(together, item.name)[position] == getattr(cost, item.name), (item.name, one)
