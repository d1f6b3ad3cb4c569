"""What matrix products move between memory, scratchpads and array, in SCALE-Sim's order of folds.

Shapes as in `cosearch.hardware.systolic.folding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.array import SystolicArrays
from cosearch.hardware.systolic.folding import Folding
from cosearch.hardware.widths import ACCUMULATOR_BITS

__all__ = ["HALF_KIB_BITS", "Fills", "Traffic", "fold_fills", "parts", "traffic"]

Floats = NDArray[np.float64]

HALF_KIB_BITS = 4096.0
"""Bits in half a KiB: one half of a scratchpad serves the array while the other is filled."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fills:
    """How often memory is asked for the operands; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        a: times that the whole left operand is fetched into its scratchpad.
        b: likewise for the right operand.
        spilled: bits of partial sums that go to memory, and as many that come back; all ``count`` runs.
        filter_loads: times that the stationary operand of ``ws`` is read from its scratchpad, or of ``is``.
    """

    a: Floats
    b: Floats
    spilled: Floats
    loads: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """Bits moved by all ``count`` runs; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        a_fill: bits of the left operand fetched from memory.
        b_fill: bits of the right operand fetched from memory.
        out_bits: bits of outputs written to memory.
        spilled: bits of partial sums written to memory, and as many read back.
        ifmap_reads: bits read from the ifmap scratchpad.
        filter_reads: bits read from the filter scratchpad.
        ofmap_moves: bits written to the ofmap scratchpad, and as many read: partial sums, and outputs on their way out.
        held_bits: bits in the three scratchpads at once.
    """

    a_fill: Floats
    b_fill: Floats
    out_bits: Floats
    spilled: Floats
    ifmap_reads: Floats
    filter_reads: Floats
    ofmap_moves: Floats
    held_bits: Floats


def fold_fills(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding) -> Fills:
    """Returns how often operands are fetched in SCALE-Sim's order: columns of folds outside, rows of folds inside.

    One half of a scratchpad serves the array while the other is filled (double buffering), so an operand is kept only
    when it fits in a half:

    - An operand that fits is fetched once. One that does not is fetched on every sweep; and on every pass of the
      other operand's slices too, when not even the part used by one fold (or one column of folds) fits.
    - The stationary operand has one sweep. In ``os`` the K x C part of the right operand serves a whole column of
      folds, so it is enough that this part fits.
    - ``ws`` and ``is`` accumulate over row folds and passes in the ofmap scratchpad, 32 bits a value. Partial sums of
      one column of folds (M x C or C x N values) that do not fit go to DRAM and back between accumulations.
    """
    a_bits, b_bits = p.m * p.k * p.a_bits, p.k * p.n * p.b_bits
    ifmap_half, filter_half = arrays.ifmap_kib * HALF_KIB_BITS, arrays.filter_kib * HALF_KIB_BITS
    a_part, b_part, sums = parts(p, arrays, dataflow, folding)
    b_part_fits = b_part * p.b_bits <= filter_half
    b_stays = b_part_fits if dataflow == "os" else b_bits <= filter_half
    a_again = folding.ifmap_sweeps * np.where(a_part * p.a_bits <= ifmap_half, 1.0, folding.b_passes)
    b_again = folding.filter_sweeps * np.where(b_part_fits, 1.0, folding.a_passes)
    spilled = np.zeros((1, 1))
    if dataflow != "os":
        fits = sums * ACCUMULATOR_BITS <= arrays.ofmap_kib * HALF_KIB_BITS
        spilled = np.where(fits, 0.0, _partial_bits(p, folding))
    return Fills(
        a=np.where(a_bits <= ifmap_half, 1.0, a_again),
        b=np.where(b_stays, 1.0, b_again),
        spilled=spilled,
        loads=np.ones((1, 1)),
    )


def traffic(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding, fills: Fills) -> Traffic:
    """Returns the bits that products ``p`` move on ``arrays`` of one ``dataflow``.

    Outputs are written once, requantised to ``out_bits`` on the way out.
    """
    a_bits, b_bits = p.m * p.k * p.a_bits, p.k * p.n * p.b_bits
    out_bits = p.m * p.n * p.out_bits
    sums = parts(p, arrays, dataflow, folding)[2]
    out_held, moved = out_bits, out_bits * p.count
    if dataflow != "os":
        steps = folding.row_folds * folding.a_passes * folding.b_passes
        out_held = np.where(steps > 1.0, sums * ACCUMULATOR_BITS, out_bits)
        moved = moved + _partial_bits(p, folding) + fills.spilled
    ifmap_loads = fills.loads if dataflow == "is" else 1.0
    filter_loads = fills.loads if dataflow == "ws" else 1.0
    return Traffic(
        a_fill=a_bits * fills.a * p.count,
        b_fill=b_bits * fills.b * p.count,
        out_bits=out_bits * p.count,
        spilled=fills.spilled,
        ifmap_reads=(a_bits * p.count) * folding.ifmap_sweeps * folding.b_passes * ifmap_loads,
        filter_reads=(b_bits * p.count) * folding.filter_sweeps * folding.a_passes * filter_loads,
        ofmap_moves=moved,
        held_bits=np.minimum(a_bits, 2.0 * HALF_KIB_BITS * arrays.ifmap_kib)
        + np.minimum(b_bits, 2.0 * HALF_KIB_BITS * arrays.filter_kib)
        + np.minimum(out_held, 2.0 * HALF_KIB_BITS * arrays.ofmap_kib),
    )


def _partial_bits(p: Products, folding: Folding) -> Floats:
    """Returns the bits of partial sums that are written back into the ofmap scratchpad, and read from it again."""
    steps = folding.row_folds * folding.a_passes * folding.b_passes
    return (p.m * p.n * p.count * ACCUMULATOR_BITS) * (steps - 1.0)


def parts(p: Products, arrays: SystolicArrays, dataflow: str, folding: Folding) -> tuple[Floats, Floats, Floats]:
    """Returns the values of left and right operand that one fold uses, and of partial sums in a column of folds."""
    if dataflow == "os":
        return np.minimum(arrays.rows, p.m) * p.k, np.minimum(arrays.cols, p.n) * p.k, np.zeros((1, 1))
    k_part = np.minimum(folding.k_rows, p.k)
    if dataflow == "ws":
        n_part = np.minimum(arrays.cols, p.n)
        return k_part * p.m, k_part * n_part, n_part * p.m
    m_part = np.minimum(arrays.cols, p.m)
    return k_part * m_part, k_part * p.n, m_part * p.n
