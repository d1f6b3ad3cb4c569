"""What a matrix product fetches from memory when one buffer holds all its operands.

Shapes as in `cosearch.hardware.groups`: products are rows, accelerators columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products

__all__ = ["fetched_bits"]

Floats = NDArray[np.float64]


def fetched_bits(p: Products, buffer_bits: Floats, rows: Floats, cols: Floats) -> Floats:
    """Returns the bits of both operands fetched by all ``count`` runs, by the best of three orders.

    One half of the buffer serves the array while the other is filled. The orders are:

    - as many rows of the left operand as fit stay, the right operand streams past once for each such block;
    - as many columns of the right operand as fit stay, and the left one streams;
    - nothing stays: each tile of ``rows`` x ``cols`` outputs fetches the rows and columns that it needs.

    Outputs are accumulated where they are made and leave once; they are not counted.

    Args:
        p: the products.
        buffer_bits: capacity, shape (accelerators,).
        rows: rows of outputs that the array accumulates at once, shape (accelerators,).
        cols: columns of outputs, likewise.
    """
    half = 0.5 * buffer_bits
    a_bits, b_bits = p.m * p.k * p.a_bits, p.k * p.n * p.b_bits
    left = np.minimum(np.floor(half / (p.k * p.a_bits)), p.m)
    right = np.minimum(np.floor(half / (p.k * p.b_bits)), p.n)
    left_stays = a_bits + b_bits * np.ceil(p.m / np.maximum(left, 1.0))
    right_stays = b_bits + a_bits * np.ceil(p.n / np.maximum(right, 1.0))
    fetched = a_bits * np.ceil(p.n / cols) + b_bits * np.ceil(p.m / rows)
    fetched = np.where(left >= 1.0, np.minimum(fetched, left_stays), fetched)
    fetched = np.where(right >= 1.0, np.minimum(fetched, right_stays), fetched)
    return fetched * p.count
