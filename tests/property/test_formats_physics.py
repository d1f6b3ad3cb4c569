"""What must hold of costs over all kinds of processing element."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware import ATTENTIONS, DATAFLOWS, MAPPINGS, OVERLAPS, SystolicArray, estimate, technology
from cosearch.hardware.arithmetic import PE_WIDTHS
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, with_formats, workload

MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
INTEGER_KINDS = ("bit_parallel", "stripes", "loom", "bismo", "bit_fusion")
TECH = technology("horowitz_45nm")


@st.composite
def arrays(draw: st.DrawFn) -> SystolicArray:
    kind = draw(st.sampled_from(INTEGER_KINDS))
    return SystolicArray(
        rows=draw(st.integers(1, 32)),
        cols=draw(st.integers(1, 32)),
        dataflow=draw(st.sampled_from(DATAFLOWS)),
        ifmap_kib=draw(st.integers(1, 32)),
        filter_kib=draw(st.integers(1, 32)),
        ofmap_kib=draw(st.integers(1, 32)),
        dram_bytes_per_s=draw(st.floats(1e8, 1e11)),
        clock_hz=draw(st.floats(1e7, 2e9)),
        pe_kind=kind,
        pe_bits=draw(st.sampled_from(PE_WIDTHS[kind])),
        overlap=draw(st.sampled_from(OVERLAPS)),
        mapping=draw(st.sampled_from(MAPPINGS)),
        attention=draw(st.sampled_from(ATTENTIONS)),
        sparsity=draw(st.sampled_from(("dense", "2:4", "1:4"))),
    )


def vit(bits: int) -> Workload:
    block = BlockSpec(heads=2, mlp_hidden=48, weight_bits=bits, activation_bits=bits)
    task = TaskShape(image=(32, 32), channels=3, classes=10)
    return workload(ModelSpec(task=task, patch=8, dim=24, blocks=(block,), edge_bits=8))


@MANY
@given(arrays(), st.integers(2, 16), st.integers(0, 14))
def test_fewer_bits_never_cost_energy(array: SystolicArray, bits: int, fewer: int) -> None:
    one = dataclasses.replace(array, attention="unfused")
    before, after = estimate(vit(bits), one, TECH), estimate(vit(max(2, bits - fewer)), one, TECH)
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes


@MANY
@given(arrays(), st.sampled_from((2, 4, 8)))
def test_sparser_weights_never_cost_time_or_traffic(array: SystolicArray, bits: int) -> None:
    costs = [estimate(with_formats(vit(bits), sparsity=(kept, 8)), array, TECH) for kept in (8, 4, 2, 1)]
    for before, after in itertools.pairwise(costs[1:]):  # a sparse format also stores places
        assert after.compute_cycles <= before.compute_cycles
        assert after.dram_bytes <= before.dram_bytes
    assert all(cost.compute_cycles <= costs[0].compute_cycles for cost in costs)


@MANY
@given(arrays(), st.integers(2, 16))
def test_costs_are_finite_and_the_array_is_not_overfull(array: SystolicArray, bits: int) -> None:
    cost = estimate(vit(bits), array, TECH)
    assert all(np.isfinite(value) and value >= 0 for value in (cost.latency_s, cost.energy_j, cost.area_mm2))
    assert 0 < cost.utilisation <= 1
