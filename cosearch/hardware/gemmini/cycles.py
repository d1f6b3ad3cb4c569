"""Tiles and cycles of matrix products and 1 x 1 convolutions on Gemmini.

Everything is elementwise over products and accelerators: products come in shapes that broadcast, accelerators as
`GemminiArrays` in their last axis, so one product on one accelerator costs the same in any batch.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.errors import SpecError, did_you_mean
from cosearch.hardware.gemmini.array import GemminiArray, GemminiArrays
from cosearch.hardware.gemmini.tiling import Shape, Tiles, auto_convolution, auto_matmul, least_traffic
from cosearch.hardware.gemmini.timing import FIRESIM, Elapsed, Timing, Widths, elapsed, footprint_bytes

__all__ = [
    "GEMMINI_MAPPINGS",
    "GEMMINI_OPERATIONS",
    "Mapping",
    "Operation",
    "auto_elapsed",
    "cold_cycles",
    "gemmini_cycles",
    "gemmini_tiles",
]

Floats = NDArray[np.float64]

Mapping = Literal["auto", "default"]
GEMMINI_MAPPINGS: tuple[Mapping, ...] = get_args(Mapping)
"""How tiles are chosen: ``auto`` by Gemmini's own software, ``default`` as DOSA's mapper does
(`cosearch.hardware.gemmini.tiling`)."""

Operation = Literal["matmul", "convolution"]
GEMMINI_OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""What runs a product: the loop for matrix products, or the one for convolutions (1 x 1, on a square image of M
pixels)."""


def gemmini_tiles(
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    array: GemminiArray | GemminiArrays,
    mapping: Mapping = "auto",
    operation: Operation = "matmul",
    timing: Timing = FIRESIM,
) -> Tiles:
    """Returns the tiles of 8-bit products; fields have the shape of m, k and n broadcast with (accelerators,).

    Args:
        m: rows of the left operand; pixels of the image.
        k: length of the reduction; input channels.
        n: columns of the right operand; output channels.
        array: one accelerator or many.
        mapping: how tiles are chosen.
        operation: what runs the product.
        timing: of the RTL; decides between tiles that move as much.

    Raises:
        SpecError: a side is not a positive whole number, a convolution's M is no square, or a name is unknown.
    """
    arrays, shape, widths = _columns(m, k, n, array, mapping, operation)
    return _tiles(shape, arrays, widths, mapping, timing, convolution=operation == "convolution")


def gemmini_cycles(
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    array: GemminiArray | GemminiArrays,
    mapping: Mapping = "auto",
    operation: Operation = "matmul",
    timing: Timing = FIRESIM,
) -> Floats:
    """Returns the cycles of 8-bit products, shape of m, k and n broadcast with (accelerators,).

    They are those of the two measurements: ``auto`` runs on operands that no cache holds, and in code that just ran;
    ``default`` runs after it, so its operands come from the L2 where they fit, and pays for the start of its code.

    Args:
        m: rows of the left operand; pixels of the image.
        k: length of the reduction; input channels.
        n: columns of the right operand; output channels.
        array: one accelerator or many.
        mapping: how tiles are chosen.
        operation: what runs the product.
        timing: of the RTL.

    Raises:
        SpecError: as `gemmini_tiles`.
    """
    arrays, shape, widths = _columns(m, k, n, array, mapping, operation)
    convolution = operation == "convolution"
    tiles = _tiles(shape, arrays, widths, mapping, timing, convolution=convolution)
    cycles = elapsed(shape, tiles, arrays, widths, timing, convolution=convolution).cycles
    return cycles + (cold_cycles(shape, arrays, widths) if mapping == "auto" else timing.start_cycles)


def auto_elapsed(shape: Shape, arrays: GemminiArrays, widths: Widths, timing: Timing) -> tuple[Tiles, Elapsed]:
    """Returns tiles and cycles of matrix products in Gemmini's own tiles, on operands that no cache holds."""
    tiles = _tiles(shape, arrays, widths, "auto", timing, convolution=False)
    warm = elapsed(shape, tiles, arrays, widths, timing, convolution=False)
    cycles = warm.cycles + cold_cycles(shape, arrays, widths)
    return tiles, Elapsed(execute_cycles=warm.execute_cycles, cycles=cycles)


