"""Costs of a workload on a ViTCoD accelerator, as the rows of a ledger.

What is assumed, beside the forms in `attention`:

- Operators run one after another, an attention as one of them. Each takes the longer of its computation and its DRAM
  traffic; the difference is its stall. Rows of an attention add up to its latency: scores hold the decoder, the linear
  layer before them the encoder, the context the stall of all. Softmax waits for the scores of a head and the context
  for softmax: engines and vector unit do not overlap (the simulator leaves softmax out).
- Linear layers run on all lines, mask or no mask: a line makes an output in ceil(K / m) cycles, as in the simulator
  (``ViT_FFN.py``), which rounds down.
- Operators exchange tensors through DRAM; scores and softmax stay in the output buffer as far as they fit.
- A line keeps 8 operands for each multiplier beside it (assumption): the right operand is read from its buffer once,
  the left one once for each group of columns that the lines hold, and sums beyond 8 m products go to the output buffer
  and back. A query or a value of the sparser engine is read for each of its scores.
- A lane operation costs a 16-bit multiply-accumulate. A multiplier spends energy by the widths of its operands.
- The vector unit works on the scores that are left only; an operator that scores tokens by a row of the attention map
  (pruning) finds that row whole, in DRAM.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import Attentions, Role, find_attentions
from cosearch.hardware.groups import Groups, require_integers
from cosearch.hardware.ledger import Items, Ledger, each
from cosearch.hardware.shared_buffer import fetched_bits
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS, OPERATIONS_PER_ROW, OPERATIONS_PER_VALUE
from cosearch.hardware.vitcod.attention import ENCODER_BITS, Columns, Masked, Work, masked, moves, work
from cosearch.hardware.vitcod.engines import ViTCoD
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import OperatorKind, Workload

__all__ = ["vitcod_ledger"]

Floats = NDArray[np.float64]

_LOCAL_OPERANDS = 8
"""Operands that a line keeps for each of its multipliers (assumption)."""


@dataclasses.dataclass(slots=True, kw_only=True)
class _Table:
    """Rows of the ledger in the making; fields of shape (rows, accelerators)."""

    compute: Floats
    vector: Floats
    dram_bits: Floats
    mac_j: Floats
    vector_j: Floats
    sram_j: Floats
    held: Floats
    busy: Floats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """Joules to read and write a bit of each buffer, shape (accelerators,), and of a lane's operation."""

    operand_read: Floats
    operand_write: Floats
    index_read: Floats
    index_write: Floats
    output_read: Floats
    output_write: Floats
    lane: float


def vitcod_ledger(workload: Workload, batch: Items[ViTCoD], technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on ViTCoD accelerators.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a ViTCoD accelerator")
    att = find_attentions(workload)
    groups = Groups.of_operators(workload, workload.operators, att.marks)
    arrays, lanes, clock = _columns(batch), batch.column("vector_lanes"), batch.column("clock_hz")
    prices = _prices(batch, technology)
    table = _separate(groups, arrays, lanes, prices, technology)
    stalls_together = np.zeros(len(groups.first), dtype=bool)
    if att.shapes:
        for role in ("scores", "bias", "softmax", "context"):
            stalls_together[att.rows(groups.first, role)[1]] = True
        _attend(table, groups, att, arrays, lanes, prices, technology)
    dram_bytes = np.ceil(table.dram_bits / 8.0)
    transfer = np.ceil(dram_bytes / (batch.column("dram_bytes_per_s") / clock))
    busy_cycles = table.compute + table.vector
    stall = np.where(stalls_together[:, None], 0.0, np.maximum(transfer - busy_cycles, 0.0))
    if att.shapes:
        which, context = att.rows(groups.first, "context")
        waits = np.maximum(_together(att, groups, transfer) - _together(att, groups, busy_cycles), 0.0)
        stall[context] = waits[which]
    area, leak = _silicon(batch, technology)
    return Ledger(
        members=groups.members,
        compute_cycles=table.compute,
        vector_cycles=table.vector,
        stall_cycles=stall,
        dram_bytes=dram_bytes,
        mac_j=table.mac_j,
        vector_j=table.vector_j,
        sram_j=table.sram_j,
        dram_j=dram_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=table.held,
        busy=table.busy,
        multipliers=arrays.lines * arrays.macs,
        clock_hz=clock,
        area_mm2=area,
        leak_w=leak,
    )


def _columns(batch: Items[ViTCoD]) -> Columns:
    return Columns(
        lines=batch.column("mac_lines"),
        macs=batch.column("macs_per_line"),
        operand_bits=8192.0 * batch.column("operand_kib"),
        output_bits=8192.0 * batch.column("output_kib"),
        pe_bits=batch.column("pe_bits"),
        no_engine=batch.is_("engines", "none"),
        sparser_only=batch.is_("engines", "sparser"),
        evenly=batch.is_("allocation", "even"),
        encodes=batch.is_("encoder", "on"),
        density=batch.column("attention_density"),
        dense_share=batch.column("dense_share"),
        compressed_share=batch.column("compressed_share"),
    )


def _prices(batch: Items[ViTCoD], technology: Technology) -> _Prices:
    prices = {}
    for name in ("operand", "index", "output"):
        kib = batch.column(f"{name}_kib")
        prices[f"{name}_read"] = 1e-12 * each(kib, technology.sram.read_pj)
        prices[f"{name}_write"] = 1e-12 * each(kib, technology.sram.write_pj)
    return _Prices(**prices, lane=1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS))


