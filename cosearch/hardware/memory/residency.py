"""Which activations stay on chip between their accesses, for any number of capacities at once.

The choice is the one of COSMA ("tensor replacement", Li, Gupta and Malik 2023) and of mallocMuZero (Wang et al. 2023)
for operators in a given order: between two accesses an activation is held on chip or not. A read of one that was not
held comes from DRAM, and one that is not held all the time is written to DRAM once. What is not held streams through
the operator's own tile buffers and takes no part of the capacity, so that capacity 0 is legal: then everything moves.
An activation that is held occupies its bytes from one access to the next, both operators included.

A dynamic program over the operators is exact for the sum of the bytes held (offsets come later, in `packing`): few
activations of a transformer are alive at once, so the states are few. Among the choices with the least traffic it
finds one with the lowest peak. Traffic is therefore a falling step function of the capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.memory.patterns import BOTH, CHIP, DRAM, Member, Pattern, Role, pattern
from cosearch.workload import Workload

__all__ = ["Activation", "Read", "Timeline"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_MOVES = 4096
"""Moves over one operator; where more activations live at once, those that gain least are never held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An activation and its accesses.

    Attributes:
        name: the tensor's name.
        bytes: its size.
        written: position of the operator that writes it; ``None`` where it comes from DRAM.
        reads: distinct positions of the operators that read it, in order.
        times: how often the operator at each of ``reads`` reads it.
        accesses: the write, where there is one, and the reads.
    """

    name: str
    bytes: int
    written: int | None
    reads: tuple[int, ...]
    times: tuple[int, ...]
    accesses: tuple[int, ...]

    @property
    def gaps(self) -> int:
        """Between how many pairs of accesses it can be held."""
        return max(0, len(self.accesses) - 1)

    @property
    def compulsory_bytes(self) -> int:
        """DRAM traffic that no capacity avoids: the first read of an input, the write of an output."""
        if self.written is None:
            return self.bytes * self.times[0]
        return 0 if self.reads else self.bytes

    def dram_bytes(self, on_chip: Sequence[bool]) -> int:
        """Returns its DRAM traffic, given for each of ``reads`` whether it is served on chip."""
        reads = sum(times * self.bytes for times, held in zip(self.times, on_chip, strict=True) if not held)
        return reads + (self.bytes if self.written is not None and not (self.reads and all(on_chip)) else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One activation read by one operator.

    Attributes:
        position: the operator's.
        activation: index of the activation in `Timeline.activations`.
        start: position of the access before; ``None`` where this is an input's first.
    """

    position: int
    activation: int
    start: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """One operator's pattern priced: traffic and bytes held, each of shape (states after, moves, 1).

    ``reads`` says which members are read here: (place in the pattern, index in `Timeline.reads`).
    """

    pattern: Pattern
    reads: tuple[tuple[int, int], ...]
    traffic: Floats
    held: Floats


class Timeline:
    """The activations of a workload in time, ready to be solved for capacities.

    Attributes:
        activations: in the order of `Workload.tensors`.
        reads: every read of an activation, in order of operators, then of activations.
        exact: whether all activations could be considered; `solve` is then exact for the sum of bytes.
    """

    def __init__(self, workload: Workload) -> None:
        self.activations = tuple(_activations(workload))
        self.reads = tuple(_reads(self.activations))
        self._rows: list[list[int]] = [[] for _ in self.activations]  # of the reads of each activation, in order
        for index, read in enumerate(self.reads):
            self._rows[read.activation].append(index)
        self._candidates, self.exact = _candidates(self.activations, len(workload.operators))
        chosen = set(self._candidates)
        self._fixed = sum(
            a.compulsory_bytes if i in chosen or not a.gaps else a.dram_bytes([False] * len(a.reads))
            for i, a in enumerate(self.activations)
        )
        self._moves = self._priced(len(workload.operators))

    def rows(self, activation: int) -> Sequence[int]:
        """Returns the indices in `reads` of the reads of an activation, in order."""
        return self._rows[activation]

    def solve(self, capacities: Floats) -> tuple[Floats, Floats, Bools]:
        """Returns the best residency for each capacity.

        Args:
            capacities: bytes, of shape (capacities,); infinity is one.

        Returns:
            DRAM traffic in bytes and peak of the bytes held, of shape (capacities,), and whether each read is served
            on chip, of shape (reads, capacities). Among the choices with the least traffic, the peak is the lowest.
        """
        best = np.zeros((1, capacities.size))
        peak = np.zeros((1, capacities.size))
        chosen = []
        for move in self._moves:
            best, peak, choice = _advance(move, best, peak, capacities)
            chosen.append(choice)
        return self._fixed + best[0], peak[0], self._trace(chosen, capacities.size)

    def _trace(self, chosen: list[NDArray[np.intp]], count: int) -> Bools:
        """Returns which reads are served on chip, going back from the last state along the ``chosen`` moves."""
        on_chip = np.zeros((len(self.reads), count), dtype=np.bool_)
        state, column = np.zeros(count, dtype=np.intp), np.arange(count)
        for position in range(len(self._moves) - 1, -1, -1):
            move, choice = self._moves[position], chosen[position][state, column]
            flat = state * move.pattern.source.shape[1] + choice
            for place, index in move.reads:
                on_chip[index] = move.pattern.reads[flat, place] == 0
            state = move.pattern.source.reshape(-1)[flat]
        return on_chip

    def _priced(self, operators: int) -> list[_Move]:
        steps = _members(self.activations, self._candidates, self._rows, operators)
        together: dict[tuple[Member, ...], list[int]] = {}
        for position, step in enumerate(steps):
            together.setdefault(tuple([member for _, member, _ in step]), []).append(position)
        sizes = np.array([item.bytes for item in self.activations], dtype=np.float64)
        read_bytes = np.zeros(len(self.reads) + 1)  # the last one is for what is not read
        for item, rows in zip(self.activations, self._rows, strict=True):
            for row, times in zip(rows, item.times, strict=True):
                read_bytes[row] = item.bytes * times
        moves: list[_Move | None] = [None] * operators
        for members, positions in together.items():
            shared = pattern(members)
            shape = (len(positions), len(members))
            who = np.array([index for p in positions for index, _, _ in steps[p]], dtype=np.intp).reshape(shape)
            read = np.array([row for p in positions for _, _, row in steps[p]], dtype=np.intp).reshape(shape)
            moved = read_bytes[read] @ shared.reads.T + sizes[who] @ shared.writes.T
            shape = (len(positions), *shared.source.shape, 1)
            traffic = moved.reshape(shape) + shared.missing[:, :, None]
            held = (sizes[who] @ shared.held.T).reshape(shape)
            for index, position in enumerate(positions):
                reads = tuple([(place, row) for place, (_, _, row) in enumerate(steps[position]) if row >= 0])
                moves[position] = _Move(shared, reads, traffic[index], held[index])
        return [move for move in moves if move is not None]


