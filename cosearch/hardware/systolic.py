"""Matrix products on a systolic array: cycles, scratchpad accesses and DRAM traffic in closed form.

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

Operands of w and a bits on multipliers of p bits take ceil(w/p) * ceil(a/p) passes, each as long as one at p bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.templates import ACCUMULATOR_BITS, OVERLAPS, SystolicArrays

__all__ = ["Folding", "Products", "Traffic", "fold", "traffic"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Products:
    """Matrix products, one per row; each field has shape (products, 1).

    Attributes:
        m: rows of the left operand.
        k: length of the reduction.
        n: columns of the right operand.
        count: how often the product runs (heads).
        a_bits: width of the left operand.
        b_bits: width of the right operand.
        out_bits: width of the stored output.
    """

    m: Floats
    k: Floats
    n: Floats
    count: Floats
    a_bits: Floats
    b_bits: Floats
    out_bits: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folding:
    """How products fall on arrays; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        row_folds: folds along the rows.
        col_folds: folds along the columns.
        a_passes: slices of the left operand, ``ceil(a_bits / pe_bits)``.
        b_passes: slices of the right operand.
        cycles: cycles of all folds and passes of all ``count`` runs.
        ifmap_sweeps: times that the left operand is read from its scratchpad, in one pass.
        filter_sweeps: likewise for the right operand.
        output_writes: times that each output is written to its scratchpad, in one pass.
    """

    row_folds: Floats
    col_folds: Floats
    a_passes: Floats
    b_passes: Floats
    cycles: Floats
    ifmap_sweeps: Floats
    filter_sweeps: Floats
    output_writes: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """Bits moved by all ``count`` runs; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        dram_bits: DRAM reads and writes.
        ifmap_reads: bits read from the ifmap scratchpad.
        ifmap_writes: bits written to it (fetched from DRAM).
        filter_reads: likewise for the filter scratchpad.
        filter_writes: likewise.
        ofmap_reads: bits read from the ofmap scratchpad: partial sums, and outputs on their way to DRAM.
        ofmap_writes: bits written to it.
        held_bits: bits in the three scratchpads at once.
    """

    dram_bits: Floats
    ifmap_reads: Floats
    ifmap_writes: Floats
    filter_reads: Floats
    filter_writes: Floats
    ofmap_reads: Floats
    ofmap_writes: Floats
    held_bits: Floats


def fold(p: Products, arrays: SystolicArrays, dataflow: str) -> Folding:
    """Returns how products ``p`` fall on ``arrays``, all of one ``dataflow``; the forms are in the module's text."""
    rows, cols = arrays.rows, arrays.cols
    down, across, streamed = {"os": (p.m, p.n, p.k), "ws": (p.k, p.n, p.m), "is": (p.k, p.m, p.n)}[dataflow]
    row_folds, col_folds = np.ceil(down / rows), np.ceil(across / cols)
    a_passes, b_passes = np.ceil(p.a_bits / arrays.pe_bits), np.ceil(p.b_bits / arrays.pe_bits)
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
        cycles=first + (folds * p.count - 1.0) * later,
        ifmap_sweeps=once if dataflow == "is" else col_folds,
        filter_sweeps={"os": row_folds, "ws": once, "is": col_folds}[dataflow],
        output_writes=once if dataflow == "os" else row_folds,
    )


def traffic(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding) -> Traffic:
    """Returns the bits that products ``p`` move, by scratchpad and to DRAM, on ``arrays`` of one ``dataflow``.

    One half of a scratchpad serves the array while the other is filled (double buffering), so an operand is kept only
    when it fits in a half. In the loop order above:

    - An operand that fits is fetched once. One that does not is fetched on every sweep; and on every pass of the
      other operand's slices too, when not even the part used by one fold (or one column of folds) fits.
    - The stationary operand has one sweep. In ``os`` the K x C part of the right operand serves a whole column of
      folds, so it is enough that this part fits.
    - ``ws`` and ``is`` accumulate over row folds and passes in the ofmap scratchpad, 32 bits a value. Partial sums of
      one column of folds (M x C or C x N values) that do not fit go to DRAM and back between accumulations.
    - Outputs are written once, requantised to ``out_bits`` on the way out.
    """
    a_bits, b_bits = p.m * p.k * p.a_bits, p.k * p.n * p.b_bits
    out_bits = p.m * p.n * p.out_bits
    half = 4096.0  # bits in half a KiB
    ifmap_half, filter_half, ofmap_half = arrays.ifmap_kib * half, arrays.filter_kib * half, arrays.ofmap_kib * half

    a_part, b_part, sums = _parts(p, arrays, dataflow)
    b_part_fits = b_part * p.b_bits <= filter_half
    b_stays = b_part_fits if dataflow == "os" else b_bits <= filter_half
    a_again = folding.ifmap_sweeps * np.where(a_part * p.a_bits <= ifmap_half, 1.0, folding.b_passes)
    b_again = folding.filter_sweeps * np.where(b_part_fits, 1.0, folding.a_passes)
    a_dram = a_bits * np.where(a_bits <= ifmap_half, 1.0, a_again) * p.count
    b_dram = b_bits * np.where(b_stays, 1.0, b_again) * p.count

    out_held, out_moved, dram = out_bits, out_bits * p.count, a_dram + b_dram + out_bits * p.count
    if dataflow != "os":
        steps = folding.row_folds * folding.a_passes * folding.b_passes
        partial = (p.m * p.n * p.count * ACCUMULATOR_BITS) * (steps - 1.0)
        spilled = np.where(sums * ACCUMULATOR_BITS > ofmap_half, partial, 0.0)
        out_held = np.where(steps > 1.0, sums * ACCUMULATOR_BITS, out_bits)
        out_moved = out_moved + partial + spilled
        dram = dram + 2.0 * spilled
    return Traffic(
        dram_bits=dram,
        ifmap_reads=(a_bits * p.count) * folding.ifmap_sweeps * folding.b_passes,
        ifmap_writes=a_dram,
        filter_reads=(b_bits * p.count) * folding.filter_sweeps * folding.a_passes,
        filter_writes=b_dram,
        ofmap_reads=out_moved,
        ofmap_writes=out_moved,
        held_bits=np.minimum(a_bits, 2.0 * ifmap_half)
        + np.minimum(b_bits, 2.0 * filter_half)
        + np.minimum(out_held, 2.0 * ofmap_half),
    )


def _parts(p: Products, arrays: SystolicArrays, dataflow: str) -> tuple[Floats, Floats, Floats]:
    """Returns the values of left and right operand that one fold uses, and of partial sums in a column of folds."""
    if dataflow == "os":
        return np.minimum(arrays.rows, p.m) * p.k, np.minimum(arrays.cols, p.n) * p.k, np.zeros((1, 1))
    k_part = np.minimum(arrays.rows, p.k)
    if dataflow == "ws":
        n_part = np.minimum(arrays.cols, p.n)
        return k_part * p.m, k_part * n_part, n_part * p.m
    m_part = np.minimum(arrays.cols, p.m)
    return k_part * m_part, k_part * p.n, m_part * p.n