def _separate(groups: Groups, arrays: Columns, lanes: Floats, prices: _Prices, technology: Technology) -> _Table:
    """Returns the rows with every operator on its own."""
    p = groups.products
    slices_a, slices_b = np.ceil(p.a_bits / arrays.pe_bits), np.ceil(p.b_bits / arrays.pe_bits)
    passes = slices_a * slices_b
    compute = p.count * np.ceil(p.m * p.n / arrays.lines) * np.ceil(p.k / arrays.macs) * passes
    fetched = fetched_bits(p, arrays.operand_bits, arrays.rows_held, arrays.lines)
    out_bits = p.count * p.m * p.n * p.out_bits
    sums = np.ceil(p.k / (_LOCAL_OPERANDS * arrays.macs)) * passes - 1.0
    sum_bits = p.count * p.m * p.n * ACCUMULATOR_BITS * sums
    left_reads = p.count * p.m * p.k * p.a_bits * np.ceil(p.n / arrays.lines) * slices_b
    right_reads = p.count * p.k * p.n * p.b_bits * slices_a
    busy = groups.macs * passes
    held = np.minimum(p.count * p.k * (p.m * p.a_bits + p.n * p.b_bits), arrays.operand_bits) + np.minimum(
        out_bits, arrays.output_bits
    )
    vector_bits = groups.vector_bits + np.zeros_like(arrays.lines)
    operations = groups.lane_operations + np.zeros_like(arrays.lines)
    none_p, none_v = np.zeros_like(busy), np.zeros_like(operations)
    product_sram = (
        (left_reads + right_reads) * prices.operand_read
        + fetched * prices.operand_write
        + (sum_bits + out_bits) * (prices.output_read + prices.output_write)
    )
    return _Table(
        compute=np.concatenate((compute, none_v)),
        vector=np.concatenate((none_p, np.ceil(operations / lanes))),
        dram_bits=np.concatenate((fetched + out_bits, vector_bits)),
        mac_j=np.concatenate((busy * _pass_j(p.a_bits, p.b_bits, arrays, technology), none_v)),
        vector_j=np.concatenate((none_p, operations * prices.lane)),
        sram_j=np.concatenate((product_sram, vector_bits * (prices.output_read + prices.output_write))),
        held=np.concatenate((held, np.minimum(vector_bits, arrays.output_bits))),
        busy=np.concatenate((busy, none_v)),
    )


