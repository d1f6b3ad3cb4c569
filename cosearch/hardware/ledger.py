"""What every template fills in, and what is made of it: totals, and a breakdown per operator.

A template's cost model writes one row for each distinct operator and one column for each accelerator. Totals are sums
over operators in their order, one after another, so a result does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.cost import BatchCost, Cost, OperatorCost
from cosearch.hardware.technology import Technology
from cosearch.workload import Workload

__all__ = ["Batch", "CostModel", "Items", "Ledger", "breakdown", "each", "total"]

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]
T = TypeVar("T")
B = TypeVar("B", bound="Batch", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ledger:
    """Costs of the distinct operators of a workload on accelerators of one template.

    Fields without another shape have shape (rows, accelerators). Cycles of all operators add up to the latency: where
    parts run at the same time, each row holds what it adds.

    Attributes:
        members: the row of each operator of the workload, in order.
        compute_cycles: cycles of the matrix engine.
        vector_cycles: cycles of whatever does the rest.
        stall_cycles: cycles in which either waits for memory.
        dram_bytes: bytes to and from DRAM.
        mac_j: joules of multipliers, adders and registers.
        vector_j: joules of the vector unit.
        sram_j: joules of all memories on the chip.
        dram_j: joules of DRAM.
        held_bits: bits that the operator holds on the chip.
        busy: multiplier-cycles that do work.
        multipliers: of each accelerator, shape (accelerators,).
        clock_hz: likewise.
        area_mm2: likewise.
        leak_w: likewise, watts that leak while it runs.
    """

    members: tuple[int, ...]
    compute_cycles: Floats
    vector_cycles: Floats
    stall_cycles: Floats
    dram_bytes: Floats
    mac_j: Floats
    vector_j: Floats
    sram_j: Floats
    dram_j: Floats
    held_bits: Floats
    busy: Floats
    multipliers: Floats
    clock_hz: Floats
    area_mm2: Floats
    leak_w: Floats


class Batch(Protocol):
    """Accelerators of one template, for a cost model to work on at once."""

    def __len__(self) -> int: ...

    def pick(self, positions: Positions) -> Self:
        """Returns those at ``positions``."""
        ...

    def kinds(self) -> NDArray[np.int64]:
        """Returns a code for each; the model works on those with the same code at once. Shape (accelerators,)."""
        ...


@dataclass(frozen=True, slots=True)
class Items(Generic[T]):
    """A `Batch` of accelerators as objects."""

    items: tuple[T, ...]

    def __len__(self) -> int:
        return len(self.items)

    def pick(self, positions: Positions) -> Items[T]:
        """Returns those at ``positions``."""
        return Items(tuple(self.items[int(i)] for i in positions))

    def kinds(self) -> NDArray[np.int64]:
        """Returns zeros: any may be worked on together."""
        return np.zeros(len(self.items), dtype=np.int64)

    def column(self, name: str) -> Floats:
        """Returns a numeric field of each, shape (accelerators,)."""
        return np.array([getattr(item, name) for item in self.items], dtype=np.float64)

    def is_(self, name: str, value: object) -> NDArray[np.bool_]:
        """Returns whether a field equals ``value``, shape (accelerators,)."""
        return np.array([getattr(item, name) == value for item in self.items], dtype=np.bool_)


class CostModel(Protocol[B]):
    """The cost model of a template: a pure function."""

    def __call__(self, workload: Workload, batch: B, technology: Technology) -> Ledger:
        """Returns the costs of ``workload`` on each accelerator of ``batch``, all of the same kind.

        Raises:
            SpecError: an accelerator cannot run an operator.
        """
        ...


def each(values: Floats, price: Callable[[float], float]) -> Floats:
    """Returns ``price`` of each value, computed once per distinct one.

    Powers and logarithms stay in scalar code: their vector forms may round differently from one batch to another.
    """
    distinct, position = np.unique(values, return_inverse=True)
    return np.array([price(float(value)) for value in distinct], dtype=np.float64)[position]


def total(ledger: Ledger) -> BatchCost:
    """Returns the sums over all operators, fields of shape (accelerators,)."""

    def over_operators(values: Floats) -> Floats:
        # in order, one by one: numpy's own sum groups the terms by the shape of the batch
        out = np.zeros(values.shape[1])
        for member in ledger.members:
            out += values[member]
        return out

    compute, vector = over_operators(ledger.compute_cycles), over_operators(ledger.vector_cycles)
    stall = over_operators(ledger.stall_cycles)
    cycles = compute + vector + stall
    latency = cycles / ledger.clock_hz
    mac_j, vector_j = over_operators(ledger.mac_j), over_operators(ledger.vector_j)
    sram_j, dram_j = over_operators(ledger.sram_j), over_operators(ledger.dram_j)
    leakage_j = ledger.leak_w * latency
    energy = mac_j + vector_j + sram_j + dram_j + leakage_j
    return BatchCost(
        latency_s=latency,
        cycles=cycles,
        compute_cycles=compute,
        vector_cycles=vector,
        stall_cycles=stall,
        energy_j=energy,
        mac_j=mac_j,
        vector_j=vector_j,
        sram_j=sram_j,
        dram_j=dram_j,
        leakage_j=leakage_j,
        area_mm2=ledger.area_mm2,
        power_w=energy / latency,
        dram_bytes=over_operators(ledger.dram_bytes),
        peak_onchip_bytes=np.ceil(np.max(ledger.held_bits, axis=0) / 8.0),
        utilisation=over_operators(ledger.busy) / (ledger.multipliers * cycles),
    )


def breakdown(workload: Workload, ledger: Ledger, technology: Technology) -> Cost:
    """Returns the cost on the one accelerator of ``ledger``, with each operator's share."""
    totals = total(ledger)
    operators = []
    for op, row in zip(workload.operators, ledger.members, strict=True):
        compute, vector, stall, dram_bytes, busy = (
            float(values[row, 0])
            for values in (
                ledger.compute_cycles,
                ledger.vector_cycles,
                ledger.stall_cycles,
                ledger.dram_bytes,
                ledger.busy,
            )
        )
        cycles = compute + vector + stall
        dynamic = sum(float(part[row, 0]) for part in (ledger.mac_j, ledger.vector_j, ledger.sram_j, ledger.dram_j))
        available = float(ledger.multipliers[0]) * cycles
        operators.append(
            OperatorCost(
                name=op.name,
                kind=op.kind.value,
                macs=op.macs,
                compute_cycles=compute,
                vector_cycles=vector,
                stall_cycles=stall,
                dram_bytes=dram_bytes,
                energy_j=dynamic + float(ledger.leak_w[0]) * cycles / float(ledger.clock_hz[0]),
                utilisation=busy / available if available else 0.0,
            )
        )
    values = {item.name: float(getattr(totals, item.name)[0]) for item in fields(BatchCost)}
    return Cost(technology=technology.name, operators=tuple(operators), **values)