def _advance(move: _Move, best: Floats, peak: Floats, capacities: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Returns traffic and peak of the states after an operator, and the move that leads to each.

    All of shape (states, capacities); a state that cannot be reached has infinite traffic.
    """
    source = move.pattern.source
    traffic = best.take(source, axis=0) + move.traffic
    high = np.maximum(peak.take(source, axis=0), move.held)
    traffic[high > capacities] = np.inf
    if source.shape[1] == 1:
        return traffic[:, 0], high[:, 0], np.zeros(traffic.shape[::2], dtype=np.intp)
    least = np.minimum.reduce(traffic, axis=1)
    high[traffic > least[:, None]] = np.inf
    choice = high.argmin(axis=1)
    return least, np.minimum.reduce(high, axis=1), choice


def _activations(workload: Workload) -> list[Activation]:
    written: dict[str, int] = {}
    reads: dict[str, dict[int, int]] = {}
    for position, op in enumerate(workload.operators):
        written.setdefault(op.output, position)
        for name in op.inputs:
            times = reads.setdefault(name, {})
            times[position] = times.get(position, 0) + 1
    found = []
    for tensor in workload.tensors:
        name = tensor.name
        if tensor.weight or (name not in written and name not in reads):
            continue
        times, start = reads.get(name, {}), written.get(name)
        positions = tuple(times)
        found.append(
            Activation(
                name=name,
                bytes=tensor.bytes,
                written=start,
                reads=positions,
                times=tuple(times.values()),
                accesses=positions if start is None else (start, *positions),
            )
        )
    return found


def _reads(activations: Sequence[Activation]) -> list[Read]:
    found = []
    for index, item in enumerate(activations):
        start = item.written
        for position in item.reads:
            found.append(Read(position=position, activation=index, start=start))
            start = position
    return sorted(found, key=lambda read: (read.position, read.activation))


def _places(item: Activation, gap: int) -> tuple[int, ...]:
    """Returns where the activation can be in its ``gap``, counted from 0."""
    if item.written is None or gap in (0, item.gaps - 1):
        return (DRAM, CHIP)
    return (DRAM, CHIP, BOTH)


def _candidates(activations: Sequence[Activation], operators: int) -> tuple[tuple[int, ...], bool]:
    """Returns the activations that may be held, and whether these are all that could be."""
    chosen = [index for index, item in enumerate(activations) if item.gaps]
    exact = True
    while True:
        moves = [1] * operators
        for index in chosen:
            item = activations[index]
            moves[item.accesses[0]] *= 2
            for gap, (start, stop) in enumerate(pairwise(item.accesses)):
                places = len(_places(item, gap))
                for position in range(start + 1, stop):
                    moves[position] *= places
                moves[stop] *= places if stop == item.accesses[-1] else 2 * places
        most = max(moves, default=1)
        if most <= MOST_MOVES:
            return tuple(chosen), exact
        worst = moves.index(most)
        there = [i for i in chosen if activations[i].accesses[0] <= worst <= activations[i].accesses[-1]]
        chosen.remove(min(there, key=lambda index: _gain(activations[index])))
        exact = False


def _gain(item: Activation) -> float:
    """Returns accesses saved per operator that it is held over (its bytes cancel)."""
    return len(item.accesses) / (item.accesses[-1] - item.accesses[0] + 1)


def _members(
    activations: Sequence[Activation], candidates: Sequence[int], rows: Sequence[Sequence[int]], operators: int
) -> list[list[tuple[int, Member, int]]]:
    """Returns for each operator the candidates alive around it, in order of birth.

    Each with what the operator does to it and with its row in `Timeline.reads`, -1 where it is not read or where
    reading it from DRAM is compulsory.
    """
    steps: list[list[tuple[int, Member, int]]] = [[] for _ in range(operators)]
    for index in sorted(candidates, key=lambda i: (activations[i].accesses[0], i)):
        item = activations[index]
        copied = item.written is None
        places = _places(item, 0)
        steps[item.accesses[0]].append((index, (Role.FETCH if copied else Role.WRITE, (), places, copied), -1))
        for gap, (start, stop) in enumerate(pairwise(item.accesses)):
            passing = (index, (Role.PASS, places, places, copied), -1)
            for position in range(start + 1, stop):
                steps[position].append(passing)
            row = rows[index][gap + copied]
            if gap + 1 < item.gaps:
                later = _places(item, gap + 1)
                steps[stop].append((index, (Role.READ, places, later, copied), row))
                places = later
            else:
                steps[stop].append((index, (Role.LAST_READ, places, (), copied), row))
    return steps
