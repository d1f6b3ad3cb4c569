"""Residency and offsets as one integer program, solved by HiGHS.

The formulation is COSMA's (Li, Gupta and Malik 2023) for a given order of operators and with operands that stream when
they are not held. For each activation i and each gap j between two of its accesses:

    x[i,j] in {0, 1}    held during the gap           o[i,j] >= 0    offset while it is held
    w[i]  in [0, 1]     written to DRAM: w[i] >= 1 - x[i,j]
    u[i,t] in [0, 1]    on chip during operator t: u[i,t] >= x[i,j] for the gaps j that contain t
    z[a,b] in {0, 1}    of two gaps that share an operator, a lies below b

    minimise   sum bytes * times * (1 - x) + sum bytes * w
    subject to sum_i bytes[i] * u[i,t] <= capacity                        for each operator t
               o[a] + bytes[a] <= o[b] + capacity * (3 - z[a,b] - x[a] - x[b])      and the same for b below a
               |o[i,j] - o[i,j+1]| <= capacity * (2 - x[i,j] - x[i,j+1])  an unbroken stay does not move
               o[a] + bytes[a] <= capacity + capacity * (1 - x[a])

The sums over u follow from the offsets; they are there because the relaxation is weak without them. The lowest peak at
the least traffic is a second program, in which the capacity is a variable and the traffic is bounded by the first.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from cosearch.hardware.memory.packing import Block
from cosearch.hardware.memory.residency import Timeline
from cosearch.hardware.memory.resident import runs

__all__ = ["Solution", "solve_exactly"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What the integer programs found.

    Attributes:
        on_chip: whether each of `Timeline.reads` is served on chip; ``None`` where nothing was found in time.
        blocks: (activation, memory it holds), by activation, then time.
        offsets: of each block, in bytes.
        bound_bytes: proven lower bound of the traffic.
        peak_bound_bytes: proven lower bound of the peak at the traffic found.
        seconds: how long the solver took.
    """

    on_chip: NDArray[np.bool_] | None
    blocks: tuple[tuple[int, Block], ...]
    offsets: tuple[int, ...]
    bound_bytes: int
    peak_bound_bytes: int
    seconds: float


class _Rows:
    """Linear constraints, row by row."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self.upper: list[float] = []

    def at_most(self, terms: dict[int, float], upper: float) -> None:
        row = len(self.upper)
        self.entries += [(row, column, value) for column, value in terms.items()]
        self.upper.append(upper)

    def constraint(self, columns: int) -> LinearConstraint:
        rows, places, values = zip(*self.entries, strict=True)
        matrix = csr_array((values, (rows, places)), shape=(len(self.upper), columns))
        return LinearConstraint(matrix, -np.inf, np.array(self.upper))


class _Program:
    """The variables of one timeline and capacity, and the rows that both programs share.

    Sizes are in units of their greatest common divisor, which loses nothing and keeps the solver's numbers small.
    Columns: x of each gap, o of each gap, w of each activation, u where two gaps meet, z of pairs, and the height.
    """

    def __init__(self, timeline: Timeline, capacity: float) -> None:
        self.timeline = timeline
        self.gaps = [row for row, read in enumerate(timeline.reads) if read.start is not None]
        self.unit = math.gcd(*(item.bytes for item in timeline.activations)) or 1
        sizes = [item.bytes // self.unit for item in timeline.activations]
        self.owner = [timeline.reads[row].activation for row in self.gaps]
        self.span = [(timeline.reads[row].start or 0, timeline.reads[row].position) for row in self.gaps]
        self.size = [sizes[index] for index in self.owner]
        self.room = int(min(capacity, self.unit * sum(self.size))) // self.unit
        self.rows = _Rows()
        self.cost: dict[int, float] = {}
        self.constant = sum(item.compulsory_bytes for item in timeline.activations) // self.unit
        gaps, activations = len(self.gaps), len(timeline.activations)
        self.columns = 2 * gaps + activations
        self.binary = list(range(gaps))
        self.height = self._column()
        self._traffic(sizes)
        self._loads()
        self._offsets()

    def _column(self, *, binary: bool = False) -> int:
        if binary:
            self.binary.append(self.columns)
        self.columns += 1
        return self.columns - 1

    def _traffic(self, sizes: list[int]) -> None:
        for gap, row in enumerate(self.gaps):
            index = self.owner[gap]
            item = self.timeline.activations[index]
            times = item.times[item.reads.index(self.timeline.reads[row].position)]
            self.cost[gap] = -float(times * sizes[index])
            self.constant += times * sizes[index]
            if item.written is not None:
                written = 2 * len(self.gaps) + index
                self.cost[written] = float(sizes[index])
                self.rows.at_most({gap: -1.0, written: -1.0}, -1.0)

    def _loads(self) -> None:
        there: dict[tuple[int, int], list[int]] = {}
        for gap, (start, stop) in enumerate(self.span):
            for position in range(start, stop + 1):
                there.setdefault((position, self.owner[gap]), []).append(gap)
        loads: dict[int, dict[int, float]] = {}
        for (position, _), members in there.items():
            column = members[0]
            if len(members) > 1:  # the operator between two gaps holds the activation if either does
                column = self._column()
                for gap in members:
                    self.rows.at_most({gap: 1.0, column: -1.0}, 0.0)
            loads.setdefault(position, {})[column] = float(self.size[members[0]])
        for terms in loads.values():
            self.rows.at_most({**terms, self.height: -1.0}, 0.0)

    def _offsets(self) -> None:
        gaps, room = len(self.gaps), float(self.room)
        fitting = [gap for gap in range(gaps) if self.size[gap] <= self.room]  # x of the others is 0
        for rank, a in enumerate(fitting):
            self.rows.at_most({gaps + a: 1.0, self.height: -1.0, a: room}, room - self.size[a])
            for b in fitting[:rank]:
                if self.owner[a] == self.owner[b]:
                    if self.span[a][0] == self.span[b][1]:
                        for one, other in ((a, b), (b, a)):
                            terms = {gaps + one: 1.0, gaps + other: -1.0, a: room, b: room}
                            self.rows.at_most(terms, 2 * room)
                elif self._meet(a, b) and self.size[a] + self.size[b] <= self.room:
                    below = self._column(binary=True)
                    both = {a: room, b: room}
                    self.rows.at_most({gaps + a: 1.0, gaps + b: -1.0, below: room, **both}, 3 * room - self.size[a])
                    self.rows.at_most({gaps + b: 1.0, gaps + a: -1.0, below: -room, **both}, 2 * room - self.size[b])

    def _meet(self, a: int, b: int) -> bool:
        return self.span[a][0] <= self.span[b][1] and self.span[b][0] <= self.span[a][1]

    def solve(self, time_limit_s: float, most_traffic: int | None = None) -> OptimizeResult:
        """Returns the solver's answer: least traffic, or the lowest height at ``most_traffic`` units."""
        gaps = len(self.gaps)
        upper = np.full(self.columns, 1.0)
        upper[gaps : 2 * gaps] = self.room
        upper[self.height] = self.room
        upper[:gaps] = [1.0 if size <= self.room else 0.0 for size in self.size]
        integral = np.zeros(self.columns)
        integral[self.binary] = 1
        traffic = np.zeros(self.columns)
        traffic[list(self.cost)] = list(self.cost.values())
        goal, constraints = traffic, [self.rows.constraint(self.columns)]
        if most_traffic is not None:
            goal = np.zeros(self.columns)
            goal[self.height] = 1.0
            constraints.append(LinearConstraint(traffic[None], -np.inf, most_traffic - self.constant))
        return milp(
            goal,
            integrality=integral,
            bounds=Bounds(0.0, upper),
            constraints=constraints,
            options={"time_limit": time_limit_s, "mip_rel_gap": 0.0},
        )

    def read(self, values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], dict[tuple[int, int], float]]:
        """Returns which reads are served on chip, and the offset of each held (activation, start of a gap)."""
        on_chip = np.zeros(len(self.timeline.reads), dtype=np.bool_)
        offsets = {}
        for gap, row in enumerate(self.gaps):
            if values[gap] > 0.5:
                on_chip[row] = True
                offsets[self.owner[gap], self.span[gap][0]] = float(values[len(self.gaps) + gap])
        return on_chip, offsets


