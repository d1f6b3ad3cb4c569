"""Costs of a workload on a processing-in-memory accelerator, as the rows of a ledger.

What is assumed, beside the forms in `mapping` and the constants in `isaac`:

- Operators run one after another, one image at a time; ISAAC's pipeline over layers, which raises throughput and not
  latency, is left out, and so is the filling of the pipeline inside a layer (a few reads).
- A product takes its reads; its stall is what writing crossbars, or DRAM traffic beyond the reads, adds: traffic runs
  beside reading and writing.
- Activations stay in the buffers of the tiles. Where those alive at an operator exceed them, the same share of what it
  reads and writes goes through DRAM. The image comes from DRAM and the last output goes there.
- The left operand is read from a buffer once for every 8 crossbars across (a unit of ISAAC); sums of crossbars below
  each other cross the tile; outputs go to another tile.
- The digital engine is a square of multipliers that keeps outputs; it reads operands from the buffers once for each of
  its blocks. Without it (attention on crossbars) it takes neither area nor leakage.
- Analogue parts are not charged leakage: ISAAC's powers do not tell it apart. A lane operation costs a 16-bit
  multiply-accumulate.
- A crossbar's cell counts as a multiplier, so utilisation is the share of all cells and PEs, over time, that is in use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Groups, Products, require_integers
from cosearch.hardware.ledger import Items, Ledger, each
from cosearch.hardware.pim import isaac
from cosearch.hardware.pim.macro import PIM
from cosearch.hardware.pim.mapping import Columns, crossbar_work, plan
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import Workload

__all__ = ["pim_ledger"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = dict[str, Floats]
Mark = tuple[int, bool, int, int]
"""Bytes alive, whether it multiplies weights, bytes that it reads of the image, and writes of the last output."""


def pim_ledger(workload: Workload, batch: Items[PIM], technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on processing-in-memory accelerators.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a processing-in-memory accelerator")
    marks = _marks(workload)
    groups = Groups.of_operators(workload, workload.operators, marks)
    chosen = [marks[position] for position in groups.first]
    alive, ends = (
        8.0 * np.array([[float(value)] for value in values]).reshape(-1, 1)
        for values in ([mark[0] for mark in chosen], [mark[2] + mark[3] for mark in chosen])
    )
    capacity = 8192.0 * batch.column("tiles") * batch.column("tile_buffer_kib")
    spilled = 1.0 - np.minimum(capacity / alive, 1.0)
    products = groups.products.m.shape[0]
    static = np.array([[mark[1]] for mark in chosen[:products]], dtype=np.bool_).reshape(-1, 1)
    parts = _products(groups, static, batch, technology), _vectors(groups, batch, technology)
    rows = {name: np.concatenate((parts[0][name], parts[1][name])) for name in parts[1]}
    dram_bytes = np.ceil((rows.pop("weight_bits") + spilled * rows.pop("moved_bits") + ends) / 8.0)
    clock = batch.column("clock_hz")
    transfer = np.ceil(dram_bytes / (batch.column("dram_bytes_per_s") / clock))
    work = rows["compute_cycles"] + rows["vector_cycles"]
    area, leak, multipliers = _silicon(batch, technology)
    return Ledger(
        members=groups.members,
        stall_cycles=np.maximum(rows.pop("write_cycles"), transfer - work),
        dram_bytes=dram_bytes,
        dram_j=dram_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=np.minimum(alive, capacity),
        multipliers=multipliers,
        clock_hz=clock,
        area_mm2=area,
        leak_w=leak,
        **rows,
    )


def _marks(workload: Workload) -> list[Mark]:
    bytes_of = {tensor.name: tensor.bytes for tensor in workload.tensors}
    made = {op.output for op in workload.operators}
    last = len(workload.operators) - 1
    out: list[Mark] = []
    for position, (op, alive) in enumerate(zip(workload.operators, workload.live_activation_bytes(), strict=True)):
        activations = op.inputs[:-1] if op.weights else op.inputs
        outside = sum(bytes_of[name] for name in activations if name not in made)
        out.append((alive, op.weights, outside, bytes_of[op.output] if position == last else 0))
    return out


def _products(groups: Groups, static: Flags, batch: Items[PIM], technology: Technology) -> Rows:
    """Returns the rows of matrix products, shape (products, accelerators) each."""
    p, arrays, clock = groups.products, Columns.of(batch), batch.column("clock_hz")
    times = np.bincount(groups.members, minlength=groups.size)[: p.m.shape[0]].astype(np.float64).reshape(-1, 1)
    work = crossbar_work(p, arrays, static, plan(p, arrays, static, times))
    digital = ~static & ~arrays.writes
    cycles, mac_j, reads = _engine(p, batch, technology)
    kib = batch.column("tile_buffer_kib")
    read_j, write_j = (1e-12 * each(kib, price) for price in (technology.sram.read_pj, technology.sram.write_pj))
    bus, router = isaac.BUS_J_PER_BIT, isaac.ROUTER_J_PER_BIT
    left, right = p.count * p.m * p.k * p.a_bits, p.count * p.k * p.n * p.b_bits
    out = p.count * p.m * p.n * p.out_bits
    sums = p.count * p.m * p.n * ACCUMULATOR_BITS * work.sums
    dynamic = np.where(static, 0.0, right)
    fed = np.where(digital, reads, left * work.column_units + dynamic)
    passes = _passes(p, batch)
    return {
        "compute_cycles": np.where(digital, cycles, np.ceil(work.read_s * clock)),
        "write_cycles": np.where(digital, 0.0, np.ceil(work.write_s * clock)),
        "vector_cycles": np.zeros_like(cycles),
        "weight_bits": np.where(digital, 0.0, work.fetched_bits),
        "moved_bits": left + dynamic + out + np.zeros_like(cycles),
        "mac_j": np.where(digital, mac_j, work.joules),
        "vector_j": np.zeros_like(cycles),
        "sram_j": fed * (read_j + bus) + np.where(digital, 0.0, sums * bus) + out * (write_j + bus + router),
        "busy": np.where(digital, groups.macs * passes, work.cell_s * clock),
    }


def _passes(p: Products, batch: Items[PIM]) -> Floats:
    width = batch.column("pe_bits")
    return np.ceil(p.a_bits / width) * np.ceil(p.b_bits / width)


def _engine(p: Products, batch: Items[PIM], technology: Technology) -> tuple[Floats, Floats, Floats]:
    """Returns cycles, joules and bits of operands read on the digital engine, shape (products, accelerators) each."""
    width = batch.column("pe_bits")
    side = np.floor(each(batch.column("digital_pes"), np.sqrt))
    down, across = np.ceil(p.m / side), np.ceil(p.n / side)
    table = np.empty((p.m.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, bits in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), bits), min(int(b), bits)
            moving = a_chunk + b_chunk + ACCUMULATOR_BITS
            table[row, column] = technology.mac_pj(a_chunk, b_chunk) + moving * technology.register_pj_per_bit
    passes = _passes(p, batch)
    left, right = p.m * p.k * p.a_bits * np.ceil(p.b_bits / width), p.k * p.n * p.b_bits * np.ceil(p.a_bits / width)
    return (
        p.count * down * across * p.k * passes,
        p.count * p.m * p.k * p.n * passes * (1e-12 * table[:, np.searchsorted(PE_BITS, width)]),
        p.count * (left * across + right * down),
    )


def _vectors(groups: Groups, batch: Items[PIM], technology: Technology) -> Rows:
    """Returns the rows of vector operators, shape (vector operators, accelerators) each."""
    operations = groups.lane_operations + np.zeros(len(batch))
    kib = batch.column("tile_buffer_kib")
    read_j, write_j = (1e-12 * each(kib, price) for price in (technology.sram.read_pj, technology.sram.write_pj))
    none = np.zeros_like(operations)
    moved = groups.read_bits * (read_j + isaac.BUS_J_PER_BIT) + groups.write_bits * (write_j + isaac.BUS_J_PER_BIT)
    return {
        "compute_cycles": none,
        "write_cycles": none,
        "vector_cycles": np.ceil(operations / batch.column("vector_lanes")),
        "weight_bits": none,
        "moved_bits": groups.vector_bits + none,
        "mac_j": none,
        "vector_j": operations * (1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS)),
        "sram_j": moved + none,
        "busy": none,
    }


def _silicon(batch: Items[PIM], technology: Technology) -> tuple[Floats, Floats, Floats]:
    """Returns mm2, leaked watts and multipliers of each accelerator, shape (accelerators,)."""
    size, tiles, kib = batch.column("crossbar_size"), batch.column("tiles"), batch.column("tile_buffer_kib")
    adcs = np.ceil(size / batch.column("columns_per_adc"))
    dac = isaac.DAC_MM2 * each(batch.column("dac_bits"), lambda bits: 2.0 ** (bits - 1.0))
    crossbar = size * size * isaac.CELL_MM2 + size * (dac + isaac.REGISTER_MM2_PER_ROW)
    crossbar = crossbar + adcs * each(batch.column("adc_bits"), isaac.adc_mm2)
    per_tile = batch.column("crossbars_per_tile")
    area = tiles * (per_tile * crossbar + isaac.BUS_MM2 + isaac.ROUTER_MM2 + each(kib, technology.sram.area_mm2))
    leak = tiles * each(kib, technology.sram.leak_w)
    pes = np.where(batch.is_("attention", "digital"), batch.column("digital_pes"), 0.0)
    lanes, width = batch.column("vector_lanes"), batch.column("pe_bits")
    um2 = pes * each(width, lambda bits: technology.mac_um2(int(bits))) + lanes * technology.mac_um2(LANE_BITS)
    leak = leak + pes * each(width, lambda bits: technology.mac_leak_w(int(bits)))
    leak = leak + lanes * technology.mac_leak_w(LANE_BITS)
    return area + 1e-6 * um2, leak, tiles * per_tile * size * size + pes
