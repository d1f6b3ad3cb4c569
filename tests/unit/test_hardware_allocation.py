"""Scratchpad allocation, on networks small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.memory import Lifetime, allocate, lifetimes, live_bytes, resident_traffic
from cosearch.hardware.memory.packing import Block, fit, greedy_by_size, most_alive, pack
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload


def network(*operators: tuple[str, tuple[str, ...]], weights: tuple[str, ...] = (), **sizes: int) -> Workload:
    """Operators as (output, inputs); sizes in bytes."""
    return Workload(
        tuple(
            Operator(
                name=output,
                kind=OperatorKind.ADD,
                m=1,
                k=1,
                n=1,
                a_bits=8,
                b_bits=8,
                out_bits=8,
                inputs=inputs,
                output=output,
            )
            for output, inputs in operators
        ),
        tuple(Tensor(name=name, elements=size, bits=8, weight=name in weights) for name, size in sizes.items()),
    )


RESIDUAL = network(("a", ("image",)), ("b", ("a",)), ("c", ("b", "a")), image=8, a=10, b=20, c=4)
"""a is held over b's whole life, or read again from DRAM."""


def test_lifetimes_run_from_the_write_to_the_last_read():
    lives = {life.tensor: life for life in lifetimes(RESIDUAL)}
    assert lives["a"] == Lifetime(tensor="a", bytes=10, weight=False, written=0, reads=(1, 2), first=0, last=2)
    assert (lives["image"].written, lives["image"].first, lives["image"].last) == (None, 0, 0)
    assert (lives["c"].reads, lives["c"].first, lives["c"].last) == ((), 2, 2)


def test_weights_live_while_their_operator_runs_or_one_operator_longer():
    load = network(("a", ("x",)), ("b", ("a", "w")), weights=("w",), x=1, a=2, b=4, w=8)
    assert live_bytes(load) == (3, 6)
    assert live_bytes(load, weights=True) == (3, 14)
    assert live_bytes(load, weights=True, prefetch_weights=True) == (11, 14)


def test_bytes_alive_are_those_of_the_workload():
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    blocks = (BlockSpec(heads=2, mlp_hidden=48, keep_tokens=9), BlockSpec(heads=2, mlp_hidden=48))
    load = workload(ModelSpec(task=task, patch=4, dim=24, blocks=blocks, token_method="prune"))
    assert live_bytes(load) == load.live_activation_bytes()


@pytest.mark.parametrize(
    ("capacity", "dram_bytes", "peak_bytes"),
    [
        (0, 8 + (10 + 10 + 10) + (20 + 20) + 4, 0),
        (9, 82, 0),  # nothing fits
        (10, 52, 10),  # a throughout
        (19, 52, 10),
        (20, 42, 20),  # b throughout saves more
        (29, 42, 20),
        (30, 12, 30),  # both
        (math.inf, 12, 30),
    ],
)
def test_capacity_buys_traffic(capacity, dram_bytes, peak_bytes):
    allocation = allocate(RESIDUAL, capacity)
    assert (allocation.dram_bytes, allocation.peak_bytes) == (dram_bytes, peak_bytes)
    assert allocation.optimal
    assert allocation.gap == 0
    exact = allocate(RESIDUAL, capacity, method="exact")
    assert (exact.dram_bytes, exact.peak_bytes, exact.optimal) == (dram_bytes, peak_bytes, True)
    assert exact.peak_bound_bytes == peak_bytes


def test_placements_and_spills_say_who_is_where():
    allocation = allocate(RESIDUAL, 20)
    place = allocation.placements[0]
    assert [(p.tensor, p.first, p.last) for p in allocation.placements] == [("b", 1, 2)]
    assert place.offset + place.bytes <= 20
    spills = {
        spill.tensor: (spill.write_bytes, spill.read_bytes, spill.compulsory_bytes) for spill in allocation.spilled
    }
    assert spills == {"image": (0, 8, 8), "a": (10, 20, 0), "c": (4, 0, 4)}


def test_a_tensor_may_leave_and_come_back():
    """a is read at 1, 2 and 6; in between others need the room more."""
    load = network(
        ("a", ("x",)),
        ("b", ("a",)),
        ("c", ("a", "b")),
        ("d", ("c",)),
        ("e", ("d", "c")),
        ("f", ("e", "c", "d")),
        ("g", ("f", "a")),
        x=1,
        a=10,
        b=1,
        c=12,
        d=8,
        e=1,
        f=1,
        g=1,
    )
    allocation = allocate(load, 23)
    assert [(p.first, p.last) for p in allocation.placements if p.tensor == "a"] == [(0, 2)]
    spill = next(spill for spill in allocation.spilled if spill.tensor == "a")
    assert (spill.write_bytes, spill.read_bytes) == (10, 10)
    assert allocation.dram_bytes == allocate(load, 23, method="exact").dram_bytes == 1 + 1 + 20


