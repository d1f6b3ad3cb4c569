"""What holds for every allocation, for random networks of random tensors, and by brute force for small ones."""

from __future__ import annotations

import random
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.hardware.memory import Allocation, allocate, lifetimes, resident_traffic
from cosearch.hardware.memory.exact import solve_exactly
from cosearch.hardware.memory.packing import Block, greedy_by_size, most_alive, pack
from cosearch.hardware.memory.resident import residents, runs
from cosearch.workload import Operator, OperatorKind, Tensor, Workload

SLOW = settings(max_examples=25, deadline=None)
MANY = settings(max_examples=100, deadline=None)


def network(inputs: list[tuple[str, ...]], sizes: dict[str, int]) -> Workload:
    """Operator i reads ``inputs[i]`` and writes ``t{i}``; other names are read from DRAM."""
    operators = tuple(
        Operator(
            name=f"t{i}",
            kind=OperatorKind.ADD,
            m=1,
            k=1,
            n=sizes[f"t{i}"],
            a_bits=8,
            b_bits=8,
            out_bits=8,
            inputs=names,
            output=f"t{i}",
        )
        for i, names in enumerate(inputs)
    )
    return Workload(operators, tuple(Tensor(name=name, elements=size, bits=8) for name, size in sizes.items()))


@st.composite
def networks(draw: st.DrawFn, most: int = 12) -> Workload:
    """Chains with branches: each operator reads one to three of the tensors before it, recent ones more often."""
    count = draw(st.integers(1, most))
    names, inputs = ["image"], []
    for i in range(count):
        recent = names[-5:]
        inputs.append(tuple(draw(st.lists(st.sampled_from(recent), min_size=1, max_size=3))))
        names.append(f"t{i}")
    return network(inputs, {name: draw(st.integers(1, 40)) for name in names})


def everything(load: Workload) -> int:
    """Bytes moved where nothing stays on chip: each operator reads all its inputs and writes its output."""
    sizes = {tensor.name: tensor.bytes for tensor in load.tensors if not tensor.weight}
    return sum(sizes[op.output] + sum(sizes[name] for name in op.inputs) for op in load.operators)


def compulsory(load: Workload) -> int:
    """Bytes of the first read of what comes from DRAM and of what nobody reads."""
    sizes = {tensor.name: tensor.bytes for tensor in load.tensors}
    written = {op.output for op in load.operators}
    read = {name for op in load.operators for name in op.inputs}
    first: dict[str, int] = {}
    for op in load.operators:
        for name in op.inputs:
            if name not in written:
                first.setdefault(name, op.inputs.count(name) * sizes[name])
    return sum(first.values()) + sum(sizes[name] for name in written - read)


def replayed(load: Workload, allocation: Allocation) -> int:
    """Bytes moved, found by running the network on a map of the scratchpad's bytes.

    Fails where a byte is claimed twice, or a byte of a tensor that should be there is not.
    """
    sizes = {tensor.name: tensor.bytes for tensor in load.tensors}
    written = {op.output for op in load.operators}
    readers = {name: [i for i, op in enumerate(load.operators) if name in op.inputs] for name in sizes}
    size = int(min(allocation.capacity_bytes, 10**6))
    owner: list[str | None] = [None] * size
    in_dram = {name for name in sizes if name not in written}
    moved = 0
    for position, op in enumerate(load.operators):
        claims: dict[str, range] = {}
        for place in allocation.placements:
            if place.first <= position <= place.last:
                claims[place.tensor] = range(place.offset, place.offset + place.bytes)
        used = [byte for claim in claims.values() for byte in claim]
        assert len(used) == len(set(used)), "two tensors claim a byte"
        assert all(0 <= byte < size for byte in used)
        started = {place.tensor for place in allocation.placements if place.first == position}
        for name in set(op.inputs):
            there = name in claims and (
                name not in started or any(p.tensor == name and p.last == position for p in allocation.placements)
            )
            if there:
                assert all(owner[byte] == name for byte in claims[name]), "the tensor was overwritten"
            else:
                assert name in in_dram, "the tensor is nowhere"
                moved += sizes[name] * op.inputs.count(name)
        for name, claim in claims.items():
            if name in started:
                for byte in claim:
                    owner[byte] = name
        kept = [p for p in allocation.placements if p.tensor == op.output and p.first == position]
        if not kept or kept[0].last < max(readers[op.output]):
            in_dram.add(op.output)
            moved += sizes[op.output]
    return moved


