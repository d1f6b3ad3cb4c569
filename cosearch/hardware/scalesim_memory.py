"""SCALE-Sim v3's memory system, replayed: DRAM accesses and stalls as release 3.0.0 reports them.

For comparison with the tool only. `cosearch.hardware.estimate` does not use it, because the tool's limited bandwidth
(``InterfaceBandwidth: USER``) is no model of a memory:

- A miss in a read buffer slides a window over a fixed prefetch order by half a buffer until the word appears, so one
  word out of order costs several half buffers; a word that was just dropped costs a trip around the whole operand.
- The time by which a prefetch is late is added twice (and once where it is early, as a negative number).
- Each operand has the whole bandwidth to itself, and fetched padding counts as reads.

With ample bandwidth (``CALC``) nothing stalls, and a read buffer forgets everything each time that half of it filled.
One word is one byte. Input stationary is weight stationary with the operands exchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.systolic import SystolicArray

__all__ = ["ScaleSimMemory", "scalesim_memory"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSimMemory:
    """What SCALE-Sim v3 reports of the memory system.

    Attributes:
        stall_cycles: cycles lost to buffers.
        ifmap_dram_reads: words fetched for the left operand.
        filter_dram_reads: words fetched for the right operand.
        ofmap_dram_writes: words of outputs and partial sums written.
    """

    stall_cycles: int
    ifmap_dram_reads: int
    filter_dram_reads: int
    ofmap_dram_writes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Operand:
    """Requests of one operand: ``lines`` (cycle without stalls) and ``words`` (what is asked for), in order.

    ``rank`` gives each word's place in the prefetch order; ``padded`` counts that order's words and padding.
    """

    lines: Ints
    words: Ints
    rank: Ints
    padded: int


def scalesim_memory(
    m: int, k: int, n: int, array: SystolicArray, *, bandwidth: Literal["CALC", "USER"], words_per_cycle: int = 10
) -> ScaleSimMemory:
    """Returns what SCALE-Sim v3 reports of an (m x k) by (k x n) product on ``array``.

    Takes memory and time in proportion to the scratchpad accesses: for tests and validation, not for searches.

    Args:
        m: rows of the left operand.
        k: length of the reduction.
        n: columns of the right operand.
        array: the accelerator; its bandwidth is not used.
        bandwidth: the tool's mode.
        words_per_cycle: the bandwidth of ``USER``.
    """
    if array.dataflow == "is":
        m, n = n, m
    left_kib, right_kib = array.ifmap_kib, array.filter_kib
    if array.dataflow == "is":
        left_kib, right_kib = right_kib, left_kib
    stationary = array.dataflow != "os"
    left, right, outputs = (_stationary if stationary else _output_stationary)(m, k, n, array.rows, array.cols)
    drained = array.ofmap_kib * 1024
    if bandwidth == "CALC":
        stalls, writes = _timing(outputs, {}, {}, drained, array.cols, 0, 0)
        reads = [_calc_reads(left, left_kib * 1024), _calc_reads(right, right_kib * 1024)]
    else:
        sizes = (left_kib * 1024, right_kib * 1024)
        slides = [_slides(part, size) for part, size in zip((left, right), sizes, strict=True)]
        late = [math.ceil(size // 2 / words_per_cycle) for size in sizes]
        stalls, writes = _timing(outputs, slides[0], slides[1], drained, words_per_cycle, late[0], late[1])
        reads = [
            words_per_cycle * (min(lines, math.ceil(part.padded / words_per_cycle)) + lines * sum(moves.values()))
            for part, lines, moves in zip((left, right), late, slides, strict=True)
        ]
    if array.dataflow == "is":
        reads.reverse()
    return ScaleSimMemory(
        stall_cycles=stalls, ifmap_dram_reads=reads[0], filter_dram_reads=reads[1], ofmap_dram_writes=writes
    )


def _stationary(m: int, k: int, n: int, rows: int, cols: int) -> tuple[_Operand, _Operand, Ints]:
    """Returns requests of the streamed (m x k) and the stationary (k x n) operand, and outputs per line."""
    row_folds, col_folds = -(-k // rows), -(-n // cols)
    length = 2 * rows + cols + m - 2
    t, r = _skewed(m, rows)
    line, across = np.divmod(np.arange(rows * cols), cols)
    down = rows - 1 - line  # the last row loads first
    streamed, kept, outputs = [], [], np.zeros(row_folds * col_folds * length, dtype=np.int64)
    for fold in range(row_folds * col_folds):
        fc, fr = divmod(fold, row_folds)
        inside = fr * rows + r < k
        streamed.append((fold * length + rows + (t + r)[inside], (t * k + fr * rows + r)[inside]))
        inside = (fr * rows + down < k) & (fc * cols + across < n)
        where = (fr * rows + down) * n + fc * cols + across
        kept.append((fold * length + line[inside], where[inside]))
        _count_outputs(outputs, fold * length + 2 * rows - 1, m, min(cols, n - fc * cols))
    left = np.arange(m * k)
    stacked = (left % k // rows) * m + left // k
    diagonal = np.lexsort((-stacked, stacked + left % k % rows))
    right = np.arange(k * n)
    by_column_fold = np.lexsort((right % n % cols, right // n, right % n // cols))
    return (
        _operand(streamed, diagonal, row_folds * m * rows),
        _operand(kept, by_column_fold, col_folds * k * cols),
        outputs,
    )


def _output_stationary(m: int, k: int, n: int, rows: int, cols: int) -> tuple[_Operand, _Operand, Ints]:
    """Returns requests of the (m x k) and the (k x n) operand, and outputs per line."""
    row_folds, col_folds = -(-m // rows), -(-n // cols)
    length = rows + cols + k - 2
    lt, lr = _skewed(k, rows)
    rt, rc = _skewed(k, cols)
    lefts, rights, outputs = [], [], np.zeros(row_folds * col_folds * length, dtype=np.int64)
    for fold in range(row_folds * col_folds):
        fc, fr = divmod(fold, row_folds)
        inside = fr * rows + lr < m
        lefts.append((fold * length + (lt + lr)[inside], ((fr * rows + lr) * k + lt)[inside]))
        inside = fc * cols + rc < n
        rights.append((fold * length + (rt + rc)[inside], (rt * n + fc * cols + rc)[inside]))
        used = min(rows, m - fr * rows)
        _count_outputs(outputs, fold * length + k - 1 + rows - used, used, min(cols, n - fc * cols))
    left, right = np.arange(m * k), np.arange(k * n)
    stacked = (left // k // rows) * k + left % k
    left_order = np.lexsort((-stacked, stacked + left // k % rows))
    stacked = (right % n // cols) * k + right // n
    right_order = np.lexsort((-stacked, stacked + right % n % cols))
    return (
        _operand(lefts, left_order, row_folds * k * rows),
        _operand(rights, right_order, col_folds * k * cols),
        outputs,
    )


def _skewed(steps: int, lanes: int) -> tuple[Ints, Ints]:
    """Returns step and lane of a block's requests in the order they come: step t enters lane l on line t + l."""
    step, lane = np.divmod(np.arange(steps * lanes), lanes)
    order = np.lexsort((lane, step + lane))
    return step[order], lane[order]


