"""The best loop order of a product, and a table's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.zigzag.allocation import NoOrderFitsError, allocate
from cosearch.hardware.zigzag.architecture import OPERANDS, Operand, ZigZagArchitecture
from cosearch.hardware.zigzag.catalogue import ARCHITECTURES
from cosearch.hardware.zigzag.latency import cycles
from cosearch.hardware.zigzag.mapping import Product, unroll
from cosearch.hardware.zigzag.orders import LIMIT
from cosearch.hardware.zigzag.traffic import links, memory_pj, tiles

__all__ = ["Goal", "ZigZagCost", "predict_rows", "zigzag_cost"]

Goal = Literal["latency", "energy", "EDP"]
"""What the tool's search minimises; its other figure decides between equals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZigZagCost:
    """What the tool reports of one product under its best loop order.

    Attributes:
        compute_cycles: iterations in time (``ideal_temporal_cycle``).
        stall_cycles: waiting for ports (``stall_slack_comb``).
        onload_cycles: before the first product (``data_onloading_cycle``).
        offload_cycles: after the last (``data_offloading_cycle``).
        drain_cycles: until the last results have left a systolic array (``systolic_drain_cycle``).
        mac_pj: energy of the multiply-accumulates.
        memory_pj: of each operand (``o``, ``i``, ``w``) at each of its memories, innermost first.
    """

    compute_cycles: float
    stall_cycles: float
    onload_cycles: float
    offload_cycles: float
    drain_cycles: float
    mac_pj: float
    memory_pj: Mapping[Operand, tuple[float, ...]]

    @property
    def latency_cycles(self) -> float:
        """All of the above, one after another (``latency_total2``)."""
        return self.compute_cycles + self.stall_cycles + self.onload_cycles + self.offload_cycles + self.drain_cycles

    @property
    def energy_pj(self) -> float:
        """Arithmetic and memories (``energy_total``)."""
        return self.mac_pj + sum(sum(levels) for levels in self.memory_pj.values())


def zigzag_cost(
    product: Product, architecture: ZigZagArchitecture, *, goal: Goal = "latency", limit: int = LIMIT
) -> ZigZagCost:
    """Returns what zigzag-dse 3.9.1 reports of ``product`` on ``architecture``.

    Args:
        product: shape and bits.
        architecture: array and memories.
        goal: what the best loop order minimises.
        limit: most factors to put in order (the tool's ``lpf_limit``).

    Raises:
        NoOrderFitsError: the memories are too small.
        SpecError: ``limit`` is out of range.
    """
    allocation = allocate(product, architecture, limit)
    mean, _ = unroll(product, architecture, whole=False)
    whole, _ = unroll(product, architecture, whole=True)
    mean_tiles = tiles(product, architecture, allocation, mean)
    whole_tiles = tiles(product, architecture, allocation, whole)
    energy = memory_pj(architecture, mean, links(product, architecture, mean, mean_tiles))
    waits = cycles(architecture, mean_tiles, whole_tiles, links(product, architecture, whole, whole_tiles))
    computing = allocation.orders.upto[:, -1].astype(np.float64)
    drain = sum(min(axis.size, product.size(axis.loop)) - 1 for axis in architecture.axes if axis.systolic)
    mac_pj = architecture.mac_pj * product.m * product.k * product.n
    latency = computing + waits.stall + waits.onload + waits.offload + drain
    picojoules = sum((level for levels in energy.values() for level in levels), start=np.full(latency.shape, mac_pj))
    ranks: Mapping[Goal, tuple[NDArray[np.float64], ...]] = {
        "latency": (picojoules, latency),
        "energy": (latency, picojoules),
        "EDP": (latency * picojoules,),
    }
    best = int(np.lexsort(ranks[goal])[0])
    return ZigZagCost(
        compute_cycles=float(computing[best]),
        stall_cycles=float(waits.stall[best]),
        onload_cycles=float(waits.onload[best]),
        offload_cycles=float(waits.offload[best]),
        drain_cycles=float(drain),
        mac_pj=mac_pj,
        memory_pj={operand: tuple(float(level[best]) for level in energy[operand]) for operand in OPERANDS},
    )


def predict_rows(
    rows: Sequence[Mapping[str, str]], architecture: ZigZagArchitecture | None = None
) -> list[dict[str, float]]:
    """Returns, for each row of a reference table, the figures that ZigZag would give it, under the table's own names.

    Args:
        rows: with the columns ``M``, ``K``, ``N``, ``w_bits``, ``a_bits``, ``psum_bits`` and ``opt``; ``lpf_limit`` and
            ``arch`` where they are there.
        architecture: what all rows ran on; by default each row's ``arch`` from `ARCHITECTURES` (``ws16_dbuf`` where
            the table has no such column).

    A row whose ``arch`` is not known, or for which no loop order fits, gets no figures: an empty dict.

    Raises:
        SpecError: a column is missing, or holds what is no count or no goal; names row and column.
    """
    found = []
    for position, row in enumerate(rows):
        chosen = architecture or ARCHITECTURES.get(row.get("arch") or "ws16_dbuf")
        try:
            found.append({} if chosen is None else _predict(row, f"rows[{position}]", chosen))
        except NoOrderFitsError:  # the tool has no figures for it either
            found.append({})
    return found


def _predict(row: Mapping[str, str], where: str, architecture: ZigZagArchitecture) -> dict[str, float]:
    product = Product(
        m=_count(row, "M", where),
        k=_count(row, "K", where),
        n=_count(row, "N", where),
        w_bits=_count(row, "w_bits", where),
        a_bits=_count(row, "a_bits", where),
        psum_bits=_count(row, "psum_bits", where),
    )
    goal = row.get("opt")
    if goal not in get_args(Goal):
        raise SpecError(f"{where}.opt", f"is {goal!r}", f"write one of {', '.join(get_args(Goal))}")
    limit = _count(row, "lpf_limit", where) if row.get("lpf_limit") else LIMIT
    cost = zigzag_cost(product, architecture, goal=goal, limit=limit)  # type: ignore[arg-type]  # checked above
    memories = cost.energy_pj - cost.mac_pj
    return {
        "latency_total2_cycles": cost.latency_cycles,
        "ideal_temporal_cycle": cost.compute_cycles,
        "stall_slack_comb": cost.stall_cycles,
        "data_onloading_cycle": cost.onload_cycles,
        "data_offloading_cycle": cost.offload_cycles,
        "systolic_drain_cycle": cost.drain_cycles,
        "energy_total_pJ": cost.energy_pj,
        "mac_energy_pJ": cost.mac_pj,
        "mem_energy_pJ": memories,
    }


def _count(row: Mapping[str, str], column: str, where: str) -> int:
    text = row.get(column)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (value >= 1 and value == math.floor(value)):
        found = "is missing" if text is None else f"is {text!r}"
        raise SpecError(f"{where}.{column}", f"{found}, but a count is wanted", "write a whole number of at least 1")
    return int(value)
