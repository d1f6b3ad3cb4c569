"""Costs of a workload on systolic arrays, as the rows of a ledger.

What is assumed, beside the closed forms in `folding`, `traffic` and `tiling`:

- Operators run one after another. Each takes the longer of its computation and its DRAM traffic (double buffering
  hides the shorter); the difference is its stall.
- Activations go to DRAM and come back between operators, but for those that the memory for activations holds.
  Weights are fetched for each image, but for those that the memory for weights holds.
- The vector unit reads its inputs from and writes its outputs to memory, through the ofmap scratchpad.
- A multiplier spends energy by the widths of its operands, not its own (unused bits are gated: Moons et al. 2017).
- Idle PEs are clock-gated: registers cost energy only where a PE multiplies. In ``ws`` a moving input and a 32-bit
  partial sum are registered each time, in ``is`` a weight and the sum, in ``os`` both operands and the sum in place.
- A lane operation costs a 16-bit multiply-accumulate.
- Memories on the chip keep up with the array, as SCALE-Sim assumes of its scratchpads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.systolic.array import ATTENTIONS, DATAFLOWS, SystolicArrays
from cosearch.hardware.systolic.attention import fuse
from cosearch.hardware.systolic.elements import check_formats, mac_joules, rates
from cosearch.hardware.systolic.folding import Folding
from cosearch.hardware.systolic.mapping import mapped
from cosearch.hardware.systolic.prices import Prices
from cosearch.hardware.systolic.residency import Layout, Role, layout
from cosearch.hardware.systolic.tiling import chunked_extra
from cosearch.hardware.systolic.traffic import Traffic, traffic
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import Workload

__all__ = ["systolic_ledger"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


def systolic_ledger(workload: Workload, arrays: SystolicArrays, technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on ``arrays``, all of one kind (`SystolicArrays.kinds`).

    Raises:
        SpecError: the array's elements do not multiply what the workload has.
    """
    check_formats(workload, arrays)
    fused = int(arrays.attention[0]) == ATTENTIONS.index("fused")
    ledger = _worked_out(workload, arrays, technology, fused=fused)
    if fused and float(arrays.activation_kib[0]) > 0:
        # plans for a single pass hold no scores: an array that falls back may do better with plans that do
        return _fewer_bytes(ledger, _worked_out(workload, arrays, technology, fused=False))
    return ledger


def _worked_out(workload: Workload, arrays: SystolicArrays, technology: Technology, *, fused: bool) -> Ledger:
    """Returns the ledger with attentions in a single pass where arrays take it, if ``fused``, or without."""
    dataflow = DATAFLOWS[int(arrays.dataflow[0])]
    resident = float(arrays.activation_kib[0]) > 0
    rows = layout(workload, fused=fused, resident=resident)
    prices = Prices.of(arrays, technology)
    pinned = np.minimum(arrays.weight_kib * 8192.0 / (8.0 * max(workload.weight_bytes, 1)), 1.0)
    moved = _moved(rows, arrays, dataflow, pinned)
    if fused:
        moved = _in_one_pass(moved, rows, arrays, dataflow)
    ledger = _ledger(moved, rows, arrays, prices, technology, pinned, workload.weight_bytes)
    return _with_plans(ledger, rows, arrays) if resident else ledger


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moved:
    """Work and traffic of the rows, products first: shapes broadcast to (products or vector operators, accelerators).

    Attributes:
        folding: of the products.
        traffic: of the products.
        cycles: of the products.
        read_bits: bits that vector operators read from DRAM.
        write_bits: bits that they write to memory.
        lane_cycles: cycles of the vector unit.
        lane_operations: its operations.
        chosen: whether an attention runs in a single pass, shape (attentions, accelerators); None where none may.
    """

    folding: Folding
    traffic: Traffic
    cycles: Floats
    read_bits: Floats
    write_bits: Floats
    lane_cycles: Floats
    lane_operations: Floats
    chosen: NDArray[np.bool_] | None = None


