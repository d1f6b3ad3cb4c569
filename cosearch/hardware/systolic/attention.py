"""Attention in a single pass: scores never leave the ofmap scratchpad.

Queries are worked on in tiles of rows. For a tile, scores with all keys are made, normalised and multiplied with the
values while they lie in half of the ofmap scratchpad, as 32-bit sums, beside the outputs of the tile (FlashAttention,
Dao et al. 2022; FLAT, Kao et al. 2023, keeps whole rows of scores in the same way). Where whole rows fit, softmax is
computed as it stands. Where they do not, keys come in tiles, and each tile corrects the outputs so far by a factor for
each row (online softmax, Milakov and Gimelshein 2018): d + 2 lane operations for each row and tile, each on a 32-bit
value in the ofmap scratchpad. There are as few tiles of rows as leave room for C keys, and then tiles of as many times
C keys as fit. Keys pass in pieces where they stream (scores of ``is``, context of ``os``); where they lie along the
rows (context of ``ws`` and ``is``) each tile takes folds of its own.

Keys and values are fetched once where those of a head fit in half of the filter scratchpad, and once for each tile of
rows where they do not. The vector unit works beside the array and DRAM, on the tile before: a block takes the longer of
the two, and the softmax's row holds what the vector unit takes beyond the products. Tiles cut the streamed queries of
``ws`` as in `cosearch.hardware.systolic.tiling`; ``os`` and ``is`` hold queries in the array, so that their tiles are
multiples of its rows or columns and no fold works on two. ``ws`` wants at least R queries in a tile, so that a fold
streams for as long as the next one loads.

An array falls back on the separate operators where no tile fits, and where refetching keys and values would move more:
a single pass never moves more bytes to and from DRAM than separate operators do. It is chosen by bytes: where another
tiling becomes the best, corrections and cut streams may add time although fewer tokens or bits are moved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import attention_chains
from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.array import OVERLAPS, SystolicArrays
from cosearch.hardware.systolic.elements import rates
from cosearch.hardware.systolic.folding import Folding, fold
from cosearch.hardware.systolic.traffic import HALF_KIB_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS
from cosearch.workload import OperatorKind, Workload

__all__ = ["Fused", "Shapes", "Tiles", "fuse", "query_tiles", "without_scores"]

Floats = NDArray[np.float64]


def without_scores(workload: Workload) -> Workload:
    """Returns ``workload`` with the tensors between scores and context empty, for finding what may stay on the chip.

    Only the row of scores that a later operator reads is left (the class token's, when tokens are pruned by it).
    """
    operators, sizes = workload.operators, {}
    for attention in attention_chains(workload):
        for position in (attention.scores, *attention.between):
            sizes[operators[position].output] = 0
        soft = operators[attention.between[-1]].output
        readers = [op for op in operators if op.kind is OperatorKind.SCORE and op.inputs[0] == soft]
        if readers:
            sizes[soft] = max(op.elements for op in readers)
    tensors = tuple(replace(t, elements=sizes.get(t.name, t.elements)) for t in workload.tensors)
    return Workload(operators, tensors)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """How attentions are cut into tiles of rows; fields of shape (attentions, accelerators).

    Attributes:
        possible: whether a tile fits.
        rows: tiles of rows.
        keys: times that keys and values are fetched.
        corrections: lane operations of the online softmax, all heads.
        scores_extra: cycles that tiles of rows and of keys add to the scores.
        context_extra: likewise to the context.
        scores_loads: times that the stationary operand of the scores is loaded into a ``ws`` or ``is`` array.
        context_loads: likewise of the context.
    """

    possible: NDArray[np.bool_]
    rows: Floats
    keys: Floats
    corrections: Floats
    scores_extra: Floats
    context_extra: Floats
    scores_loads: Floats
    context_loads: Floats


def query_tiles(
    scores: Products, context: Products, arrays: SystolicArrays, dataflow: str, s_fold: Folding, c_fold: Folding
) -> Tiles:
    """Returns how attentions fall into tiles on ``arrays`` of one ``dataflow``.

    Args:
        scores: products of queries and keys, fields of shape (attentions, 1).
        context: products with the values, in the same order.
        arrays: the accelerators.
        dataflow: theirs.
        s_fold: folding of ``scores``.
        c_fold: folding of ``context``.
    """
    room = np.floor(arrays.ofmap_kib * (HALF_KIB_BITS / ACCUMULATOR_BITS))
    tokens, keys, depth = scores.m, scores.n, context.n
    query_room = np.floor(arrays.ifmap_kib * HALF_KIB_BITS / (scores.k * scores.a_bits))
    grain = {"ws": np.ones_like(arrays.rows), "os": arrays.rows, "is": arrays.cols}[dataflow]
    least = np.minimum(arrays.cols if dataflow == "is" else arrays.rows, tokens)
    whole, online = (
        _tile(np.minimum(np.floor(room / (columns + depth)), query_room), tokens, grain)
        for columns in (keys, np.minimum(arrays.cols, keys))
    )
    fits = (scores.k * keys * scores.b_bits + keys * depth * context.b_bits) <= arrays.filter_kib * HALF_KIB_BITS
    whole_tiles, online_tiles = (np.ceil(tokens / np.clip(rows, 1.0, tokens)) for rows in (whole, online))
    # whole rows need no corrections, but shorter tiles may fetch keys and values more often
    in_whole = (whole >= least) & (fits | (whole_tiles <= online_tiles))
    tiles = np.where(in_whole, whole_tiles, online_tiles)
    each = np.minimum(np.ceil(np.ceil(tokens / tiles) / grain) * grain, tokens)
    width = np.maximum(np.floor((np.floor(room / each) - depth) / arrays.cols), 1.0) * arrays.cols
    width = np.where(in_whole, keys, np.minimum(width, keys))
    key_tiles = np.ceil(keys / width)
    once = np.ones_like(tiles)
    # what streams past the stationary operand of the scores: queries in ws, keys in is
    pieces = {"ws": tiles, "os": once, "is": key_tiles}[dataflow]
    return Tiles(
        possible=in_whole | (online >= least),
        rows=tiles,
        keys=np.where(fits, 1.0, tiles),
        corrections=scores.count * tokens * (key_tiles - 1.0) * (depth + 2.0),
        scores_extra=_extra(scores, arrays, dataflow, s_fold, pieces),
        context_extra=_context_extra(context, arrays, dataflow, c_fold, tiles, width),
        scores_loads=pieces,
        context_loads=tiles if dataflow == "ws" else once,
    )


def _tile(rows: Floats, tokens: Floats, grain: Floats) -> Floats:
    """Returns at most ``rows`` of ``tokens``: all of them, or a multiple of ``grain``."""
    return np.where(rows >= tokens, tokens, np.floor(rows / grain) * grain)


def _context_extra(
    p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, tiles: Floats, width: Floats
) -> Floats:
    """Returns the cycles that tiles of rows, and of ``width`` keys, add to the products with the values."""
    key_tiles = np.ceil(p.k / width)
    if dataflow == "os":
        return _extra(p, arrays, dataflow, folding, key_tiles)
    last = p.k - (key_tiles - 1.0) * width
    apart = (key_tiles - 1.0) * np.ceil(width / folding.k_rows) + np.ceil(last / folding.k_rows)
    row_folds = np.where(key_tiles > 1.0, apart, folding.row_folds)
    overlapped = arrays.overlap == OVERLAPS.index("double_buffered")
    later = np.where(overlapped, np.maximum(folding.streamed, arrays.rows), folding.streamed + _fill(arrays, dataflow))
    folds = folding.col_folds * folding.a_passes * folding.b_passes * p.count
    more = (row_folds - folding.row_folds) * folds * later
    if dataflow == "is":
        return more
    return more + _extra(p, arrays, dataflow, replace(folding, row_folds=row_folds), tiles)


def _extra(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, pieces: Floats) -> Floats:
    """Returns the cycles that cutting what streams into ``pieces`` adds, all folds together."""
    folds = folding.row_folds * folding.col_folds * folding.a_passes * folding.b_passes * p.count
    overlapped = arrays.overlap == OVERLAPS.index("double_buffered")
    ragged = np.maximum(folding.streamed, pieces * arrays.rows) - np.maximum(folding.streamed, arrays.rows)
    return folds * np.where(overlapped, ragged, (pieces - 1.0) * _fill(arrays, dataflow))


def _fill(arrays: SystolicArrays, dataflow: str) -> Floats:
    """Returns the cycles in which a fold is loaded, filled and drained."""
    return (1.0 if dataflow == "os" else 2.0) * arrays.rows + arrays.cols - 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """The distinct attentions of a workload, apart where plans keep different tensors of theirs.

    Attributes:
        scores: their products of queries and keys, fields of shape (attentions, 1).
        context: their products with the values, likewise.
        between_bits: bits that the vector operators between them read and write, shape (attentions, 1).
        lane_operations: of these operators, shape (attentions, 1).
        row_bits: bits of scores that a later operator reads, shape (attentions, 1).
        queries: share of the queries that DRAM holds, shape (attentions, 1).
        keys: likewise of the keys.
        values: likewise of the values.
        out: share of the context that DRAM takes.
    """

    scores: Products
    context: Products
    between_bits: Floats
    lane_operations: Floats
    row_bits: Floats
    queries: Floats
    keys: Floats
    values: Floats
    out: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fused:
    """What a single pass changes; fields of shape (attentions, accelerators), read where ``chosen``.

    Attributes:
        chosen: whether the array works in a single pass.
        query_fill: bits of queries fetched.
        key_fill: bits of keys fetched.
        value_fill: bits of values fetched.
        scores_cycles: cycles of the array for the scores.
        context_cycles: and for the context.
        vector_cycles: cycles of the vector unit.
        corrections: lane operations of the online softmax.
        scores_held_reads: bits of the scores' stationary operand read from its scratchpad, in ``ws`` and ``is``.
        context_held_reads: likewise of the context.
    """

    chosen: NDArray[np.bool_]
    query_fill: Floats
    key_fill: Floats
    value_fill: Floats
    scores_cycles: Floats
    context_cycles: Floats
    vector_cycles: Floats
    corrections: Floats
    scores_held_reads: Floats
    context_held_reads: Floats


def fuse(shapes: Shapes, arrays: SystolicArrays, dataflow: str, apart: Floats) -> Fused:
    """Returns what a single pass through each attention costs.

    Args:
        shapes: the attentions.
        arrays: the accelerators.
        dataflow: theirs.
        apart: bits that scores and context move to and from DRAM as separate operators, shape (attentions,
            accelerators).
    """
    s, c = shapes.scores, shapes.context
    s_fold, c_fold = (fold(one, arrays, dataflow, rates(one, arrays)) for one in (s, c))
    tiles = query_tiles(s, c, arrays, dataflow, s_fold, c_fold)
    query_fill = s.m * s.k * s.count * s.a_bits + np.zeros_like(tiles.rows)
    key_fill, value_fill = s.k * s.n * s.count * s.b_bits * tiles.keys, c.k * c.n * c.count * c.b_bits * tiles.keys
    out_bits = c.m * c.n * c.count * c.out_bits
    together = query_fill * shapes.queries + key_fill * shapes.keys + value_fill * shapes.values
    together = together + out_bits * shapes.out + shapes.row_bits
    scores_cycles, context_cycles = s_fold.cycles + tiles.scores_extra, c_fold.cycles + tiles.context_extra
    lanes = np.ceil((shapes.lane_operations + tiles.corrections) / arrays.vector_lanes)
    return Fused(
        chosen=tiles.possible & (together <= apart + shapes.between_bits),
        query_fill=query_fill,
        key_fill=key_fill,
        value_fill=value_fill,
        scores_cycles=scores_cycles,
        context_cycles=context_cycles,
        vector_cycles=lanes,
        corrections=tiles.corrections,
        scores_held_reads=_held_bits(s, s_fold, dataflow) * tiles.scores_loads,
        context_held_reads=_held_bits(c, c_fold, dataflow) * tiles.context_loads,
    )


def _held_bits(p: Products, folding: Folding, dataflow: str) -> Floats:
    """Returns the bits read when the stationary operand of ``ws`` or ``is`` is loaded once, all passes and runs."""
    if dataflow == "ws":
        return p.k * p.n * p.count * p.b_bits * folding.a_passes
    return p.m * p.k * p.count * p.a_bits * folding.b_passes
