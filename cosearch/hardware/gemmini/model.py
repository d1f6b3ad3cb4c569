"""Costs of a workload on Gemmini arrays, as the rows of a ledger.

What is assumed, beside `tiling` and `timing`:

- Matrix products run one after another in Gemmini's own tiles (``auto``), on operands that no cache holds: an image's
  weights and activations come from DRAM and outputs go back. Repetitions (heads) are calls of their own.
- A call's start is not counted: it is that of code run for the first time.
- What is fetched again comes from the L2 where that still holds it, else from DRAM (`timing.dram_bytes`).
- Values are packed in DRAM and L2 by their own width. In scratchpad and array a value takes as many elements of
  ``pe_bits`` as it needs, so narrower ones fill a whole element, and products of wider ones take
  ``ceil(a / pe_bits) * ceil(b / pe_bits)`` passes.
- Weight stationary: a block of the left operand is read for each block of outputs, a block of weights once for each
  tile of pixels, and sums are read and written for each block of K. Output stationary: both operands are read for
  each block of outputs, sums are written once.
- Gemmini's software fills its memories greedily: a larger one may end in tiles that take some percent longer, or that
  fetch more where there is no L2.
- Vector operators read from and write to DRAM through the scratchpad; the longer of that and of their computation
  counts.
- Idle PEs are clock-gated, multipliers spend energy by the widths of their operands, and a lane operation costs a
  16-bit multiply-accumulate, as in the systolic template.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.gemmini.array import GemminiArrays
from cosearch.hardware.gemmini.cycles import auto_elapsed
from cosearch.hardware.gemmini.tiling import Shape, Tiles
from cosearch.hardware.gemmini.timing import FIRESIM, Widths, dram_bytes
from cosearch.hardware.groups import Groups, Products, require_integers
from cosearch.hardware.ledger import Ledger, each
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import Workload

__all__ = ["gemmini_ledger"]

Floats = NDArray[np.float64]


def gemmini_ledger(workload: Workload, arrays: GemminiArrays, technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on ``arrays``.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a Gemmini array")
    groups, prices = Groups.of(workload), _Prices.of(arrays, technology)
    p = groups.products
    shape = Shape(rows=np.ones(p.m.shape), cols=p.m, k=p.k, n=p.n)
    widths = Widths(a_bits=p.a_bits, b_bits=p.b_bits, out_bits=p.out_bits)
    tiles, time = auto_elapsed(shape, arrays, widths, FIRESIM)
    moved = _moved(p, shape, widths, tiles, arrays)
    compute = time.execute_cycles * p.count
    lanes = np.ceil(groups.lane_operations / arrays.vector_lanes)
    vector_bytes = np.ceil(groups.vector_bits / 8.0) + np.zeros(len(arrays))
    transfer = np.ceil(vector_bytes / (arrays.dram_bytes_per_s / arrays.clock_hz))
    none_p, none_v = np.zeros(compute.shape), np.zeros(vector_bytes.shape)
    all_bytes = np.concatenate((moved.dram_bytes, vector_bytes))
    busy = groups.macs * np.ceil(p.a_bits / arrays.pe_bits) * np.ceil(p.b_bits / arrays.pe_bits)
    lane_j = 1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS)
    vector_sram = groups.vector_bits * (prices.scratchpad_read + prices.scratchpad_write)
    return Ledger(
        members=groups.members,
        compute_cycles=np.concatenate((compute, none_v)),
        vector_cycles=np.concatenate((none_p, lanes + none_v)),
        stall_cycles=np.concatenate((time.cycles * p.count - compute, np.maximum(transfer - lanes, 0.0))),
        dram_bytes=all_bytes,
        mac_j=np.concatenate((busy * _pass_j(p, arrays, technology), none_v)),
        vector_j=np.concatenate((none_p, groups.lane_operations * lane_j + none_v)),
        sram_j=np.concatenate((_sram_j(moved, prices), vector_sram)),
        dram_j=all_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=np.concatenate(
            (moved.held_bits, np.minimum(groups.vector_bits, arrays.scratchpad_kib * 8192.0) + none_v)
        ),
        busy=np.concatenate((busy + none_p, none_v)),
        multipliers=arrays.dim * arrays.dim,
        clock_hz=arrays.clock_hz,
        area_mm2=prices.area_mm2,
        leak_w=prices.leak_w,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moved:
    """What products move, all repetitions together; fields have shape (products, accelerators).

    Attributes:
        dram_bytes: to and from DRAM.
        l2_bits: between L2 and DMA.
        fill_bits: written to the scratchpad.
        read_bits: read from the scratchpad.
        sum_reads: bits read from the accumulator.
        sum_writes: bits written to it.
        held_bits: in scratchpad and accumulator, both halves.
    """

    dram_bytes: Floats
    l2_bits: Floats
    fill_bits: Floats
    read_bits: Floats
    sum_reads: Floats
    sum_writes: Floats
    held_bits: Floats


def _moved(p: Products, shape: Shape, widths: Widths, tiles: Tiles, arrays: GemminiArrays) -> _Moved:
    """Returns what products ``p`` move in ``tiles``."""
    m_tiles, n_tiles, k_tiles = np.ceil(p.m / tiles.cols), np.ceil(p.n / tiles.n), np.ceil(p.k / tiles.k)
    k_blocks, n_blocks = np.ceil(p.k / arrays.dim), np.ceil(p.n / arrays.dim)
    stationary = arrays.output_stationary
    a, b, out = p.m * p.k, p.k * p.n, p.m * p.n
    fetched_bits = a * p.a_bits * n_tiles + b * p.b_bits * m_tiles
    a_element = np.ceil(p.a_bits / arrays.pe_bits) * arrays.pe_bits
    b_element = np.ceil(p.b_bits / arrays.pe_bits) * arrays.pe_bits
    b_sweeps = np.where(stationary, np.ceil(p.m / arrays.dim), m_tiles)
    sums = out * ACCUMULATOR_BITS * np.where(stationary, k_tiles, k_blocks)
    halves = np.where(stationary, 1.0, 2.0)
    operands = tiles.cols * tiles.k * a_element + tiles.k * tiles.n * b_element
    held = halves * (operands + tiles.cols * tiles.n * ACCUMULATOR_BITS)
    return _Moved(
        dram_bytes=dram_bytes(shape, tiles, arrays, widths) * p.count,
        l2_bits=(fetched_bits + out * p.out_bits) * p.count,
        fill_bits=(a * a_element * n_tiles + b * b_element * m_tiles) * p.count,
        read_bits=(a * a_element * n_blocks + b * b_element * b_sweeps) * p.count,
        sum_reads=sums * p.count,  # all but the first are read to be added to, and the last is read to leave
        sum_writes=sums * p.count,
        held_bits=held,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prices:
    """Joules to read and to write a bit of each memory, mm2 and watts; fields have shape (accelerators,)."""

    scratchpad_read: Floats
    scratchpad_write: Floats
    accumulator_read: Floats
    accumulator_write: Floats
    l2_read: Floats
    area_mm2: Floats
    leak_w: Floats

    @classmethod
    def of(cls, arrays: GemminiArrays, technology: Technology) -> _Prices:
        sram = technology.sram
        sizes = {name: getattr(arrays, f"{name}_kib") for name in ("scratchpad", "accumulator", "l2")}
        pes, lanes = arrays.dim * arrays.dim, arrays.vector_lanes
        area = pes * each(arrays.pe_bits, lambda bits: technology.mac_um2(int(bits)))
        leak = pes * each(arrays.pe_bits, lambda bits: technology.mac_leak_w(int(bits)))
        area = 1e-6 * (area + lanes * technology.mac_um2(LANE_BITS))
        leak = leak + lanes * technology.mac_leak_w(LANE_BITS)
        for size in sizes.values():
            area = area + each(size, lambda kib: sram.area_mm2(kib) if kib else 0.0)
            leak = leak + each(size, lambda kib: sram.leak_w(kib) if kib else 0.0)
        columns = {}
        for name, size in sizes.items():
            columns[f"{name}_read"] = 1e-12 * each(size, lambda kib: sram.read_pj(kib) if kib else 0.0)
            columns[f"{name}_write"] = 1e-12 * each(size, lambda kib: sram.write_pj(kib) if kib else 0.0)
        del columns["l2_write"]  # a line costs as much either way: reads and writes are counted together
        return cls(**columns, area_mm2=area, leak_w=leak)


def _sram_j(moved: _Moved, prices: _Prices) -> Floats:
    """Returns joules of all memories on the chip."""
    return (
        moved.l2_bits * prices.l2_read
        + moved.fill_bits * prices.scratchpad_write
        + moved.read_bits * prices.scratchpad_read
        + moved.sum_reads * prices.accumulator_read
        + moved.sum_writes * prices.accumulator_write
    )


def _pass_j(p: Products, arrays: GemminiArrays, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass, registers included: shape (products, accelerators)."""
    tables = np.empty((2, p.m.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), width), min(int(b), width)
            for which, moving in enumerate((a_chunk, a_chunk + b_chunk)):  # ws: the inputs; os: both operands
                registers = (moving + ACCUMULATOR_BITS) * technology.register_pj_per_bit
                tables[which, row, column] = technology.mac_pj(a_chunk, b_chunk) + registers
    columns = np.searchsorted(PE_BITS, arrays.pe_bits)
    joules: Floats = 1e-12 * np.where(arrays.output_stationary, tables[1][:, columns], tables[0][:, columns])
    return joules