def cold_cycles(shape: Shape, arrays: GemminiArrays, widths: Widths) -> Floats:
    """Returns the cycles in which each byte of operands and outputs passes the DRAM's bus once.

    The first touch of a line stops the DMA, whose requests finish in order, so nothing hides them (assumption).
    """
    return footprint_bytes(shape, widths) / (arrays.dram_bytes_per_s / arrays.clock_hz)


def _columns(
    m: ArrayLike, k: ArrayLike, n: ArrayLike, array: GemminiArray | GemminiArrays, mapping: str, operation: str
) -> tuple[GemminiArrays, Shape, Widths]:
    for name, value, known in (
        ("mapping", mapping, GEMMINI_MAPPINGS),
        ("operation", operation, GEMMINI_OPERATIONS),
    ):
        if value not in known:
            raise SpecError(name, f"is {value!r}, which is unknown", did_you_mean(str(value), known))
    arrays = GemminiArrays.of([array]) if isinstance(array, GemminiArray) else array
    sides = []
    for name, values in (("m", m), ("k", k), ("n", n)):
        side = np.asarray(values, dtype=np.float64)
        wrong = ~((side >= 1) & (side == np.floor(side)) & (side < 2**31))
        if np.any(wrong):
            raise SpecError(name, f"is {side[wrong].flat[0]:g}", "write whole numbers from 1 to 2**31 - 1")
        sides.append(side)
    pixels, depth, width = sides
    rows, cols = np.ones(pixels.shape), pixels
    if operation == "convolution":
        rows = cols = np.floor(np.sqrt(pixels))
        if np.any(rows * cols != pixels):
            raise SpecError(
                "m",
                f"is {pixels[rows * cols != pixels].flat[0]:g}, which is no square number, but a convolution works on "
                "a square image",
                "run it as a matmul",
            )
    bits = np.full((), 8.0)
    return arrays, Shape(rows=rows, cols=cols, k=depth, n=width), Widths(a_bits=bits, b_bits=bits, out_bits=bits)


def _tiles(
    shape: Shape, arrays: GemminiArrays, widths: Widths, mapping: Mapping, timing: Timing, *, convolution: bool
) -> Tiles:
    if mapping == "auto" and not convolution:
        a_slices = np.ceil(widths.a_bits / arrays.pe_bits)
        b_slices = np.ceil(widths.b_bits / arrays.pe_bits)
        return auto_matmul(shape.cols, shape.k, shape.n, arrays, a_slices, b_slices)
    indices = np.arange(len(arrays))
    columns = np.broadcast_arrays(shape.rows, shape.cols, shape.k, shape.n, indices)
    found = np.empty((columns[0].size, 4))
    for place, (rows, cols, k, n, index) in enumerate(
        zip(*(column.reshape(-1).tolist() for column in columns), strict=True)
    ):
        one = arrays.pick(np.array([index]))
        sides = int(rows), int(cols), int(k), int(n)
        spad, acc = float(one.scratchpad_rows[0]), float(one.accumulator_rows[0])
        if mapping == "auto":
            found[place] = auto_convolution(*sides, int(one.dim[0]), int(spad / 2), int(acc / 2))
        else:
            found[place] = _fastest(sides, one, widths, timing, convolution=convolution)
    found = found.reshape((*columns[0].shape, 4))
    return Tiles(rows=found[..., 0], cols=found[..., 1], k=found[..., 2], n=found[..., 3])


def _fastest(
    sides: tuple[int, int, int, int], one: GemminiArrays, widths: Widths, timing: Timing, *, convolution: bool
) -> Floats:
    """Returns the fastest of the largest tiles with the least traffic; the first of equals."""
    values = int(one.scratchpad_rows[0] / 2) * int(one.dim[0])
    sums = int(one.accumulator_rows[0] / 2) * int(one.dim[0])
    tiles = least_traffic(*sides, int(one.dim[0]), values, sums)
    rows, cols, k, n = (np.float64(side) for side in sides)
    shape = Shape(rows=np.asarray(rows), cols=np.asarray(cols), k=np.asarray(k), n=np.asarray(n))
    candidates = Tiles(rows=tiles[:, 0], cols=tiles[:, 1], k=tiles[:, 2], n=tiles[:, 3])
    cycles = elapsed(shape, candidates, one, widths, timing, convolution=convolution).cycles
    fastest: Floats = tiles[int(np.argmin(cycles))]
    return fastest