def _moved(rows: Layout, arrays: SystolicArrays, dataflow: str, pinned: Floats) -> _Moved:
    """Returns work and traffic of operators one by one."""
    p = rows.groups.products
    b_dram = (1.0 - rows.b) * (1.0 - rows.weights * pinned)
    folding, fills = mapped(p, arrays, dataflow, 1.0 - rows.a, b_dram)
    return _Moved(
        folding=folding,
        traffic=traffic(p, arrays, dataflow, folding, fills),
        cycles=folding.cycles + chunked_extra(p, arrays, dataflow, folding, fills),
        read_bits=rows.read_bits,
        write_bits=rows.groups.write_bits,
        lane_cycles=np.ceil(rows.groups.lane_operations / arrays.vector_lanes),
        lane_operations=rows.groups.lane_operations,
    )


def _in_one_pass(moved: _Moved, rows: Layout, arrays: SystolicArrays, dataflow: str) -> _Moved:
    """Returns ``moved`` with attentions in a single pass where arrays take it; itself where there is no attention."""
    if rows.shapes is None:
        return moved
    products, n = rows.groups.macs.shape[0], len(arrays)
    t = moved.traffic
    (s_rows, s_of), (c_rows, c_of) = rows.roles[Role.SCORES], rows.roles[Role.CONTEXT]
    (b_rows, b_of), (x_rows, x_of) = rows.roles[Role.BETWEEN], rows.roles[Role.SOFTMAX]
    b_rows, x_rows = b_rows - products, x_rows - products

    def whole(values: Floats, count: int) -> Floats:
        return np.broadcast_to(values, (count, n)).copy()

    a_fill, b_fill, out_bits, spilled = (whole(v, products) for v in (t.a_fill, t.b_fill, t.out_bits, t.spilled))
    ifmap_reads, filter_reads = whole(t.ifmap_reads, products), whole(t.filter_reads, products)
    cycles, vectors = whole(moved.cycles, products), rows.groups.lane_operations.shape[0]
    kept_sums = whole(t.ofmap_moves, products) - spilled
    read, write, lanes, operations = (
        whole(v, vectors) for v in (moved.read_bits, moved.write_bits, moved.lane_cycles, moved.lane_operations)
    )
    first_s, first_c = s_rows[np.argsort(s_of)], c_rows[np.argsort(c_of)]
    from_dram = (
        a_fill * (1.0 - rows.a) + b_fill * (1.0 - rows.b) + out_bits * (1.0 - rows.out[:products]) + 2.0 * spilled
    )
    pass_ = fuse(rows.shapes, arrays, dataflow, from_dram[first_s] + from_dram[first_c])

    def put(values: Floats, where: Rows, of: Rows, new: Floats) -> None:
        values[where] = np.where(pass_.chosen[of], new[of] if new.shape[0] > 1 else new, values[where])

    none = np.zeros((1, 1))
    for values, where, of, new in (
        (a_fill, s_rows, s_of, pass_.query_fill),
        (b_fill, s_rows, s_of, pass_.key_fill),
        (out_bits, s_rows, s_of, none),
        (spilled, s_rows, s_of, none),
        (cycles, s_rows, s_of, pass_.scores_cycles),
        (a_fill, c_rows, c_of, none),
        (b_fill, c_rows, c_of, pass_.value_fill),
        (spilled, c_rows, c_of, none),
        (cycles, c_rows, c_of, pass_.context_cycles),
        (read, b_rows, b_of, none),
        (write, b_rows, b_of, none),
        (lanes, b_rows, b_of, none),
        (read, x_rows, x_of, none),
        (write, x_rows, x_of, rows.shapes.row_bits),
        (lanes, x_rows, x_of, pass_.vector_cycles),
        (operations, x_rows, x_of, rows.shapes.lane_operations + pass_.corrections),
        (operations, b_rows, b_of, none),
    ):
        put(values, where, of, new)
    if dataflow != "os":
        held = filter_reads if dataflow == "ws" else ifmap_reads
        put(held, s_rows, s_of, pass_.scores_held_reads)
        put(held, c_rows, c_of, pass_.context_held_reads)
    corrected = np.zeros_like(cycles)
    put(corrected, c_rows, c_of, pass_.corrections * ACCUMULATOR_BITS)
    return replace(
        moved,
        traffic=replace(
            t,
            a_fill=a_fill,
            b_fill=b_fill,
            out_bits=out_bits,
            spilled=spilled,
            ifmap_reads=ifmap_reads,
            filter_reads=filter_reads,
            ofmap_moves=kept_sums + spilled + corrected,
        ),
        cycles=cycles,
        read_bits=read,
        write_bits=write,
        lane_cycles=lanes,
        lane_operations=operations,
        chosen=pass_.chosen,
    )