def brute_force(load: Workload, capacity: int) -> tuple[int, int]:
    """Least traffic over all choices of gaps whose bytes fit at every operator, and the lowest sum at that traffic."""
    lives = [life for life in lifetimes(load) if not life.weight]
    gaps = []
    for index, life in enumerate(lives):
        reads = sorted(set(life.reads))
        accesses = reads if life.written is None else [life.written, *reads]
        gaps += [(index, start, stop) for start, stop in pairwise(accesses)]
    best = (10**9, 0)
    for choice in product((False, True), repeat=len(gaps)):
        held = [[0] * len(lives) for _ in load.operators]
        served = set()
        for (index, start, stop), taken in zip(gaps, choice, strict=True):
            if taken:
                served.add((index, stop))
                for position in range(start, stop + 1):
                    held[position][index] = lives[index].bytes
        peak = max(map(sum, held))
        if peak > capacity:
            continue
        moved = 0
        for index, life in enumerate(lives):
            missed = [position for position in life.reads if (index, position) not in served]
            moved += life.bytes * (len(missed) + (life.written is not None and (bool(missed) or not life.reads)))
        best = min(best, (moved, peak))
    return best


@MANY
@given(networks(), st.integers(0, 200))
def test_an_allocation_does_what_it_says(load, capacity):
    allocation = allocate(load, capacity)
    assert replayed(load, allocation) == allocation.dram_bytes
    assert allocation.dram_bytes == sum(spill.read_bytes + spill.write_bytes for spill in allocation.spilled)
    assert allocation.peak_bytes <= capacity
    assert compulsory(load) <= allocation.bound_bytes <= allocation.dram_bytes <= everything(load)


@MANY
@given(networks(), st.integers(0, 200))
def test_every_activation_stays_or_is_spilled(load, capacity):
    allocation = allocate(load, capacity)
    spilled = {spill.tensor for spill in allocation.spilled}
    stays = {place.tensor: (place.first, place.last) for place in allocation.placements}
    for life in lifetimes(load):
        throughout = stays.get(life.tensor) == (life.first, life.last) and life.written is not None
        assert throughout != (life.tensor in spilled)


@MANY
@given(networks(most=6), st.integers(0, 120))
def test_the_least_traffic_is_that_of_brute_force(load, capacity):
    traffic, peak = brute_force(load, capacity)
    allocation = allocate(load, capacity)
    assert allocation.bound_bytes == traffic
    if allocation.optimal:
        assert allocation.dram_bytes == traffic
        assert allocation.peak_bound_bytes == peak <= allocation.peak_bytes


@SLOW
@given(networks(), st.integers(0, 200))
def test_exact_is_never_worse_than_fast_and_its_bound_holds(load, capacity):
    fast, exact = allocate(load, capacity), allocate(load, capacity, method="exact", time_limit_s=20)
    assert exact.dram_bytes <= fast.dram_bytes
    assert exact.bound_bytes <= exact.dram_bytes
    assert fast.bound_bytes <= exact.dram_bytes, "the dynamic program's bound holds for the integer program"
    assert replayed(load, exact) == exact.dram_bytes
    assert exact.peak_bytes <= capacity
    if exact.optimal and fast.optimal:
        assert exact.dram_bytes == fast.dram_bytes


@SLOW
@given(networks(), st.integers(0, 200))
def test_the_integer_programs_alone_give_a_sound_allocation(load, capacity):
    timeline = residents(load).timeline
    found = solve_exactly(timeline, capacity, 20)
    assert found.on_chip is not None
    assert runs(timeline, found.on_chip) == found.blocks
    ends = [offset + block.bytes for offset, (_, block) in zip(found.offsets, found.blocks, strict=True)]
    assert found.peak_bound_bytes == max(ends, default=0) <= capacity
    for i, (_, a) in enumerate(found.blocks):
        for j, (_, b) in enumerate(found.blocks[:i]):
            if a.first <= b.last and b.first <= a.last:
                assert ends[i] <= found.offsets[j] or ends[j] <= found.offsets[i]


