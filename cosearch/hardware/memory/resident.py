"""The residency that every capacity gets, offsets included, for arrays of capacities.

`Timeline.solve` is exact for the sum of the bytes held; a plan also needs offsets, and these may need more than the sum
(fragmentation). Such a plan is thinned out until its offsets need no more than its sum: where the search for offsets
got stuck, the stay leaves that is cheapest to do without. A capacity gets the best of all plans that fit, thinned out
or not, of the chain of plans with falling sums that starts at its own. The chain does not depend on who asks, and a
larger capacity has all the plans of a smaller one: it never gets more traffic, and a capacity gets the same answer
alone as among thousands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.errors import SpecError
from cosearch.hardware.identity import Same
from cosearch.hardware.memory.packing import Block, fit, pack
from cosearch.hardware.memory.residency import Timeline
from cosearch.workload import Operator, Workload

__all__ = ["Plan", "ResidentTraffic", "Residents", "resident_traffic", "residents", "runs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidentTraffic:
    """What stays on chip of a workload's activations, for each of some capacities.

    Attributes:
        reads_avoided: whether operand o (position in `Operator.inputs`) of an operator is read on chip, not from DRAM;
            parameters never are. Shape (operators, most operands, capacities).
        writes_avoided: whether the output of an operator never goes to DRAM; shape (operators, capacities).
        dram_bytes: DRAM traffic of all activations, each access moving the tensor once; shape (capacities,).
        peak_bytes: highest byte of the capacity that is used; shape (capacities,).
    """

    reads_avoided: NDArray[np.bool_]
    writes_avoided: NDArray[np.bool_]
    dram_bytes: NDArray[np.float64]
    peak_bytes: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A residency with its offsets.

    Attributes:
        on_chip: whether each of `Timeline.reads` is served on chip.
        blocks: (activation, memory it holds), by activation, then time.
        offsets: of each block, in bytes.
        dram_bytes: traffic.
        peak_bytes: highest byte used.
    """

    on_chip: NDArray[np.bool_]
    blocks: tuple[tuple[int, Block], ...]
    offsets: tuple[int, ...]
    dram_bytes: int
    peak_bytes: int


def runs(timeline: Timeline, on_chip: Sequence[bool] | NDArray[np.bool_]) -> tuple[tuple[int, Block], ...]:
    """Returns the memory that a residency holds: for each activation, its unbroken stays on chip."""
    found: dict[int, list[tuple[int, int]]] = {}
    for read, held in zip(timeline.reads, on_chip, strict=True):
        if held:
            assert read.start is not None, "an input's first read comes from DRAM"
            stays = found.setdefault(read.activation, [])
            if stays and stays[-1][1] == read.start:
                stays[-1] = (stays[-1][0], read.position)
            else:
                stays.append((read.start, read.position))
    return tuple(
        (index, Block(bytes=timeline.activations[index].bytes, first=first, last=last))
        for index in sorted(found)
        for first, last in found[index]
    )


