"""What must hold of costs over all kinds of processing element."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware import (
    ATTENTIONS,
    DATAFLOWS,
    MAPPINGS,
    OVERLAPS,
    TECHNOLOGIES,
    BatchCost,
    SystolicArray,
    estimate,
    estimate_batch,
    technology,
)
from cosearch.hardware.arithmetic import PE_WIDTHS
from cosearch.hardware.systolic import SPARSITIES
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, with_formats, workload

MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
INTEGER_KINDS = ("bit_parallel", "stripes", "loom", "bismo", "bit_fusion")
NAMES = st.sampled_from(sorted(TECHNOLOGIES))
PAIRS = (
    # weights, activations, kinds, narrowest and widest PE that multiply them
    ("fp8_e4m3", "fp8_e5m2", ("float", "l_mul"), 8, 32),
    ("fp4_e2m1", "fp16", ("float", "l_mul"), 16, 32),
    ("mxfp4", "mxfp6_e2m3", ("mx_float",), 6, 8),
    ("mxint8", "mxint8", ("mx_integer",), 8, 8),
    ("ternary_packed", "ternary", ("ternary", *INTEGER_KINDS), 1, 16),
    ("int4", "int8", INTEGER_KINDS, 1, 16),
)
"""Formats that one kind multiplies in all products, attention too."""


@st.composite
def arrays(draw: st.DrawFn, kind: str | None = None, narrowest: int = 1, widest: int = 16) -> SystolicArray:
    kind = kind or draw(st.sampled_from(INTEGER_KINDS))
    widths = [width for width in PE_WIDTHS[kind] if narrowest <= width <= widest]
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
        pe_bits=draw(st.sampled_from(widths)),
        overlap=draw(st.sampled_from(OVERLAPS)),
        mapping=draw(st.sampled_from(MAPPINGS)),
        attention=draw(st.sampled_from(ATTENTIONS)),
        activation_kib=draw(st.sampled_from((0, 0, 4, 20))),
        sparsity=draw(st.sampled_from(SPARSITIES)),
    )


@st.composite
def written(draw: st.DrawFn) -> tuple[Workload, list[SystolicArray]]:
    weights, activations, kinds, narrowest, widest = draw(st.sampled_from(PAIRS))
    sparsity = draw(st.sampled_from(((1, 1), (2, 4), (1, 8))))
    load = with_formats(vit(8, 8), weights=weights, activations=activations, sparsity=sparsity)
    one = st.sampled_from(kinds).flatmap(lambda kind: arrays(kind, narrowest, widest))
    return load, draw(st.lists(one, min_size=1, max_size=8))


def vit(weight_bits: int, activation_bits: int) -> Workload:
    block = BlockSpec(heads=2, mlp_hidden=48, weight_bits=weight_bits, activation_bits=activation_bits)
    task = TaskShape(image=(32, 32), channels=3, classes=10)
    return workload(ModelSpec(task=task, patch=8, dim=24, blocks=(block,), edge_bits=8))


def exact(array: SystolicArray) -> SystolicArray:
    """Returns the array without what trades: see `cosearch.hardware.systolic.residency` and `attention`."""
    return dataclasses.replace(array, attention="unfused", activation_kib=0)


@MANY
@given(arrays(), st.integers(2, 16), st.integers(2, 16), st.integers(0, 14), st.integers(0, 14), NAMES)
def test_fewer_bits_never_cost_energy_or_time(
    array: SystolicArray, weight: int, activation: int, less_weight: int, less_activation: int, name: str
) -> None:
    lean = vit(max(2, weight - less_weight), max(2, activation - less_activation))
    before, after = (estimate(load, exact(array), technology(name)) for load in (vit(weight, activation), lean))
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes
    if array.mapping == "folds":  # a searched chunk may end raggedly
        assert after.latency_s <= before.latency_s


@MANY
@given(arrays(), st.sampled_from((2, 3, 4, 8, 16)), NAMES)
def test_sparser_weights_never_cost_energy_or_time(array: SystolicArray, bits: int, name: str) -> None:
    dense = vit(bits, bits)
    loads = [dense] + [with_formats(dense, sparsity=(kept, 8)) for kept in (4, 2, 1)]
    costs = [estimate(load, exact(array), technology(name)) for load in loads]
    for before, after in itertools.pairwise(costs):
        assert after.energy_j <= before.energy_j * (1 + 1e-12)
        assert after.dram_bytes <= before.dram_bytes
        if array.mapping == "folds":
            assert after.latency_s <= before.latency_s


@MANY
@given(written(), NAMES, st.data())
def test_one_is_the_batch_of_one_bit_for_bit(
    pair: tuple[Workload, list[SystolicArray]], name: str, data: st.DataObject
) -> None:
    load, batch = pair
    together = estimate_batch(load, batch, technology(name))
    position = data.draw(st.integers(0, len(batch) - 1))
    alone = estimate(load, batch[position], technology(name))
    for item in dataclasses.fields(BatchCost):
        assert getattr(together, item.name)[position] == getattr(alone, item.name), item.name


@MANY
@given(written(), NAMES)
def test_no_cost_is_negative_or_beats_its_roofline(pair: tuple[Workload, list[SystolicArray]], name: str) -> None:
    load, (array, *_) = pair
    cost = estimate(load, array, technology(name))
    for item in dataclasses.fields(BatchCost):
        assert np.isfinite(getattr(cost, item.name)), item.name
        assert getattr(cost, item.name) >= 0, item.name
    assert 0 < cost.utilisation <= 1
    assert cost.latency_s >= cost.dram_bytes / array.dram_bytes_per_s * (1 - 1e-12)
    assert cost.dram_bytes >= load.weight_bytes
    assert cost.mac_j > 0
