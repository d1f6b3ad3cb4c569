from __future__ import annotations

import dataclasses

import pytest

from cosearch.errors import SpecError
from cosearch.hardware.ledger import Items, breakdown, total
from cosearch.hardware.microcontroller import (
    BOARDS,
    INSTRUCTIONS_PER_LEFT_VALUE,
    INSTRUCTIONS_PER_MAC,
    SCHEDULES,
    Microcontroller,
    feasible,
    fits,
    microcontroller_ledger,
    microcontroller_memory,
)
from cosearch.hardware.technology import technology
from cosearch.hardware.vector import lane_operations
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

TECH = technology("horowitz_45nm")


def chip(**changes: object) -> Microcontroller:
    return Microcontroller(**({"device": "stm32f746", "clock_hz": 216e6} | changes))


def product(m: int, k: int, n: int, *, a_bits: int = 8, b_bits: int = 8, weights: bool = True) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        a_bits=a_bits,
        b_bits=b_bits,
        out_bits=8,
        weights=weights,
        inputs=("x", "w"),
        output="p",
    )
    sizes = (("x", m * k, a_bits), ("w", k * n, b_bits), ("p", m * n, 8))
    tensors = tuple(
        Tensor(name=name, elements=size, bits=bits, weight=weights and name == "w") for name, size, bits in sizes
    )
    return Workload((op,), tensors)


def vit(*, dim: int = 24, depth: int = 2, side: int = 32, bits: int = 8, weight_bits: int | None = None) -> Workload:
    block = BlockSpec(
        heads=2,
        mlp_hidden=4 * dim,
        weight_bits=bits if weight_bits is None else weight_bits,
        activation_bits=bits,
    )
    task = TaskShape(image=(side, side), channels=3, classes=10)
    return workload(ModelSpec(task=task, patch=8, dim=dim, blocks=(block,) * depth, edge_bits=bits))


def cycles(load: Workload) -> float:
    return float(total(microcontroller_ledger(load, Items((chip(),)), TECH)).compute_cycles[0])


def test_instructions_are_those_of_the_kernels() -> None:
    """Loads, unpacking, SMLAD, count and branch of one pass of CMix-NN's inner loops, counted again by hand."""
    assert INSTRUCTIONS_PER_MAC[8] == 20 / 16
    assert INSTRUCTIONS_PER_MAC[4] == 44 / 32
    assert INSTRUCTIONS_PER_MAC[2] == 84 / 64
    assert INSTRUCTIONS_PER_MAC[16] == 10 / 8
    assert INSTRUCTIONS_PER_LEFT_VALUE[8] == 9 / 4
    assert INSTRUCTIONS_PER_LEFT_VALUE[4] == 22 / 8


@pytest.mark.parametrize(
    ("b_bits", "weights", "each", "gather"),
    [(8, True, 1.25, 0), (4, True, 1.375, 0), (3, True, 1.375, 0), (2, True, 1.3125, 0), (8, False, 1.25, 2)],
)
def test_a_product_by_hand(b_bits: int, weights: bool, each: float, gather: int) -> None:
    expected = each * 10 * 32 * 16 + 2.25 * 10 * 32 + gather * 32 * 16 + 8 * 10 * 16
    assert cycles(product(10, 32, 16, b_bits=b_bits, weights=weights)) == expected


def test_every_operator_costs_time_and_energy() -> None:
    load = vit()
    cost = breakdown(load, microcontroller_ledger(load, Items((chip(),)), TECH), TECH)
    for op, found in zip(load.operators, cost.operators, strict=True):
        assert found.cycles > 0, op.name
        assert found.energy_j == pytest.approx(found.cycles * BOARDS["stm32f746"].cycle_j)
        if op.kind is not OperatorKind.MATMUL:
            assert found.compute_cycles == 0
            assert found.vector_cycles > lane_operations(op)
    assert cost.latency_s == cost.cycles / 216e6
    assert cost.stall_cycles == cost.dram_bytes == cost.area_mm2 == 0


def test_fewer_weight_bits_save_flash_and_cost_unpacking() -> None:
    byte, nibble = (product(64, 256, 256, b_bits=bits) for bits in (8, 4))
    assert cycles(nibble) > cycles(byte)
    assert cycles(nibble) < 1.15 * cycles(byte)
    flash = [microcontroller_memory(load, chip()).flash_bytes for load in (byte, nibble)]
    assert flash[0] - flash[1] == 256 * 256 // 2


def test_odd_widths_take_the_next_that_kernels_know() -> None:
    assert microcontroller_memory(vit(bits=5), chip()) == microcontroller_memory(vit(bits=8), chip())
    assert microcontroller_memory(vit(weight_bits=3), chip()) == microcontroller_memory(vit(weight_bits=4), chip())
    assert microcontroller_memory(vit(weight_bits=4), chip()) != microcontroller_memory(vit(weight_bits=8), chip())


