"""What must hold of any cost on heterogeneous accelerators, whatever the model.

With several sub-accelerators only what the assignment minimises is monotone: an assignment that gains a cycle may cost
energy or traffic, and the other way round. With one there is nothing to assign, and everything is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.hardware.cost import BatchCost
from cosearch.hardware.heterogeneous import ASSIGNS, DATAFLOWS, HeterogeneousASIC, heterogeneous_ledger
from cosearch.hardware.ledger import Items, breakdown, total
from cosearch.hardware.technology import TECHNOLOGIES, technology
from cosearch.hardware.widths import PE_BITS
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]
MANY = settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(sorted(TECHNOLOGIES))
bits = st.integers(2, 16)
slots = st.sampled_from((1, 2, 3, 4))


@st.composite
def asics(draw: st.DrawFn, least: int = 1, most: int = 4, assign: str | None = None) -> HeterogeneousASIC:
    fields: dict[str, object] = {}
    subs = draw(st.integers(least, most))
    for slot in range(1, 5):
        fields |= {
            f"sub{slot}_dataflow": draw(st.sampled_from(DATAFLOWS)) if slot <= subs else "none",
            f"sub{slot}_pes": draw(st.integers(1, 600)),
            f"sub{slot}_buffer_kib": draw(st.integers(3, 64)),
            f"sub{slot}_bandwidth_share": draw(st.floats(0.01, 1.0)),
        }
    return HeterogeneousASIC(
        **fields,  # type: ignore[arg-type]
        dram_bytes_per_s=draw(st.floats(1e7, 1e11)),
        clock_hz=draw(st.floats(1e7, 2e9)),
        pe_bits=draw(st.sampled_from(PE_BITS)),
        vector_lanes=draw(st.integers(1, 64)),
        assign=assign or draw(st.sampled_from(ASSIGNS)),
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


def costs(load: Workload, items: list[HeterogeneousASIC], name: str = "horowitz_45nm") -> BatchCost:
    return total(heterogeneous_ledger(load, Items(tuple(items)), technology(name)))


def cost_of(model: ModelSpec, item: HeterogeneousASIC, name: str = "horowitz_45nm") -> dict[str, float]:
    cost = costs(workload(model), [item], name)
    values = {field: float(getattr(cost, field)[0]) for field in FIELDS}
    return values | {"dynamic_j": sum(values[field] for field in ("mac_j", "vector_j", "sram_j", "dram_j"))}


def minimised(item: HeterogeneousASIC) -> tuple[str, ...]:
    """Returns what a better situation can never raise."""
    if len(item.subs) == 1:
        return "latency_s", "energy_j", "dram_bytes"
    return ("latency_s",) if item.assign == "latency" else ("dynamic_j",)


def never_more(before: dict[str, float], after: dict[str, float], *fields: str) -> None:
    for field in fields:
        # sums of many terms, each no larger than before, may round upwards
        assert after[field] <= before[field] * (1 + 1e-12), field


@MANY
@given(models(), st.lists(asics(), min_size=1, max_size=20), st.data())
def test_one_is_the_batch_of_one_bit_for_bit(
    model: ModelSpec, batch: list[HeterogeneousASIC], data: st.DataObject
) -> None:
    together = costs(workload(model), batch)
    position = data.draw(st.integers(0, len(batch) - 1))
    alone = costs(workload(model), [batch[position]])
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field)[0], field


@MANY
@given(models(), asics(), names)
def test_no_cost_is_negative_or_beats_its_roofline(model: ModelSpec, item: HeterogeneousASIC, name: str) -> None:
    load = workload(model)
    ledger = heterogeneous_ledger(load, Items((item,)), technology(name))
    for field in dataclasses.fields(ledger):
        if field.name != "members":
            numbers = getattr(ledger, field.name)
            assert np.all(np.isfinite(numbers)), field.name
            assert np.all(numbers >= 0), field.name
    cost, whole = cost_of(model, item, name), breakdown(load, ledger, technology(name))
    assert cost["cycles"] == pytest.approx(sum(op.cycles for op in whole.operators), rel=1e-12)
    assert cost["energy_j"] == pytest.approx(sum(op.energy_j for op in whole.operators), rel=1e-9)
    assert cost["latency_s"] >= cost["dram_bytes"] / item.dram_bytes_per_s * (1 - 1e-12)
    assert cost["compute_cycles"] + cost["stall_cycles"] >= load.macs / sum(sub.pes for sub in item.subs)
    assert cost["dram_bytes"] >= load.weight_bytes
    assert 0 < cost["utilisation"] <= 1
    assert cost["peak_onchip_bytes"] <= 1024 * sum(sub.buffer_kib for sub in item.subs)


@MANY
@given(models(), asics(least=2), slots)
def test_all_together_are_never_slower_than_any_with_its_own_bandwidth(
    model: ModelSpec, item: HeterogeneousASIC, slot: int
) -> None:
    number = (slot - 1) % len(item.subs)
    sub, shares = item.subs[number], sum(sub.bandwidth_share for sub in item.subs)
    alone = HeterogeneousASIC(
        sub1_dataflow=sub.dataflow,  # type: ignore[arg-type]
        sub1_pes=sub.pes,
        sub1_buffer_kib=sub.buffer_kib,
        sub2_dataflow="none",
        # the bandwidth is divided by the clock first, so one that is a little too low would round up a cycle
        dram_bytes_per_s=item.dram_bytes_per_s * (sub.bandwidth_share / shares) * (1 - 1e-12),
        clock_hz=item.clock_hz,
        pe_bits=item.pe_bits,
    )
    load = workload(model)
    fast = heterogeneous_ledger(
        load, Items((dataclasses.replace(item, assign="latency"),)), technology("horowitz_45nm")
    )
    single = heterogeneous_ledger(load, Items((alone,)), technology("horowitz_45nm"))
    frugal = heterogeneous_ledger(
        load, Items((dataclasses.replace(item, assign="energy"),)), technology("horowitz_45nm")
    )
    work = fast.vector_cycles[:, 0] == 0
    for before, after in ((single, fast), (frugal, fast)):
        cycles = before.compute_cycles + before.stall_cycles, after.compute_cycles + after.stall_cycles
        assert np.all(cycles[1][work] <= cycles[0][work])
    for before in (single, fast):
        joules = [costs.mac_j + costs.sram_j + costs.dram_j for costs in (before, frugal)]
        assert np.all(joules[1][work] <= joules[0][work] * (1 + 1e-12))


@MANY
@given(models(), asics(assign="latency"), st.floats(1.0, 50.0))
def test_more_bandwidth_never_costs_time(model: ModelSpec, item: HeterogeneousASIC, factor: float) -> None:
    more = dataclasses.replace(item, dram_bytes_per_s=item.dram_bytes_per_s * factor)
    slow, fast = cost_of(model, item), cost_of(model, more)
    never_more(slow, fast, "latency_s")
    if len(item.subs) == 1:
        never_more(slow, fast, "energy_j", "stall_cycles")
        assert fast["dram_bytes"] == slow["dram_bytes"]


@MANY
@given(models(), asics(assign="energy"), st.floats(1.0, 50.0))
def test_bandwidth_does_not_move_the_most_frugal_assignment(
    model: ModelSpec, item: HeterogeneousASIC, factor: float
) -> None:
    more = dataclasses.replace(item, dram_bytes_per_s=item.dram_bytes_per_s * factor)
    slow, fast = cost_of(model, item), cost_of(model, more)
    assert fast["dynamic_j"] == slow["dynamic_j"]
    never_more(slow, fast, "latency_s")


@MANY
@given(models(), asics(), names, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_what_is_minimised(
    model: ModelSpec, item: HeterogeneousASIC, name: str, weight: int, activation: int, edge: int
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
    never_more(cost_of(model, item, name), cost_of(lean, item, name), *minimised(item))


@MANY
@given(st.data(), asics(), names)
def test_fewer_kept_tokens_never_cost_what_is_minimised(
    data: st.DataObject, item: HeterogeneousASIC, name: str
) -> None:
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    tokens = model.patches
    least = 2 if model.token_method == "prune" else tokens - tokens // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or tokens))
    first = dataclasses.replace(model.blocks[0], keep_tokens=keep)
    lean = dataclasses.replace(model, blocks=(first, *model.blocks[1:]))
    never_more(cost_of(model, item, name), cost_of(lean, item, name), *minimised(item))


@MANY
@given(models(), asics(assign="latency"), slots, st.integers(0, 200))
def test_a_bigger_buffer_never_costs_time(model: ModelSpec, item: HeterogeneousASIC, slot: int, kib: int) -> None:
    name = f"sub{slot}_buffer_kib"
    roomy = dataclasses.replace(item, **{name: getattr(item, name) + kib})
    never_more(cost_of(model, item), cost_of(model, roomy), "latency_s")


@MANY
@given(models(), asics(most=1), st.integers(0, 200))
def test_a_bigger_buffer_never_adds_traffic(model: ModelSpec, item: HeterogeneousASIC, kib: int) -> None:
    roomy = dataclasses.replace(item, sub1_buffer_kib=item.sub1_buffer_kib + kib)
    before, after = cost_of(model, item), cost_of(model, roomy)
    never_more(before, after, "dram_bytes", "stall_cycles")
    assert after["area_mm2"] >= before["area_mm2"]
