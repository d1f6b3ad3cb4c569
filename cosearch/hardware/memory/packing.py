"""Offsets for blocks of memory whose lifetimes are known: dynamic storage allocation.

Blocks that are alive together must not overlap; the highest end should be low. No packing is lower than the most bytes
alive at once, so one of that height is optimal. First a depth-first search tries that height: blocks in the order of
their first use, each at either end of each gap, going back where a block fits nowhere and never entering the same
situation twice. That is the shape of TelaMalloc (Maas et al. 2022), whose solver is not needed with so few blocks
alive at once. Where the search gives up, greedy by size for offset calculation (Pisarchyk and Lee 2020) finds some
height, and the search is tried between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "fit", "greedy_by_size", "most_alive", "pack"]

MOST_VISITS = 3000
"""Situations that one search may enter, about 2 microseconds each."""
HALVINGS = 4
"""Heights tried between the bound and the greedy packing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Memory wanted from position ``first`` to ``last``, both included.

    Attributes:
        bytes: how much.
        first: first position at which it is alive.
        last: last position at which it is alive.
        shrinks: (position, bytes) from which on only the lowest bytes are needed, by position, ever fewer.
    """

    bytes: int
    first: int
    last: int
    shrinks: tuple[tuple[int, int], ...] = ()

    def bytes_at(self, position: int) -> int:
        """Returns the bytes needed at ``position``, at which it is alive."""
        size = self.bytes
        for since, smaller in self.shrinks:
            if since <= position:
                size = smaller
        return size


def most_alive(blocks: Sequence[Block]) -> int:
    """Returns the most bytes alive at once, below which no packing can be."""
    change: dict[int, int] = {}
    for block in blocks:
        change[block.first] = change.get(block.first, 0) + block.bytes
        size = block.bytes
        for since, smaller in block.shrinks:
            change[since] = change.get(since, 0) + smaller - size
            size = smaller
        change[block.last + 1] = change.get(block.last + 1, 0) - size
    alive = most = 0
    for position in sorted(change):
        alive += change[position]
        most = max(most, alive)
    return most


def pack(blocks: Sequence[Block]) -> tuple[tuple[int, ...], int]:
    """Returns an offset in bytes for each of ``blocks``, and the height reached; deterministic."""
    bound = most_alive(blocks)
    found, _ = fit(blocks, bound)
    if found is not None:
        return found, bound
    best, height = greedy_by_size(blocks)
    low = bound
    for _ in range(HALVINGS):
        middle = (low + height) // 2
        if middle in (low, height):
            break
        found, _ = fit(blocks, middle)
        if found is None:
            low = middle
        else:
            best, height = found, _height(blocks, found)
    return best, height


def greedy_by_size(blocks: Sequence[Block]) -> tuple[tuple[int, ...], int]:
    """Returns offsets and height where large blocks go first, each to the smallest gap that takes it."""
    offsets = [-1] * len(blocks)
    for index in sorted(range(len(blocks)), key=lambda i: (-blocks[i].bytes, blocks[i].first, i)):
        block = blocks[index]
        taken = sorted(
            (offset, offset + other.bytes)
            for offset, other in zip(offsets, blocks, strict=True)
            if offset >= 0 and other.first <= block.last and block.first <= other.last
        )
        end, chosen, smallest = 0, -1, -1
        for low, high in taken:
            gap = low - end
            if gap >= block.bytes and (chosen < 0 or gap < smallest):
                chosen, smallest = end, gap
            end = max(end, high)
        offsets[index] = end if chosen < 0 else chosen
    return tuple(offsets), _height(blocks, offsets)


def _height(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    return max((offset + block.bytes for offset, block in zip(offsets, blocks, strict=True)), default=0)


def fit(blocks: Sequence[Block], height: int) -> tuple[tuple[int, ...] | None, int]:
    """Returns offsets within ``height``, or ``None`` where none were found in `MOST_VISITS` situations.

    The second result is the block before which the search got stuck, of those that it reached the last in time.
    """
    order, alive = _by_time(blocks)
    sizes = [blocks[index].bytes for index in order]
    offsets = [0] * len(order)
    choices: list[list[int]] = []  # offsets that were not tried yet, the next one last
    dead: set[tuple[int, ...]] = set()
    visits = deepest = 0
    while len(choices) < len(order):
        depth = len(choices)
        visits += 1
        deepest = max(deepest, depth)
        if visits > MOST_VISITS:
            return None, order[deepest]
        if dead and (depth, *[offsets[i] for i, _ in alive[depth]]) in dead:
            choices.append([])
        else:
            ends = _gap_ends(
                sorted([(offsets[i], offsets[i] + size) for i, size in alive[depth]]), sizes[depth], height
            )
            choices.append(ends)
        while not choices[-1]:
            choices.pop()
            if not choices:
                return None, order[deepest]
            dead.add((len(choices), *[offsets[i] for i, _ in alive[len(choices)]]))
        depth = len(choices) - 1
        offsets[depth] = choices[depth].pop()
    found = [0] * len(order)
    for depth, index in enumerate(order):
        found[index] = offsets[depth]
    return tuple(found), -1


def _by_time(blocks: Sequence[Block]) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Returns blocks in the order of their first use, and for each depth in it the depths still alive, with bytes."""
    order = sorted(range(len(blocks)), key=lambda i: (blocks[i].first, -blocks[i].last, -blocks[i].bytes, i))
    alive: list[list[tuple[int, int]]] = []
    active: list[int] = []
    for depth, index in enumerate(order):
        first = blocks[index].first
        active = [other for other in active if blocks[order[other]].last >= first]
        alive.append([(other, blocks[order[other]].bytes_at(first)) for other in active])
        active = [*active, depth]
    return order, alive


def _gap_ends(taken: Sequence[tuple[int, int]], size: int, height: int) -> list[int]:
    """Returns the offsets at either end of each gap that takes ``size`` bytes, the lowest last.

    Args:
        taken: first byte and end of what is there, sorted.
        size: bytes wanted.
        height: where memory ends.
    """
    found = []
    end = 0
    for low, high in taken:
        spare = low - end - size
        if spare >= 0:
            found.append(end)
            if spare:
                found.append(low - size)
        end = high
    spare = height - end - size
    if spare >= 0:
        found.append(end)
        if spare:
            found.append(height - size)
    found.reverse()
    return found
