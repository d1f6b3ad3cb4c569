"""The tiles and loop orders of a product that move the fewest bits from DRAM.

A fold of ``ws`` keeps R x C values of one operand in the array and streams S vectors of the other past them; ``is`` is
the same with the operands exchanged. With S the streamed dimension, K the reduction (Fr folds) and X the dimension
across the array (Fc folds), all orders of the loops over chunks of S, groups of K folds and groups of X folds come to
these cases; each half of a scratchpad holds one tile while the other is filled:

=======================  ===========================  ==============  =======================  =====================
order                    must fit                     streamed        stationary operand       partial sums
                                                      operand                                  to DRAM and back
=======================  ===========================  ==============  =======================  =====================
chunk, X group, K, X     chunk x X group of sums,     ceil(Fc / g)    chunks (once if it fits  none
                         chunk x R of the stream      times           as a whole)
chunk, K group, X, K     chunk x C of sums,           once            likewise                 number of K groups - 1
                         chunk x K group of stream                                             times
chunk, X, K              chunk x C of sums            Fc times        likewise                 none
X, K (`fold_fills`)      nothing                      Fc or 1 times   once                     as SCALE-Sim
=======================  ===========================  ==============  =======================  =====================

For a number of groups the largest chunk that fits is best, so trying every number of groups is an exhaustive search
(``tests/unit/test_hardware_tiling.py`` holds it against one over all tile sizes). Only overlapped arrays cut S into
chunks: each fold then takes ``max(chunk, R)`` cycles, and chunks are at least R, so that cutting costs at most the
ragged rest; without overlap each chunk would fill and drain the array again.

``os`` keeps outputs in the array and never splits the reduction. A panel of M rows (or of N columns) that stays in its
scratchpad is fetched once while all of the other operand passes by, once for each panel.

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
        stream: length of the streamed dimension.
        across: length of the dimension across the array.
        k_tile: rows of the array that a product uses at most.
        stream_bits: width of the streamed operand.
        stream_total: bits of it, all runs.
        kept_total: bits of the stationary operand, all runs.
        stream_room: bits in half of the scratchpad of the streamed operand.
        kept_fits: whether the stationary operand fits in half of its own as a whole.
        kept_passes: slices of the stationary operand.
        kept_again: times that it is fetched for one chunk, more than once where not even one fold's part fits.
        sums_room: partial sums in half of the ofmap scratchpad.
        stream_dram: share of the streamed operand that DRAM holds.
        kept_dram: likewise of the stationary one.
    """

    stream: Floats
    across: Floats
    k_tile: Floats
    reduction: Floats
    count: Floats
    stream_bits: Floats
    stream_total: Floats
    kept_total: Floats
    stream_room: Floats
    kept_fits: NDArray[np.bool_]
    kept_passes: Floats
    kept_again: Floats
    sums_room: Floats
    stream_dram: Floats
    kept_dram: Floats


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
    m_panel = np.floor(arrays.ifmap_kib * HALF_KIB_BITS / (p.k * p.a_bits * arrays.rows)) * arrays.rows
    n_panel = np.floor(arrays.filter_kib * HALF_KIB_BITS / (p.k * p.b_bits * arrays.cols)) * arrays.cols
    # an operand smaller than one panel needs room for itself only
    m_panel = np.where(p.m * p.k * p.a_bits <= arrays.ifmap_kib * HALF_KIB_BITS, p.m, m_panel)
    n_panel = np.where(p.n * p.k * p.b_bits <= arrays.filter_kib * HALF_KIB_BITS, p.n, n_panel)
    m_panels = np.ceil(p.m / np.maximum(m_panel, 1.0))
    n_panels = np.ceil(p.n / np.maximum(n_panel, 1.0))
    for fits, a_times, b_times in (
        (m_panel >= 1.0, one, np.where(n_panels == 1.0, 1.0, m_panels)),
        (n_panel >= 1.0, np.where(m_panels == 1.0, 1.0, n_panels), one),
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
    s = _shape(p, arrays, folding, a_dram, b_dram, weights=weights)
    full = np.broadcast_shapes(s.stream_total.shape, arrays.rows.shape)
    streamed, kept = (plain.a, plain.b) if weights else (plain.b, plain.a)
    best = _choice(s, full, streamed, kept, plain.spilled, np.ones(full))
    # sums of one column of folds fit: each column fetches the stream again
    _consider(best, s, arrays, full, _chunk(s, arrays.cols, 0.0), folding.col_folds * _slab_passes(s, arrays), 0.0)
    for column_groups in _group_counts(folding.col_folds):
        size = np.ceil(folding.col_folds / column_groups)
        chunk = _chunk(s, size * arrays.cols, s.k_tile)
        _consider(best, s, arrays, full, chunk, np.ceil(folding.col_folds / size), 0.0)
    sums = s.stream * s.across * s.count * ACCUMULATOR_BITS
    for row_groups in _group_counts(folding.row_folds):
        size = np.ceil(folding.row_folds / row_groups)
        groups = np.ceil(folding.row_folds / size)
        chunk = _chunk(s, arrays.cols, np.minimum(size * arrays.rows, s.reduction))
        _consider(best, s, arrays, full, chunk, np.ones((1, 1)), (groups - 1.0) * sums)
    a, b = (best.streamed, best.stationary) if weights else (best.stationary, best.streamed)
    return Fills(a=a, b=b, spilled=best.spilled, loads=best.chunks)


def _shape(
    p: Products, arrays: SystolicArrays, folding: Folding, a_dram: Floats, b_dram: Floats, *, weights: bool
) -> _Shape:
    a_total, b_total = p.m * p.k * p.count * p.a_bits, p.k * p.n * p.count * p.b_bits
    a_room, b_room = arrays.ifmap_kib * HALF_KIB_BITS, arrays.filter_kib * HALF_KIB_BITS
    k_tile = np.minimum(arrays.rows, p.k)
    kept_bits = (p.b_bits if weights else p.a_bits) * k_tile * np.minimum(arrays.cols, p.n if weights else p.m)
    stream_passes = folding.a_passes if weights else folding.b_passes
    kept_room = b_room if weights else a_room
    kept_total = b_total if weights else a_total
    return _Shape(
        stream=p.m if weights else p.n,
        across=p.n if weights else p.m,
        k_tile=k_tile,
        reduction=p.k,
        count=p.count,
        stream_bits=p.a_bits if weights else p.b_bits,
        stream_total=a_total if weights else b_total,
        kept_total=kept_total,
        stream_room=a_room if weights else b_room,
        kept_fits=kept_total / p.count <= kept_room,
        kept_passes=folding.b_passes if weights else folding.a_passes,
        kept_again=np.where(kept_bits <= kept_room, 1.0, stream_passes),
        sums_room=np.floor(arrays.ofmap_kib * (HALF_KIB_BITS / ACCUMULATOR_BITS)),
        stream_dram=a_dram if weights else b_dram,
        kept_dram=b_dram if weights else a_dram,
    )


def _chunk(s: _Shape, columns: Floats, slab: Floats | float) -> Floats:
    """Returns the longest chunk whose sums over ``columns`` fit, and ``slab`` values of each streamed vector."""
    chunk = np.minimum(s.stream, np.floor(s.sums_room / np.minimum(columns, s.across)))
    if np.any(slab):
        chunk = np.minimum(chunk, np.floor(s.stream_room / (s.stream_bits * slab)))
    return chunk


def _slab_passes(s: _Shape, arrays: SystolicArrays) -> Floats:
    """Returns how often a fold fetches its part of the stream: for each slice of the other operand unless it fits."""
    chunk = np.maximum(_chunk(s, arrays.cols, 0.0), 1.0)
    return np.where(chunk * s.k_tile * s.stream_bits <= s.stream_room, 1.0, s.kept_passes)


def _consider(
    best: _Best,
    s: _Shape,
    arrays: SystolicArrays,
    full: tuple[int, ...],
    chunk: Floats,
    streamed: Floats,
    spilled: Floats | float,
) -> None:
    """Considers chunks of at most ``chunk`` streamed vectors."""
    overlapped = arrays.overlap == OVERLAPS.index("double_buffered")
    chunks = np.ceil(s.stream / np.maximum(chunk, 1.0))
    possible = (chunk >= 1.0) & ((chunks == 1.0) | (overlapped & (chunk >= arrays.rows)))
    kept = s.kept_again * np.where(s.kept_fits, 1.0, chunks)
    best.consider(_choice(s, full, streamed, kept, spilled, chunks), np.broadcast_to(possible, full))


def _choice(
    s: _Shape, full: tuple[int, ...], streamed: Floats, kept: Floats, spilled: Floats | float, chunks: Floats
) -> _Best:
    stream_fill, kept_fill = streamed * s.stream_total, kept * s.kept_total
    values = (
        stream_fill * s.stream_dram + kept_fill * s.kept_dram + 2.0 * np.asarray(spilled),
        stream_fill + kept_fill,
        streamed,
        kept,
        np.asarray(spilled),
        chunks,
    )
    return _Best(*(np.broadcast_to(part, full).copy() for part in values))


def _group_counts(folds: Floats) -> list[Floats]:
    """Returns every number of groups of one size that ``folds`` can be cut into, as arrays like ``folds``.

    With s the root rounded up: 1 to s groups, then as many as groups of 1 to s folds give. Numbers are repeated where an
    entry has fewer than others.
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
    stream = p.m if dataflow == "ws" else p.n
    folds = folding.row_folds * folding.col_folds * folding.a_passes * folding.b_passes * p.count
    return folds * np.where(fills.loads > 1.0, np.maximum(fills.loads * arrays.rows - stream, 0.0), 0.0)
