"""What a matrix product costs on one sub-accelerator.

MAESTRO (Kwon et al., MICRO 2019) describes a dataflow by the axes that lie side by side in the array, the axes that
follow one another, and the tiles of both; NASAIC and Herald take theirs from it. Its files (github.com/maestro-project/
maestro, ``data/mapping``: ``kcp_ws``, ``yxp_os``, ``rs``) are for convolutions: here rows M of a product (tokens) stand
in the place of output pixels, the reduction K of input channels, columns N of output channels, and the output matrix
M x N in the place of an output map. A dataflow lays two of the three axes side by side (`asic.array_of`):

===================  ====================  ==================================  ======================================
dataflow             side by side          read from the buffer once           accumulated in the buffer
===================  ====================  ==================================  ======================================
``nvdla``            K by 64, N            weights                             sums of each 64 steps of K
``shidiannao``       M, N                  --                                  --
``row_stationary``   K, M                  weights                             sums of each 12 steps of K a PE
===================  ====================  ==================================  ======================================

With P_m, P_k and P_n of them side by side, a product takes ceil(M / P_m) * ceil(K / P_k) * ceil(N / P_n) cycles: ragged
edges leave PEs idle. Loading and draining the array are hidden behind the work on the next tile (as MAESTRO assumes of
double buffers). The left operand is read from the buffer once for each group of columns that share what was read: P_n,
or the 16 columns whose weights a row-stationary PE keeps (``TemporalMap(16,16) K`` of MAESTRO's Eyeriss mapping); the
right one once for each P_m rows where nothing of it stays. Eyeriss keeps 12 left operands in a PE (Chen et al. 2016).

Operands of w and a bits on multipliers of p bits take ceil(w / p) * ceil(a / p) passes. Operands come from DRAM by the
best of three orders (`shared_buffer.fetched_bits`), and outputs go there once. A sub-accelerator works and fetches at
the same time, and takes the longer of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.heterogeneous.asic import DATAFLOWS, SLOTS, HeterogeneousASIC, array_of
from cosearch.hardware.ledger import Items, each
from cosearch.hardware.shared_buffer import fetched_bits
from cosearch.hardware.technology import Technology
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS

__all__ = ["Slot", "Spent", "slots_of", "spent"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_RS_COLUMNS = 16
"""Columns whose weights a row-stationary PE keeps."""
_RS_STEPS = 12
"""Steps of the reduction whose left operands it keeps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """The sub-accelerators of one number, of many accelerators; fields of shape (accelerators,) but the last.

    Attributes:
        present: whether there is one.
        rows: rows of a product side by side.
        steps: steps of the reduction side by side.
        cols: columns side by side.
        read_cols: columns that share a left operand that was read.
        read_rows: rows that share a right operand that was read; infinite where it is read once.
        sum_steps: steps of the reduction between accumulations in the buffer; infinite where there are none.
        held_rows: rows of outputs that are accumulated at once where no operand stays in the buffer.
        held_cols: columns likewise.
        buffer_bits: capacity of its buffer.
        bytes_per_cycle: from and to DRAM.
        pe_bits: width of a multiplier.
        read_j: joules to read a bit of the buffer.
        write_j: joules to write one.
        mac_j: joules of one pass of a multiply-accumulate, shape (products, accelerators).
    """

    present: Flags
    rows: Floats
    steps: Floats
    cols: Floats
    read_cols: Floats
    read_rows: Floats
    sum_steps: Floats
    held_rows: Floats
    held_cols: Floats
    buffer_bits: Floats
    bytes_per_cycle: Floats
    pe_bits: Floats
    read_j: Floats
    write_j: Floats
    mac_j: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spent:
    """What products cost on sub-accelerators of one number.

    Attributes:
        compute: cycles of the array.
        cycles: cycles with waiting for DRAM.
        dram_bytes: to and from DRAM.
        mac_j: joules of multipliers, adders and registers.
        sram_j: joules of the buffer.
        held_bits: bits in the buffer.
    """

    compute: Floats
    cycles: Floats
    dram_bytes: Floats
    mac_j: Floats
    sram_j: Floats
    held_bits: Floats


def slots_of(p: Products, batch: Items[HeterogeneousASIC], technology: Technology) -> tuple[Slot, ...]:
    """Returns the four sub-accelerators of each accelerator, for products ``p``."""
    shares = np.zeros(len(batch))
    for number in SLOTS:
        present = ~batch.is_(f"sub{number}_dataflow", "none")
        shares = shares + np.where(present, batch.column(f"sub{number}_bandwidth_share"), 0.0)
    return tuple(_slot(p, batch, number, shares, technology) for number in SLOTS)


