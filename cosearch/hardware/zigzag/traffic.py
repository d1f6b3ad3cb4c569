"""What moves between memories, how often, and the energy of it.

For each operand, memory and direction: elements moved in a period, the period, how many periods there are. A period is
the time in which the loops below run once (Mei et al. 2021; Mei et al. 2022, "A uniform latency model for DNN
accelerators with diverse architectures and dataflows", DATE, section III).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.zigzag.allocation import Allocation
from cosearch.hardware.zigzag.architecture import MOVES, OPERANDS, RELEVANT, Move, Operand, ZigZagArchitecture
from cosearch.hardware.zigzag.mapping import Product, Unrolling

__all__ = ["Link", "Links", "Tiles", "links", "memory_pj", "tiles"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """What one operand keeps at each level, the array itself being level 0. All of shape (levels + 1, orders).

    Attributes:
        elements: elements in one instance.
        bits: bits of an element.
        cycles: iterations after which the content changes.
        reused_last: how many of them, at the level's top, reuse all of it.
        fresh_last: iterations of the level's topmost relevant loops.
        unfinished: whether sums are added to above it; false for inputs and weights.
        sums_above: iterations and instances that add to the same output, from this level up; outputs only.
    """

    elements: Floats
    bits: Floats
    cycles: Floats
    reused_last: Floats
    fresh_last: Floats
    unfinished: NDArray[np.bool_]
    sums_above: Floats


def tiles(
    product: Product, architecture: ZigZagArchitecture, allocation: Allocation, unrolling: Unrolling
) -> dict[Operand, Tiles]:
    """Returns what every operand keeps at every level."""
    return {
        operand: _tiles(operand, product, len(architecture.levels(operand)), allocation, unrolling)
        for operand in OPERANDS
    }


def _tiles(operand: Operand, product: Product, levels: int, allocation: Allocation, unrolling: Unrolling) -> Tiles:
    table = allocation.orders
    zero = np.zeros((1, table.upto.shape[0]), dtype=np.int64)
    ends = np.concatenate([zero, allocation.ends[operand]])

    def at(upto: NDArray[np.int64], where: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.take_along_axis(upto, where.T, axis=1).T

    relevant = table.relevant_upto(operand)
    below = np.array([[unrolling.below(operand, level)] for level in range(levels + 1)])
    upto = at(table.upto, ends)
    starts = np.concatenate([zero, ends[:-1]])
    cycles = upto.astype(np.float64)
    cycles[0] = 1 if operand == "o" else table.upto[np.arange(zero.size), table.reused_until(operand)[:, 0]]
    runs = {r: np.maximum(at(table.run_before(operand, relevant=r), ends), starts) for r in (True, False)}
    sums = np.ones_like(cycles)
    unfinished = np.zeros(cycles.shape, dtype=bool)
    if operand == "o":
        k_above = table.upto_of["k"][:, -1] // at(table.upto_of["k"], ends)
        spread = np.array([[unrolling.reused("o", level)] for level in range(1, levels + 1)])
        sums[:-1] = k_above[:-1] * spread
        unfinished[:-1] = (k_above[:-1] > 1) | (spread > 1)
    wide = np.where(unfinished, product.bits(operand, partial=True), product.bits(operand))
    return Tiles(
        elements=np.rint(at(relevant, ends) * below),
        bits=wide.astype(np.float64),
        cycles=cycles,
        reused_last=(upto // at(table.upto, runs[False])).astype(np.float64),
        fresh_last=(upto // at(table.upto, runs[True])).astype(np.float64),
        unfinished=unfinished,
        sums_above=sums,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """One direction of one operand at one memory. All of shape (orders,).

    Attributes:
        elements: moved in a period.
        bits: of an element.
        period: cycles.
        periods: how many; 0 where nothing moves.
        window: cycles of a period in which the move may happen while the memory holds one tile only.
        mean_bits: bits a cycle, rounded down as the tool does.
    """

    elements: Floats
    bits: Floats
    period: Floats
    periods: Floats
    window: Floats
    mean_bits: Floats


Links = Mapping[tuple[Operand, int, Move], Link]
"""By operand, level (0 is its innermost memory) and direction."""


def links(
    product: Product, architecture: ZigZagArchitecture, unrolling: Unrolling, tiled: Mapping[Operand, Tiles]
) -> Links:
    """Returns what moves between an operand's levels; nothing moves beyond its outermost one."""
    found: dict[tuple[Operand, int, Move], Link] = {}
    for operand in OPERANDS:
        tile = tiled[operand]
        last = len(architecture.levels(operand)) - 1
        for level in range(last + 1):
            for move in MOVES:
                inner = move in ("tl", "fl")
                if (not inner and level == last) or (operand != "o" and move in ("fl", "th")):
                    continue
                found[operand, level, move] = _link(product, operand, level, move, unrolling, tile)
    return found


def _link(product: Product, operand: Operand, level: int, move: Move, unrolling: Unrolling, tile: Tiles) -> Link:
    inner = move in ("tl", "fl")
    below = level if inner else level + 1
    fan_out = unrolling.fan_out(operand, level) if inner else 1
    period = tile.cycles[below]
    elements = tile.elements[below] * fan_out
    mean = np.floor(tile.elements[below] * tile.bits[below] / period * fan_out)
    moves = np.ones(period.shape, dtype=bool)
    width = np.full(period.shape, float(product.bits(operand)))
    if operand == "o":
        first, second = (product.size(loop) for loop in RELEVANT["o"])
        returned = np.trunc(first * second * (tile.sums_above[below] - 1)) != 0
        back = move in ("tl", "fh")  # unfinished sums that come back to be added to
        width = np.where(returned, product.psum_bits, 0 if back else product.a_bits).astype(np.float64)
        if back:
            moves = tile.unfinished[below]
    return Link(
        elements=np.where(moves, elements, 0.0),
        bits=width,
        period=np.where(moves, period, 0.0),
        periods=np.where(moves, tile.cycles[-1] // period, 0.0),
        window=np.where(moves, np.floor(period / tile.reused_last[below]), 0.0),
        mean_bits=np.where(moves, mean, 0.0),
    )


def memory_pj(architecture: ZigZagArchitecture, unrolling: Unrolling, moved: Links) -> dict[Operand, list[Floats]]:
    """Returns pJ of each operand at each of its memories, innermost first; each of shape (orders,).

    An access is as wide as the port; what is moved is rounded up to the port's smallest access.
    """
    energy: dict[Operand, list[Floats]] = {}
    for operand in OPERANDS:
        energy[operand] = []
        for level, memory in enumerate(architecture.levels(operand)):
            total = np.zeros(moved[operand, level, "tl"].period.shape)
            for move in MOVES:
                link, port = moved.get((operand, level, move)), memory.port(operand, move)
                if link is None or port is None:
                    continue
                accesses = np.ceil(link.elements * link.bits / port.bits_min) * (port.bits_min / port.bits_max)
                count = np.trunc(accesses * link.periods * unrolling.instances(operand, level + 1))
                total = total + count * (memory.read_pj if move in ("tl", "th") else memory.write_pj)
            energy[operand].append(total)
    return energy