def _beside(vector: Floats, busy_cycles: Floats, rows: Layout, chosen: NDArray[np.bool_]) -> Floats:
    """Returns ``vector`` with what the vector unit takes beyond the products, where attentions run in a single pass."""
    (s_rows, s_of), (c_rows, c_of), (x_rows, x_of) = (
        rows.roles[role] for role in (Role.SCORES, Role.CONTEXT, Role.SOFTMAX)
    )
    products = (busy_cycles[s_rows[np.argsort(s_of)]] + busy_cycles[c_rows[np.argsort(c_of)]])[x_of]
    vector[x_rows] = np.where(chosen[x_of], np.maximum(vector[x_rows] - products, 0.0), vector[x_rows])
    return vector


def _ledger(
    moved: _Moved,
    rows: Layout,
    arrays: SystolicArrays,
    prices: Prices,
    technology: Technology,
    pinned: Floats,
    weight_bytes: int,
) -> Ledger:
    """Returns the ledger whose rows are those of ``rows``."""
    t, groups = moved.traffic, rows.groups
    products = groups.macs.shape[0]
    kept_b, kept_w = t.b_fill * rows.b, t.b_fill * (rows.weights * pinned)
    product_bits = (
        t.a_fill * (1.0 - rows.a)
        + (t.b_fill - kept_b - kept_w)
        + 2.0 * t.spilled
        + t.out_bits * (1.0 - rows.out[:products])
    )
    vector_bits = moved.read_bits + moved.write_bits * (1.0 - rows.out[products:])
    shape = (products, len(arrays))
    none_p, none_v = np.zeros(shape), np.zeros((groups.size - products, len(arrays)))
    dram_bytes = np.ceil(np.concatenate((product_bits + none_p, vector_bits + none_v)) / 8.0)
    compute = np.concatenate((moved.cycles + none_p, none_v))
    vector = np.concatenate((none_p, moved.lane_cycles + none_v))
    transfer = np.ceil(dram_bytes / (arrays.dram_bytes_per_s / arrays.clock_hz))
    if moved.chosen is not None:
        vector = _beside(vector, np.maximum(compute, transfer), rows, moved.chosen)
    dataflow = DATAFLOWS[int(arrays.dataflow[0])]
    if (speed := rates(groups.products, arrays)) is None:
        busy = groups.macs * moved.folding.a_passes * moved.folding.b_passes
        mac_j = busy * _pass_j(groups.products, arrays, dataflow, technology)
    else:
        busy = groups.macs * speed.cycles_per_mac
        mac_j = groups.macs * mac_joules(groups.products, arrays, dataflow, technology)
    lane_j = 1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS)
    product_kept = (
        (t.a_fill * rows.a + kept_b) * prices.activation_read
        + kept_w * prices.weight_read
        + t.out_bits * rows.out[:products] * prices.activation_write
    )
    vector_kept = (groups.read_bits - rows.read_bits) * prices.activation_read + (
        groups.write_bits * rows.out[products:]
    ) * prices.activation_write
    vector_sram = groups.vector_bits * (prices.ofmap_read + prices.ofmap_write) + vector_kept
    held = np.concatenate((t.held_bits + none_p, np.minimum(groups.vector_bits, arrays.ofmap_kib * 8192.0)))
    return Ledger(
        members=tuple(int(row) for row in rows.rows[:, 0]),
        compute_cycles=compute,
        vector_cycles=vector,
        stall_cycles=np.maximum(transfer - compute - vector, 0.0),
        dram_bytes=dram_bytes,
        mac_j=np.concatenate((mac_j, none_v)),
        vector_j=np.concatenate((none_p, moved.lane_operations * lane_j + none_v)),
        sram_j=np.concatenate((_scratchpad_j(t, prices) + product_kept, vector_sram)),
        dram_j=dram_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=held + np.ceil(pinned * (8.0 * weight_bytes)),
        busy=np.concatenate((busy, none_v)),
        multipliers=arrays.rows * arrays.cols,
        clock_hz=arrays.clock_hz,
        area_mm2=prices.area_mm2,
        leak_w=prices.leak_w,
    )