def test_flash_holds_parameters_and_code() -> None:
    load = product(4, 100, 50)
    assert microcontroller_memory(load, chip()).flash_bytes == 100_000 + 100 * 50 + 4 * 50
    block = vit(depth=1)
    names = {op.name: op for op in block.operators}
    beyond = microcontroller_memory(block, chip()).flash_bytes - 100_000 - block.weight_bytes
    outputs = sum(op.n for op in block.operators if op.weights)
    assert beyond == 4 * outputs + 3 * 4 * 24 + 2 * names["embed"].elements


def test_sram_of_whole_operators_is_what_lives_at_once() -> None:
    load = vit()
    need = microcontroller_memory(load, chip(schedule="layerwise"))
    assert need.sram_bytes == load.peak_activation_bytes + 4 * 192  # two rows of the longest reduction at 16 bits
    assert need.sram_margin_bytes == 320 * 1024 - need.sram_bytes


def test_schedules_save_memory_in_their_order() -> None:
    needs = [microcontroller_memory(vit(side=96), chip(schedule=schedule)).sram_bytes for schedule in SCHEDULES]
    assert needs[0] > needs[1] > needs[2]


def test_too_little_flash_is_named_with_need_limit_and_way_out() -> None:
    load = vit(dim=192, depth=6)
    small = chip(device="stm32f746")
    need = microcontroller_memory(load, small)
    (violation,) = fits(load, small)
    assert violation.limit == "flash_bytes <= 1048576 (stm32f746)"
    assert violation.excess == pytest.approx(need.flash_bytes / 1048576 - 1)
    with pytest.raises(SpecError) as caught:
        microcontroller_ledger(load, Items((small,)), TECH)
    text = str(caught.value)
    assert caught.value.field == "device"
    assert f"leaves 1048576 bytes of flash, but parameters and code take {need.flash_bytes}" in text
    assert f"({-need.flash_margin_bytes} too many)" in text
    assert "use fewer weight bits" in text
    assert "device with more flash" in text


def test_too_little_sram_is_named_with_need_limit_and_way_out() -> None:
    load = vit(side=256, depth=1)
    whole = chip(schedule="layerwise")
    need = microcontroller_memory(load, whole)
    assert [violation.limit for violation in fits(load, whole)] == ["sram_bytes <= 327680 (stm32f746)"]
    with pytest.raises(SpecError) as caught:
        microcontroller_ledger(load, Items((whole,)), TECH)
    text = str(caught.value)
    assert f"leaves 327680 bytes of SRAM, but activations take {need.sram_bytes} with schedule 'layerwise'" in text
    assert "keep fewer tokens" in text


def test_the_application_keeps_what_it_reserves() -> None:
    load = vit()
    need = microcontroller_memory(load, chip())
    kept = microcontroller_memory(load, chip(sram_reserve_kib=100, flash_reserve_kib=200))
    assert kept.sram_margin_bytes == need.sram_margin_bytes - 100 * 1024
    assert kept.flash_margin_bytes == need.flash_margin_bytes - 200 * 1024
    nothing = fits(load, chip(sram_reserve_kib=400))
    assert [item.limit for item in nothing] == ["sram_bytes <= 0 (stm32f746)"]


def test_feasible_says_for_each_what_fits_says_for_one() -> None:
    load = vit(dim=64, depth=4, side=128)
    items = tuple(chip(device=device, clock_hz=1e8, schedule=schedule) for device in BOARDS for schedule in SCHEDULES)
    found = feasible(load, Items(items)).tolist()
    assert found == [not fits(load, item) for item in items]
    assert 0 < sum(found) < len(items)


def test_floating_point_is_refused() -> None:
    with pytest.raises(SpecError, match="a microcontroller's integer kernel multiplies"):
        microcontroller_ledger(vit(bits=FLOAT_BITS), Items((chip(),)), TECH)


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"device": "stm32"}, "device", "device is 'stm32', which a microcontroller does not have; choose one of"),
        ({"clock_hz": 480e6}, "clock_hz", "but the stm32f746 has 1e+06 to 2.16e+08 Hz; write 1e+06 to 2.16e+08"),
        ({"clock_hz": float("nan")}, "clock_hz", "nan"),
        ({"clock_hz": True}, "clock_hz", "write a number of Hz"),
        ({"schedule": "best"}, "schedule", "choose one of layerwise, fused, patch"),
        ({"sram_reserve_kib": -1}, "sram_reserve_kib", "KiB"),
        ({"flash_reserve_kib": 1.5}, "flash_reserve_kib", "whole number of KiB"),
    ],
)
def test_bad_fields_name_value_limit_and_way_out(changes: dict[str, object], field: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        chip(**changes)
    assert caught.value.field == field
    assert text in str(caught.value)


def test_boards_are_sourced_and_clocks_are_numbers() -> None:
    assert {"stm32f427", "stm32f746", "stm32h743"} <= set(BOARDS)
    for board in BOARDS.values():
        assert board.source
        assert 1e-11 < board.cycle_j < 1e-8
    assert dataclasses.replace(chip(), clock_hz=100_000_000) == chip(clock_hz=1e8)
