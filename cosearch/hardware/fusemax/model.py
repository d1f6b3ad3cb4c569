"""Costs of a workload on fused-attention arrays, as the rows of a ledger.

What is assumed, beside the forms in `attention`:

- Operators run one after another, an attention as one of them. Each takes the longer of its computation and its DRAM
  traffic; the difference is its stall. Rows of an attention add up to its latency: scores, bias and softmax hold the
  cycles of the 2D array, the softmax's vector cycles what the 1D array and the order of steps add, the context the
  stall of all.
- Operators exchange tensors through DRAM, as in the artifact's model of linear layers, whatever the buffer holds.
- Linear layers keep outputs in the PEs, R rows by C columns of them, for K cycles a pass; finished tiles leave over
  the columns behind the next, which takes at least as many cycles as the tile has rows. Unfused scores do likewise;
  the unfused context keeps scores in the PEs and streams values, as the fused one does.
- Vector operators outside attention run on the 1D array, with the operations of `cosearch.hardware.vector`. Softmax
  takes 4 cycles a score there, for each lane has an exponential unit and a divider, whose area counts.
- An operation of a lane, and a step of softmax on a PE, costs a 16-bit multiply-accumulate of energy.
- Utilisation counts PE-cycles at work in the 2D array, exponentials, maxima and sums included, as the paper's figure 6.
- Tokens that are scored by a row of the attention map (pruning) read it from DRAM. A single pass knows the denominator
  only at the end, so it stores that row as 16-bit scores, and their exponential and division come with the scoring.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import Attentions, find_attentions
from cosearch.hardware.fusemax.array import ATTENTIONS, FuseMax
from cosearch.hardware.fusemax.attention import (
    EXPONENTIAL_MACS,
    SOFTMAX_CYCLES,
    Columns,
    cycles,
    lane_work,
    moves,
)
from cosearch.hardware.groups import Groups, Products, require_integers
from cosearch.hardware.ledger import Items, Ledger, each
from cosearch.hardware.shared_buffer import fetched_bits
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import Workload

__all__ = ["fusemax_ledger"]

Floats = NDArray[np.float64]

_PE_REGISTERS = {"unfused": 4, "flat": 4, "cascade": 4, "architecture": 16, "fusemax": 16}
"""16-bit registers of a PE of the 2D array (artifact: ``depth`` of ``reg_file``)."""
_LANE_REGISTERS = {"unfused": 16, "flat": 16, "cascade": 16, "architecture": 32, "fusemax": 32}
"""Likewise of a lane."""
_EXPONENTIAL_AREA, _DIVIDER_AREA = 8240.0 / 1545.0, 23740.9 / 1545.0
"""Area of an exponential unit and of a divider, in 16-bit multiply-accumulate units (artifact, ART of the 1D array)."""


@dataclasses.dataclass(slots=True, kw_only=True)
class _Table:
    """Rows of the ledger in the making; fields of shape (rows, accelerators)."""

    compute: Floats
    vector: Floats
    stall: Floats
    dram_bits: Floats
    mac_j: Floats
    vector_j: Floats
    sram_j: Floats
    held: Floats
    busy: Floats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """Joules to read and write a bit of the buffer, shape (accelerators,), and of a lane's operation."""

    read: Floats
    write: Floats
    lane: float


def fusemax_ledger(workload: Workload, batch: Items[FuseMax], technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on fused-attention arrays.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a fused-attention array")
    att = find_attentions(workload)
    groups = Groups.of_operators(workload, workload.operators, att.marks)
    arrays = Columns(
        rows=batch.column("rows"),
        cols=batch.column("cols"),
        lanes=batch.column("lanes"),
        buffer_bits=8192.0 * batch.column("buffer_kib"),
        pe_bits=batch.column("pe_bits"),
    )
    clock = batch.column("clock_hz")
    bytes_per_cycle = batch.column("dram_bytes_per_s") / clock
    sram, kib = technology.sram, batch.column("buffer_kib")
    prices = _Prices(
        read=1e-12 * each(kib, sram.read_pj),
        write=1e-12 * each(kib, sram.write_pj),
        lane=1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS),
    )
    table = _separate(groups, att, arrays, prices, technology)
    dram_bytes = np.ceil(table.dram_bits / 8.0)
    table.stall = np.maximum(np.ceil(dram_bytes / bytes_per_cycle) - table.compute - table.vector, 0.0)
    for mode in ATTENTIONS[1:]:
        chosen = batch.is_("attention", mode)
        if att.shapes and np.any(chosen):
            _fuse(table, groups, att, arrays, prices, bytes_per_cycle, mode, chosen)
    dram_bytes = np.ceil(table.dram_bits / 8.0)
    area, leak = _silicon(batch, technology)
    return Ledger(
        members=groups.members,
        compute_cycles=table.compute,
        vector_cycles=table.vector,
        stall_cycles=table.stall,
        dram_bytes=dram_bytes,
        mac_j=table.mac_j,
        vector_j=table.vector_j,
        sram_j=table.sram_j,
        dram_j=dram_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=table.held,
        busy=table.busy,
        multipliers=arrays.rows * arrays.cols,
        clock_hz=clock,
        area_mm2=area,
        leak_w=leak,
    )


