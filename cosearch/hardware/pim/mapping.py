"""Which weights stay in crossbars, and what products take on them.

Everything is elementwise over products (rows) and accelerators (columns). A matrix of K x N weights of w bits has
s = ceil(w / cell bits) cells for each, side by side, and fills ceil(K / R) * ceil(N s / R) crossbars of R x R cells.
Each row of the left operand takes ceil(a / DAC bits) reads, each of which drives all these crossbars at once; a read
takes 100 ns, or as long as the ADCs convert the columns.

**Static weights.** Where the crossbars of all layers fit, they stay from image to image, and all are there as often as
they fit (ISAAC replicates layers): rows are dealt out to the copies. Where they do not fit, crossbars enough for the
largest layer are written again and again, the others keep their weights: of all weights, the share that is not kept is
fetched from DRAM and written for each image. A layer larger than the chip takes several rounds.

**Products of activations** on crossbars: the right operand is written first, row by row in all crossbars at once, each
head in its own; heads that do not fit take rounds. Crossbars enough for the largest product are set apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.ledger import Items, each
from cosearch.hardware.pim import isaac
from cosearch.hardware.pim.macro import PIM

__all__ = ["Columns", "Plan", "Work", "crossbar_work", "plan"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Accelerators field by field, each of shape (accelerators,); as in `PIM` where not said.

    Attributes:
        size: rows and columns of a crossbar.
        crossbars: of all tiles.
        read_s: seconds of a read.
        writes: whether products of activations run on crossbars.
        conversion_j: joules of a conversion and what comes with it.
        drive_j: joules to drive a row.
    """

    size: Floats
    cell_bits: Floats
    dac_bits: Floats
    crossbars: Floats
    read_s: Floats
    writes: Flags
    conversion_j: Floats
    drive_j: Floats

    @classmethod
    def of(cls, batch: Items[PIM]) -> Columns:
        """Returns the columns of ``batch``."""
        dac_bits = batch.column("dac_bits")
        read_s = np.maximum(isaac.READ_S, batch.column("columns_per_adc") / isaac.SAMPLES_PER_S)
        # DACs and cells draw power as long as a read takes
        held = read_s / isaac.READ_S
        doubled = each(dac_bits, lambda bits: 2.0 ** (bits - 1.0))
        return cls(
            size=batch.column("crossbar_size"),
            cell_bits=batch.column("cell_bits"),
            dac_bits=dac_bits,
            crossbars=batch.column("tiles") * batch.column("crossbars_per_tile"),
            read_s=read_s,
            writes=batch.is_("attention", "crossbar"),
            conversion_j=each(batch.column("adc_bits"), isaac.adc_j) + isaac.SAMPLE_J,
            drive_j=isaac.DAC_J * doubled * held + isaac.REGISTER_IN_J_PER_BIT * dac_bits,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """How static weights are kept; fields of shape (accelerators,).

    Attributes:
        copies: how often each layer is there.
        rewritten: share of the weights that is written for each image.
    """

    copies: Floats
    rewritten: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What products take on crossbars; fields of shape (products, accelerators).

    Attributes:
        read_s: seconds of reads.
        write_s: seconds of writes.
        joules: of reads and writes.
        cell_s: cells in use times seconds.
        fetched_bits: bits of weights from DRAM.
        column_units: groups of crossbars that each need the left operand.
        sums: partial sums for each output that cross the tile.
    """

    read_s: Floats
    write_s: Floats
    joules: Floats
    cell_s: Floats
    fetched_bits: Floats
    column_units: Floats
    sums: Floats


def _filled(p: Products, arrays: Columns) -> tuple[Floats, Floats, Floats]:
    """Returns cells of a weight, and crossbars down and across for one run of each product."""
    cells = np.ceil(p.b_bits / arrays.cell_bits)
    return cells, np.ceil(p.k / arrays.size), np.ceil(p.n * cells / arrays.size)


def plan(p: Products, arrays: Columns, static: Flags, times: Floats) -> Plan:
    """Returns how the weights of a workload are kept.

    Args:
        p: the products.
        arrays: the accelerators.
        static: which multiply weights, shape (products, 1).
        times: operators of each row, shape (products, 1).
    """
    _, down, across = _filled(p, arrays)
    own = np.where(static, down * across, 0.0)
    need = np.zeros(arrays.size.shape)
    for row in range(own.shape[0]):  # whole numbers, exact in any order
        need = need + own[row] * times[row, 0]
    largest = np.minimum(np.max(own, axis=0, initial=0.0), arrays.crossbars)
    dynamic = np.max(np.where(static, 0.0, down * across * p.count), axis=0, initial=0.0)
    apart = np.where(arrays.writes, np.minimum(dynamic, arrays.crossbars), 0.0)
    room = arrays.crossbars - apart
    fits = need <= room
    kept = np.where(fits, need, arrays.crossbars - np.maximum(apart, largest))
    some = np.maximum(need, 1.0)
    return Plan(
        copies=np.where(fits, np.maximum(np.floor(room / some), 1.0), 1.0),
        rewritten=np.maximum(need - kept, 0.0) / some,
    )


def crossbar_work(p: Products, arrays: Columns, static: Flags, plan: Plan) -> Work:
    """Returns what all runs of ``p`` take on crossbars."""
    cells, down, across = _filled(p, arrays)
    pieces = np.ceil(p.a_bits / arrays.dac_bits)
    copies = np.where(static, plan.copies, 1.0)
    written = np.where(static, plan.rewritten, 1.0)
    rounds = np.ceil(down * across * p.count / arrays.crossbars)
    read_s = rounds * np.ceil(p.m / copies) * pieces * arrays.read_s
    reads = p.count * p.m * pieces
    used = p.k * p.n * cells
    cell_j = isaac.CELL_J * (arrays.read_s / isaac.READ_S)
    joules = reads * (down * p.n * cells * arrays.conversion_j + p.k * across * arrays.drive_j + used * cell_j)
    return Work(
        read_s=read_s,
        write_s=written * rounds * np.minimum(p.k, arrays.size) * isaac.WRITE_ROW_S,
        joules=joules + written * p.count * used * isaac.WRITE_CELL_J,
        cell_s=reads * used * arrays.read_s,
        fetched_bits=np.where(static, written * p.count * p.k * p.n * p.b_bits, 0.0),
        column_units=np.ceil(across / isaac.CROSSBARS_PER_UNIT),
        sums=down - 1.0,
    )
