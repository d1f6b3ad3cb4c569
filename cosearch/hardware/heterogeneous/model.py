"""Costs of a workload on heterogeneous ASICs, as the rows of a ledger.

What is assumed, beside the forms in `dataflows` and the model of concurrency in `assignment`:

- Operators run one after another. A product takes as long as the last sub-accelerator that works on it; its compute
  cycles are those of the busiest array, and the rest of the makespan is its stall.
- Operators exchange tensors through DRAM. Sub-accelerators that share a product fetch the left operand each on its own.
- A sub-accelerator has its part of the bandwidth even while others are idle (NASAIC gives each a fixed part).
- One vector unit works with the whole bandwidth; a lane operation costs a 16-bit multiply-accumulate. What it reads
  and writes passes the buffer of the first sub-accelerator.
- Accumulators beside the PEs are priced as accesses to the buffer; their capacity is not limited.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Groups, require_integers
from cosearch.hardware.heterogeneous.asic import SLOTS, HeterogeneousASIC
from cosearch.hardware.heterogeneous.assignment import Counts, Grid, assign, part
from cosearch.hardware.heterogeneous.dataflows import Spent, slots_of, spent
from cosearch.hardware.ledger import Items, Ledger, each
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.workload import Workload

__all__ = ["heterogeneous_assignment", "heterogeneous_ledger"]

Floats = NDArray[np.float64]

_CHUNK = 256
"""Accelerators worked on at once: tables over all units stay in the cache."""


def heterogeneous_assignment(
    workload: Workload, asic: HeterogeneousASIC, technology: Technology
) -> dict[str, tuple[int, ...]]:
    """Returns, for each matrix product, how many of its repetitions or columns each of the four slots does.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a heterogeneous ASIC")
    groups, batch = Groups.of(workload), Items((asic,))
    p, grid = groups.products, Grid.of(groups.products)
    slots = slots_of(p, batch, technology)
    shares: list[list[int]] = []
    for units, first in _owners(assign(p, grid, slots, batch.is_("assign", "latency"), technology)):
        mine = part(p, grid, units, first)
        shares.append([int(v) for v in np.where(grid.by_run, mine.count, mine.n)[:, 0]])
    products = p.m.shape[0]
    return {
        op.name: tuple(share[row] for share in shares)
        for op, row in zip(workload.operators, groups.members, strict=True)
        if row < products
    }


def heterogeneous_ledger(workload: Workload, batch: Items[HeterogeneousASIC], technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on heterogeneous ASICs, each with its best assignment.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a heterogeneous ASIC")
    groups, clock = Groups.of(workload), batch.column("clock_hz")
    parts = [
        _products(groups, batch.pick(np.arange(start, min(start + _CHUNK, len(batch)))), technology)
        for start in range(0, len(batch), _CHUNK)
    ]
    products = {name: np.concatenate([rows[name] for rows in parts], axis=1) for name in parts[0]}
    vectors = _vectors(groups, batch, technology)
    rows = {name: np.concatenate((products[name], vectors[name])) for name in vectors}
    area, leak, pes = _silicon(batch, technology)
    return Ledger(
        members=groups.members,
        dram_j=rows["dram_bytes"] * (8e-12 * technology.dram_pj_per_bit),
        multipliers=pes,
        clock_hz=clock,
        area_mm2=area,
        leak_w=leak,
        **rows,
    )


def _products(groups: Groups, batch: Items[HeterogeneousASIC], technology: Technology) -> dict[str, Floats]:
    """Returns the rows of matrix products, shape (products, accelerators) each."""
    p = groups.products
    grid, slots = Grid.of(p), slots_of(p, batch, technology)
    fastest = batch.is_("assign", "latency")
    done = [
        spent(part(p, grid, units, first), slot, slot.mac_j)
        for slot, (units, first) in zip(slots, _owners(assign(p, grid, slots, fastest, technology)), strict=True)
    ]
    compute, cycles = done[0].compute, done[0].cycles
    for other in done[1:]:
        compute, cycles = np.maximum(compute, other.compute), np.maximum(cycles, other.cycles)
    passes = np.ceil(p.a_bits / batch.column("pe_bits")) * np.ceil(p.b_bits / batch.column("pe_bits"))
    return {
        "compute_cycles": compute,
        "vector_cycles": np.zeros_like(compute),
        "stall_cycles": cycles - compute,
        "dram_bytes": _sum(done, "dram_bytes"),
        "mac_j": _sum(done, "mac_j"),
        "vector_j": np.zeros_like(compute),
        "sram_j": _sum(done, "sram_j"),
        "held_bits": _sum(done, "held_bits"),
        "busy": groups.macs * passes,
    }


def _owners(assigned: tuple[Counts, ...]) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """Returns the units of each slot, and whether it has the first one."""
    out, taken = [], np.zeros_like(assigned[0])
    for units in assigned:
        out.append((units.astype(np.float64), (taken == 0) & (units > 0)))
        taken = taken + units
    return out


def _sum(done: list[Spent], name: str) -> Floats:
    total: Floats = getattr(done[0], name)
    for other in done[1:]:
        total = total + getattr(other, name)
    return total


def _vectors(groups: Groups, batch: Items[HeterogeneousASIC], technology: Technology) -> dict[str, Floats]:
    """Returns the rows of vector operators, shape (vector operators, accelerators) each."""
    operations = groups.lane_operations + np.zeros(len(batch))
    bits = groups.vector_bits + np.zeros(len(batch))
    kib = batch.column("sub1_buffer_kib")
    cycles = np.ceil(operations / batch.column("vector_lanes"))
    dram_bytes = np.ceil(bits / 8.0)
    transfer = np.ceil(dram_bytes / (batch.column("dram_bytes_per_s") / batch.column("clock_hz")))
    access_j = 1e-12 * (each(kib, technology.sram.read_pj) + each(kib, technology.sram.write_pj))
    none = np.zeros_like(operations)
    return {
        "compute_cycles": none,
        "vector_cycles": cycles,
        "stall_cycles": np.maximum(transfer - cycles, 0.0),
        "dram_bytes": dram_bytes,
        "mac_j": none,
        "vector_j": operations * (1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS)),
        "sram_j": bits * access_j,
        "held_bits": np.minimum(bits, 8192.0 * kib),
        "busy": none,
    }


def _silicon(batch: Items[HeterogeneousASIC], technology: Technology) -> tuple[Floats, Floats, Floats]:
    """Returns mm2, leaked watts and PEs of each accelerator, shape (accelerators,)."""
    lanes, pe_bits = batch.column("vector_lanes"), batch.column("pe_bits")
    present = [~batch.is_(f"sub{number}_dataflow", "none") for number in SLOTS]
    pes = np.zeros(len(batch))
    for number, there in zip(SLOTS, present, strict=True):
        pes = pes + np.where(there, batch.column(f"sub{number}_pes"), 0.0)
    area = pes * each(pe_bits, lambda bits: technology.mac_um2(int(bits)))
    area = 1e-6 * (area + lanes * technology.mac_um2(LANE_BITS))
    leak = pes * each(pe_bits, lambda bits: technology.mac_leak_w(int(bits))) + lanes * technology.mac_leak_w(LANE_BITS)
    for number, there in zip(SLOTS, present, strict=True):
        kib = np.where(there, batch.column(f"sub{number}_buffer_kib"), 0.0)
        area = area + each(kib, lambda size: technology.sram.area_mm2(size) if size else 0.0)
        leak = leak + each(kib, lambda size: technology.sram.leak_w(size) if size else 0.0)
    return area, leak, pes
