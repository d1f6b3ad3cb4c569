"""What must hold of any cost on the fused-attention and the ViTCoD template, whatever the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware.cost import BatchCost
from cosearch.hardware.fusemax import ATTENTIONS, FuseMax, fusemax_ledger
from cosearch.hardware.ledger import Items, breakdown, total
from cosearch.hardware.technology import TECHNOLOGIES, technology
from cosearch.hardware.vitcod import ALLOCATIONS, ENCODERS, ENGINES, ViTCoD, vitcod_ledger
from cosearch.hardware.widths import PE_BITS
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Template = FuseMax | ViTCoD

fused = st.builds(
    FuseMax,
    rows=st.integers(1, 64),
    cols=st.integers(1, 64),
    lanes=st.integers(1, 64),
    buffer_kib=st.integers(1, 64),
    dram_bytes_per_s=st.floats(1e7, 1e11),
    clock_hz=st.floats(1e7, 2e9),
    pe_bits=st.sampled_from(PE_BITS),
    attention=st.sampled_from(ATTENTIONS),
)
sparse = st.builds(
    ViTCoD,
    mac_lines=st.integers(2, 64),
    macs_per_line=st.integers(1, 16),
    operand_kib=st.integers(1, 64),
    index_kib=st.integers(1, 16),
    output_kib=st.integers(1, 64),
    dram_bytes_per_s=st.floats(1e7, 1e11),
    clock_hz=st.floats(1e7, 2e9),
    pe_bits=st.sampled_from(PE_BITS),
    vector_lanes=st.integers(1, 64),
    engines=st.sampled_from(ENGINES),
    allocation=st.sampled_from(ALLOCATIONS),
    encoder=st.sampled_from(ENCODERS),
    attention_density=st.sampled_from((1.0, 0.9, 0.5, 0.1)),
    dense_share=st.floats(0.0, 1.0),
    compressed_share=st.floats(0.1, 1.0),
)
templates = st.one_of(fused, sparse)
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


def costs(load: Workload, items: list[Template], name: str = "horowitz_45nm") -> BatchCost:
    """Costs of accelerators of one template."""
    if isinstance(items[0], FuseMax):
        return total(fusemax_ledger(load, Items(tuple(items)), technology(name)))
    return total(vitcod_ledger(load, Items(tuple(items)), technology(name)))


def values(cost: BatchCost) -> dict[str, float]:
    return {name: float(getattr(cost, name)[0]) for name in FIELDS}


def cost_of(model: ModelSpec, item: Template, name: str = "horowitz_45nm") -> dict[str, float]:
    return values(costs(workload(model), [item], name))


def never_more(before: dict[str, float], after: dict[str, float], *fields: str) -> None:
    for field in fields:
        # sums of many terms, each no larger than before, may round upwards
        assert after[field] <= before[field] * (1 + 1e-12), field


@MANY
@given(
    models(), st.one_of(st.lists(fused, min_size=1, max_size=30), st.lists(sparse, min_size=1, max_size=30)), st.data()
)
def test_one_is_the_batch_of_one_bit_for_bit(model: ModelSpec, batch: list[Template], data: st.DataObject) -> None:
    together = costs(workload(model), batch)
    position = data.draw(st.integers(0, len(batch) - 1))
    alone = costs(workload(model), [batch[position]])
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field)[0], field


@MANY
@given(models(), templates, names)
def test_no_cost_is_negative_or_beats_its_roofline(model: ModelSpec, item: Template, name: str) -> None:
    load = workload(model)
    ledger = (
        fusemax_ledger(load, Items((item,)), technology(name))
        if isinstance(item, FuseMax)
        else vitcod_ledger(load, Items((item,)), technology(name))
    )
    for field in dataclasses.fields(ledger):
        if field.name != "members":
            numbers = getattr(ledger, field.name)
            assert np.all(np.isfinite(numbers)), field.name
            assert np.all(numbers >= 0), field.name
    cost = values(total(ledger))
    whole = breakdown(load, ledger, technology(name))
    assert cost["cycles"] == pytest.approx(sum(op.cycles for op in whole.operators), rel=1e-12)
    assert cost["energy_j"] == pytest.approx(sum(op.energy_j for op in whole.operators), rel=1e-9)
    assert cost["dram_bytes"] == sum(op.dram_bytes for op in whole.operators)
    assert cost["latency_s"] >= cost["dram_bytes"] / item.dram_bytes_per_s * (1 - 1e-12)
    assert cost["dram_bytes"] >= load.weight_bytes
    assert 0 < cost["utilisation"] <= 1
    if isinstance(item, FuseMax):
        assert cost["compute_cycles"] >= load.macs / (item.rows * item.cols)
        assert cost["peak_onchip_bytes"] <= 1024 * item.buffer_kib
    else:
        if item.engines == "none" or item.attention_density == 1.0:
            assert cost["compute_cycles"] >= load.macs / (item.mac_lines * item.macs_per_line)
        assert cost["peak_onchip_bytes"] <= 1024 * (item.operand_kib + item.output_kib)


@MANY
@given(models(), templates, st.floats(1.0, 50.0))
def test_more_bandwidth_never_costs_time(model: ModelSpec, item: Template, factor: float) -> None:
    more = dataclasses.replace(item, dram_bytes_per_s=item.dram_bytes_per_s * factor)
    slow, fast = cost_of(model, item), cost_of(model, more)
    never_more(slow, fast, "latency_s", "energy_j", "stall_cycles")
    assert fast["dram_bytes"] == slow["dram_bytes"]


@MANY
@given(models(), templates, names, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_energy_or_time(
    model: ModelSpec, item: Template, name: str, weight: int, activation: int, edge: int
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
    never_more(cost_of(model, item, name), cost_of(lean, item, name), "latency_s", "energy_j", "dram_bytes")


@MANY
@given(st.data(), templates, names)
def test_fewer_kept_tokens_never_cost_energy_or_time(data: st.DataObject, item: Template, name: str) -> None:
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    tokens = model.patches
    least = 2 if model.token_method == "prune" else tokens - tokens // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or tokens))
    first = dataclasses.replace(model.blocks[0], keep_tokens=keep)
    lean = dataclasses.replace(model, blocks=(first, *model.blocks[1:]))
    never_more(cost_of(model, item, name), cost_of(lean, item, name), "latency_s", "energy_j", "dram_bytes")


@MANY
@given(models(), templates, names, st.sampled_from((12, 24, 36)))
def test_a_smaller_image_never_costs_energy_or_time(model: ModelSpec, item: Template, name: str, side: int) -> None:
    blocks = tuple(dataclasses.replace(block, keep_tokens=None) for block in model.blocks)
    whole = dataclasses.replace(model, blocks=blocks, token_method="none", patch=12)
    small = dataclasses.replace(whole, task=dataclasses.replace(TASK, image=(side, side)))
    never_more(cost_of(whole, item, name), cost_of(small, item, name), "latency_s", "energy_j", "dram_bytes")


@MANY
@given(models(), templates, st.integers(0, 200), st.integers(0, 200))
def test_bigger_buffers_never_add_traffic_or_time(model: ModelSpec, item: Template, one: int, two: int) -> None:
    if isinstance(item, FuseMax):
        roomy: Template = dataclasses.replace(item, buffer_kib=item.buffer_kib + one)
    else:
        roomy = dataclasses.replace(item, operand_kib=item.operand_kib + one, output_kib=item.output_kib + two)
    before, after = cost_of(model, item), cost_of(model, roomy)
    never_more(before, after, "latency_s", "dram_bytes")
    assert after["area_mm2"] >= before["area_mm2"]


@MANY
@given(models(), fused)
def test_interleaving_tiles_never_costs_time_and_moves_the_same(model: ModelSpec, item: FuseMax) -> None:
    serial, interleaved = (
        cost_of(model, dataclasses.replace(item, attention=mode)) for mode in ("architecture", "fusemax")
    )
    never_more(serial, interleaved, "latency_s")
    assert interleaved["dram_bytes"] == serial["dram_bytes"]


@MANY
@given(models(), fused)
def test_arrays_beside_each_other_never_take_longer_than_after_each_other(model: ModelSpec, item: FuseMax) -> None:
    one_lane = dataclasses.replace(item, lanes=1)  # with more, lanes idle at the end of each tile
    flat, unfused = (cost_of(model, dataclasses.replace(one_lane, attention=mode)) for mode in ("flat", "unfused"))
    assert flat["compute_cycles"] + flat["vector_cycles"] <= unfused["compute_cycles"] + unfused["vector_cycles"]


@MANY
@given(models(), sparse, st.floats(0.001, 0.99), st.floats(0.001, 0.99))
def test_fewer_scores_never_cost_energy_or_time(model: ModelSpec, item: ViTCoD, one: float, two: float) -> None:
    low, high = (cost_of(model, dataclasses.replace(item, attention_density=density)) for density in sorted((one, two)))
    never_more(high, low, "latency_s", "energy_j", "dram_bytes")


@MANY
@given(models(), sparse)
def test_sharing_lines_by_work_never_costs_time(model: ModelSpec, item: ViTCoD) -> None:
    even, dynamic = (cost_of(model, dataclasses.replace(item, allocation=name)) for name in ("even", "dynamic"))
    never_more(even, dynamic, "latency_s", "energy_j")


@MANY
@given(models(), sparse)
def test_the_encoder_moves_no_more_than_its_own_weights(model: ModelSpec, item: ViTCoD) -> None:
    off, on = (cost_of(model, dataclasses.replace(item, encoder=name)) for name in ENCODERS)
    heads = max(block.heads for block in model.blocks)
    weights = 2 * 2 * heads * heads + 4  # encoder and decoder, for queries and for keys, and rounding of each row
    assert on["dram_bytes"] <= off["dram_bytes"] + weights * len(model.blocks)
    assert on["compute_cycles"] >= off["compute_cycles"]


@MANY
@given(models(), sparse)
def test_a_density_of_one_earns_nothing(model: ModelSpec, item: ViTCoD) -> None:
    dense = dataclasses.replace(item, attention_density=1.0)
    none = cost_of(model, dataclasses.replace(dense, engines="none"))
    for engines in ("sparser", "both"):
        assert cost_of(model, dataclasses.replace(dense, engines=engines)) == none
