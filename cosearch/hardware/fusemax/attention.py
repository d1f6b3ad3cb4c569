"""Cycles and traffic of an attention that is worked on as a whole.

Everything is elementwise over attentions (rows) and accelerators (columns). Steps are named as in the cascade of
Einsums of FuseMax (Nayak et al., MICRO 2024); cycles of each step are those of its artifact's cost model
(``src/accel/{flat,flat_pe_proposal,stall_proposal,proposal}.py``): in a tile of R keys by C queries

===========  =============================================================  ================================
where        step                                                           cycles
===========  =============================================================  ================================
2D array     scores QK, their maximum LM over the tile                      depth, 1
2D array     numerators SLN = exp(QK - RM), their sum SLD                   7 (six multiply-adds, one add), 1
2D array     context SLNV                                                   depth of a value
1D array     new maximum RM; correction PRM = exp(old - new); SPD, RD       1; 7; 1, 1
1D array     old context corrected SPNV, and added to SLNV: RNV             depth of a value, each
1D array     division by the denominator AV, after the last tile            depth of a value
===========  =============================================================  ================================

They make up the latency of all tiles as follows; memory, if slower, is waited for on top.

- ``fusemax``: max(QK + LM, RD + RNV + AV) + RM + max(SLN + SLD, PRM + SPD) + max(SLNV, SPNV).
- ``architecture``: max(QK + LM, RD + AV) + RM + max(SLN + SLD, PRM + SPD) + max(SLNV, SPNV + RNV), and R cycles in
  which the maximum travels down the column.
- ``cascade``: the longer of the arrays; LM, SLN (2 cycles: subtraction and a pipelined exponential unit) and SLD of
  each score are on the 1D array.
- ``flat``: the longer of the arrays; maximum, exponential (2), sum and division of each score are on the 1D array.
  The artifact charges 4 cycles a score: its exponential subtracts on the way.

A bias takes one multiplication and one addition a score, where the maximum is taken. Filling the 2D array,
R + C - 2 cycles, is charged once an attention (the artifact leaves it out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import Attentions
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["EXPONENTIAL_MACS", "SOFTMAX_CYCLES", "Columns", "Cycles", "Moves", "cycles", "lane_work", "moves"]

Floats = NDArray[np.float64]

EXPONENTIAL_MACS = 6
"""Multiply-adds of an exponential (artifact: ``compute_cost`` of SLN and PRM)."""
SOFTMAX_CYCLES = 4
"""Cycles of a lane for each score where softmax is on the 1D array: maximum, exponential, sum, division."""
_DIVISION_MACS = 2
"""Energy of a division, in multiply-accumulates (artifact, ERT of the 1D array: 36.3 pJ against 17.2 pJ)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Accelerators field by field, each of shape (accelerators,); as in `FuseMax`, but ``buffer_bits``."""

    rows: Floats
    cols: Floats
    lanes: Floats
    buffer_bits: Floats
    pe_bits: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycles:
    """Cycles of attentions, all heads; fields of shape (attentions, accelerators).

    Attributes:
        scores: of the 2D array for the scores, and to fill it.
        bias: of the 2D array for the bias.
        softmax: of the 2D array for maxima, exponentials and sums.
        context: of the 2D array for the context.
        beyond: by which the 1D array and the order of steps exceed all these.
    """

    scores: Floats
    bias: Floats
    softmax: Floats
    context: Floats
    beyond: Floats

    @property
    def all(self) -> Floats:
        """Their sum: the latency without waiting for memory."""
        return self.scores + self.bias + self.softmax + self.context + self.beyond


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """Bits that attentions move, all heads; fields of shape (attentions, accelerators).

    Attributes:
        queries_keys: fetched from DRAM.
        scores: scores and softmax that do not fit in the buffer, and rows of them that are read later.
        values_outputs: values fetched, outputs written, running outputs that do not fit moved out and in.
        fills: written to the buffer from DRAM.
        reads: read from the buffer.
        writes: written to the buffer by the arrays.
        held: in the buffer at once.
    """

    queries_keys: Floats
    scores: Floats
    values_outputs: Floats
    fills: Floats
    reads: Floats
    writes: Floats
    held: Floats


def cycles(att: Attentions, arrays: Columns, mode: str) -> Cycles:
    """Returns the cycles of ``att`` on ``arrays``; the forms are in the module's text."""
    across = att.heads * np.ceil(att.queries / arrays.cols)
    tiles = across * np.ceil(att.keys / arrays.rows)
    turns = att.heads * _turns(att.queries, arrays)
    slices = np.ceil(LANE_BITS / arrays.pe_bits)
    multiply = slices * slices
    scores = tiles * att.depth * _passes(att.query_bits, att.key_bits, arrays)
    context = tiles * att.value_depth * _passes(att.soft_bits, att.value_bits, arrays)
    fill = arrays.rows + arrays.cols - 2.0
    none = np.zeros_like(scores)
    depth = att.value_depth
    steps, last = np.ceil(att.keys / arrays.rows) * turns, turns * depth
    if mode in ("flat", "cascade"):
        line = turns * att.keys * (SOFTMAX_CYCLES + 2.0 * att.biased)
        if mode == "cascade":
            line = line + steps * (5.0 + 2.0 * depth) + last
        beyond = np.maximum(line - scores - context, 0.0)
        return Cycles(scores=scores + fill, bias=none, softmax=none, context=context, beyond=beyond)
    bias = tiles * att.biased * (multiply + 1.0)
    exponential = tiles * (EXPONENTIAL_MACS * multiply + 2.0)
    correction = steps * (EXPONENTIAL_MACS + 2.0)
    if mode == "fusemax":
        first = np.maximum(scores + tiles + bias, steps * (1.0 + depth) + last)
        third = np.maximum(context, steps * depth)
    else:
        first = np.maximum(scores + tiles + bias, steps + last) + tiles * np.minimum(att.keys, arrays.rows)
        third = np.maximum(context, steps * 2.0 * depth)
    whole = first + steps + np.maximum(exponential, correction) + third
    softmax = tiles + exponential
    beyond = whole - scores - bias - softmax - context
    return Cycles(scores=scores + fill, bias=bias, softmax=softmax, context=context, beyond=beyond)


