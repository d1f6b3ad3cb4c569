"""What must hold of any cost on processing-in-memory accelerators, whatever the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware.cost import BatchCost
from cosearch.hardware.ledger import Items, breakdown, total
from cosearch.hardware.pim import ATTENTIONS, PIM, adc_bits_needed, pim_ledger
from cosearch.hardware.technology import TECHNOLOGIES, technology
from cosearch.hardware.widths import PE_BITS
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]
MANY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(sorted(TECHNOLOGIES))
bits = st.integers(2, 16)


@st.composite
def pims(draw: st.DrawFn) -> PIM:
    size, cell, dac = draw(st.integers(8, 256)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    need = max(3, adc_bits_needed(size, cell, dac))
    return PIM(
        crossbar_size=size,
        cell_bits=cell,
        dac_bits=dac,
        adc_bits=draw(st.integers(need, 12)),
        columns_per_adc=draw(st.integers(1, size)),
        crossbars_per_tile=draw(st.integers(1, 16)),
        tiles=draw(st.integers(1, 64)),
        tile_buffer_kib=draw(st.integers(1, 16)),
        attention=draw(st.sampled_from(ATTENTIONS)),
        digital_pes=draw(st.integers(1, 600)),
        pe_bits=draw(st.sampled_from(PE_BITS)),
        vector_lanes=draw(st.integers(1, 64)),
        dram_bytes_per_s=draw(st.floats(1e7, 1e11)),
        clock_hz=draw(st.floats(1e7, 2e9)),
    )


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
        block = BlockSpec(
            heads=heads,
            mlp_hidden=draw(st.integers(4, 160)),
            keep_tokens=keep,
            weight_bits=draw(bits),
            activation_bits=draw(bits),
        )
        blocks.append(block)
    return ModelSpec(task=TASK, patch=patch, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=draw(bits))


def costs(load: Workload, items: list[PIM], name: str = "horowitz_45nm") -> BatchCost:
    return total(pim_ledger(load, Items(tuple(items)), technology(name)))


def cost_of(model: ModelSpec, item: PIM, name: str = "horowitz_45nm") -> dict[str, float]:
    cost = costs(workload(model), [item], name)
    return {field: float(getattr(cost, field)[0]) for field in FIELDS}


def never_more(before: dict[str, float], after: dict[str, float], *fields: str) -> None:
    for field in fields:
        # sums of many terms, each no larger than before, may round upwards
        assert after[field] <= before[field] * (1 + 1e-12), field


@MANY
@given(models(), st.lists(pims(), min_size=1, max_size=20), st.data())
def test_one_is_the_batch_of_one_bit_for_bit(model: ModelSpec, batch: list[PIM], data: st.DataObject) -> None:
    together = costs(workload(model), batch)
    position = data.draw(st.integers(0, len(batch) - 1))
    alone = costs(workload(model), [batch[position]])
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field)[0], field


@MANY
@given(models(), pims(), names)
def test_no_cost_is_negative_or_beats_its_roofline(model: ModelSpec, item: PIM, name: str) -> None:
    load = workload(model)
    ledger = pim_ledger(load, Items((item,)), technology(name))
    for field in dataclasses.fields(ledger):
        if field.name != "members":
            numbers = getattr(ledger, field.name)
            assert np.all(np.isfinite(numbers)), field.name
            assert np.all(numbers >= 0), field.name
    cost, whole = cost_of(model, item, name), breakdown(load, ledger, technology(name))
    assert cost["cycles"] == pytest.approx(sum(op.cycles for op in whole.operators), rel=1e-12)
    assert cost["energy_j"] == pytest.approx(sum(op.energy_j for op in whole.operators), rel=1e-9)
    assert cost["latency_s"] >= cost["dram_bytes"] / item.dram_bytes_per_s * (1 - 1e-12)
    assert 0 < cost["utilisation"] <= 1
    assert cost["peak_onchip_bytes"] <= 1024 * item.tiles * item.tile_buffer_kib
    cells = item.tiles * item.crossbars_per_tile * item.crossbar_size**2
    least = sum(
        op.macs * -(-op.a_bits // item.dac_bits) * -(-op.b_bits // item.cell_bits)
        for op in load.operators
        if op.weights
    )
    assert cost["latency_s"] >= least / cells * 100e-9 * (1 - 1e-12)


@MANY
@given(models(), pims(), st.floats(1.0, 50.0))
def test_more_bandwidth_never_costs_time(model: ModelSpec, item: PIM, factor: float) -> None:
    more = dataclasses.replace(item, dram_bytes_per_s=item.dram_bytes_per_s * factor)
    slow, fast = cost_of(model, item), cost_of(model, more)
    never_more(slow, fast, "latency_s", "energy_j", "stall_cycles")
    assert fast["dram_bytes"] == slow["dram_bytes"]


@MANY
@given(models(), pims(), names, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_energy_or_time(
    model: ModelSpec, item: PIM, name: str, weight: int, activation: int, edge: int
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
@given(st.data(), pims(), names)
def test_fewer_kept_tokens_never_cost_energy_or_time(data: st.DataObject, item: PIM, name: str) -> None:
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    tokens = model.patches
    least = 2 if model.token_method == "prune" else tokens - tokens // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or tokens))
    first = dataclasses.replace(model.blocks[0], keep_tokens=keep)
    lean = dataclasses.replace(model, blocks=(first, *model.blocks[1:]))
    never_more(cost_of(model, item, name), cost_of(lean, item, name), "latency_s", "energy_j", "dram_bytes")


@MANY
@given(models(), pims(), st.integers(0, 200), st.integers(0, 64))
def test_more_buffer_or_more_tiles_never_add_traffic_or_time(model: ModelSpec, item: PIM, kib: int, tiles: int) -> None:
    roomy = dataclasses.replace(item, tile_buffer_kib=item.tile_buffer_kib + kib, tiles=item.tiles + tiles)
    before, after = cost_of(model, item), cost_of(model, roomy)
    never_more(before, after, "latency_s", "dram_bytes")
    assert after["area_mm2"] >= before["area_mm2"]