def _separate(groups: Groups, att: Attentions, arrays: Columns, prices: _Prices, technology: Technology) -> _Table:
    """Returns the rows with every operator on its own, all but their stalls."""
    p = groups.products
    context = np.zeros((p.m.shape[0], 1), dtype=bool)
    context[att.rows(groups.first, "context")[1]] = True
    slices_a, slices_b = np.ceil(p.a_bits / arrays.pe_bits), np.ceil(p.b_bits / arrays.pe_bits)
    a_bits, b_bits, out_bits = p.m * p.k * p.a_bits, p.k * p.n * p.b_bits, p.m * p.n * p.out_bits
    down, across = np.ceil(p.m / arrays.rows), np.ceil(p.n / arrays.cols)
    k_down, m_across = np.ceil(p.k / arrays.rows), np.ceil(p.m / arrays.cols)
    outputs_stay = down * across * np.maximum(p.k * slices_a * slices_b, np.minimum(arrays.rows, p.m))
    scores_stay = k_down * m_across * p.n * slices_a * slices_b
    compute = p.count * np.where(context, scores_stay, outputs_stay) + (arrays.rows + arrays.cols - 2.0)
    fetched = fetched_bits(p, arrays.buffer_bits, arrays.rows, arrays.cols)
    sums = p.count * p.m * p.n * ACCUMULATOR_BITS * (k_down - 1.0)
    reads = p.count * np.where(
        context, a_bits * slices_b + b_bits * m_across * slices_a, a_bits * across * slices_b + b_bits * down * slices_a
    ) + np.where(context, sums, 0.0)
    writes = p.count * out_bits + np.where(context, sums, 0.0)
    busy = groups.macs * slices_a * slices_b
    operand_bits = np.minimum(p.count * (a_bits + b_bits) + out_bits, arrays.buffer_bits)

    vector_bits = groups.vector_bits + np.zeros_like(arrays.rows)
    operations = groups.lane_operations + np.zeros_like(arrays.rows)
    none_p, none_v = np.zeros_like(busy), np.zeros_like(operations)
    table = _Table(
        compute=np.concatenate((compute, none_v)),
        vector=np.concatenate((none_p, np.ceil(operations / arrays.lanes))),
        stall=np.concatenate((none_p, none_v)),
        dram_bits=np.concatenate((fetched + p.count * out_bits, vector_bits)),
        mac_j=np.concatenate((busy * _pass_j(p, arrays, technology), none_v)),
        vector_j=np.concatenate((none_p, operations * prices.lane)),
        sram_j=np.concatenate(
            (
                (reads + p.count * out_bits) * prices.read + (writes + fetched) * prices.write,
                vector_bits * (prices.read + prices.write),
            )
        ),
        held=np.concatenate((operand_bits, np.minimum(vector_bits, arrays.buffer_bits))),
        busy=np.concatenate((busy, none_v)),
    )
    which, softmax = att.rows(groups.first, "softmax")
    pairs = att.heads * att.queries * att.keys
    table.vector[softmax] = np.ceil(SOFTMAX_CYCLES * pairs / arrays.lanes)[which]
    table.vector_j[softmax] = (lane_work(att, arrays, "unfused") * prices.lane)[which]
    return table