def test_an_operator_that_reads_a_tensor_twice_moves_it_twice():
    load = network(("a", ("x",)), ("b", ("a", "a")), x=3, a=5, b=2)
    assert resident_traffic(load, [0, 5]).dram_bytes.tolist() == [3 + 5 + 10 + 2, 3 + 2]


def test_an_input_that_is_read_again_may_stay():
    load = network(("a", ("x",)), ("b", ("x", "a")), x=6, a=4, b=1)
    assert resident_traffic(load, [0, 4, 6, 10]).dram_bytes.tolist() == [21, 13, 13, 7]
    held = resident_traffic(load, [10])
    assert held.reads_avoided[..., 0].tolist() == [[False, False], [True, True]]
    assert held.writes_avoided[:, 0].tolist() == [True, False]


def test_parameters_are_always_read_from_dram():
    load = network(("a", ("x", "w")), ("b", ("a", "w")), weights=("w",), x=3, a=5, b=2, w=7)
    traffic = resident_traffic(load, [math.inf])
    assert not traffic.reads_avoided[:, 1].any()
    assert traffic.dram_bytes.tolist() == [5.0]


def test_results_follow_the_order_of_the_capacities():
    many = resident_traffic(RESIDUAL, [30, 0, 20, 30])
    assert many.dram_bytes.tolist() == [12, 82, 42, 12]
    assert many.reads_avoided.shape == (3, 2, 4)
    assert many.writes_avoided.shape == (3, 4)
    assert np.array_equal(many.writes_avoided[:, 0], many.writes_avoided[:, 3])
    none = resident_traffic(RESIDUAL, [])
    assert none.reads_avoided.shape == (3, 2, 0)
    assert none.dram_bytes.shape == (0,)


def test_blocks_that_do_not_meet_share_a_place():
    blocks = [Block(bytes=2, first=0, last=1), Block(bytes=1, first=0, last=3), Block(bytes=2, first=2, last=2)]
    offsets, height = pack(blocks)
    assert height == most_alive(blocks) == 3
    assert offsets[0] == offsets[2]


def test_packing_beats_greedy_where_large_blocks_first_is_wrong():
    blocks = [
        Block(bytes=3, first=2, last=4),
        Block(bytes=4, first=1, last=2),
        Block(bytes=3, first=3, last=5),
        Block(bytes=2, first=3, last=3),
    ]
    assert pack(blocks)[1] == most_alive(blocks) == 8
    assert greedy_by_size(blocks)[1] == 9


def test_a_search_for_offsets_says_where_it_got_stuck():
    blocks = [Block(bytes=2, first=0, last=1), Block(bytes=1, first=1, last=2), Block(bytes=2, first=3, last=3)]
    assert fit(blocks, 2) == (None, 1)
    assert fit(blocks, 3)[0] is not None


def test_a_shrinking_block_makes_room_for_others():
    blocks = [
        Block(bytes=8, first=0, last=3, shrinks=((2, 3),)),
        Block(bytes=5, first=2, last=3),
    ]
    assert most_alive(blocks) == 8
    offsets, height = pack(blocks)
    assert (offsets, height) == ((0, 3), 8)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"capacity_bytes": -1}, "capacity_bytes is -1, but no memory is smaller than 0; give 0 or more"),
        ({"capacity_bytes": math.nan}, "capacity_bytes is nan, but no memory is smaller than 0; give 0 or more"),
        (
            {"capacity_bytes": 1, "method": "best"},
            "method is 'best', but there are 'fast' and 'exact'; give one of these",
        ),
        (
            {"capacity_bytes": 1, "method": "exact", "time_limit_s": 0},
            "time_limit_s is 0, but solving takes some time; give more than 0 seconds",
        ),
    ],
)
def test_arguments_out_of_range_are_named(arguments, text):
    with pytest.raises(SpecError) as caught:
        allocate(RESIDUAL, **arguments)
    assert str(caught.value) == text


def test_a_capacity_below_zero_in_an_array_is_named():
    with pytest.raises(SpecError, match=r"capacities hold -2.0, but no memory is smaller than 0; give 0 or more"):
        resident_traffic(RESIDUAL, [3, -2])


def test_the_exact_method_reports_the_bound_it_reached_when_time_runs_out():
    task = TaskShape(image=(32, 32), channels=3, classes=10)
    blocks = tuple(BlockSpec(heads=4, mlp_hidden=100 + 7 * i, weight_bits=8, activation_bits=4 + i) for i in range(5))
    load = workload(ModelSpec(task=task, patch=4, dim=96, blocks=blocks))
    capacity = max(live_bytes(load)) // 2
    hasty = allocate(load, capacity, method="exact", time_limit_s=1e-3)
    assert hasty.bound_bytes <= allocate(load, capacity).dram_bytes == hasty.dram_bytes
    assert not hasty.optimal
    assert hasty.gap > 0
