"""What an attention with a fixed sparse mask computes and moves.

Everything is elementwise over attentions (rows) and accelerators (columns). Forms are those of ViTCoD's released
simulator (github.com/GATECH-EIC/ViTCoD, ``Hardware/Simulator/ViTCoD.py``), with L lines of m multipliers, of which the
denser engine has L_d and the sparser one L_s, for P queries of depth E, G dense columns and S scores beside them:

===================  ==============================  =================================
cycles of a head     denser engine                   sparser engine
===================  ==============================  =================================
scores (SDDMM)       G * ceil(P / L_d) * ceil(E/m)   ceil(S / L_s) * ceil(E/m)
context (SpMM)       ceil(P * F * G / (L_d * m))     ceil(S * F / (L_s * m))
===================  ==============================  =================================

The engines run side by side; each step takes the longer. Heads follow one another (the simulator runs them in parallel
on as many multipliers each, and has 64 x 64 of them for attention but 64 x 8 for linear layers). The decoder takes
heads * compressed heads multiply-accumulates for each value of a query and a key that is fetched, the encoder as many
for each that is stored, on all lines, one after another with the engines as in the simulator.

Queries and keys are fetched once while the denser engine passes its queries on. A sparser engine alone fetches a query
for each score (the simulator's ``reload_ratio`` without dense columns, whatever its buffer). Indices of the sparse
scores, a row number each and a pointer for each column, are fetched for each head; the simulator leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import Attentions
from cosearch.hardware.groups import Products
from cosearch.hardware.shared_buffer import fetched_bits
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["ENCODER_BITS", "Columns", "Masked", "Moves", "Work", "masked", "moves", "work"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ENCODER_BITS = 8
"""Width of the encoder's and decoder's weights (assumption: that of the multipliers)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Accelerators field by field, each of shape (accelerators,); as in `ViTCoD`."""

    lines: Floats
    macs: Floats
    operand_bits: Floats
    output_bits: Floats
    pe_bits: Floats
    no_engine: Flags
    sparser_only: Flags
    evenly: Flags
    encodes: Flags
    density: Floats
    dense_share: Floats
    compressed_share: Floats

    @property
    def rows_held(self) -> Floats:
        """Rows of outputs, one in each line, whose sums fit in half of the output buffer."""
        return np.maximum(np.floor(0.5 * self.output_bits / (ACCUMULATOR_BITS * self.lines)), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masked:
    """Scores that are left, of one head; fields of shape (attentions, accelerators).

    Attributes:
        columns: dense columns.
        dense: scores in them.
        sparse: scores beside them.
        heads: heads in which queries and keys cross DRAM.
    """

    columns: Floats
    dense: Floats
    sparse: Floats
    heads: Floats

    @property
    def kept(self) -> Floats:
        """All that are computed."""
        return self.dense + self.sparse


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """Cycles of attentions, all heads; fields of shape (attentions, accelerators).

    Attributes:
        scores: of the engines, for the scores.
        context: of the engines, for the context.
        decoder: for queries and keys on their way in.
        encoder: for queries and keys on their way out.
        decoder_macs: multiply-accumulates of the decoder.
        encoder_macs: multiply-accumulates of the encoder.
    """

    scores: Floats
    context: Floats
    decoder: Floats
    encoder: Floats
    decoder_macs: Floats
    encoder_macs: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """Bits that attentions move, all heads; fields of shape (attentions, accelerators).

    Attributes:
        queries_keys: fetched from DRAM, with the decoder's weights.
        indices: of the mask, fetched from DRAM.
        spilled: scores to and from DRAM, and rows of them that are read later.
        values: fetched from DRAM.
        outputs: written to DRAM.
        unsaved: by which compression shortens what the linear layer before writes; with the encoder's weights.
        operand_reads: read from the operand buffer.
        output_reads: read from the output buffer.
        output_writes: written to the output buffer.
        held: in the buffers at once.
    """

    queries_keys: Floats
    indices: Floats
    spilled: Floats
    values: Floats
    outputs: Floats
    unsaved: Floats
    operand_reads: Floats
    output_reads: Floats
    output_writes: Floats
    held: Floats


def masked(att: Attentions, arrays: Columns) -> Masked:
    """Returns the scores of ``att`` that are left on ``arrays``; without engines, or at density 1, all of them."""
    whole = arrays.no_engine | (arrays.density >= 1.0)
    share = np.where(arrays.sparser_only, 0.0, arrays.dense_share)
    columns = np.where(whole, att.keys, np.minimum(np.ceil(share * arrays.density * att.keys), att.keys))
    sparse = np.where(whole, 0.0, np.ceil((1.0 - share) * arrays.density * att.queries * att.keys))
    compressed = np.ceil(att.heads * arrays.compressed_share)
    heads = np.where(arrays.encodes, compressed, att.heads + np.zeros_like(arrays.lines))
    return Masked(columns=columns, dense=columns * att.queries, sparse=sparse, heads=heads)


def work(att: Attentions, arrays: Columns, left: Masked) -> Work:
    """Returns the cycles of ``att`` on ``arrays``; the forms are in the module's text."""
    score_passes = _passes(att.query_bits, att.key_bits, arrays)
    turns = np.ceil(att.depth / arrays.macs) * score_passes
    scores = context = np.full(left.kept.shape, np.inf)
    for dense_lines in _splits(arrays):
        sparse_lines = arrays.lines - dense_lines
        d = np.where(left.sparse == 0.0, arrays.lines, np.maximum(dense_lines, 1.0))
        s = np.where(left.dense == 0.0, arrays.lines, np.maximum(sparse_lines, 1.0))
        dense = att.heads * left.columns * np.ceil(att.queries / d)
        sparse = np.ceil(att.heads * left.sparse / s)
        scores = np.minimum(scores, turns * np.maximum(dense, sparse))
        values = att.heads * att.value_depth
        dense, sparse = (
            np.ceil(values * left.dense / (d * arrays.macs)),
            np.ceil(values * left.sparse / (s * arrays.macs)),
        )
        context = np.minimum(context, np.maximum(dense, sparse))
    context = context * _passes(att.soft_bits, att.value_bits, arrays)
    codes = left.heads < att.heads
    each_value = np.where(codes, att.heads * left.heads, 0.0)
    stored = (att.queries + att.keys) * att.depth
    fetched = (_queries_fetched(att, arrays, left) + att.keys) * att.depth
    code_passes = np.ceil(att.query_bits / arrays.pe_bits) * np.ceil(ENCODER_BITS / arrays.pe_bits)
    multipliers = arrays.lines * arrays.macs
    return Work(
        scores=scores,
        context=context,
        decoder=np.ceil(each_value * fetched / multipliers) * code_passes,
        encoder=np.ceil(each_value * stored / multipliers) * code_passes,
        decoder_macs=each_value * fetched,
        encoder_macs=each_value * stored,
    )


