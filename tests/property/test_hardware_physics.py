"""What must hold of any cost, whatever the model and the accelerator."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware import (
    ATTENTIONS,
    DATAFLOWS,
    MAPPINGS,
    OVERLAPS,
    PE_BITS,
    TECHNOLOGIES,
    BatchCost,
    Cost,
    SystolicArray,
    SystolicArrays,
    estimate,
    estimate_batch,
    technology,
)
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]
MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

arrays = st.builds(
    SystolicArray,
    rows=st.integers(1, 64),
    cols=st.integers(1, 64),
    dataflow=st.sampled_from(DATAFLOWS),
    ifmap_kib=st.integers(1, 64),
    filter_kib=st.integers(1, 64),
    ofmap_kib=st.integers(1, 64),
    dram_bytes_per_s=st.floats(1e7, 1e11),
    clock_hz=st.floats(1e7, 2e9),
    pe_bits=st.sampled_from(PE_BITS),
    vector_lanes=st.integers(1, 64),
    overlap=st.sampled_from(OVERLAPS),
    mapping=st.sampled_from(MAPPINGS),
    attention=st.sampled_from(ATTENTIONS),
    activation_kib=st.sampled_from((0, 0, 1, 3, 8, 20, 64)),
    weight_kib=st.sampled_from((0, 0, 1, 16, 500)),
)
names = st.sampled_from(sorted(TECHNOLOGIES))
bits = st.integers(2, 16)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    patch = draw(st.sampled_from((6, 8, 12)))
    heads = draw(st.sampled_from((1, 2, 4)))
    dim = heads * draw(st.integers(4, 24))
    method = draw(st.sampled_from(("none", "prune", "merge")))
    tokens = (48 // patch) ** 2
    blocks = []
    for index in range(draw(st.integers(1, 3))):
        keep = None
        if index == 0 and method != "none":
            keep = draw(st.integers(2 if method == "prune" else tokens - tokens // 2, tokens - 1))
        blocks.append(
            BlockSpec(
                heads=heads,
                mlp_hidden=draw(st.integers(4, 160)),
                keep_tokens=keep,
                weight_bits=draw(bits),
                activation_bits=draw(bits),
            )
        )
    return ModelSpec(task=TASK, patch=patch, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=draw(bits))


def exact(array: SystolicArray) -> SystolicArray:
    """Returns the array without what trades: see `cosearch.hardware.systolic.residency` and `attention`."""
    return dataclasses.replace(array, attention="unfused", activation_kib=0)


def cost_of(model: ModelSpec, array: SystolicArray, name: str = "horowitz_45nm") -> Cost:
    return estimate(workload(model), array, technology(name))


@MANY
@given(models(), st.lists(arrays, min_size=1, max_size=40), names, st.data())
def test_one_is_the_batch_of_one_bit_for_bit(
    model: ModelSpec, batch: list[SystolicArray], name: str, data: st.DataObject
) -> None:
    together = estimate_batch(workload(model), batch, technology(name))
    position = data.draw(st.integers(0, len(batch) - 1))
    alone = cost_of(model, batch[position], name)
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field), field


@MANY
@given(models(), arrays, names)
def test_no_cost_is_negative_or_beats_its_roofline(model: ModelSpec, array: SystolicArray, name: str) -> None:
    load = workload(model)
    cost = cost_of(model, array, name)
    for field in FIELDS:
        assert np.isfinite(getattr(cost, field)), field
        assert getattr(cost, field) >= 0, field
    assert cost.cycles == cost.compute_cycles + cost.vector_cycles + cost.stall_cycles
    assert cost.compute_cycles >= load.macs / (array.rows * array.cols)
    assert cost.latency_s >= cost.dram_bytes / array.dram_bytes_per_s * (1 - 1e-12)
    assert cost.dram_bytes >= load.weight_bytes - 1024 * array.weight_kib
    assert 0 < cost.utilisation <= 1
    scratchpads = array.ifmap_kib + array.filter_kib + array.ofmap_kib
    assert cost.peak_onchip_bytes <= 1024 * (scratchpads + array.activation_kib + array.weight_kib)


@MANY
@given(models(), arrays, st.floats(1.0, 50.0))
def test_more_bandwidth_never_costs_time(model: ModelSpec, array: SystolicArray, factor: float) -> None:
    more = dataclasses.replace(array, dram_bytes_per_s=array.dram_bytes_per_s * factor)
    slow, fast = cost_of(model, array), cost_of(model, more)
    assert fast.latency_s <= slow.latency_s
    assert fast.energy_j <= slow.energy_j
    assert fast.dram_bytes == slow.dram_bytes


@MANY
@given(models(), arrays, names, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_energy_or_time(
    model: ModelSpec, array: SystolicArray, name: str, weight: int, activation: int, edge: int
) -> None:
    blocks = tuple(
        dataclasses.replace(
            block,
            weight_bits=max(2, block.weight_bits - weight),
            activation_bits=max(2, block.activation_bits - activation),
        )
        for block in model.blocks
    )
    lean = dataclasses.replace(model, blocks=blocks, edge_bits=max(2, model.edge_bits - edge))
    array = dataclasses.replace(exact(array), mapping="folds")
    before, after = cost_of(model, array, name), cost_of(lean, array, name)
    assert after.latency_s <= before.latency_s
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes


@MANY
@given(st.data(), arrays, names)
def test_fewer_kept_tokens_never_cost_energy_or_time(data: st.DataObject, array: SystolicArray, name: str) -> None:
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    tokens = model.patches
    least = 2 if model.token_method == "prune" else tokens - tokens // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or tokens))
    first = dataclasses.replace(model.blocks[0], keep_tokens=keep)
    lean = dataclasses.replace(model, blocks=(first, *model.blocks[1:]))
    before, after = cost_of(model, exact(array), name), cost_of(lean, exact(array), name)
    if array.mapping == "folds":  # a searched chunk may end raggedly
        assert after.latency_s <= before.latency_s
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes


@MANY
@given(models(), arrays, names, st.sampled_from((12, 24, 36)))
def test_a_smaller_image_never_costs_energy_or_time(
    model: ModelSpec, array: SystolicArray, name: str, side: int
) -> None:
    blocks = tuple(dataclasses.replace(block, keep_tokens=None) for block in model.blocks)
    whole = dataclasses.replace(model, blocks=blocks, token_method="none", patch=12)
    small = dataclasses.replace(whole, task=dataclasses.replace(TASK, image=(side, side)))
    before, after = cost_of(whole, exact(array), name), cost_of(small, exact(array), name)
    if array.mapping == "folds":
        assert after.latency_s <= before.latency_s
    assert after.energy_j <= before.energy_j
    assert after.dram_bytes <= before.dram_bytes


@MANY
@given(models(), arrays, *[st.integers(0, 200)] * 3, *[st.integers(0, 30)] * 2)
def test_bigger_memories_never_add_traffic(
    model: ModelSpec, array: SystolicArray, ifmap: int, filters: int, ofmap: int, activations: int, weights: int
) -> None:
    roomy = dataclasses.replace(
        array,
        ifmap_kib=array.ifmap_kib + ifmap,
        filter_kib=array.filter_kib + filters,
        ofmap_kib=array.ofmap_kib + ofmap,
        activation_kib=array.activation_kib + (activations if array.activation_kib else 0),
        weight_kib=array.weight_kib + weights,
    )
    before, after = cost_of(model, array), cost_of(model, roomy)
    assert after.dram_bytes <= before.dram_bytes
    if array.attention == "unfused" and array.activation_kib == 0 and array.mapping == "folds":
        assert after.latency_s <= before.latency_s
    assert after.area_mm2 >= before.area_mm2


@MANY
@given(models(), arrays)
def test_overlap_never_costs_time(model: ModelSpec, array: SystolicArray) -> None:
    plain, hidden = (cost_of(model, dataclasses.replace(array, overlap=mode)) for mode in OVERLAPS)
    assert hidden.compute_cycles <= plain.compute_cycles
    assert hidden.latency_s <= plain.latency_s


def test_chunks_do_not_show() -> None:
    block = BlockSpec(heads=2, mlp_hidden=48, weight_bits=6, activation_bits=5)
    load = workload(ModelSpec(task=TASK, patch=8, dim=24, blocks=(block,) * 4, edge_bits=8))
    count, rng = 20_000, np.random.default_rng(7)
    many = SystolicArrays(
        rows=rng.integers(1, 65, count),
        cols=rng.integers(1, 65, count),
        dataflow=rng.integers(0, 3, count),
        ifmap_kib=rng.integers(1, 65, count),
        filter_kib=rng.integers(1, 65, count),
        ofmap_kib=rng.integers(1, 65, count),
        dram_bytes_per_s=rng.uniform(1e7, 1e11, count),
        clock_hz=rng.uniform(1e7, 1e9, count),
        pe_bits=rng.choice(PE_BITS, count),
        vector_lanes=rng.integers(1, 65, count),
        overlap=rng.integers(0, 2, count),
    )
    tech = technology("jouppi_7nm")
    whole = estimate_batch(load, many, tech)
    for start, stop in ((0, 1), (1999, 2048), (19_990, 20_000)):
        part = estimate_batch(load, many.pick(np.arange(start, stop)), tech)
        for field in FIELDS:
            assert np.array_equal(getattr(whole, field)[start:stop], getattr(part, field)), field


@MANY
@given(models(), arrays, names, st.integers(0, 14))
def test_traffic_falls_with_bits_in_a_single_pass_and_in_searched_tiles(
    model: ModelSpec, array: SystolicArray, name: str, fewer: int
) -> None:
    array = dataclasses.replace(array, activation_kib=0)
    blocks = tuple(
        dataclasses.replace(
            block,
            weight_bits=max(2, block.weight_bits - fewer),
            activation_bits=max(2, block.activation_bits - fewer),
        )
        for block in model.blocks
    )
    before, after = cost_of(model, array, name), cost_of(dataclasses.replace(model, blocks=blocks), array, name)
    assert after.dram_bytes <= before.dram_bytes
    if array.attention == "unfused":
        assert after.energy_j <= before.energy_j * (1 + 1e-12)
