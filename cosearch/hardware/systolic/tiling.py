"""The tiles and loop orders of a product that move the fewest bits from DRAM.

A fold of ``ws`` keeps R x C values of one operand in the array and streams S vectors of the other past them; ``is`` is
the same with the operands exchanged. With S the streamed dimension, K the reduction (Fr folds) and X the dimension
across the array (Fc folds), all orders of the loops over chunks of S, groups of K folds and groups of X folds come to
these cases; each half of a scratchpad holds one tile while the other is filled:

=======================  ===========================  ==============  =======================  =====================
order                    must fit                     streamed        stationary operand       partial sums
                                                      operand                                  to DRAM and back
=======================  ===========================  ==============  =======================  =====================
chunk, X group, K, X     chunk x X group of sums,     X groups times  chunks times (once if    none
                         chunk x R of the stream                      it fits as a whole)
chunk, K group, X, K     chunk x C of sums,           once            likewise; once, too, if  number of K groups - 1
                         chunk x K group of stream                    K group x C of it and S  times
                                                                      x K group of stream fit
X group, K group, chunk  K group x X group of it,     X groups times  once                     likewise; none where
                         and chunks as above                                                   S x X group of sums fit
chunk, X, K              chunk x C of sums            Fc times        chunks times (once if    none
                                                                      it fits as a whole)
X, K (`fold_fills`)      nothing                      Fc or 1 times   once                     as SCALE-Sim
=======================  ===========================  ==============  =======================  =====================

For a number of groups the largest chunk that fits is best, and for a number of X groups the largest K group, so trying
every number of groups is an exhaustive search (``tests/unit/test_hardware_tiling.py`` holds it against a walk through
every nest of loops with every size of tile). Only overlapped arrays cut S into chunks: each fold then takes
``max(chunk, R)`` cycles, and chunks are at least R, so that cutting costs at most the ragged rest; without overlap each
chunk would fill and drain the array again.

``os`` keeps outputs in the array and never splits the reduction. A panel of M rows (or of N columns) that stays in its
scratchpad is fetched once while all of the other operand passes by, once for each panel; once for each fold of the
panel where not even the part that one fold uses fits in its own scratchpad.

Fewest bits first, then fewest from all memories, then fewest chunks. Mei et al. 2021 (ZigZag) and Parashar et al. 2019
(Timeloop) count the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.array import OVERLAPS, SystolicArrays
from cosearch.hardware.systolic.folding import Folding
from cosearch.hardware.systolic.traffic import HALF_KIB_BITS, Fills, fold_fills
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["best_fills", "chunked_extra"]

Floats = NDArray[np.float64]


@dataclass(slots=True)
class _Best:
    """The best choice so far; fields of shape (products, accelerators)."""

    dram: Floats
    fill: Floats
    streamed: Floats
    stationary: Floats
    spilled: Floats
    chunks: Floats

    def consider(self, other: _Best, possible: NDArray[np.bool_]) -> None:
        """Takes ``other`` where it is possible and better."""
        level = (other.dram == self.dram) & (
            (other.fill < self.fill) | ((other.fill == self.fill) & (other.chunks < self.chunks))
        )
        better = possible & ((other.dram < self.dram) | level)
        for name in self.__slots__:
            np.copyto(getattr(self, name), getattr(other, name), where=better)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shape:
    """A product as an array of `ws` or `is` sees it; shapes broadcast to (products, accelerators).

    Attributes:
        rows: of the array.
        k_rows: values of the reduction that they cover.
        cols: of the array.
        overlapped: whether the array may cut the streamed dimension.
        row_folds: folds of the reduction.
        col_folds: folds of the dimension across the array.
        stream: length of the streamed dimension.
        across: length of the dimension across the array.
        reduction: length of the reduction.
        count: runs of the product.
        stream_bits: width of the streamed operand.
        stream_total: bits of it, all runs.
        kept_bits: width of the stationary operand.
        kept_total: bits of it, all runs.
        stream_room: bits in half of the scratchpad of the streamed operand.
        kept_room: bits in half of the scratchpad of the stationary one.
        kept_passes: slices of the stationary operand.
        kept_again: times that it is fetched for one chunk, more than once where not even one fold's part fits.
        sums_room: partial sums in half of the ofmap scratchpad.
        stream_dram: share of the streamed operand that DRAM holds.
        kept_dram: likewise of the stationary one.
    """

    rows: Floats
    k_rows: Floats
    cols: Floats
    overlapped: NDArray[np.bool_]
    row_folds: Floats
    col_folds: Floats
    stream: Floats
    across: Floats
    reduction: Floats
    count: Floats
    stream_bits: Floats
    stream_total: Floats
    kept_bits: Floats
    kept_total: Floats
    stream_room: Floats
    kept_room: Floats
    kept_passes: Floats
    kept_again: Floats
    sums_room: Floats
    stream_dram: Floats
    kept_dram: Floats

    def where(self, mask: NDArray[np.bool_]) -> _Shape:
        """Returns the pairs of product and array where ``mask`` is true, fields of shape (pairs,)."""
        return _Shape(
            **{name: np.broadcast_to(getattr(self, name), mask.shape)[mask] for name in self.__slots__},
        )


def best_fills(
    p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, a_dram: Floats, b_dram: Floats
) -> Fills:
    """Returns how often operands are fetched in the best tiles and order.

    Args:
        p: the products.
        arrays: the accelerators, all of one ``dataflow``.
        dataflow: which.
        folding: of ``p`` on ``arrays``.
        a_dram: share of each left operand that comes from DRAM, shape broadcasts to (products, accelerators).
        b_dram: likewise of each right operand.
    """
    plain = fold_fills(p, arrays, dataflow, folding)
    if dataflow == "os":
        return _panels(p, arrays, plain, a_dram, b_dram)
    return _search(p, arrays, dataflow, folding, plain, a_dram, b_dram)


def _panels(p: Products, arrays: SystolicArrays, plain: Fills, a_dram: Floats, b_dram: Floats) -> Fills:
    """Returns the best panels of an output-stationary array."""
    a_total, b_total = p.m * p.k * p.count * p.a_bits, p.k * p.n * p.count * p.b_bits
    shape = np.broadcast_shapes(a_total.shape, arrays.rows.shape)
    a, b = (np.broadcast_to(values, shape).copy() for values in (plain.a, plain.b))
    dram = a * a_total * a_dram + b * b_total * b_dram
    fill = a * a_total + b * b_total
    one = np.ones(shape)
    ifmap_half, filter_half = arrays.ifmap_kib * HALF_KIB_BITS, arrays.filter_kib * HALF_KIB_BITS
    m_panel = np.floor(ifmap_half / (p.k * p.a_bits * arrays.rows)) * arrays.rows
    n_panel = np.floor(filter_half / (p.k * p.b_bits * arrays.cols)) * arrays.cols
    # an operand smaller than one panel needs room for itself only
    m_panel = np.where(p.m * p.k * p.a_bits <= ifmap_half, p.m, m_panel)
    n_panel = np.where(p.n * p.k * p.b_bits <= filter_half, p.n, n_panel)
    m_panels = np.ceil(p.m / np.maximum(m_panel, 1.0))
    n_panels = np.ceil(p.n / np.maximum(n_panel, 1.0))
    # the operand that passes by is fetched for each fold of the panel where its part of one fold does not fit
    for fits, a_times, b_times in (
        (m_panel >= 1.0, one, np.where(n_panel >= 1.0, np.where(n_panels == 1.0, 1.0, m_panels), plain.b)),
        (n_panel >= 1.0, np.where(m_panel >= 1.0, np.where(m_panels == 1.0, 1.0, n_panels), plain.a), one),
    ):
        other_dram = a_times * a_total * a_dram + b_times * b_total * b_dram
        other_fill = a_times * a_total + b_times * b_total
        better = fits & ((other_dram < dram) | ((other_dram == dram) & (other_fill < fill)))
        for values, other in ((a, a_times), (b, b_times), (dram, other_dram), (fill, other_fill)):
            np.copyto(values, other, where=better)
    return Fills(a=a, b=b, spilled=plain.spilled, loads=plain.loads)


def _search(
    p: Products,
    arrays: SystolicArrays,
    dataflow: str,
    folding: Folding,
    plain: Fills,
    a_dram: Floats,
    b_dram: Floats,
) -> Fills:
    """Returns the best chunks and groups of a weight- or input-stationary array."""
    weights = dataflow == "ws"
    shape = np.broadcast_shapes(p.m.shape, arrays.rows.shape)
    first, second = (plain.a, plain.b) if weights else (plain.b, plain.a)
    streamed, kept, spilled = (np.broadcast_to(values, shape).copy() for values in (first, second, plain.spilled))
    chunks = np.ones(shape)
    # where nothing is fetched twice, there is nothing to search
    open_ = (streamed > 1.0) | (kept > 1.0) | (spilled > 0.0)
    if np.any(open_):
        s = _shape(p, arrays, folding, a_dram, b_dram, weights=weights).where(open_)
        best = _choice(s, streamed[open_], kept[open_], spilled[open_], chunks[open_])
        _consider_all(best, s)
        for values, found in (
            (streamed, best.streamed),
            (kept, best.stationary),
            (spilled, best.spilled),
            (chunks, best.chunks),
        ):
            values[open_] = found
    a, b = (streamed, kept) if weights else (kept, streamed)
    return Fills(a=a, b=b, spilled=spilled, loads=chunks)


def _consider_all(best: _Best, s: _Shape) -> None:
    """Considers every order, with every number of groups."""
    whole = s.kept_total / s.count <= s.kept_room
    k_tile = np.minimum(s.k_rows, s.reduction)
    # sums of one column of folds fit: each column fetches the stream again
    by_column = s.col_folds * _slab_passes(s, k_tile)
    _consider(best, s, _chunk(s, s.cols), by_column, 0.0, whole)
    in_array = (s.kept_passes == 1.0) & (s.kept_again == 1.0)
    row_groups = np.where(in_array, np.minimum(_held_groups(s, s.cols), s.row_folds), _held_groups(s, s.cols))
    _consider(best, s, _chunk(s, s.cols), by_column, _again(s, s.cols, row_groups), True)
    for column_groups in _group_counts(s.col_folds):
        size = np.ceil(s.col_folds / column_groups)
        groups, columns = np.ceil(s.col_folds / size), size * s.cols
        chunk = _chunk(s, columns, k_tile)
        _consider(best, s, chunk, groups, 0.0, whole)
        row_groups = _held_groups(s, columns)
        _consider(best, s, chunk, groups, _again(s, columns, row_groups), True)
        row_groups = np.maximum(row_groups, _streamed_groups(s))
        chunk = _chunk(s, s.cols, _depth(s, row_groups))
        _consider(best, s, chunk, groups, _again(s, columns, row_groups), True)
    for row_groups in _group_counts(s.row_folds):
        depth = _depth(s, row_groups)
        # a group's part of the whole stream stays, so that one column of folds may stay for all chunks
        stays = (s.stream * depth * s.stream_bits <= s.stream_room) & (
            (depth * np.minimum(s.cols, s.across) * s.kept_bits <= s.kept_room) | (in_array & (depth <= s.k_rows))
        )
        groups = np.ceil(s.row_folds / np.ceil(s.row_folds / row_groups))
        spilled = (groups - 1.0) * (s.stream * s.across * s.count * ACCUMULATOR_BITS)
        _consider(best, s, _chunk(s, s.cols, depth), np.ones(1), spilled, whole | stays)


def _shape(
    p: Products, arrays: SystolicArrays, folding: Folding, a_dram: Floats, b_dram: Floats, *, weights: bool
) -> _Shape:
    a_total, b_total = p.m * p.k * p.count * p.a_bits, p.k * p.n * p.count * p.b_bits
    a_room, b_room = arrays.ifmap_kib * HALF_KIB_BITS, arrays.filter_kib * HALF_KIB_BITS
    across, kept_bits, kept_room = (p.n, p.b_bits, b_room) if weights else (p.m, p.a_bits, a_room)
    part = kept_bits * np.minimum(folding.k_rows, p.k) * np.minimum(arrays.cols, across)
    stream_passes = folding.a_passes if weights else folding.b_passes
    return _Shape(
        rows=arrays.rows,
        k_rows=folding.k_rows,
        cols=arrays.cols,
        overlapped=arrays.overlap == OVERLAPS.index("double_buffered"),
        row_folds=folding.row_folds,
        col_folds=folding.col_folds,
        stream=p.m if weights else p.n,
        across=across,
        reduction=p.k,
        count=p.count,
        stream_bits=p.a_bits if weights else p.b_bits,
        stream_total=a_total if weights else b_total,
        kept_bits=kept_bits,
        kept_total=b_total if weights else a_total,
        stream_room=a_room if weights else b_room,
        kept_room=kept_room,
        kept_passes=folding.b_passes if weights else folding.a_passes,
        kept_again=np.where(part <= kept_room, 1.0, stream_passes),
        sums_room=np.floor(arrays.ofmap_kib * (HALF_KIB_BITS / ACCUMULATOR_BITS)),
        stream_dram=a_dram if weights else b_dram,
        kept_dram=b_dram if weights else a_dram,
    )


def _depth(s: _Shape, row_groups: Floats) -> Floats:
    """Returns the longest part of the reduction in one of ``row_groups`` groups of folds."""
    return np.minimum(np.ceil(s.row_folds / np.minimum(row_groups, s.row_folds)) * s.k_rows, s.reduction)


def _held_groups(s: _Shape, columns: Floats) -> Floats:
    """Returns in how many groups of row folds ``columns`` of the stationary operand fit; inf where none does."""
    width = np.minimum(columns, s.across) * s.kept_bits
    return _least_groups(s, np.floor(s.kept_room / width))


def _again(s: _Shape, columns: Floats, row_groups: Floats) -> Floats:
    """Returns the sums in bits that go to memory between groups: none where those of all chunks fit at once."""
    all_fit = np.isfinite(row_groups) & (s.stream * np.minimum(columns, s.across) <= s.sums_room)
    return np.where(all_fit, 0.0, (row_groups - 1.0) * (s.stream * s.across * s.count * ACCUMULATOR_BITS))


def _streamed_groups(s: _Shape) -> Floats:
    """Returns in how many groups of row folds the shortest chunk of the stream fits; inf where none does."""
    shortest = np.where(s.overlapped, np.minimum(s.rows, s.stream), s.stream)
    return _least_groups(s, np.floor(s.stream_room / (shortest * s.stream_bits)))


def _least_groups(s: _Shape, depth: Floats) -> Floats:
    folds = np.where(depth >= s.reduction, s.row_folds, np.floor(depth / s.k_rows))
    return np.where(folds >= 1.0, np.ceil(s.row_folds / np.maximum(folds, 1.0)), np.inf)


def _chunk(s: _Shape, columns: Floats, slab: Floats | None = None) -> Floats:
    """Returns the longest chunk whose sums over ``columns`` fit, and ``slab`` values of each streamed vector."""
    chunk = np.minimum(s.stream, np.floor(s.sums_room / np.minimum(columns, s.across)))
    return chunk if slab is None else np.minimum(chunk, np.floor(s.stream_room / (s.stream_bits * slab)))


def _slab_passes(s: _Shape, k_tile: Floats) -> Floats:
    """Returns how often a fold fetches its part of the stream: for each slice of the other operand unless it fits."""
    chunk = np.maximum(_chunk(s, s.cols), 1.0)
    return np.where(chunk * k_tile * s.stream_bits <= s.stream_room, 1.0, s.kept_passes)


def _consider(
    best: _Best, s: _Shape, chunk: Floats, streamed: Floats, spilled: Floats | float, stays: NDArray[np.bool_] | bool
) -> None:
    """Considers chunks of at most ``chunk`` streamed vectors; the stationary operand ``stays`` for all or none."""
    chunks = np.ceil(s.stream / np.maximum(chunk, 1.0))
    possible = (chunk >= 1.0) & ((chunks == 1.0) | (s.overlapped & (chunk >= s.rows))) & np.isfinite(spilled)
    kept = s.kept_again * np.where(stays, 1.0, chunks)
    best.consider(_choice(s, streamed, kept, spilled, chunks), possible)


def _choice(s: _Shape, streamed: Floats, kept: Floats, spilled: Floats | float, chunks: Floats) -> _Best:
    stream_fill, kept_fill = streamed * s.stream_total, kept * s.kept_total
    dram = stream_fill * s.stream_dram + kept_fill * s.kept_dram + 2.0 * np.asarray(spilled)
    return _Best(dram, stream_fill + kept_fill, streamed, kept, np.asarray(spilled), chunks)


def _group_counts(folds: Floats) -> list[Floats]:
    """Returns every number of groups of one size that ``folds`` can be cut into, as arrays like ``folds``.

    With s the root rounded up: 1 to s groups, then as many as groups of 1 to s folds give. Numbers are repeated where
    an entry has fewer than others.
    """
    root = np.ceil(np.sqrt(folds))
    most = int(np.max(root))
    few = [np.minimum(float(i), root) for i in range(1, most + 1)]
    many = [np.ceil(folds / np.minimum(float(i), root)) for i in range(1, most + 1)]
    return [*few, *many]


def chunked_extra(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, fills: Fills) -> Floats:
    """Returns the cycles that chunks of the streamed dimension add: what the last is short of R, for each fold."""
    if dataflow == "os":
        return np.zeros((1, 1))
    folds = folding.row_folds * folding.col_folds * folding.a_passes * folding.b_passes * p.count
    return folds * np.where(fills.loads > 1.0, np.maximum(fills.loads * arrays.rows - folding.streamed, 0.0), 0.0)