def _turns(queries: Floats, arrays: Columns) -> Floats:
    """Returns how often the lanes take up queries, one each, tile by tile."""
    full = np.floor(queries / arrays.cols)
    return full * np.ceil(arrays.cols / arrays.lanes) + np.ceil((queries - full * arrays.cols) / arrays.lanes)


def _passes(a_bits: Floats, b_bits: Floats, arrays: Columns) -> Floats:
    return np.ceil(a_bits / arrays.pe_bits) * np.ceil(b_bits / arrays.pe_bits)


def lane_work(att: Attentions, arrays: Columns, mode: str) -> Floats:
    """Returns 16-bit operations of softmax, corrections and division, wherever they run; for energy.

    A score takes a maximum, a subtraction, an exponential and a sum; with rows normalised one by one a division too.
    """
    each_score = 3.0 + EXPONENTIAL_MACS
    pairs = att.heads * att.queries * att.keys
    if mode in ("unfused", "flat"):
        return pairs * (each_score + _DIVISION_MACS) + np.zeros_like(arrays.rows)
    tiles = np.ceil(att.keys / arrays.rows)
    correction = EXPONENTIAL_MACS + 4.0 + 2.0 * att.value_depth
    outputs = att.heads * att.queries
    return pairs * each_score + outputs * (tiles * correction + _DIVISION_MACS * att.value_depth)


