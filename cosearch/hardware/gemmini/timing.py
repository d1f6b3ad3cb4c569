"""Cycles that a product takes on Gemmini in given tiles.

Gemmini's loop units (LoopConv.scala, LoopMatmul.scala of github.com/ucb-bar/gemmini) turn a tile into commands for
three queues that run beside each other, load, execute and store. A tile is

- **executed** in blocks of up to ``dim`` pixels of one image row against ``dim`` x ``dim`` weights. A block streams
  its pixels, a row a cycle, and `Timing.bubble_cycles` more; two commands, preload and compute, cannot follow those of
  the block before faster than `Timing.issue_cycles`. So four pixels take as long as seven.
- **loaded** by requests of up to 64 bytes from the rows of both operands. A request takes 64 / (dma_bits / 8) cycles,
  the beats of a whole line, whatever it brings; a row that does not start on a line needs more of them. Loads of
  operands and outputs that together exceed the L2 take at least the cycles of the DRAM's bandwidth.
- **stored** by requests of ``dim`` outputs each. Where several rows of outputs share a line (n below 64 bytes), each
  waits for the L2 to finish with the one before: `Timing.shared_line_cycles`.

The queues hinder each other: of their three sums, e, l and s, the loops take ``(e^p + l^p + s^p)^(1/p)``, where p
would be infinite if all of the shorter were hidden. LoopConv executes nothing before all loads of a tile were issued,
LoopMatmul waits for each operand on its own: p is 2 and 4, the round numbers that suit DOSA's runs with known tiles.
``os`` runs without double buffering (p = 1); it was compared with no measurement. The first tile is loaded before
anything else happens, and the last executed when all is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.gemmini.array import LINE_BYTES, GemminiArrays
from cosearch.hardware.gemmini.tiling import Shape, Tiles

__all__ = ["FIRESIM", "Elapsed", "Timing", "Widths", "dram_bytes", "elapsed", "footprint_bytes"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What the RTL takes beyond what its widths say, in cycles.

    Attributes:
        issue_cycles: shortest time between two blocks.
        bubble_cycles: of a block, beyond one for each of its pixels; none in matrix products, whose blocks follow each
            other without a gap.
        start_cycles: of a call, before its first load and after its last store.
        shared_line_cycles: of a store whose line the one before it wrote.
    """

    issue_cycles: float
    bubble_cycles: float
    start_cycles: float
    shared_line_cycles: float


