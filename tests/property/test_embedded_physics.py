"""What must hold of any cost on an FPGA or a microcontroller, whatever the model."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cosearch.hardware import microcontroller as mcu
from cosearch.hardware.cost import BatchCost
from cosearch.hardware.fpga import DEVICES, MULTIPLIERS, STYLES, Fpga, Fpgas, fits, fpga_ledger, fpga_resources
from cosearch.hardware.ledger import Items, total
from cosearch.hardware.microcontroller import BOARDS, SCHEDULES, Microcontroller, microcontroller_ledger
from cosearch.hardware.technology import TECHNOLOGIES, technology
from cosearch.hardware.widths import PE_BITS
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]
MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TECH = technology("horowitz_45nm")

designs = st.builds(
    Fpga,
    device=st.sampled_from(("zcu102", "u250", "u280", "vck5000")),
    style=st.sampled_from(STYLES),
    clock_hz=st.floats(1e7, 6e8),
    tm=st.integers(1, 12),
    tk=st.integers(1, 24),
    tn=st.integers(1, 12),
    pe_bits=st.sampled_from(PE_BITS),
    activation_kib=st.integers(1, 256),
    weight_kib=st.integers(1, 256),
    reuse=st.integers(16, 4096),
    multiplier=st.sampled_from(MULTIPLIERS),
    vector_lanes=st.integers(1, 64),
    axi_bits=st.sampled_from((8, 64, 256, 1024)),
)
chips = st.builds(
    Microcontroller,
    device=st.sampled_from(sorted(BOARDS)),
    clock_hz=st.floats(1e6, 160e6),
    schedule=st.sampled_from(SCHEDULES),
)
names = st.sampled_from(sorted(TECHNOLOGIES))
bits = st.integers(2, 16)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    patch = draw(st.sampled_from((6, 8, 12)))
    heads = draw(st.sampled_from((1, 2, 4)))
    dim = heads * draw(st.integers(4, 16))
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
                mlp_hidden=draw(st.integers(4, 96)),
                keep_tokens=keep,
                weight_bits=draw(bits),
                activation_bits=draw(bits),
            )
        )
    return ModelSpec(task=TASK, patch=patch, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=draw(bits))


def fewer_bits(model: ModelSpec, weight: int, activation: int, edge: int) -> ModelSpec:
    blocks = tuple(
        dataclasses.replace(
            block,
            weight_bits=max(2, block.weight_bits - weight),
            activation_bits=max(2, block.activation_bits - activation),
        )
        for block in model.blocks
    )
    return dataclasses.replace(model, blocks=blocks, edge_bits=max(2, model.edge_bits - edge))


def fewer_tokens(data: st.DataObject) -> tuple[ModelSpec, ModelSpec]:
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    least = 2 if model.token_method == "prune" else model.patches - model.patches // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or model.patches))
    first = dataclasses.replace(model.blocks[0], keep_tokens=keep)
    return model, dataclasses.replace(model, blocks=(first, *model.blocks[1:]))


def fpga_cost(model: ModelSpec, fpga: Fpga, name: str = "horowitz_45nm") -> BatchCost:
    load = workload(model)
    assume(not fits(load, fpga))
    return total(fpga_ledger(load, Fpgas((fpga,)), technology(name)))


def chip_cost(model: ModelSpec, chip: Microcontroller) -> BatchCost:
    load = workload(model)
    assume(not mcu.fits(load, chip))
    return total(microcontroller_ledger(load, Items((chip,)), TECH))


@MANY
@given(models(), st.lists(designs, min_size=1, max_size=20), st.sampled_from(STYLES), names, st.data())
def test_one_fpga_is_the_batch_of_one_bit_for_bit(
    model: ModelSpec, batch: list[Fpga], style: str, name: str, data: st.DataObject
) -> None:
    load = workload(model)
    same = [dataclasses.replace(item, style=style) for item in batch]
    kept = [item for item in same if not fits(load, item)]
    assume(kept)
    together = total(fpga_ledger(load, Fpgas.of(kept), technology(name)))
    position = data.draw(st.integers(0, len(kept) - 1))
    alone = fpga_cost(model, kept[position], name)
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field)[0], field


@MANY
@given(models(), designs, names)
def test_no_fpga_cost_is_negative_or_beats_its_roofline(model: ModelSpec, fpga: Fpga, name: str) -> None:
    load, cost = workload(model), fpga_cost(model, fpga, name)
    for field in FIELDS:
        assert np.isfinite(getattr(cost, field)[0]), field
        assert getattr(cost, field)[0] >= 0, field
    ledger = fpga_ledger(load, Fpgas((fpga,)), technology(name))
    assert cost.cycles[0] >= load.macs / ledger.multipliers[0]
    device = DEVICES[fpga.device]
    products = ledger.multipliers[0] if fpga.style == "temporal" else 0
    assert products <= 4 * device.dsp or fpga.multiplier != "dsp"
    ports = min(device.dram_bytes_per_s, fpga.axi_bits / 8 * fpga.clock_hz)
    assert cost.latency_s[0] >= cost.dram_bytes[0] / ports * (1 - 1e-12)
    assert 0 < cost.utilisation[0] <= 1
    if fpga.style == "temporal":
        assert cost.dram_bytes[0] >= load.weight_bytes
        assert cost.peak_onchip_bytes[0] <= 1024 * (fpga.activation_kib + fpga.weight_kib)
    need = fpga_resources(load, fpga)
    assert all(0 <= share <= 1 for share in need.shares.values())
    if need.interval_cycles is not None:
        assert need.interval_cycles <= cost.cycles[0]


@MANY
@given(models(), designs, st.integers(1, 8))
def test_wider_ports_never_cost_time(model: ModelSpec, fpga: Fpga, factor: int) -> None:
    wide = dataclasses.replace(fpga, axi_bits=fpga.axi_bits * factor)
    slow, fast = fpga_cost(model, fpga), fpga_cost(model, wide)
    assert fast.latency_s[0] <= slow.latency_s[0]
    assert fast.energy_j[0] <= slow.energy_j[0]
    assert fast.dram_bytes[0] == slow.dram_bytes[0]


@MANY
@given(models(), designs, names, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_an_fpga_anything(
    model: ModelSpec, fpga: Fpga, name: str, weight: int, activation: int, edge: int
) -> None:
    assume(fpga.multiplier != "auto" or fpga.style == "temporal")  # auto changes what multiplies
    before = fpga_cost(model, fpga, name)
    lean = fewer_bits(model, weight, activation, edge)
    assert not fits(workload(lean), fpga)
    after = fpga_cost(lean, fpga, name)
    assert after.latency_s[0] <= before.latency_s[0]
    assert after.energy_j[0] <= before.energy_j[0] * (1 + 1e-12)
    assert after.dram_bytes[0] <= before.dram_bytes[0]


@MANY
@given(st.data(), designs, names)
def test_fewer_tokens_never_cost_an_fpga_anything(data: st.DataObject, fpga: Fpga, name: str) -> None:
    model, lean = fewer_tokens(data)
    before = fpga_cost(model, fpga, name)
    after = fpga_cost(lean, fpga, name)
    assert after.latency_s[0] <= before.latency_s[0]
    assert after.energy_j[0] <= before.energy_j[0] * (1 + 1e-12)
    assert after.dram_bytes[0] <= before.dram_bytes[0]


@MANY
@given(models(), designs, st.integers(0, 400), st.integers(0, 400))
def test_bigger_memories_never_add_traffic(model: ModelSpec, fpga: Fpga, activations: int, weights: int) -> None:
    small = dataclasses.replace(fpga, style="temporal")
    big = dataclasses.replace(
        small, activation_kib=small.activation_kib + activations, weight_kib=small.weight_kib + weights
    )
    before, after = fpga_cost(model, small), fpga_cost(model, big)
    assert after.dram_bytes[0] <= before.dram_bytes[0]
    assert after.latency_s[0] <= before.latency_s[0]


@MANY
@given(models(), designs, st.integers(0, 2000))
def test_more_reuse_saves_multipliers_and_costs_time(model: ModelSpec, fpga: Fpga, more: int) -> None:
    quick = dataclasses.replace(fpga, style="dataflow")
    slow = dataclasses.replace(quick, reuse=quick.reuse + more)
    load = workload(model)
    assert fpga_resources(load, slow).dsp <= fpga_resources(load, quick).dsp
    before, after = fpga_cost(model, quick), fpga_cost(model, slow)
    assert after.compute_cycles[0] >= before.compute_cycles[0]
    assert after.dram_bytes[0] == before.dram_bytes[0]


@MANY
@given(models(), st.lists(chips, min_size=1, max_size=8), st.data())
def test_one_microcontroller_is_the_batch_of_one_bit_for_bit(
    model: ModelSpec, batch: list[Microcontroller], data: st.DataObject
) -> None:
    load = workload(model)
    kept = tuple(item for item in batch if not mcu.fits(load, item))
    assume(kept)
    together = total(microcontroller_ledger(load, Items(kept), TECH))
    position = data.draw(st.integers(0, len(kept) - 1))
    alone = chip_cost(model, kept[position])
    for field in FIELDS:
        assert getattr(together, field)[position] == getattr(alone, field)[0], field


@MANY
@given(models(), chips)
def test_no_microcontroller_cost_is_negative_or_beats_its_roofline(model: ModelSpec, chip: Microcontroller) -> None:
    load, cost = workload(model), chip_cost(model, chip)
    for field in FIELDS:
        assert np.isfinite(getattr(cost, field)[0]), field
        assert getattr(cost, field)[0] >= 0, field
    assert cost.cycles[0] >= load.macs / 2  # SMLAD makes two products
    assert 0 < cost.utilisation[0] <= 1
    assert cost.peak_onchip_bytes[0] <= BOARDS[chip.device].sram_bytes
    need = mcu.microcontroller_memory(load, chip)
    assert need.flash_bytes >= load.weight_bytes
    assert cost.peak_onchip_bytes[0] == need.sram_bytes
    assert need.sram_margin_bytes == BOARDS[chip.device].sram_bytes - need.sram_bytes


@MANY
@given(models(), chips, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost_a_microcontroller_memory(
    model: ModelSpec, chip: Microcontroller, weight: int, activation: int, edge: int
) -> None:
    """They may cost time: values of 2 and 4 bits must be unpacked (CMix-NN)."""
    lean = fewer_bits(model, weight, activation, edge)
    before, after = (mcu.microcontroller_memory(workload(m), chip) for m in (model, lean))
    assert after.sram_bytes <= before.sram_bytes
    assert after.flash_bytes <= before.flash_bytes


@MANY
@given(st.data(), chips)
def test_fewer_tokens_never_cost_a_microcontroller_anything(data: st.DataObject, chip: Microcontroller) -> None:
    model, lean = fewer_tokens(data)
    before = chip_cost(model, chip)
    assert not mcu.fits(workload(lean), chip)
    after = chip_cost(lean, chip)
    assert after.latency_s[0] <= before.latency_s[0]
    assert after.energy_j[0] <= before.energy_j[0] * (1 + 1e-12)
    assert after.peak_onchip_bytes[0] <= before.peak_onchip_bytes[0]


@MANY
@given(models(), chips)
def test_each_schedule_needs_no_more_sram_than_the_one_before(model: ModelSpec, chip: Microcontroller) -> None:
    load = workload(model)
    needs = [
        mcu.microcontroller_memory(load, dataclasses.replace(chip, schedule=schedule)).sram_bytes
        for schedule in SCHEDULES
    ]
    assert needs == sorted(needs, reverse=True)