def _with_plans(ledger: Ledger, rows: Layout, arrays: SystolicArrays) -> Ledger:
    """Returns ``ledger`` with, for each array, the rows of the plan that moves the fewest bytes on it."""
    # whole numbers below 2**53: the product is exact, whatever the order of its sums
    traffic_bytes = rows.times @ ledger.dram_bytes
    fits = rows.peak_bytes[:, None] <= arrays.activation_kib * 1024.0
    plan = np.argmin(np.where(fits, traffic_bytes, np.inf), axis=0)
    patterns, members = np.unique(rows.rows, axis=0, return_inverse=True)
    taken, column = patterns[:, plan], np.arange(len(arrays))
    values = {
        name: np.take_along_axis(getattr(ledger, name), taken, axis=0)
        for name in (
            *("compute_cycles", "vector_cycles", "stall_cycles", "dram_bytes"),
            *("mac_j", "vector_j", "sram_j", "dram_j", "busy"),
        )
    }
    held = ledger.held_bits[taken, column] + 8.0 * rows.peak_bytes[plan]
    return replace(ledger, members=tuple(int(m) for m in members.reshape(-1)), held_bits=held, **values)


def _fewer_bytes(one: Ledger, other: Ledger) -> Ledger:
    """Returns, for each array, the ledger that moves the fewest bytes; the first where they move the same."""

    def moved(ledger: Ledger) -> Floats:
        times = np.bincount(ledger.members, minlength=ledger.dram_bytes.shape[0]).astype(np.float64)
        return times @ ledger.dram_bytes  # whole numbers below 2**53: exact in any order

    take = moved(other) < moved(one)
    pairs, members = np.unique(np.array([one.members, other.members]).T, axis=0, return_inverse=True)
    values = {
        name: np.where(take, getattr(other, name)[pairs[:, 1]], getattr(one, name)[pairs[:, 0]])
        for name in (
            *("compute_cycles", "vector_cycles", "stall_cycles", "dram_bytes"),
            *("mac_j", "vector_j", "sram_j", "dram_j", "held_bits", "busy"),
        )
    }
    return replace(one, members=tuple(int(m) for m in members.reshape(-1)), **values)


def _scratchpad_j(moved: Traffic, prices: Prices) -> Floats:
    """Returns joules of the three scratchpads; what was fetched is written to them once."""
    return (
        moved.ifmap_reads * prices.ifmap_read
        + moved.a_fill * prices.ifmap_write
        + moved.filter_reads * prices.filter_read
        + moved.b_fill * prices.filter_write
        + moved.ofmap_moves * prices.ofmap_read
        + moved.ofmap_moves * prices.ofmap_write
    )


def _pass_j(p: Products, arrays: SystolicArrays, dataflow: str, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass, registers included: shape (products, accelerators)."""
    table = np.empty((p.m.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), width), min(int(b), width)
            moving = {"os": a_chunk + b_chunk, "ws": a_chunk, "is": b_chunk}[dataflow] + ACCUMULATOR_BITS
            table[row, column] = technology.mac_pj(a_chunk, b_chunk) + moving * technology.register_pj_per_bit
    return 1e-12 * table[:, np.searchsorted(PE_BITS, arrays.pe_bits)]
