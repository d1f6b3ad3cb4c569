"""Matrix products on a systolic array: folds and cycles in closed form.

Everything here is elementwise over products and arrays: products come as columns (products, 1), arrays as rows
(accelerators,), results have shape (products, accelerators). Numbers are whole and below 2**53, held as float64, so
sums are exact whatever their order.

A product of (M x K) and (K x N) falls into folds of the R x C array (SCALE-Sim, Samajdar et al. 2018; v3, Raj et al.
2025). Columns of folds are the outer loop, rows of folds the inner one, as in the tool:

==========  =======================  ==========  ==============================
dataflow    on rows / columns        streamed    a fold takes (``scalesim``)
==========  =======================  ==========  ==============================
os          M / N                    K           R + C + K - 2
ws          K / N                    M           2R + C + M - 2
is          K / M                    N           2R + C + N - 2
==========  =======================  ==========  ==============================

With ``double_buffered`` the next fold's stationary operand loads (R cycles) while this one streams, the wavefronts of
successive folds follow each other, and in ``os`` finished outputs shift out (R cycles) behind the next fold: the first
fold takes as long as above, each later one max(streamed, R). One fold costs the same in both modes.

Operands of w and a bits on bit-parallel multipliers of p bits take ceil(w/p) * ceil(a/p) passes, each as long as one at
p bits. Elements of other kinds take c cycles for a multiply-accumulate: with c > 1 a fold streams c times as long, with
c < 1 the reduction is c times as long, for an element works on 1 / c of its values at once. Skipped zeros make the
reduction shorter too (`cosearch.hardware.systolic.elements`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.array import OVERLAPS, SystolicArrays
from cosearch.hardware.systolic.elements import Rates

__all__ = ["Folding", "fold"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folding:
    """How products fall on arrays; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        row_folds: folds along the rows.
        col_folds: folds along the columns.
        a_passes: slices of the left operand, ``ceil(a_bits / pe_bits)``.
        b_passes: slices of the right operand.
        k_rows: values of the reduction that the rows of a ``ws`` or ``is`` array cover.
        streamed: cycles in which one fold streams.
        cycles: cycles of all folds and passes of all ``count`` runs.
        ifmap_sweeps: times that the left operand is read from its scratchpad, in one pass.
        filter_sweeps: likewise for the right operand.
        output_writes: times that each output is written to its scratchpad, in one pass.
    """

    row_folds: Floats
    col_folds: Floats
    a_passes: Floats
    b_passes: Floats
    k_rows: Floats
    streamed: Floats
    cycles: Floats
    ifmap_sweeps: Floats
    filter_sweeps: Floats
    output_writes: Floats


def fold(p: Products, arrays: SystolicArrays, dataflow: str, rates: Rates | None = None) -> Folding:
    """Returns how products ``p`` fall on ``arrays``, all of one ``dataflow``; the forms are in the module's text.

    Args:
        p: the products.
        arrays: the accelerators.
        dataflow: theirs.
        rates: of their elements; None where these are bit-parallel and multiply dense integers.
    """
    rows, cols = arrays.rows, arrays.cols
    if rates is None:
        a_passes, b_passes = np.ceil(p.a_bits / arrays.pe_bits), np.ceil(p.b_bits / arrays.pe_bits)
        reduction, slow, k_rows = p.k, np.ones((1, 1)), rows
    else:
        a_passes, b_passes, slow = rates.a_passes, rates.b_passes, rates.cycles
        reduction, k_rows = np.ceil(p.k * rates.share), np.floor(rows / rates.share)
    down, across, streamed = {
        "os": (p.m, p.n, reduction),
        "ws": (reduction, p.n, p.m),
        "is": (reduction, p.m, p.n),
    }[dataflow]
    streamed = np.ceil(streamed * slow)
    row_folds, col_folds = np.ceil(down / rows), np.ceil(across / cols)
    first = ((1.0 if dataflow == "os" else 2.0) * rows + cols - 2.0) + streamed
    overlapped = arrays.overlap == OVERLAPS.index("double_buffered")
    # successive runs follow each other as folds do, so with overlap only the very first fold of all pays in full
    later = np.where(overlapped, np.maximum(streamed, rows), first)
    folds = row_folds * col_folds * a_passes * b_passes
    once = np.ones((1, 1))
    return Folding(
        row_folds=row_folds,
        col_folds=col_folds,
        a_passes=a_passes,
        b_passes=b_passes,
        k_rows=k_rows,
        streamed=streamed,
        cycles=first + (folds * p.count - 1.0) * later,
        ifmap_sweeps=once if dataflow == "is" else col_folds,
        filter_sweeps={"os": row_folds, "ws": once, "is": col_folds}[dataflow],
        output_writes=once if dataflow == "os" else row_folds,
    )
