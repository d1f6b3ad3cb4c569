"""How products are mapped onto arrays: folds, tiles, and how deep a fold goes.

Elements that work on several values of the reduction at once let a fold go deeper (`elements`), and a deeper fold asks
for more rows of the streamed operand at a time. A fold goes as deep as it can without more traffic to DRAM than folds
of R values cause; halves of the depth are tried in between, with the other elements idle.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.array import MAPPINGS, SystolicArrays
from cosearch.hardware.systolic.elements import Rates, rates
from cosearch.hardware.systolic.folding import Folding, fold
from cosearch.hardware.systolic.tiling import best_fills
from cosearch.hardware.systolic.traffic import Fills, fold_fills

__all__ = ["mapped"]

Floats = NDArray[np.float64]
T = TypeVar("T", Folding, Fills)


def mapped(p: Products, arrays: SystolicArrays, dataflow: str, a_dram: Floats, b_dram: Floats) -> tuple[Folding, Fills]:
    """Returns how products ``p`` fall on ``arrays`` of one kind, and how often their operands are fetched.

    Args:
        p: the products.
        arrays: the accelerators.
        dataflow: theirs.
        a_dram: share of each left operand that comes from DRAM, shape broadcasts to (products, accelerators).
        b_dram: likewise of each right operand.
    """
    rate = rates(p, arrays)
    deepest = _mapped(p, arrays, dataflow, rate, a_dram, b_dram)
    if rate is None or dataflow == "os" or np.all(rate.share == 1.0):
        return deepest

    def moved(fills: Fills) -> Floats:
        a_bits, b_bits = p.m * p.k * p.count * p.a_bits, p.k * p.n * p.count * p.b_bits
        return fills.a * a_bits * a_dram + fills.b * b_bits * b_dram + 2.0 * fills.spilled

    chosen = _mapped(p, arrays, dataflow, replace(rate, share=np.ones_like(rate.share)), a_dram, b_dram)
    limit, share = moved(chosen[1]), rate.share
    open_ = np.ones(np.broadcast_shapes(limit.shape, share.shape, arrays.rows.shape), dtype=np.bool_)
    while np.any(open_ & (share < 1.0)):
        folding, fills = _mapped(p, arrays, dataflow, replace(rate, share=share), a_dram, b_dram)
        better = open_ & (moved(fills) <= limit)
        chosen = _where(better, folding, chosen[0]), _where(better, fills, chosen[1])
        open_ &= ~better
        share = np.minimum(2.0 * share, 1.0)
    return chosen


def _mapped(
    p: Products, arrays: SystolicArrays, dataflow: str, rate: Rates | None, a_dram: Floats, b_dram: Floats
) -> tuple[Folding, Fills]:
    folding = fold(p, arrays, dataflow, rate)
    if int(arrays.mapping[0]) == MAPPINGS.index("search"):
        return folding, best_fills(p, arrays, dataflow, folding, a_dram, b_dram)
    return folding, fold_fills(p, arrays, dataflow, folding)


def _where(mask: NDArray[np.bool_], yes: T, no: T) -> T:
    return type(no)(**{f.name: np.where(mask, getattr(yes, f.name), getattr(no, f.name)) for f in fields(no)})