def moves(att: Attentions, arrays: Columns, mode: str) -> Moves:
    """Returns the bits that ``att`` moves on ``arrays``.

    A single pass keeps queries, running maxima, denominators and outputs of as many columns of tiles as fit beside one
    tile of keys and values, which are fetched once for each such stripe of queries. Where not even one column of tiles
    fits, each tile fetches its queries, and running outputs go to DRAM and back.

    ``flat`` keeps whole rows of scores. Keys and values are fetched once where they fit beside the scores of one
    column of tiles, else once for each stripe of queries whose scores fit. Of the scores of one column of tiles, the
    share that does not fit goes to DRAM and back before and after softmax.
    """
    across, down = np.ceil(att.queries / arrays.cols), np.ceil(att.keys / arrays.rows)
    key_bits, value_bits = att.depth * att.key_bits, att.value_depth * att.value_bits
    query_bits, out_bits = att.depth * att.query_bits, att.value_depth * att.out_bits
    state_bits = att.value_depth * ACCUMULATOR_BITS + 2.0 * LANE_BITS
    beside = np.minimum(att.keys, arrays.rows) * (key_bits + value_bits)
    column = np.minimum(att.queries, arrays.cols)
    if mode == "flat":
        each_query = att.keys * np.maximum(att.score_bits, att.soft_bits) + query_bits + out_bits
    else:
        each_query = query_bits + state_bits
        if mode == "cascade":
            each_query = each_query + 2.0 * LANE_BITS * np.minimum(att.keys, arrays.rows)
    room = np.maximum(arrays.buffer_bits - beside, 0.0)
    fits = np.floor(room / each_query)
    stripe = np.where(fits >= att.queries, att.queries, np.floor(fits / arrays.cols) * arrays.cols)
    enough = stripe >= column
    sweeps = np.where(enough, np.ceil(att.queries / np.maximum(stripe, 1.0)), across)
    heads = att.heads
    if mode == "flat":
        stay = att.keys * (key_bits + value_bits) + column * each_query <= arrays.buffer_bits
        sweeps = np.where(stay, 1.0, sweeps)
        share = 1.0 - np.minimum(room / (column * each_query), 1.0)
        spilled = heads * att.queries * att.keys * 2.0 * (att.score_bits + att.soft_bits) * share
        fetches, state = np.ones_like(sweeps), np.zeros_like(sweeps)
        extra = spilled + att.row_values * att.soft_bits
    else:
        fetches = np.where(enough, 1.0, down)
        state = np.where(enough, 0.0, 2.0 * (down - 1.0) * heads * att.queries * state_bits)
        extra = att.row_values * LANE_BITS + np.zeros_like(sweeps)
    queries = heads * att.queries * query_bits
    keys, values = heads * att.keys * key_bits, heads * att.keys * value_bits
    outputs = heads * att.queries * out_bits
    queries_keys = queries * fetches + keys * sweeps
    reads, writes = _score_moves(att, mode)
    if mode != "flat":
        running = heads * att.queries * state_bits * down
        reads, writes = reads + running, writes + running
    slices = [np.ceil(bits / arrays.pe_bits) for bits in (att.key_bits, att.query_bits, att.soft_bits)]
    fed = queries * down * slices[0] + keys * across * slices[1] + values * across * slices[2]
    return Moves(
        queries_keys=queries_keys,
        scores=extra,
        values_outputs=values * sweeps + outputs + state,
        fills=queries_keys + values * sweeps + 0.5 * state,
        reads=fed + reads + outputs,
        writes=writes + outputs,
        held=np.minimum(arrays.buffer_bits, beside + np.maximum(stripe, column) * each_query),
    )


def _score_moves(att: Attentions, mode: str) -> tuple[Floats, Floats]:
    """Returns bits of scores read from and written to the buffer.

    Scores are written, read for the maximum and for the exponential; numerators are written and read; ``flat`` also
    writes and reads normalised scores. On the PEs of the 2D array they stay in registers.
    """
    pairs = att.heads * att.queries * att.keys
    if mode == "cascade":
        return pairs * (3.0 * LANE_BITS), pairs * (2.0 * LANE_BITS)
    if mode == "flat":
        return pairs * (3.0 * LANE_BITS + att.soft_bits), pairs * (2.0 * LANE_BITS + att.soft_bits)
    return 0.0 * pairs, 0.0 * pairs