class Residents:
    """The plans of one workload, found when asked for and kept.

    Attributes:
        timeline: its activations in time.
    """

    def __init__(self, workload: Workload) -> None:
        self.timeline = Timeline(workload)
        self._operators = workload.operators
        self._avoidable: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None
        # Plans with the least sum of bytes: plan i is the answer for sums from _sums[i] up to at least _upto[i].
        self._sums: list[float] = []
        self._upto: list[float] = []
        self._plans: list[Plan] = []
        self._thin: dict[float, Plan] = {}

    def plan(self, capacity: float) -> Plan:
        """Returns the plan for ``capacity`` bytes."""
        total, plan = self._least(capacity)
        best: Plan | None = None
        while best is None or plan.dram_bytes < best.dram_bytes:  # no plan below has less traffic than this one
            if plan.peak_bytes <= capacity:
                return plan
            thin = self._thinned_out(total, plan)
            if best is None or thin.dram_bytes < best.dram_bytes:
                best = thin
            total, plan = self._least(total - 1)
        return best

    def _thinned_out(self, total: float, plan: Plan) -> Plan:
        """Returns ``plan`` without some of its stays, so that its offsets need no more than ``total`` bytes."""
        known = self._thin.get(total)
        if known is not None:
            return known
        timeline, on_chip = self.timeline, plan.on_chip.copy()
        while True:
            blocks = runs(timeline, on_chip)
            offsets, stuck = fit([block for _, block in blocks], int(total))
            if offsets is not None:
                break
            position = blocks[stuck][1].first
            there = [
                row
                for row, read in enumerate(timeline.reads)
                if on_chip[row] and read.start is not None and read.start <= position <= read.position
            ]
            on_chip[min(there, key=lambda row: (self._loss(row, on_chip), row))] = False
        thin = Plan(
            on_chip=on_chip,
            blocks=blocks,
            offsets=offsets,
            dram_bytes=sum(map(self._moved, range(len(timeline.activations)), repeat(on_chip))),
            peak_bytes=max((low + block.bytes for low, (_, block) in zip(offsets, blocks, strict=True)), default=0),
        )
        return self._thin.setdefault(total, thin)

    def _moved(self, index: int, on_chip: NDArray[np.bool_]) -> int:
        """Returns the traffic of an activation."""
        item = self.timeline.activations[index]
        return item.dram_bytes([bool(on_chip[row]) for row in self.timeline.rows(index)])

    def _loss(self, row: int, on_chip: NDArray[np.bool_]) -> int:
        """Returns the traffic added when the read in ``row`` is no longer served on chip."""
        index = self.timeline.reads[row].activation
        without = on_chip.copy()
        without[row] = False
        return self._moved(index, without) - self._moved(index, on_chip)

    def bound(self, capacity: float) -> tuple[int, int]:
        """Returns the least traffic that any allocation can have, and the lowest peak at that traffic, in bytes.

        Zero for both where not all activations could be considered.
        """
        if not self.timeline.exact:
            return 0, 0
        total, plan = self._least(capacity)
        return plan.dram_bytes, int(total)

    def traffic(self, capacities: ArrayLike) -> ResidentTraffic:
        """Returns what stays on chip at each of ``capacities``; see `resident_traffic`."""
        wanted = np.asarray(capacities, dtype=np.float64).reshape(-1)
        distinct, inverse = np.unique(wanted, return_inverse=True)
        for capacity in distinct:
            if not capacity >= 0:
                raise SpecError("capacities", f"hold {capacity}, but no memory is smaller than 0", "give 0 or more")
        distinct = np.floor(distinct)
        self._solve(np.array([c for c in distinct if self._position(float(c)) is None]))
        plans = [self.plan(float(capacity)) for capacity in distinct]
        if not plans:
            plans, inverse = [self.plan(0.0)], inverse.astype(np.intp)
        # a row of True for what is not read, a row of False for what never is on chip
        rows = np.array([plan.on_chip for plan in plans]).T
        rows = np.concatenate((rows, np.ones_like(rows[:1]), np.zeros_like(rows[:1])))[:, inverse]
        if self._avoidable is None:
            self._avoidable = _rows(self.timeline, self._operators)
        operands, outputs = self._avoidable
        return ResidentTraffic(
            reads_avoided=rows[operands],
            writes_avoided=np.all(rows[outputs], axis=1),
            dram_bytes=np.array([plan.dram_bytes for plan in plans], dtype=np.float64)[inverse],
            peak_bytes=np.array([plan.peak_bytes for plan in plans], dtype=np.float64)[inverse],
        )

    def _least(self, capacity: float) -> tuple[float, Plan]:
        """Returns the plan of least traffic whose sum of bytes fits, with this sum; offsets may not fit."""
        position = self._position(capacity)
        if position is None:
            self._solve(np.array([capacity]))
            position = self._position(capacity)
            assert position is not None
        return self._sums[position], self._plans[position]

    def _position(self, capacity: float) -> int | None:
        position = bisect_right(self._sums, capacity) - 1
        return position if position >= 0 and capacity <= self._upto[position] else None

    def _solve(self, capacities: NDArray[np.float64]) -> None:
        if not capacities.size:
            return
        traffic, sums, on_chip = self.timeline.solve(capacities)
        for column, capacity in enumerate(capacities):
            total = float(sums[column])
            position = bisect_right(self._sums, total) - 1
            if position >= 0 and self._sums[position] == total:
                self._upto[position] = max(self._upto[position], float(capacity))
                continue
            blocks = runs(self.timeline, on_chip[:, column])
            offsets, height = pack([block for _, block in blocks])
            plan = Plan(
                on_chip=on_chip[:, column].copy(),
                blocks=blocks,
                offsets=offsets,
                dram_bytes=int(traffic[column]),
                peak_bytes=height,
            )
            self._sums.insert(position + 1, total)
            self._upto.insert(position + 1, float(capacity))
            self._plans.insert(position + 1, plan)


def _rows(timeline: Timeline, operators: Sequence[Operator]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns which of `Timeline.reads` each operand is, and which reads decide whether an output is written.

    Of shape (operators, most operands) and (operators, most readers); ``len(reads)`` stands for a row of True,
    ``len(reads) + 1`` for one of False.
    """
    true, false = len(timeline.reads), len(timeline.reads) + 1
    place = {
        (read.position, timeline.activations[read.activation].name): row for row, read in enumerate(timeline.reads)
    }
    operands = np.full((len(operators), max((len(op.inputs) for op in operators), default=0)), false)
    for position, op in enumerate(operators):
        for operand, name in enumerate(op.inputs):
            operands[position, operand] = place.get((position, name), false)
    outputs = np.full((len(operators), max((len(item.reads) for item in timeline.activations), default=0) + 1), true)
    for item in timeline.activations:
        if item.written is not None:
            readers = [place[position, item.name] for position in item.reads] or [false]
            outputs[item.written, : len(readers)] = readers
    return operands, outputs


def residents(workload: Workload) -> Residents:
    """Returns the plans of ``workload``, which are kept for the workloads asked for last."""
    return _residents(Same(workload))


@lru_cache(maxsize=256)
def _residents(key: Same[Workload]) -> Residents:
    return Residents(key.value)


def resident_traffic(workload: Workload, capacities: ArrayLike) -> ResidentTraffic:
    """Returns what stays on chip of the activations of ``workload``, for each of ``capacities``.

    Args:
        workload: one image through a model.
        capacities: bytes left for activations between operators, tile buffers not counted; of shape (capacities,), in
            any order, repeated or not. The work grows with the distinct ones.

    Raises:
        SpecError: a capacity is negative or NaN.
    """
    return residents(workload).traffic(capacities)