@MANY
@given(networks(most=20), st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_more_capacity_never_moves_more(load, capacities):
    traffic = resident_traffic(load, np.array(sorted(capacities)))
    assert np.all(np.diff(traffic.dram_bytes) <= 0)


@MANY
@given(networks(most=20), st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_a_batch_says_what_each_capacity_says_alone(load, capacities):
    fresh = Workload(load.operators, load.tensors)  # with plans of its own
    batch = resident_traffic(load, capacities)
    for column, capacity in enumerate(capacities):
        alone = resident_traffic(Workload(load.operators, load.tensors), [capacity])
        assert np.array_equal(batch.reads_avoided[..., column], alone.reads_avoided[..., 0])
        assert np.array_equal(batch.writes_avoided[:, column], alone.writes_avoided[:, 0])
        assert allocate(fresh, capacity).dram_bytes == batch.dram_bytes[column] == alone.dram_bytes[0]
        assert allocate(fresh, capacity).peak_bytes == batch.peak_bytes[column] <= capacity


@MANY
@given(networks(most=20), st.integers(0, 300))
def test_the_accesses_that_are_avoided_explain_the_traffic(load, capacity):
    sizes = {tensor.name: tensor.bytes for tensor in load.tensors}
    traffic = resident_traffic(load, [capacity])
    moved = 0
    for position, op in enumerate(load.operators):
        moved += sizes[op.output] * (not traffic.writes_avoided[position, 0])
        for operand, name in enumerate(op.inputs):
            moved += sizes[name] * (not traffic.reads_avoided[position, operand, 0])
    assert moved == traffic.dram_bytes[0]


@MANY
@given(networks(most=20))
def test_no_capacity_moves_everything_and_enough_moves_the_compulsory(load):
    traffic = resident_traffic(load, [0, np.inf])
    assert traffic.dram_bytes.tolist() == [everything(load), compulsory(load)]
    assert traffic.peak_bytes[0] == 0
    assert not traffic.reads_avoided[..., 0].any()
    assert not traffic.writes_avoided[:, 0].any()


def fragmented(seed: int) -> Workload:
    """30 operators that each read one to three of the five newest tensors: often harder to place than to sum up."""
    rng = random.Random(seed)
    names, inputs = ["image"], []
    for i in range(30):
        recent = names[-5:]
        inputs.append(tuple(rng.sample(recent, min(len(recent), rng.randint(1, 3)))))
        names.append(f"t{i}")
    return network(inputs, {name: rng.randint(1, 100) for name in names})


def test_where_offsets_need_more_than_the_sum_allocations_stay_sound_and_monotone():
    harder = 0
    for seed in range(40):
        load, capacities = fragmented(seed), np.arange(0, 420, 20)
        traffic = resident_traffic(load, capacities).dram_bytes
        assert np.all(np.diff(traffic) <= 0)
        for capacity, moved in zip(capacities, traffic, strict=True):
            allocation = allocate(load, float(capacity))
            assert replayed(load, allocation) == allocation.dram_bytes == moved
            assert allocation.peak_bytes <= capacity
            harder += not allocation.optimal
    assert harder > 10, "these networks test what they are meant to"


@st.composite
def blocks(draw: st.DrawFn) -> list[Block]:
    found = []
    for _ in range(draw(st.integers(1, 14))):
        first = draw(st.integers(0, 12))
        found.append(Block(bytes=draw(st.integers(1, 30)), first=first, last=first + draw(st.integers(0, 6))))
    return found


@MANY
@given(blocks())
def test_packed_blocks_never_overlap(found):
    for offsets, height in (pack(found), greedy_by_size(found)):
        assert height == max(offset + block.bytes for offset, block in zip(offsets, found, strict=True))
        assert height >= most_alive(found)
        for i, a in enumerate(found):
            assert offsets[i] >= 0
            for j, b in enumerate(found[:i]):
                if a.first <= b.last and b.first <= a.last:
                    assert offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
    assert pack(found)[1] <= greedy_by_size(found)[1]


@pytest.mark.parametrize("live", [14, 30])
def test_many_live_activations_are_bounded_work_and_still_monotone(live):
    """One operator reads all tensors before it: more than may be considered, so that some are never held."""
    names = [f"t{i}" for i in range(live)]
    inputs: list[tuple[str, ...]] = [("image",)] * live + [tuple(names)] * 2
    load = network(
        inputs, {"image": 5, **{name: 3 + i % 4 for i, name in enumerate(names)}, f"t{live}": 2, f"t{live + 1}": 2}
    )
    traffic = resident_traffic(load, np.arange(0, 200, 10))
    assert np.all(np.diff(traffic.dram_bytes) <= 0)
    assert compulsory(load) < traffic.dram_bytes[-1] < everything(load)
    allocation = allocate(load, 200)
    assert replayed(load, allocation) == allocation.dram_bytes
    assert not allocation.optimal