def _pass_j(p: Products, arrays: Columns, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass: both operands and the sum are registered each time."""
    table = np.empty((p.m.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), width), min(int(b), width)
            moving = a_chunk + b_chunk + ACCUMULATOR_BITS
            table[row, column] = technology.mac_pj(a_chunk, b_chunk) + moving * technology.register_pj_per_bit
    return 1e-12 * table[:, np.searchsorted(PE_BITS, arrays.pe_bits)]


def _fuse(
    table: _Table,
    groups: Groups,
    att: Attentions,
    arrays: Columns,
    prices: _Prices,
    bytes_per_cycle: Floats,
    mode: str,
    chosen: NDArray[np.bool_],
) -> None:
    """Writes attentions that run by ``mode`` into the columns of ``chosen`` accelerators."""
    took, moved = cycles(att, arrays, mode), moves(att, arrays, mode)
    none = np.zeros_like(took.scores)
    on_array = mode in ("architecture", "fusemax")
    pairs = att.heads * att.queries * att.keys
    scores_dram, soft_dram, context_dram = (
        np.ceil(bits / 8.0) for bits in (moved.queries_keys, moved.scores, moved.values_outputs)
    )
    transfer = np.ceil((scores_dram + soft_dram + context_dram) / bytes_per_cycle)
    steps = pairs * (3.0 + EXPONENTIAL_MACS * np.ceil(LANE_BITS / arrays.pe_bits) ** 2) if on_array else none
    values = {
        "scores": {"compute": took.scores, "dram_bits": moved.queries_keys, "sram_j": none, "held": moved.held},
        "bias": {"compute": took.bias, "vector": none, "dram_bits": none, "sram_j": none, "held": moved.held},
        "softmax": {
            "compute": took.softmax,
            "vector": took.beyond,
            "dram_bits": moved.scores,
            "vector_j": lane_work(att, arrays, mode) * prices.lane,
            "sram_j": none,
            "held": moved.held,
            "busy": steps,
        },
        "context": {
            "compute": took.context,
            "dram_bits": moved.values_outputs,
            # all of the attention's movement in the buffer
            "sram_j": moved.reads * prices.read + (moved.writes + moved.fills) * prices.write,
            "stall": np.maximum(transfer - took.all, 0.0),
            "held": moved.held,
        },
    }
    for role, columns in values.items():
        for name, new in ({"stall": none} | columns).items():
            _put(getattr(table, name), att.rows(groups.first, role), new, chosen)
    if mode != "flat":
        _finish_rows(table, groups, att, arrays, prices, bytes_per_cycle, chosen)


def _put(
    into: Floats, places: tuple[NDArray[np.intp], NDArray[np.intp]], new: Floats, chosen: NDArray[np.bool_]
) -> None:
    which, rows = places
    into[rows] = np.where(chosen, new[which], into[rows])


def _finish_rows(
    table: _Table,
    groups: Groups,
    att: Attentions,
    arrays: Columns,
    prices: _Prices,
    bytes_per_cycle: Floats,
    chosen: NDArray[np.bool_],
) -> None:
    """Adds to operators that score tokens what it takes to make probabilities of a row of 16-bit scores."""
    which, rows = att.rows(groups.first, "reader")
    operations = (att.row_values * (EXPONENTIAL_MACS + 3.0))[which]  # subtraction, exponential, sum, division
    wider = (att.row_values * (LANE_BITS - att.soft_bits))[which]
    vector = table.vector[rows] + np.ceil(operations / arrays.lanes)
    dram_bits = table.dram_bits[rows] + wider
    transfer = np.ceil(np.ceil(dram_bits / 8.0) / bytes_per_cycle)
    new = (
        (table.vector, vector),
        (table.dram_bits, dram_bits),
        (table.stall, np.maximum(transfer - vector, 0.0)),
        (table.vector_j, table.vector_j[rows] + operations * prices.lane),
        (table.sram_j, table.sram_j[rows] + wider * (prices.read + prices.write)),
    )
    for into, values in new:
        into[rows] = np.where(chosen, values, into[rows])


def _silicon(batch: Items[FuseMax], technology: Technology) -> tuple[Floats, Floats]:
    """Returns mm2 and leaked watts of each accelerator, shape (accelerators,)."""
    kib, pe_bits = batch.column("buffer_kib"), batch.column("pe_bits")
    pes, lanes = batch.column("rows") * batch.column("cols"), batch.column("lanes")
    registers = pes * np.array([_PE_REGISTERS[item.attention] for item in batch.items], dtype=np.float64)
    registers = registers + lanes * np.array([_LANE_REGISTERS[i.attention] for i in batch.items], dtype=np.float64)
    units = 1.0 + _DIVIDER_AREA + np.where(_has_exponential(batch), _EXPONENTIAL_AREA, 0.0)
    um2 = (
        pes * each(pe_bits, lambda bits: technology.mac_um2(int(bits)))
        + lanes * units * technology.mac_um2(LANE_BITS)
        + registers * (LANE_BITS * technology.register_um2_per_bit)
    )
    leak = (
        pes * each(pe_bits, lambda bits: technology.mac_leak_w(int(bits)))
        + lanes * units * technology.mac_leak_w(LANE_BITS)
        + each(kib, technology.sram.leak_w)
    )
    return 1e-6 * um2 + each(kib, technology.sram.area_mm2), leak


def _has_exponential(batch: Items[FuseMax]) -> NDArray[np.bool_]:
    return ~(batch.is_("attention", "architecture") | batch.is_("attention", "fusemax"))
