"""Tiles that Gemmini's software takes, and those of DOSA's mapper.

A product is (rows x cols) x K times K x N: a 1 x 1 convolution works on an image of ``rows`` x ``cols`` pixels; of a
matrix product, ``rows`` is 1 and ``cols`` is M. An execute command covers pixels of one row of the image, so this
matters.

``auto``
    What the software in ``gemmini.h`` (github.com/ucb-bar/gemmini-rocc-tests) does: ``tiled_matmul_auto`` grows a tile
    block by block while half of scratchpad and accumulator hold it; ``tiled_conv_auto`` shrinks the longest side until
    they do, then grows.
``default``
    What DOSA (Hong et al., MICRO 2023) hands to the same loops, found by gradient descent: in its published mappings,
    tiles whose sides divide the product's, with the least DRAM traffic in the best loop order. Of equal ones this takes
    the largest tile; `cosearch.hardware.gemmini.timing` decides between those left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.gemmini.array import GemminiArrays

__all__ = ["Shape", "Tiles", "auto_convolution", "auto_matmul", "least_traffic"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """Products, fields of shapes that broadcast.

    Attributes:
        rows: rows of the image; 1 for a matrix product.
        cols: its columns; M for a matrix product.
        k: length of the reduction (input channels).
        n: columns of the right operand (output channels).
    """

    rows: Floats
    cols: Floats
    k: Floats
    n: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """Sides of tiles in elements, never longer than the product's; fields broadcast with the products'.

    Attributes:
        rows: rows of the image.
        cols: its columns.
        k: of the reduction.
        n: columns of the right operand.
    """

    rows: Floats
    cols: Floats
    k: Floats
    n: Floats


def auto_matmul(m: Floats, k: Floats, n: Floats, arrays: GemminiArrays, a_slices: Floats, b_slices: Floats) -> Tiles:
    """Returns the tiles of ``tiled_matmul_auto``, shape of the arguments broadcast with (accelerators,).

    Args:
        m: rows of the left operand.
        k: length of the reduction.
        n: columns of the right operand.
        arrays: the accelerators.
        a_slices: scratchpad elements that a value of the left operand takes.
        b_slices: likewise of the right one.
    """
    dim, parts = arrays.dim, np.where(arrays.output_stationary, 1.0, 2.0)  # ``os`` is not double-buffered
    spad, acc = np.floor(arrays.scratchpad_rows / parts), np.floor(arrays.accumulator_rows / parts)
    full = np.broadcast_arrays(np.ceil(m / dim), np.ceil(n / dim), np.ceil(k / dim), a_slices, b_slices, spad, acc, dim)
    shape = full[0].shape
    i_max, j_max, k_max, a, b, spad, acc, dim = (np.ascontiguousarray(x, dtype=np.float64).reshape(-1) for x in full)
    side = np.floor(np.sqrt(np.floor(acc / dim)))
    depth = np.maximum(np.floor(np.floor(spad / 2.0 / dim) / side / np.maximum(a, b)), 1.0)
    size = np.stack((np.minimum(i_max, side), np.minimum(j_max, side), np.minimum(k_max, depth)))
    # only where values take several elements, which the source does not know
    size[:, (size[0] * a + size[1] * b) * size[2] * dim > spad] = 1.0
    most = np.stack((i_max, j_max, k_max))
    active = np.arange(size.shape[1])
    while active.size:
        now, grew = size[:, active], np.zeros(active.size, dtype=bool)
        for axis in (1, 0, 2):
            longer = now.copy()
            longer[axis] += 1.0
            fits = (longer[0] * a[active] + longer[1] * b[active]) * longer[2] * dim[active] <= spad[active]
            fits &= (longer[0] * longer[1] * dim[active] <= acc[active]) & (longer[axis] <= most[axis, active])
            now = np.where(fits, longer, now)
            grew |= fits
        size[:, active] = now
        active = active[grew]
    i_tile, j_tile, k_tile = (np.reshape(x, shape) * arrays.dim for x in size)
    ones = np.ones(shape)
    return Tiles(rows=ones, cols=np.minimum(i_tile, m), k=np.minimum(k_tile, k), n=np.minimum(j_tile, n))


@lru_cache(maxsize=4096)
def auto_convolution(
    rows: int, cols: int, k: int, n: int, dim: int, spad: int, acc: int, /
) -> tuple[int, int, int, int]:
    """Returns the tile of ``tiled_conv_auto`` for a 1 x 1 convolution of stride 1: rows, columns, K, N.

    Args:
        rows: rows of the image.
        cols: its columns.
        k: input channels.
        n: output channels.
        dim: side of the array.
        spad: rows of half the scratchpad.
        acc: rows of half the accumulator.
    """
    most = (rows, cols, n, k)  # in the order in which the source looks at them
    tile = list(most)

    def fits(t: list[int]) -> bool:
        r, c, out, of = t
        blocks = -(-out // dim)
        return -(-of // dim) * r * c + blocks * of <= spad and blocks * r * c <= acc

    while not fits(tile):
        # columns of at most ``dim`` are left alone while there are rows to give up: they fill the array
        open_ = [x for x in range(4) if not (x == 1 and tile[1] <= dim and tile[0] > 1)]
        longest = max(open_, key=lambda x: (tile[x], -x))
        if longest < 2:
            tile[longest] -= 1
        else:
            tile[longest] = max(tile[longest] - (tile[longest] % dim or dim), 1)
    while tile[1] < cols and fits([tile[0], tile[1] + 1, *tile[2:]]):
        tile[1] += 1
    grew = True
    while grew:
        grew = False
        for x in range(4):
            longer = [*tile[:x], tile[x] + 1, *tile[x + 1 :]]
            if longer[x] <= most[x] and fits(longer):
                tile, grew = longer, True
    return tile[0], tile[1], tile[3], tile[2]


@lru_cache(maxsize=4096)
def least_traffic(rows: int, cols: int, k: int, n: int, dim: int, spad: int, acc: int, /) -> NDArray[np.float64]:
    """Returns the largest of the tiles with the least DRAM traffic, shape (tiles, 4): rows, columns, K, N.

    Args:
        rows: rows of the image.
        cols: its columns.
        k: input channels.
        n: output channels.
        dim: side of the array.
        spad: values that half the scratchpad holds.
        acc: sums that half the accumulator holds.
    """
    sides = (_divisors(rows), _divisors(cols), _blocks(k, dim), _blocks(n, dim))
    tiles = np.array(list(product(*sides)), dtype=np.float64)
    r, c, d, w = tiles.T
    tiles = tiles[(r * c * d + d * w <= spad) & (r * c * w <= acc)]
    if not tiles.shape[0]:  # only where the memories hold less than a row of blocks
        tiles = np.array([[1, 1, min(dim, k), min(dim, n)]], dtype=np.float64)
    bytes_moved = _traffic(rows, cols, k, n, tiles)
    tiles = tiles[bytes_moved == bytes_moved.min()]
    volume = tiles.prod(axis=1)
    largest: Floats = tiles[volume == volume.max()]
    return largest


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _blocks(number: int, dim: int) -> list[int]:
    return [min(number, d * dim) for d in _divisors(-(-number // dim))]


def _traffic(rows: int, cols: int, k: int, n: int, tiles: Floats) -> Floats:
    """Returns values moved to and from DRAM in the best order of the loops over tiles.

    An operand is fetched again on every trip of a loop that does not index it, unless all loops inside that one do not
    index it either. Sums that are left and come back are read and written (Timeloop, Parashar et al. 2019).
    """
    m = rows * cols
    trips = {
        "m": np.ceil(rows / tiles[:, 0]) * np.ceil(cols / tiles[:, 1]),
        "k": np.ceil(k / tiles[:, 2]),
        "n": np.ceil(n / tiles[:, 3]),
    }
    best = np.full(tiles.shape[0], np.inf)
    for order in permutations("mkn"):

        def sweeps(indexed: str, order: tuple[str, ...] = order) -> Floats:
            times, inner = np.ones(tiles.shape[0]), np.zeros(tiles.shape[0], dtype=bool)
            for loop in reversed(order):  # innermost first
                if loop in indexed:
                    inner |= trips[loop] > 1
                else:
                    times = np.where(inner, times * trips[loop], times)
            return times

        moved = m * k * sweeps("mk") + k * n * sweeps("kn") + m * n * (2.0 * sweeps("mn") - 1.0)
        best = np.minimum(best, moved)
    return best