def _passes(a_bits: Floats, b_bits: Floats, arrays: Columns) -> Floats:
    return np.ceil(a_bits / arrays.pe_bits) * np.ceil(b_bits / arrays.pe_bits)


def _splits(arrays: Columns) -> tuple[Floats, Floats, Floats]:
    """Returns lines that the denser engine may have: half of all, or its share of the work rounded down, or up."""
    even = np.floor(arrays.lines / 2.0)
    share = np.floor(arrays.lines * arrays.dense_share)
    low, high = (np.clip(lines, 1.0, arrays.lines - 1.0) for lines in (share, share + 1.0))
    return even, np.where(arrays.evenly, even, low), np.where(arrays.evenly, even, high)


def _queries_fetched(att: Attentions, arrays: Columns, left: Masked) -> Floats:
    """Returns query vectors fetched for a head where they are not limited by the buffer."""
    alone = arrays.sparser_only & (left.sparse > 0.0)
    return np.where(alone, np.maximum(left.sparse, att.queries), att.queries)


def moves(att: Attentions, arrays: Columns, left: Masked) -> Moves:
    """Returns the bits that ``att`` moves on ``arrays``.

    Scores of a head wait for softmax in half of the output buffer; the share that does not fit goes to DRAM and back
    before and after it. Values are fetched once where those of a head fit in half of the operand buffer, else once for
    each block of output rows that the output buffer holds.
    """
    ratio = left.heads / att.heads
    heads, depth = att.heads, att.depth
    one = np.ones_like(att.heads)
    product = Products(
        m=att.queries, k=depth, n=att.keys, count=one, a_bits=att.query_bits, b_bits=att.key_bits, out_bits=one
    )
    once = fetched_bits(product, arrays.operand_bits, arrays.rows_held, arrays.lines)
    again = (_queries_fetched(att, arrays, left) - att.queries) * depth * att.query_bits
    weights = np.where(left.heads < heads, 2.0 * ENCODER_BITS * heads * left.heads, 0.0)
    indices = np.where(left.sparse > 0.0, heads * (left.sparse + att.keys) * _index_bits(att), 0.0)
    score_bits, half = np.maximum(att.score_bits, att.soft_bits), 0.5 * arrays.output_bits
    share = 1.0 - np.minimum(half / (left.kept * score_bits), 1.0)
    value_bits = att.keys * att.value_depth * att.value_bits
    rows = np.maximum(np.floor(half / (att.value_depth * ACCUMULATOR_BITS)), 1.0)
    sweeps = np.where(value_bits <= 0.5 * arrays.operand_bits, 1.0, np.ceil(att.queries / rows))
    outputs = heads * att.queries * att.value_depth * att.out_bits
    stored = heads * depth * (att.queries * att.query_bits + att.keys * att.key_bits)
    query_reads = att.queries * np.ceil(left.columns / arrays.lines) + left.sparse
    value_reads = left.columns * np.ceil(att.queries / arrays.lines) + left.sparse
    score_moves = heads * left.kept * (LANE_BITS + att.soft_bits)
    return Moves(
        queries_keys=heads * ratio * (once + again) + weights,
        indices=indices,
        spilled=share * heads * left.kept * 2.0 * (att.score_bits + att.soft_bits) + att.row_values * att.soft_bits,
        values=heads * value_bits * sweeps,
        outputs=outputs + np.zeros_like(sweeps),
        unsaved=stored * (ratio - 1.0) + weights,
        operand_reads=heads * depth * (query_reads * att.query_bits + att.keys * att.key_bits)
        + heads * att.value_depth * value_reads * att.value_bits,
        output_reads=score_moves + outputs,
        output_writes=score_moves + outputs,
        held=np.minimum(
            depth * (att.queries * att.query_bits + att.keys * att.key_bits) + value_bits, arrays.operand_bits
        )
        + np.minimum(left.kept * score_bits, arrays.output_bits),
    )


def _index_bits(att: Attentions) -> Floats:
    """Returns the width of a row number."""
    return np.array([float(max(1, (int(queries) - 1).bit_length())) for queries in att.queries[:, 0]]).reshape(-1, 1)