def _slot(p: Products, batch: Items[HeterogeneousASIC], number: int, shares: Floats, technology: Technology) -> Slot:
    """Returns the sub-accelerators of one ``number``; ``shares`` are the sums of all parts of the bandwidth."""
    dataflows = [getattr(item, f"sub{number}_dataflow") for item in batch.items]
    # an absent one looks like any other here; nothing is ever assigned to it
    code = np.array([DATAFLOWS.index(name) if name != "none" else 0 for name in dataflows], dtype=np.intp)
    pes, kib = batch.column(f"sub{number}_pes"), batch.column(f"sub{number}_buffer_kib")
    rows, steps, cols = _arrays(code, pes)
    ws, os = code == 0, code == 1
    bandwidth = batch.column("dram_bytes_per_s") / batch.column("clock_hz")
    pe_bits = batch.column("pe_bits")
    return Slot(
        present=np.array([name != "none" for name in dataflows], dtype=np.bool_),
        rows=rows,
        steps=steps,
        cols=cols,
        read_cols=np.where(ws | os, cols, float(_RS_COLUMNS)),
        read_rows=np.where(os, rows, np.inf),
        sum_steps=np.where(ws, steps, np.where(os, np.inf, steps * _RS_STEPS)),
        held_rows=rows,
        held_cols=np.where(ws | os, cols, float(_RS_COLUMNS)),
        buffer_bits=8192.0 * kib,
        bytes_per_cycle=bandwidth * (batch.column(f"sub{number}_bandwidth_share") / shares),
        pe_bits=pe_bits,
        read_j=1e-12 * each(kib, technology.sram.read_pj),
        write_j=1e-12 * each(kib, technology.sram.write_pj),
        mac_j=_pass_j(p, code, pe_bits, technology),
    )


def _arrays(code: NDArray[np.intp], pes: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns what arrays work on side by side, as `array_of`, each of shape (accelerators,)."""
    pairs, position = np.unique(np.stack((code.astype(np.float64), pes)), axis=1, return_inverse=True)
    sides = [array_of(DATAFLOWS[int(kind)], int(count)) for kind, count in pairs.T]
    rows, steps, cols = np.array(sides, dtype=np.float64).reshape(-1, 3)[position.reshape(-1)].T
    return rows, steps, cols


def _pass_j(p: Products, code: NDArray[np.intp], pe_bits: Floats, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass, registers included: shape (products, accelerators).

    A weight-stationary PE moves the left operand and its product's sum, an output-stationary one both operands and the
    sum, a row-stationary one reads both operands and the sum from its own memory and writes the sum back.
    """
    table = np.empty((p.a_bits.shape[0], len(DATAFLOWS), len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            left, right = min(int(a), width), min(int(b), width)
            moved = (left + ACCUMULATOR_BITS, left + right + ACCUMULATOR_BITS, left + right + 2 * ACCUMULATOR_BITS)
            for dataflow, moving in enumerate(moved):
                register_pj = moving * technology.register_pj_per_bit
                table[row, dataflow, column] = technology.mac_pj(left, right) + register_pj
    return 1e-12 * table[:, code, np.searchsorted(PE_BITS, pe_bits)]


def spent(p: Products, slot: Slot, mac_j: Floats) -> Spent:
    """Returns what products ``p`` cost on ``slot``; the forms are in the module's text.

    Args:
        p: fields of any shape that broadcasts against (..., accelerators); no columns or no runs cost nothing.
        slot: the sub-accelerators.
        mac_j: as in ``slot``, with axes for those of ``p``.
    """
    a_passes, b_passes = np.ceil(p.a_bits / slot.pe_bits), np.ceil(p.b_bits / slot.pe_bits)
    passes = a_passes * b_passes
    folds = np.ceil(p.m / slot.rows) * np.ceil(p.k / slot.steps) * np.ceil(p.n / slot.cols)
    compute = p.count * folds * passes
    out_bits = p.count * p.m * p.n * p.out_bits
    fetched = fetched_bits(p, slot.buffer_bits, slot.held_rows, slot.held_cols)
    dram_bytes = np.ceil((fetched + out_bits) / 8.0)
    left = p.count * p.m * p.k * p.a_bits * np.ceil(p.n / slot.read_cols) * b_passes
    right = p.count * p.k * p.n * p.b_bits * np.maximum(np.ceil(p.m / slot.read_rows), 1.0) * a_passes
    keeps = np.isinf(slot.sum_steps)
    sums = np.where(keeps, 0.0, np.ceil(p.k / np.where(keeps, 1.0, slot.sum_steps)) * passes - 1.0)
    sum_bits = p.count * p.m * p.n * ACCUMULATOR_BITS * sums
    sram_j = (
        (left + right) * slot.read_j + fetched * slot.write_j + (sum_bits + out_bits) * (slot.read_j + slot.write_j)
    )
    held = p.count * p.k * (p.m * p.a_bits * (p.n > 0) + p.n * p.b_bits) + out_bits
    return Spent(
        compute=compute,
        cycles=np.maximum(compute, np.ceil(dram_bytes / slot.bytes_per_cycle)),
        dram_bytes=dram_bytes,
        mac_j=p.count * p.m * p.k * p.n * passes * mac_j,
        sram_j=sram_j,
        held_bits=np.minimum(held, slot.buffer_bits),
    )
