"""Attention in a single pass: scores never leave the ofmap scratchpad.

Queries are worked on in tiles of rows. For a tile, scores with all keys are made, normalised and multiplied with the
values while they lie in half of the ofmap scratchpad, as 32-bit sums, beside the outputs of the tile (FlashAttention,
Dao et al. 2022; FLAT, Kao et al. 2023, keeps whole rows of scores in the same way). Where whole rows fit, softmax is
computed as it stands. Where they do not, keys come in tiles of C columns, and each tile corrects the outputs so far by
a factor for each row (online softmax, Milakov and Gimelshein 2018): d + 2 lane operations for each row and tile.

Keys and values are fetched once where those of a head fit in half of the filter scratchpad, and once for each tile of
rows where they do not. The vector unit works beside the array and DRAM, on the tile before: a block takes the longer of
the two, and the softmax's row holds what the vector unit takes beyond the products. Tiles cut the streamed queries of
``ws`` as in `cosearch.hardware.systolic.tiling`; ``os`` and ``is`` hold queries in the array and need a tile of its
rows or columns.

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
        scores_extra: cycles that cutting the streamed queries adds to the scores.
        context_extra: likewise to the context.
    """

    possible: NDArray[np.bool_]
    rows: Floats
    keys: Floats
    corrections: Floats
    scores_extra: Floats
    context_extra: Floats


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
    whole = np.minimum(np.floor(room / (keys + depth)), query_room)
    online = np.minimum(np.floor(room / (np.minimum(arrays.cols, keys) + depth)), query_room)
    need = {"ws": np.ones_like(arrays.rows), "os": arrays.rows, "is": arrays.cols}[dataflow]
    need = np.minimum(need, tokens)
    fits = (scores.k * keys * scores.b_bits + keys * depth * context.b_bits) <= arrays.filter_kib * HALF_KIB_BITS
    whole_tiles, online_tiles = (np.ceil(tokens / np.clip(rows, 1.0, tokens)) for rows in (whole, online))
    # whole rows need no corrections, but shorter tiles may fetch keys and values more often
    in_whole = (whole >= need) & (fits | (whole_tiles <= online_tiles))
    tiles = np.where(in_whole, whole_tiles, online_tiles)
    key_tiles = np.where(in_whole, 1.0, np.ceil(keys / arrays.cols))
    return Tiles(
        possible=in_whole | (online >= need),
        rows=tiles,
        keys=np.where(fits, 1.0, tiles),
        corrections=scores.count * tokens * (key_tiles - 1.0) * (depth + 2.0),
        scores_extra=_extra(scores, arrays, dataflow, s_fold, tiles),
        context_extra=_extra(context, arrays, dataflow, c_fold, tiles),
    )


def _extra(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, tiles: Floats) -> Floats:
    """Returns the cycles that ``tiles`` pieces of the streamed dimension add, all folds together."""
    if dataflow != "ws":
        return np.zeros_like(tiles)
    folds = folding.row_folds * folding.col_folds * folding.a_passes * folding.b_passes * p.count
    overlapped = arrays.overlap == OVERLAPS.index("double_buffered")
    ragged = np.maximum(folding.streamed, tiles * arrays.rows) - np.maximum(folding.streamed, arrays.rows)
    return folds * np.where(overlapped, ragged, (tiles - 1.0) * (2.0 * arrays.rows + arrays.cols - 2.0))


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
    """

    chosen: NDArray[np.bool_]
    query_fill: Floats
    key_fill: Floats
    value_fill: Floats
    scores_cycles: Floats
    context_cycles: Floats
    vector_cycles: Floats
    corrections: Floats


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
    )
