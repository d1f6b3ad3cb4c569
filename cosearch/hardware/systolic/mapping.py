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
    share, shape = rate.share, (p.m.shape[0], len(arrays))
    flat = _mapped(p, arrays, dataflow, replace(rate, share=np.ones_like(share)), a_dram, b_dram)
    limit = np.broadcast_to(_dram_bits(p, flat[1], a_dram, b_dram), shape)
    chosen = _whole(flat[0], shape), _whole(flat[1], shape)
    # few arrays are too small for the deepest folds, so that only these are worked out again
    columns, tried, open_ = np.arange(len(arrays)), deepest, np.ones(shape, dtype=np.bool_)
    while True:
        a, b = _of(a_dram, columns), _of(b_dram, columns)
        better = open_[:, columns] & (_dram_bits(p, tried[1], a, b) <= limit[:, columns])
        _put(chosen[0], columns, better, tried[0])
        _put(chosen[1], columns, better, tried[1])
        open_[:, columns] &= ~better
        share = np.minimum(2.0 * share, 1.0)
        columns = np.flatnonzero(np.any(open_ & (share < 1.0), axis=0))
        if columns.size == 0:
            return chosen
        some = Rates(
            a_passes=rate.a_passes[:, columns],
            b_passes=rate.b_passes[:, columns],
            cycles=rate.cycles[:, columns],
            share=share,
        )
        tried = _mapped(p, arrays.pick(columns), dataflow, some, _of(a_dram, columns), _of(b_dram, columns))


def _dram_bits(p: Products, fills: Fills, a_dram: Floats, b_dram: Floats) -> Floats:
    a_bits, b_bits = p.m * p.k * p.count * p.a_bits, p.k * p.n * p.count * p.b_bits
    return fills.a * a_bits * a_dram + fills.b * b_bits * b_dram + 2.0 * fills.spilled


def _mapped(
    p: Products, arrays: SystolicArrays, dataflow: str, rate: Rates | None, a_dram: Floats, b_dram: Floats
) -> tuple[Folding, Fills]:
    folding = fold(p, arrays, dataflow, rate)
    if int(arrays.mapping[0]) == MAPPINGS.index("search"):
        return folding, best_fills(p, arrays, dataflow, folding, a_dram, b_dram)
    return folding, fold_fills(p, arrays, dataflow, folding)


def _of(values: Floats, columns: NDArray[np.intp]) -> Floats:
    return values if values.shape[-1] == 1 else values[..., columns]


def _whole(one: T, shape: tuple[int, int]) -> T:
    return type(one)(**{f.name: np.broadcast_to(getattr(one, f.name), shape).copy() for f in fields(one)})


def _put(whole: T, columns: NDArray[np.intp], mask: NDArray[np.bool_], new: T) -> None:
    """Writes ``new`` into the ``columns`` of ``whole``, where ``mask`` says so."""
    for f in fields(whole):
        values = getattr(whole, f.name)
        values[:, columns] = np.where(mask, getattr(new, f.name), values[:, columns])