FIRESIM = Timing(issue_cycles=6.58, bubble_cycles=1.0, start_cycles=2980.0, shared_line_cycles=25.0)
"""Gemmini of 2023 in FireSim. ``issue_cycles`` and ``start_cycles`` are fitted to every other row of
tests/published/gemmini_firesim_gemm.csv by bench/hardware/gemmini.py. The bubble is a whole cycle, the nearest to what
runs with known tiles have (0.8 to 1.9 where fitted). The cycles of a shared line are those of one product of the same
data set that is not in that file, 150544 x 64 x 2: its three runs take 25.5 to 31.6 a store."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Widths:
    """Bits of operands and outputs; fields broadcast with the products'.

    Attributes:
        a_bits: of the left operand.
        b_bits: of the right operand.
        out_bits: of the stored output.
    """

    a_bits: Floats
    b_bits: Floats
    out_bits: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Elapsed:
    """Cycles of one product; fields broadcast over products and accelerators.

    Attributes:
        execute_cycles: of the array alone.
        cycles: all together, without those of the call.
    """

    execute_cycles: Floats
    cycles: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Queues:
    execute: Floats
    load: Floats
    store: Floats


def elapsed(
    shape: Shape, tiles: Tiles, arrays: GemminiArrays, widths: Widths, timing: Timing, *, convolution: bool
) -> Elapsed:
    """Returns the cycles of products in ``tiles``.

    Args:
        shape: the products.
        tiles: their tiles.
        arrays: the accelerators.
        widths: bits of operands and outputs.
        timing: of the RTL.
        convolution: whether they run as 1 x 1 convolutions.
    """
    whole = _queues(shape, shape, tiles, arrays, widths, timing, convolution=convolution)
    first_shape = Shape(rows=tiles.rows, cols=tiles.cols, k=tiles.k, n=tiles.n)
    first = _queues(first_shape, shape, tiles, arrays, widths, timing, convolution=convolution)
    dram = np.where(
        footprint_bytes(shape, widths) > arrays.l2_kib * 1024.0,
        dram_bytes(shape, tiles, arrays, widths) / (arrays.dram_bytes_per_s / arrays.clock_hz),
        0.0,
    )
    load = np.maximum(whole.load, dram)
    together = _overlapped(whole.execute, load, whole.store, 2 if convolution else 4)
    together = np.where(arrays.output_stationary, whole.execute + load + whole.store, together)
    count = _tile_count(shape, tiles)
    # a matrix product's blocks start when their own operands are there: a strip of the first tile, one block deep
    strips = 1.0 if convolution else np.ceil(tiles.k / arrays.dim)
    cycles = first.load / strips + together * ((count - 1.0) / count) + first.execute
    return Elapsed(execute_cycles=whole.execute, cycles=np.maximum(cycles, together))


def footprint_bytes(shape: Shape, widths: Widths) -> Floats:
    """Returns the bytes of both operands and the outputs."""
    m = shape.rows * shape.cols
    bits = m * shape.k * widths.a_bits + shape.k * shape.n * widths.b_bits + m * shape.n * widths.out_bits
    return np.ceil(bits / 8.0)


def dram_bytes(shape: Shape, tiles: Tiles, arrays: GemminiArrays, widths: Widths) -> Floats:
    """Returns the bytes to and from DRAM: of operands and outputs once, and of what the L2 loses before its next use.

    Loops over pixels are the outer ones. The rows of the left operand that a tile works on return for each tile of
    columns, the whole right operand for each tile of pixels; either is fetched again when the L2 cannot hold it.
    """
    m, l2_bits = shape.rows * shape.cols, arrays.l2_kib * 8192.0
    a_bits, b_bits = m * shape.k * widths.a_bits, shape.k * shape.n * widths.b_bits
    a_lost = tiles.rows * tiles.cols * shape.k * widths.a_bits > l2_bits
    m_tiles = np.ceil(shape.rows / tiles.rows) * np.ceil(shape.cols / tiles.cols)
    fetched = a_bits * np.where(a_lost, np.ceil(shape.n / tiles.n), 1.0) + b_bits * np.where(
        b_bits > l2_bits, m_tiles, 1.0
    )
    return np.ceil((fetched + m * shape.n * widths.out_bits) / 8.0)


def _tile_count(shape: Shape, tiles: Tiles) -> Floats:
    image = np.ceil(shape.rows / tiles.rows) * np.ceil(shape.cols / tiles.cols)
    return image * np.ceil(shape.k / tiles.k) * np.ceil(shape.n / tiles.n)


def _overlapped(execute: Floats, load: Floats, store: Floats, power: int) -> Floats:
    # squares and square roots only: they round the same in every batch, powers need not
    squares = execute * execute, load * load, store * store
    if power == 2:
        return np.sqrt(squares[0] + squares[1] + squares[2])
    fourth = [x * x for x in squares]
    return np.sqrt(np.sqrt(fourth[0] + fourth[1] + fourth[2]))


def _queues(
    part: Shape,
    shape: Shape,
    tiles: Tiles,
    arrays: GemminiArrays,
    widths: Widths,
    timing: Timing,
    *,
    convolution: bool,
) -> _Queues:
    """Returns the cycles of each queue alone for ``part`` of ``shape``, which is in tiles of ``tiles``."""
    dim, request = arrays.dim, LINE_BYTES / (arrays.dma_bits / 8.0)
    k_blocks, n_blocks = _in_tiles(part.k, tiles.k, dim), _in_tiles(part.n, tiles.n, dim)
    passes = np.ceil(widths.a_bits / arrays.pe_bits) * np.ceil(widths.b_bits / arrays.pe_bits)
    row = _of_tiles(part.cols, tiles.cols, lambda cols: _row_cycles(cols, dim, timing, convolution=convolution))
    # output stationary: K streams through, a block of outputs takes as many cycles to leave the array
    drain = part.rows * _in_tiles(part.cols, tiles.cols, dim) * n_blocks * (2.0 * dim)
    streamed = part.rows * _in_tiles(part.cols, tiles.cols, dim) * k_blocks * n_blocks
    stationary = streamed * np.maximum(dim, timing.issue_cycles) + drain
    execute = np.where(arrays.output_stationary, stationary, part.rows * row * k_blocks * n_blocks) * passes

    a_bytes, b_bytes = widths.a_bits / 8.0, widths.b_bits / 8.0
    m_tiles = np.ceil(part.rows / tiles.rows) * np.ceil(part.cols / tiles.cols)
    n_tiles = np.ceil(part.n / tiles.n)
    m = part.rows * part.cols
    a_row = _of_tiles(part.k, tiles.k, lambda k: _requests(k, a_bytes, tiles.k, shape.k))
    b_row = _of_tiles(part.n, tiles.n, lambda n: _requests(n, b_bytes, tiles.n, shape.n))
    load = (m * a_row * n_tiles + part.k * b_row * m_tiles) * request

    out_bytes = widths.out_bits / 8.0
    writes = m * n_blocks * np.ceil(dim * out_bytes / LINE_BYTES)
    shared = np.maximum(1.0 - shape.n * out_bytes / LINE_BYTES, 0.0) * (m - 1.0) / m
    store = writes * (request + np.maximum(timing.shared_line_cycles - request, 0.0) * shared)
    return _Queues(execute=execute, load=load, store=store)


def _row_cycles(cols: Floats, dim: Floats, timing: Timing, *, convolution: bool) -> Floats:
    """Returns cycles in which ``cols`` pixels of one row stream past one block of weights."""
    bubble = timing.bubble_cycles if convolution else 0.0
    full = np.floor(cols / dim)
    rest = cols - full * dim
    last = np.where(rest > 0, np.maximum(rest + bubble, timing.issue_cycles), 0.0)
    return full * np.maximum(dim + bubble, timing.issue_cycles) + last


def _requests(values: Floats, value_bytes: Floats, tile: Floats, side: Floats) -> Floats:
    """Returns the requests for ``values`` neighbours in one row of an operand of ``side`` values, in ``tile`` a time.

    They come 64 bytes a time from the tile's start on. Where starts do not fall on lines, whole ones straddle two:
    starts are spread evenly over the multiples of the greatest common divisor of line, row and tile.
    """
    size = np.ceil(values * value_bytes)
    pitch, step = np.ceil(side * value_bytes), np.where(tile < side, np.ceil(tile * value_bytes), LINE_BYTES)
    aligned = np.gcd(np.gcd(pitch.astype(np.int64), step.astype(np.int64)), LINE_BYTES) / LINE_BYTES
    return np.floor(size / LINE_BYTES) * (2.0 - aligned) + (size % LINE_BYTES > 0)


def _of_tiles(side: Floats, tile: Floats, cost: Callable[[Floats], Floats]) -> Floats:
    """Returns ``cost`` of all tiles along a side: of the whole ones, and of the last, shorter one."""
    whole = np.floor(side / tile)
    rest = side - whole * tile
    return whole * cost(tile) + np.where(rest > 0, cost(np.where(rest > 0, rest, 1.0)), 0.0)


def _in_tiles(side: Floats, tile: Floats, dim: Floats) -> Floats:
    """Returns the blocks along a side that is cut into tiles."""
    return _of_tiles(side, tile, lambda length: np.ceil(length / dim))