def solve_exactly(timeline: Timeline, capacity: float, time_limit_s: float) -> Solution:
    """Returns the allocation with the least traffic, then the lowest peak, as far as ``time_limit_s`` allows."""
    started = time.perf_counter()
    program = _Program(timeline, capacity)
    if not program.gaps or not program.room:
        nothing = np.zeros(len(timeline.reads), dtype=np.bool_)
        moved = sum(item.dram_bytes([False] * len(item.reads)) for item in timeline.activations)
        return Solution(on_chip=nothing, blocks=(), offsets=(), bound_bytes=moved, peak_bound_bytes=0, seconds=0.0)
    first = program.solve(time_limit_s)
    bound, peak_bound, values = program.constant + _bound(first), 0, first.x
    left = time_limit_s - (time.perf_counter() - started)
    if values is not None and left > 0:
        second = program.solve(left, most_traffic=program.constant + round(first.fun))
        peak_bound = max(0, _bound(second))
        values = values if second.x is None else second.x
    on_chip, wanted = (None, {}) if values is None else program.read(values)
    blocks = () if on_chip is None else runs(timeline, on_chip)
    return Solution(
        on_chip=on_chip,
        blocks=blocks,
        offsets=_settled(blocks, wanted),
        bound_bytes=bound * program.unit,
        peak_bound_bytes=peak_bound * program.unit,
        seconds=time.perf_counter() - started,
    )


def _bound(result: OptimizeResult) -> int:
    """Returns the proven lower bound of a whole-numbered objective; far below everything where there is none."""
    bound = result.mip_dual_bound
    return math.ceil(bound - 1e-5) if bound is not None and math.isfinite(bound) else -(10**18)


def _settled(blocks: tuple[tuple[int, Block], ...], wanted: dict[tuple[int, int], float]) -> tuple[int, ...]:
    """Returns whole offsets in the order of the solver's, each block as low as those below it allow.

    The solver's own offsets are right up to its tolerance only.
    """
    offsets = [0] * len(blocks)
    order = sorted(range(len(blocks)), key=lambda i: wanted[blocks[i][0], blocks[i][1].first])
    for rank, i in enumerate(order):
        block = blocks[i][1]
        offsets[i] = max(
            (
                offsets[j] + blocks[j][1].bytes
                for j in order[:rank]
                if blocks[j][1].first <= block.last and block.first <= blocks[j][1].last
            ),
            default=0,
        )
    return tuple(offsets)
