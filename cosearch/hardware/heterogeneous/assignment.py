"""Which sub-accelerator does how much of a product: the optimum, exactly.

**What may run at once.** The operators of a vision transformer form a chain: each needs the whole output of the one
before (a normalisation needs all columns, scores need all columns of a head's queries and keys, and so on), so two of
them never overlap. What is independent is inside a product: its repetitions (heads), or its columns. A product with
repetitions is spread by whole repetitions, any other by blocks of columns; all others wait until the last
sub-accelerator is done. The assignment of the whole workload is then a choice for each product on its own, and the
latency the sum over products of the longest time (makespan) of those who work on it.

**Blocks.** Columns are spread in blocks of b, the least power of two with at most `BLOCKS` blocks; the first block may
be short, and belongs to the first sub-accelerator that works. Powers of two nest, so a product with fewer columns can
do whatever one with more can.

**Optimum.** With T_s(x) and E_s(x) the cycles and joules of sub-accelerator s on x units, the least makespan is the
(min, max) convolution of the T_s at the number of units, the least energy the (min, +) convolution of the E_s: both
are solved exactly by dynamic programming over sub-accelerators. ``latency`` takes the least energy among all
assignments of the least makespan: the E_s count as infinite where T_s exceeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.heterogeneous.dataflows import Slot, Spent, spent
from cosearch.hardware.technology import Technology

__all__ = ["BLOCKS", "Grid", "assign", "part"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.intp]
Join = Callable[[Floats, Floats], Floats]

BLOCKS = 32
"""Most units that a product is spread in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The units of products; fields of shape (products, 1).

    Attributes:
        by_run: whether a unit is one of several repetitions, or a block of columns.
        size: repetitions or columns of a unit.
        short: repetitions or columns that the first unit lacks.
        units: how many there are.
    """

    by_run: Flags
    size: Floats
    short: Floats
    units: Counts

    @classmethod
    def of(cls, p: Products) -> Grid:
        """Returns the units of ``p``."""
        by_run = p.count > 1.0
        whole = np.where(by_run, p.count, p.n)
        size = np.ones_like(whole)
        while np.any(too_many := np.ceil(whole / size) > BLOCKS):
            size = np.where(too_many, 2.0 * size, size)
        units = np.ceil(whole / size)
        return cls(by_run=by_run, size=size, short=units * size - whole, units=units.astype(np.intp))


def part(p: Products, grid: Grid, units: Floats, first: Flags) -> Products:
    """Returns the part of ``p`` that ``units`` of ``grid`` are.

    Args:
        p: the products.
        grid: their units, fields that broadcast against ``units``.
        units: how many.
        first: whether the short one is among them.
    """
    whole = np.maximum(units * grid.size - np.where(first, grid.short, 0.0), 0.0)
    return replace(p, n=np.where(grid.by_run, p.n, whole), count=np.where(grid.by_run, whole, p.count))


def assign(
    p: Products, grid: Grid, slots: Sequence[Slot], fastest: Flags, technology: Technology
) -> tuple[Counts, ...]:
    """Returns the units of each product on each sub-accelerator, shape (products, accelerators) for each slot.

    Args:
        p: the products, fields of shape (products, 1).
        grid: their units.
        slots: the sub-accelerators, by number.
        fastest: whether the least latency is wanted, or the least energy; shape (accelerators,).
        technology: prices DRAM.
    """
    most = int(np.max(grid.units, initial=0))
    steps = np.arange(most + 1, dtype=np.float64).reshape(1, -1, 1)
    deep, deep_grid = (
        _deep(p),
        Grid(
            by_run=grid.by_run[:, :, None], size=grid.size[:, :, None], short=grid.short[:, :, None], units=grid.units
        ),
    )
    times: list[tuple[Floats, Floats]] = []
    joules: list[tuple[Floats, Floats]] = []
    used = [number for number, slot in enumerate(slots) if number == 0 or np.any(slot.present)]
    for slot in (slots[number] for number in used):
        tables = [
            spent(part(deep, deep_grid, steps, np.bool_(first) & (steps > 0)), slot, slot.mac_j[:, None, :])
            for first in (False, True)
        ]
        absent = ~slot.present & (steps > 0.0)
        times.append((_or_never(tables[0].cycles, absent), _or_never(tables[1].cycles, absent)))
        energies = [_energy(table, technology) for table in tables]
        joules.append((_or_never(energies[0], absent), _or_never(energies[1], absent)))
    limit = np.full((p.m.shape[0], 1, len(fastest)), np.inf)
    if np.any(fastest):
        least = _convolve(times, np.maximum)[0][-1]
        at = np.take_along_axis(least, grid.units[:, :, None], axis=1)
        limit = np.where(fastest, at, limit)
    allowed = [
        tuple(np.where(time <= limit, joule, np.inf) for time, joule in zip(*pair, strict=True))
        for pair in zip(times, joules, strict=True)
    ]
    chosen = _convolve([(plain, short) for plain, short in allowed], np.add)[1]
    units = dict(zip(used, _trace(chosen, grid.units, len(fastest)), strict=True))
    nothing = np.zeros_like(units[0])
    return tuple(units.get(number, nothing) for number in range(len(slots)))


def _deep(p: Products) -> Products:
    fields = {name: getattr(p, name)[:, :, None] for name in ("m", "k", "n", "count", "a_bits", "b_bits", "out_bits")}
    return Products(**fields)


def _or_never(values: Floats, absent: Flags) -> Floats:
    return np.where(absent, np.inf, values)


def _energy(table: Spent, technology: Technology) -> Floats:
    return table.mac_j + table.sram_j + table.dram_bytes * (8e-12 * technology.dram_pj_per_bit)


def _convolve(tables: Sequence[tuple[Floats, Floats]], join: Join) -> tuple[list[Floats], list[Counts]]:
    """Returns, for each slot, the least joined value of all slots up to it at 0, 1, ... units, and its own units there.

    Args:
        tables: for each slot, its value at 0, 1, ... units, shape (products, units, accelerators); and its value where
            the short unit is the first of them.
        join: how the values of two slots add up.
    """
    first = tables[0][1]
    own = np.broadcast_to(np.arange(first.shape[1], dtype=np.intp).reshape(1, -1, 1), first.shape)
    values, units = [first], [own]
    for plain, short in tables[1:]:
        before = values[-1]
        best, mine = before.copy(), np.zeros(before.shape, dtype=np.intp)
        for x in range(1, before.shape[1]):
            joined = join(before[:, : before.shape[1] - x], plain[:, x : x + 1])
            joined[:, 0] = short[:, x]  # nobody before took a unit, so the short one is here
            better = joined < best[:, x:]
            np.copyto(best[:, x:], joined, where=better)
            np.copyto(mine[:, x:], x, where=better)
        values.append(best)
        units.append(mine)
    return values, units


def _trace(chosen: Sequence[Counts], units: Counts, accelerators: int) -> tuple[Counts, ...]:
    """Returns the units of each slot, found backwards from all ``units``."""
    left = np.broadcast_to(units, (units.shape[0], accelerators))
    out = []
    for own in reversed(chosen):
        mine = np.take_along_axis(own, left[:, None, :], axis=1)[:, 0, :]
        out.append(mine)
        left = left - mine
    return tuple(reversed(out))
