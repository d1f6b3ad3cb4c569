"""Which loops each memory holds: an order's loops, innermost first, given to the levels from the array outward.

A memory takes, of each operand that it holds, as many of the loops left as fit; where operands share it, the
combination that asks the fewest bits of the level above (Symons et al. 2021, section III). Irrelevant loops at the
bottom of a level then count for the level below, where they reuse what lies there ("stationary" in Mei et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.zigzag.architecture import OPERANDS, RELEVANT, Loop, Memory, Operand, ZigZagArchitecture
from cosearch.hardware.zigzag.mapping import Product, unroll
from cosearch.hardware.zigzag.orders import Orders, orders

__all__ = ["Allocation", "NoOrderFitsError", "allocate"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class NoOrderFitsError(SpecError):
    """The memories are too small for the product, in whatever order its loops run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocation:
    """All orders whose loops fit, and the levels that their loops went to.

    Attributes:
        orders: the orders.
        ends: of each operand, how many of the loops lie at each level or below it. Shape (levels, orders).
    """

    orders: Orders
    ends: Mapping[Operand, Ints]


@dataclass(slots=True, kw_only=True, eq=False)
class _Progress:
    """How far the loops of one operand have been given out.

    Attributes:
        operand: which.
        spread: the loops unrolled below each of its levels, from the array outward.
        done: how many loops its memories hold so far. Shape (orders,).
        extent: what they and the unrolled loops span, for each relevant loop. Shape (orders,).
        ends: ``done`` after each level.
    """

    operand: Operand
    spread: tuple[Mapping[Loop, float], ...]
    done: Ints
    extent: dict[Loop, Floats]
    ends: list[Ints] = field(default_factory=list)

    def unroll(self) -> None:
        """Takes in the loops unrolled below the next level."""
        for loop in self.extent:
            self.extent[loop] = self.extent[loop] * self.spread[len(self.ends)].get(loop, 1)

    def extents(self, table: Orders) -> dict[Loop, Floats]:
        """Returns what a tile would span that ends after each position. Shape (orders, factors + 1).

        Factor by factor, as the tool multiplies: extents that do not divide are fractions, and the rounding of their
        products decides which of two equal tiles the tool takes.
        """
        factors = table.upto[:, 1:] // table.upto[:, :-1]
        spans = {}
        for loop, extent in self.extent.items():
            own = table.upto_of[loop][:, 1:] > table.upto_of[loop][:, :-1]
            span = np.repeat(extent[:, None], table.upto.shape[1], axis=1)
            for position in range(factors.shape[1]):
                grows = own[:, position] & (position >= self.done)
                span[:, position + 1] = span[:, position] * np.where(grows, factors[:, position], 1)
            spans[loop] = span
        return spans

    def take(self, ends: Ints, table: Orders) -> None:
        """Gives the loops before ``ends`` to the present level."""
        spans = self.extents(table)
        self.extent = {loop: np.take_along_axis(span, ends[:, None], axis=1)[:, 0] for loop, span in spans.items()}
        self.done = ends
        self.ends.append(ends)
        self.unroll()


def allocate(product: Product, architecture: ZigZagArchitecture, limit: int) -> Allocation:
    """Returns where every loop of every order lies.

    Raises:
        NoOrderFitsError: no order fits into the memories.
    """
    unrolling, iterations = unroll(product, architecture, whole=False)
    table = orders(iterations, limit)
    count = table.upto.shape[0]
    progress = {
        operand: _Progress(
            operand=operand,
            spread=unrolling.at[operand],
            done=np.zeros(count, dtype=np.int64),
            extent={loop: np.ones(count) for loop in RELEVANT[operand]},
        )
        for operand in OPERANDS
    }
    for operand in OPERANDS:
        progress[operand].unroll()
    fits = np.ones(count, dtype=bool)
    for memory in architecture.memories:
        tops = [architecture.levels(operand)[-1] is memory for operand in memory.holds]
        fits &= _fill(memory, product, table, [progress[operand] for operand in memory.holds], tops)
    if not fits.any():
        raise NoOrderFitsError(
            "memories",
            f"of {architecture.name} are too small for a {product.m} x {product.k} by {product.k} x {product.n} "
            "product in any loop order",
            "make the smallest of them larger, or the operands narrower",
        )
    kept = table.keep(fits)
    ends = {operand: np.array(progress[operand].ends)[:, fits] for operand in OPERANDS}
    return Allocation(orders=kept, ends={operand: _stationary(operand, kept, ends[operand]) for operand in OPERANDS})


def _fill(memory: Memory, product: Product, table: Orders, held: list[_Progress], tops: list[bool]) -> Bools:
    """Gives ``memory`` its loops of each operand ``held``; returns whether they fit. Shape (orders,)."""
    count, positions = table.upto.shape
    width = len(held)
    size = np.zeros((count, *(1,) * width))
    asked = np.zeros_like(size)
    for axis, (progress, top) in enumerate(zip(held, tops, strict=True)):
        bits, possible = _tiles(progress, memory, product, table, top=top)
        above = np.zeros(bits.shape) if top else table.upto[:, -1:] // table.upto * bits
        shape = (count, *(positions if other == axis else 1 for other in range(width)))
        size = size + np.where(possible, bits, np.inf).reshape(shape)
        asked = asked + above.reshape(shape)
    asked = np.where(size <= memory.bits, asked, np.inf).reshape(count, -1)
    last = asked.shape[1] - 1 - np.argmin(asked[:, ::-1], axis=1)  # of equals, the tool keeps the last
    for progress, taken in zip(held, np.unravel_index(last, (positions,) * width), strict=True):
        progress.take(taken.astype(np.int64), table)
    fits: Bools = np.isfinite(asked.min(axis=1))
    return fits


def _tiles(progress: _Progress, memory: Memory, product: Product, table: Orders, *, top: bool) -> tuple[Floats, Bools]:
    """Returns bits of a tile that ends after each position, and whether it may; each of shape (orders, factors + 1)."""
    first, second = progress.extents(table).values()
    bits = first * second * _element_bits(progress, product, table)[:, None]
    positions = np.arange(bits.shape[1])
    if memory.double_buffered:
        bits = np.where((positions < positions[-1]) & (bits < bits[:, -1:]), 2 * bits, bits)
    before = positions < progress.done[:, None]
    fits = np.logical_and.accumulate(before | (bits <= memory.bits), axis=1)  # none beyond one that does not fit
    possible: Bools = fits & ((positions == positions[-1]) if top else ~before)
    return bits, possible


def _element_bits(progress: _Progress, product: Product, table: Orders) -> Ints:
    """Returns bits of an element; sums are unfinished while iterations of k are left for this memory or those above."""
    if progress.operand != "o":
        return np.full(progress.done.shape, product.bits(progress.operand))
    upto = table.upto_of["k"]
    left = upto[:, -1] > np.take_along_axis(upto, progress.done[:, None], axis=1)[:, 0]
    spread = product.k > 1 and any("k" in loops for loops in progress.spread[len(progress.ends) + 1 :])
    return np.where(left | spread, product.psum_bits, product.a_bits)


def _stationary(operand: Operand, table: Orders, ends: Ints) -> Ints:
    """Returns ``ends`` with irrelevant loops at a level's bottom moved to the one below. Shape (levels, orders)."""
    until = table.reused_until(operand)
    moved = np.take_along_axis(until, ends.T, axis=1).T
    return np.concatenate([moved[:-1], ends[-1:]])
