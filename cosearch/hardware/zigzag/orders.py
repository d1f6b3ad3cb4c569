"""Loop orders: the factors of each temporal loop, and every order of them.

LOMA (Symons et al. 2021, "LOMA: Fast auto-scheduling on DNN accelerators through loop-order-based memory allocation",
AICAS) splits each loop into prime factors and tries all orders of the factors. With more factors than ``limit``, it
merges the two smallest of the loop that has the most, until ``limit`` are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.zigzag.architecture import IRRELEVANT, LOOPS, RELEVANT, Loop, Operand

__all__ = ["LIMIT", "Orders", "orders", "prime_factors"]

Ints = NDArray[np.int64]

LIMIT = 6
"""The tool's default ``lpf_limit``: at most 720 orders."""

_MOST = 8
"""40320 orders; beyond that, the tables no longer fit in a few hundred megabytes."""


def prime_factors(number: int) -> list[int]:
    """Returns the prime factors of ``number``, rising; none for 1."""
    found = []
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found


def _factors(iterations: Mapping[Loop, int], limit: int) -> list[tuple[int, int]]:
    """Returns (position in `LOOPS`, factor), merged until there are at most ``limit`` or one for each loop."""
    split = {loop: prime_factors(iterations[loop]) for loop in LOOPS}
    limit = max(limit, sum(1 for factors in split.values() if factors))
    while sum(map(len, split.values())) > limit:
        largest = max(LOOPS, key=lambda loop: len(split[loop]))  # the first of those that tie
        first, second, *rest = split[largest]
        split[largest] = sorted([first * second, *rest])
    return [(LOOPS.index(loop), factor) for loop in LOOPS for factor in split[loop]]


def _distinct(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yields every distinct order of ``counts[i]`` copies of each i."""
    if not any(counts):
        yield ()
        return
    for first, count in enumerate(counts):
        if count:
            rest = (*counts[:first], count - 1, *counts[first + 1 :])
            yield from ((first, *order) for order in _distinct(rest))


@lru_cache(maxsize=64)
def _permutations(counts: tuple[int, ...]) -> Ints:
    """Returns the distinct orders of a multiset. Shape (orders, factors)."""
    found = list(_distinct(counts))
    table = np.array(found, dtype=np.int64).reshape(len(found), sum(counts))
    table.setflags(write=False)
    return table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Orders:
    """Every order of the temporal loops' factors, innermost first.

    Attributes:
        loops: positions in `LOOPS`. Shape (orders, factors).
        upto: iterations of the first j loops. Shape (orders, factors + 1).
        upto_of: of them, those of each loop; likewise.
    """

    loops: Ints
    upto: Ints
    upto_of: Mapping[Loop, Ints]

    def reused_until(self, operand: Operand) -> Ints:
        """Returns, for each position, the next one at or after it whose loop is relevant to ``operand``.

        Shape (orders, factors + 1).
        """
        reuses = self.loops == LOOPS.index(IRRELEVANT[operand])
        until = np.full(self.upto.shape, reuses.shape[1], dtype=np.int64)
        for position in reversed(range(reuses.shape[1])):
            until[:, position] = np.where(reuses[:, position], until[:, position + 1], position)
        return until

    def run_before(self, operand: Operand, *, relevant: bool) -> Ints:
        """Returns, for each position, where the unbroken run of (ir)relevant loops that ends there begins.

        Shape (orders, factors + 1).
        """
        counts = (self.loops != LOOPS.index(IRRELEVANT[operand])) == relevant
        start = np.zeros(self.upto.shape, dtype=np.int64)
        for position in range(counts.shape[1]):
            start[:, position + 1] = np.where(counts[:, position], start[:, position], position + 1)
        return start

    def keep(self, which: NDArray[np.bool_]) -> Orders:
        """Returns the orders for which ``which`` is true."""
        return Orders(
            loops=self.loops[which],
            upto=self.upto[which],
            upto_of={loop: upto[which] for loop, upto in self.upto_of.items()},
        )

    def relevant_upto(self, operand: Operand) -> Ints:
        """Returns iterations of the first j loops, of those that index ``operand``. Shape (orders, factors + 1)."""
        first, second = RELEVANT[operand]
        return self.upto_of[first] * self.upto_of[second]


def orders(iterations: Mapping[Loop, int], limit: int = LIMIT) -> Orders:
    """Returns every order of the factors of ``iterations``.

    Raises:
        SpecError: ``limit`` is below 1, or so large that the orders fill the memory.
    """
    if not 1 <= limit <= _MOST:
        raise SpecError("lpf_limit", f"is {limit}", f"write 1 to {_MOST}")
    factors = _factors(iterations, limit)
    kinds = sorted(set(factors))
    table = _permutations(tuple(factors.count(kind) for kind in kinds))
    loops = np.array([loop for loop, _ in kinds], dtype=np.int64)[table]
    sizes = np.array([size for _, size in kinds], dtype=np.int64)[table]
    upto = _running(sizes)
    assert upto[0, -1] == prod(iterations[loop] for loop in LOOPS)
    upto_of = {loop: _running(np.where(loops == LOOPS.index(loop), sizes, 1)) for loop in LOOPS}
    return Orders(loops=loops, upto=upto, upto_of=upto_of)


def _running(sizes: Ints) -> Ints:
    """Returns the running product along each row, beginning with 1."""
    return np.concatenate([np.ones((sizes.shape[0], 1), dtype=np.int64), np.cumprod(sizes, axis=1)], axis=1)