def _pass_j(a_bits: Floats, b_bits: Floats, arrays: Columns, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass, with both operands and the sum in registers."""
    table = np.empty((a_bits.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(a_bits[:, 0], b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), width), min(int(b), width)
            moving = a_chunk + b_chunk + ACCUMULATOR_BITS
            table[row, column] = technology.mac_pj(a_chunk, b_chunk) + moving * technology.register_pj_per_bit
    return 1e-12 * table[:, np.searchsorted(PE_BITS, arrays.pe_bits)]


def _attend(
    table: _Table,
    groups: Groups,
    att: Attentions,
    arrays: Columns,
    lanes: Floats,
    prices: _Prices,
    technology: Technology,
) -> None:
    """Writes attentions, and what the encoder adds to the layer before them, into their rows."""
    left = masked(att, arrays)
    done, moved = work(att, arrays, left), moves(att, arrays, left)
    none = np.zeros_like(done.scores)
    per_row = att.heads * att.queries * OPERATIONS_PER_ROW[OperatorKind.SOFTMAX]
    softmax = att.heads * left.kept * OPERATIONS_PER_VALUE[OperatorKind.SOFTMAX] + per_row
    bias = att.heads * left.kept * att.biased * OPERATIONS_PER_VALUE[OperatorKind.ADD]
    scores_sram = moved.queries_keys * prices.operand_write
    scores_sram = scores_sram + moved.indices * (prices.index_read + prices.index_write)
    context_sram = (
        moved.values * prices.operand_write
        + moved.operand_reads * prices.operand_read
        + moved.output_reads * prices.output_read
        + moved.output_writes * prices.output_write
    )
    new: dict[Role, dict[str, Floats]] = {
        "scores": {
            "compute": done.scores + done.decoder,
            "dram_bits": moved.queries_keys + moved.indices,
            "sram_j": scores_sram,
        },
        # a bias is added as softmax reads the scores
        "bias": {"vector": np.ceil(bias / lanes), "vector_j": bias * prices.lane, "dram_bits": none, "sram_j": none},
        "softmax": {
            "vector": np.ceil(softmax / lanes),
            "vector_j": softmax * prices.lane,
            "dram_bits": moved.spilled,
            "sram_j": none,
        },
        "context": {"compute": done.context, "dram_bits": moved.values + moved.outputs, "sram_j": context_sram},
    }
    for role, columns in new.items():
        which, rows = att.rows(groups.first, role)
        for name, values in ({"held": moved.held} | columns).items():
            getattr(table, name)[rows] = values[which]
    _multiply(table, groups, att, arrays, left, done, technology)
    which, rows = att.rows(groups.first, "maker")
    table.compute[rows] += done.encoder[which]
    table.dram_bits[rows] += moved.unsaved[which]


def _multiply(
    table: _Table,
    groups: Groups,
    att: Attentions,
    arrays: Columns,
    left: Masked,
    done: Work,
    technology: Technology,
) -> None:
    """Leaves the multiplications of scores that are computed, and adds those of encoder and decoder."""
    code_j = _pass_j(att.query_bits, np.full_like(att.query_bits, ENCODER_BITS), arrays, technology)
    code_passes = np.ceil(att.query_bits / arrays.pe_bits) * np.ceil(ENCODER_BITS / arrays.pe_bits)
    share, all_scores = left.kept / (att.queries * att.keys), np.ones_like(left.kept)
    for role, computed, macs in (
        ("maker", all_scores, done.encoder_macs),
        ("scores", share, done.decoder_macs),
        ("context", share, np.zeros_like(share)),
    ):
        which, rows = att.rows(groups.first, role)
        busy = (macs * code_passes)[which]
        table.busy[rows] = table.busy[rows] * computed[which] + busy
        table.mac_j[rows] = table.mac_j[rows] * computed[which] + busy * code_j[which]


def _together(att: Attentions, groups: Groups, values: Floats) -> Floats:
    """Returns the sums over the operators of each attention, shape (attentions, accelerators)."""
    out = np.zeros((len(att.shapes), values.shape[1]))
    for role in ("scores", "bias", "softmax", "context"):
        which, rows = att.rows(groups.first, role)
        out[which] += values[rows]
    return out


def _silicon(batch: Items[ViTCoD], technology: Technology) -> tuple[Floats, Floats]:
    """Returns mm2 and leaked watts of each accelerator, shape (accelerators,)."""
    pe_bits, lanes = batch.column("pe_bits"), batch.column("vector_lanes")
    pes = batch.column("mac_lines") * batch.column("macs_per_line")
    register_um2 = technology.register_um2_per_bit
    um2 = pes * each(pe_bits, lambda bits: technology.mac_um2(int(bits)) + _LOCAL_OPERANDS * bits * register_um2)
    um2 = um2 + lanes * technology.mac_um2(LANE_BITS)
    area, leak = 1e-6 * um2, pes * each(pe_bits, lambda bits: technology.mac_leak_w(int(bits)))
    leak = leak + lanes * technology.mac_leak_w(LANE_BITS)
    for name in ("operand", "index", "output"):
        kib = batch.column(f"{name}_kib")
        area, leak = area + each(kib, technology.sram.area_mm2), leak + each(kib, technology.sram.leak_w)
    return area, leak
