"""Allocates a scratchpad to the activations of a whole network.

Given a capacity, `allocate` decides which activations stay on chip for which part of their lives and where, with the
least DRAM traffic and, at that traffic, the lowest peak; see `residency` for what is counted. Parameters are not
candidates: each is used once an image, so that holding it saves nothing while it takes room from activations.

``fast`` is a dynamic program over the operators and a search for offsets; milliseconds. Its residency is optimal for
the sum of the bytes held, which bounds every allocation from below, so it usually proves itself optimal. ``exact`` is
one integer program over residency and offsets, the formulation of COSMA (Li, Gupta and Malik 2023) for a given order
of operators, solved by HiGHS; seconds to minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.memory.packing import Block
from cosearch.hardware.memory.residency import Timeline
from cosearch.hardware.memory.resident import residents
from cosearch.workload import Workload

__all__ = ["Allocation", "Placement", "Spill", "allocate"]

Method = Literal["fast", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An unbroken stay of an activation on chip.

    Attributes:
        tensor: its name.
        offset: its first byte.
        bytes: its size.
        first: position of the first operator during which it is there.
        last: position of the last one, included.
    """

    tensor: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """An activation that goes through DRAM for some of its accesses.

    Attributes:
        tensor: its name.
        write_bytes: bytes written to DRAM.
        read_bytes: bytes read from DRAM.
        compulsory_bytes: the part that no capacity avoids: reading the image, writing the result.
    """

    tensor: str
    write_bytes: int
    read_bytes: int
    compulsory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Who is where on chip, and what it costs.

    Attributes:
        capacity_bytes: what was given.
        placements: stays on chip, in the order of `Workload.tensors`, then of time.
        spilled: activations with DRAM traffic, in the order of `Workload.tensors`.
        dram_bytes: traffic of all activations.
        peak_bytes: highest byte used.
        method: ``fast`` or ``exact``.
        optimal: whether ``dram_bytes`` is proven to be the least.
        bound_bytes: proven lower bound of the traffic.
        peak_bound_bytes: proven lower bound of the peak among allocations with ``bound_bytes`` of traffic.
    """

    capacity_bytes: float
    placements: tuple[Placement, ...]
    spilled: tuple[Spill, ...]
    dram_bytes: int
    peak_bytes: int
    method: Method
    optimal: bool
    bound_bytes: int
    peak_bound_bytes: int

    @property
    def gap(self) -> float:
        """How far the traffic may be above the least possible, as a fraction of the latter's bound."""
        if self.dram_bytes == self.bound_bytes:
            return 0.0
        return self.dram_bytes / self.bound_bytes - 1.0 if self.bound_bytes else math.inf


def allocate(
    workload: Workload, capacity_bytes: float, *, method: Method = "fast", time_limit_s: float = 60.0
) -> Allocation:
    """Returns who is where on chip when ``workload`` runs with ``capacity_bytes`` for activations.

    Args:
        workload: one image through a model.
        capacity_bytes: bytes for activations between operators, tile buffers not counted; infinity is allowed.
        method: ``fast`` or ``exact``.
        time_limit_s: for ``exact``, after which the best allocation found is returned with the bound proven so far.

    Raises:
        SpecError: an argument is out of range.
    """
    if not capacity_bytes >= 0:
        raise SpecError("capacity_bytes", f"is {capacity_bytes}, but no memory is smaller than 0", "give 0 or more")
    if not time_limit_s > 0:
        raise SpecError("time_limit_s", f"is {time_limit_s}, but solving takes some time", "give more than 0 seconds")
    known = residents(workload)
    if method == "fast":
        plan, (bound, peak_bound) = known.plan(capacity_bytes), known.bound(capacity_bytes)
        return _described(
            known.timeline, capacity_bytes, plan.on_chip, plan.blocks, plan.offsets, "fast", bound, peak_bound
        )
    if method == "exact":
        return _exactly(workload, capacity_bytes, time_limit_s)
    raise SpecError("method", f"is {method!r}, but there are 'fast' and 'exact'", "give one of these")


def _exactly(workload: Workload, capacity: float, time_limit_s: float) -> Allocation:
    """Returns the better of what the integer programs and the fast method found, with the programs' bounds."""
    from cosearch.hardware.memory.exact import solve_exactly  # scipy.optimize takes its time to import

    known = residents(workload)
    plan, found = known.plan(capacity), solve_exactly(known.timeline, capacity, time_limit_s)
    bounds = (found.bound_bytes, found.peak_bound_bytes)
    fast = _described(known.timeline, capacity, plan.on_chip, plan.blocks, plan.offsets, "exact", *bounds)
    if found.on_chip is None:
        return fast
    exact = _described(known.timeline, capacity, found.on_chip, found.blocks, found.offsets, "exact", *bounds)
    return min(exact, fast, key=lambda item: (item.dram_bytes, item.peak_bytes))


def _described(
    timeline: Timeline,
    capacity: float,
    on_chip: NDArray[np.bool_],
    blocks: Sequence[tuple[int, Block]],
    offsets: Sequence[int],
    method: Method,
    bound: int,
    peak_bound: int,
) -> Allocation:
    placements = tuple(
        Placement(
            tensor=timeline.activations[index].name,
            offset=offset,
            bytes=block.bytes,
            first=block.first,
            last=block.last,
        )
        for (index, block), offset in zip(blocks, offsets, strict=True)
    )
    spilled = _spilled(timeline, on_chip)
    traffic = sum(spill.write_bytes + spill.read_bytes for spill in spilled)
    bound = max(bound, sum(item.compulsory_bytes for item in timeline.activations))
    return Allocation(
        capacity_bytes=capacity,
        placements=placements,
        spilled=spilled,
        dram_bytes=traffic,
        peak_bytes=max((place.offset + place.bytes for place in placements), default=0),
        method=method,
        optimal=traffic == bound,
        bound_bytes=bound,
        peak_bound_bytes=peak_bound,
    )


def _spilled(timeline: Timeline, on_chip: NDArray[np.bool_]) -> tuple[Spill, ...]:
    """Returns the traffic of each activation that has some."""
    missed = [0] * len(timeline.activations)  # bytes read from DRAM
    for read, there in zip(timeline.reads, on_chip.tolist(), strict=True):
        if not there:
            item = timeline.activations[read.activation]
            missed[read.activation] += item.bytes * item.times[item.reads.index(read.position)]
    return tuple(
        Spill(
            tensor=item.name,
            write_bytes=item.bytes if item.written is not None else 0,
            read_bytes=reads,
            compulsory_bytes=item.compulsory_bytes,
        )
        for item, reads in zip(timeline.activations, missed, strict=True)
        if reads or not item.reads
    )