def _count_outputs(outputs: Ints, start: int, steps: int, lanes: int) -> None:
    """Adds a skewed block of ``steps`` outputs on each of ``lanes`` columns, from line ``start`` on."""
    for lane in range(lanes):
        outputs[start + lane : start + lane + steps] += 1


def _operand(parts: list[tuple[Ints, Ints]], order: Ints, padded: int) -> _Operand:
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    lines, words = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return _Operand(lines=lines, words=words, rank=rank, padded=padded)


def _calc_reads(operand: _Operand, size: int) -> int:
    """Returns the words fetched by a buffer that forgets all once 50 of its 100 sets filled."""
    capacity = 50 * (size // 100)
    words = operand.words
    if operand.rank.size < capacity:
        return int(operand.rank.size)
    order = np.argsort(words, kind="stable")
    before = np.full(words.size, -1, dtype=np.int64)
    again = words[order][1:] == words[order][:-1]
    before[order[1:][again]] = order[:-1][again]
    total, start = 0, 0
    while start < words.size:
        span = capacity * 2
        while True:
            fresh = np.cumsum(before[start : start + span] < start)
            if fresh[-1] >= capacity or start + span >= words.size:
                break
            span *= 2
        total += min(int(fresh[-1]), capacity)
        start += int(np.searchsorted(fresh, capacity)) + 1
    return total


def _slides(operand: _Operand, size: int) -> dict[int, int]:
    """Returns, for each line with misses, how often the window of a read buffer of ``size`` words slides."""
    per_set = math.ceil(size / 100)
    sets = operand.rank.size // per_set + 1
    active = min(sets, math.ceil(math.ceil(size / 2) / per_set))
    step = min(sets - active, math.ceil(size // 2 / per_set))
    wanted = operand.rank[operand.words] // per_set
    moves: dict[int, int] = {}
    start, position, span = 0, 0, 4096
    while position < wanted.size and step:
        missing = (wanted[position : position + span] - start) % sets >= active
        if not missing.any():
            position += span
            continue
        position += int(np.argmax(missing))
        line = int(operand.lines[position])
        while (int(wanted[position]) - start) % sets >= active:
            start = (start + step) % sets
            moves[line] = moves.get(line, 0) + 1
    return moves


def _timing(
    outputs: Ints, left: dict[int, int], right: dict[int, int], size: int, width: int, left_lines: int, right_lines: int
) -> tuple[int, int]:
    """Returns stall cycles and words written, line by line."""
    stalls = 0
    loaded = [-1, -1]
    drain = _Drain(size, width)
    for line, count in enumerate(outputs.tolist()):
        cycle = line + stalls
        worst = drain.write(cycle, count) if count else 0
        for side, (moves, lines) in enumerate(((left, left_lines), (right, right_lines))):
            offset = 1
            for _ in range(moves.get(line, 0)):
                loaded[side] += lines + 1
                late = loaded[side] - (cycle + offset)
                offset += late + max(late, 0)
            worst = max(worst, offset - 1)
        stalls += worst
    drain.finish()
    return stalls, drain.written


class _Drain:
    """The tool's write buffer: fills, and drains half of itself, a row of ``width`` words a cycle."""

    def __init__(self, size: int, width: int) -> None:
        self.half, self.width = size // 2, width
        self.keep = size - self.half
        self.free = size
        self.rows: list[int] = []  # words in each row that waits for DRAM
        self.open = 0
        self.busy_until = 0
        self.written = 0

    def write(self, cycle: int, count: int) -> int:
        now = cycle
        for _ in range(count):
            self.free -= 1
            self.open += 1
            if self.open == self.width:
                self._close()
            if now < self.busy_until:
                if self.free <= 0:
                    now = self.busy_until
            elif self.free < self.keep:
                self._close()
                self.busy_until = now + self._empty() - 1
        return now - cycle

    def finish(self) -> None:
        self._close()
        while self.rows:
            self._empty()

    def _close(self) -> None:
        if self.open:
            self.rows.append(self.open)
            self.open = 0

    def _empty(self) -> int:
        rows = min(math.ceil(self.half / self.width), len(self.rows))
        # padding counts as written, except in the last row
        words = rows * self.width - (self.width - self.rows[rows - 1])
        del self.rows[:rows]
        self.written += words
        self.free += words
        return rows
