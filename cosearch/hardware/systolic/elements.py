"""What the processing elements of an array take for a multiply-accumulate, by number format and sparsity.

Bit-parallel elements take operands wider than themselves in passes over the array (`folding`). Elements of other kinds
take c cycles for a multiply-accumulate (`cosearch.hardware.arithmetic.mac_cost`): with c above 1, bit-serial ones say,
streamed vectors follow each other every c cycles; with c below 1 (Bit Fusion on narrow operands), an
element works on 1 / c values of the reduction at once, so that a fold covers R / c of them.

Zeros are skipped where every group of weights fits the pattern of the array, so that its groups take the time of the
values that they keep; other weights run as dense ones do.

Operands move, and lie in memories, as they are stored, and are unpacked at the edge of the array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.formats import NUMBER_FORMATS, NumberFormat
from cosearch.hardware.arithmetic import (
    PE_KINDS,
    MacCost,
    PeKind,
    ProcessingElement,
    Sparsity,
    mac_cost,
    refusal,
    supports,
)
from cosearch.hardware.groups import PLAIN, Products
from cosearch.hardware.identity import Same
from cosearch.hardware.ledger import each
from cosearch.hardware.systolic.array import SPARSITIES, SystolicArrays
from cosearch.hardware.technology import Technology, technology
from cosearch.workload import OperatorKind, Workload, format_of

__all__ = ["Rates", "check_elements", "check_formats", "element_area", "mac_joules", "plain", "rates"]

Floats = NDArray[np.float64]
_Table = tuple[Floats, Floats, Floats, Floats]


def plain(p: Products, arrays: SystolicArrays) -> bool:
    """Returns whether elements are bit-parallel and skip nothing, and all products multiply dense integers."""
    return int(arrays.pe_kind[0]) == 0 and int(arrays.sparsity[0]) == 0 and not p.formats


def check_formats(workload: Workload, arrays: SystolicArrays) -> None:
    """Checks that the elements of ``arrays``, all of one kind, multiply what ``workload`` has.

    Raises:
        SpecError: they do not; names the operator and the kinds that do.
    """
    check_elements(workload, PE_KINDS[int(arrays.pe_kind[0])], tuple(int(bits) for bits in np.unique(arrays.pe_bits)))


def check_elements(workload: Workload, kind: PeKind, widths: Sequence[int]) -> None:
    """Checks that elements of one kind, of each of some widths, multiply what ``workload`` has.

    Raises:
        SpecError: one does not; names the operator and the kinds that do.
    """
    elements = [ProcessingElement(kind=kind, bits=bits) for bits in widths]
    seen = set()
    for op in workload.operators:
        if op.kind is not OperatorKind.MATMUL:
            continue
        pair = (op.a_bits, op.a_format, op.b_bits, op.b_format)
        if pair in seen:
            continue
        seen.add(pair)
        a, b = format_of(op.a_bits, op.a_format), format_of(op.b_bits, op.b_format)
        for element in elements:
            if not supports(element, a, b):
                raise SpecError(
                    op.name,
                    f"multiplies {a.name} by {b.name}, which pe_kind {kind} with pe_bits {element.bits} does not",
                    f"{refusal(element, a, b).remedy}, or quantise the model "
                    "(weight_bits, activation_bits and edge_bits of 2 to 16)",
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rates:
    """How fast elements multiply; fields have shapes that broadcast to (products, accelerators).

    Attributes:
        a_passes: slices of the left operand that pass over the array one after another.
        b_passes: likewise of the right operand.
        cycles: cycles in which an element takes the next streamed vector, at least 1.
        share: steps that an element takes for each value of the reduction, at most 1.
    """

    a_passes: Floats
    b_passes: Floats
    cycles: Floats
    share: Floats

    @property
    def cycles_per_mac(self) -> Floats:
        """Cycles of an element for each multiply-accumulate, those skipped counted too."""
        return self.a_passes * self.b_passes * self.cycles * self.share


def rates(p: Products, arrays: SystolicArrays) -> Rates | None:
    """Returns the rates of products ``p`` on ``arrays`` of one kind; None where passes alone say it (`plain`)."""
    if plain(p, arrays):
        return None
    kind, pattern = PE_KINDS[int(arrays.pe_kind[0])], _pattern(arrays)
    widths, column = np.unique(arrays.pe_bits, return_inverse=True)
    a_passes, b_passes, cycles, share = _rates(Same(p), kind, pattern, tuple(map(int, widths)))
    return Rates(a_passes=a_passes[:, column], b_passes=b_passes[:, column], cycles=cycles[:, column], share=share)


@lru_cache(maxsize=256)
def _rates(key: Same[Products], kind: PeKind, pattern: Sparsity | None, widths: tuple[int, ...]) -> _Table:
    """Returns the fields of `Rates`, the first three of shape (products, widths), the last of shape (products, 1)."""
    operands, any_prices = _operands(key.value), technology("horowitz_45nm")
    a_passes, b_passes, cycles = (np.ones((len(operands), len(widths))) for _ in range(3))
    share = np.ones((len(operands), 1))
    for row, (a, b, sparsity) in enumerate(operands):
        if _skips(pattern, sparsity):
            assert pattern is not None
            share[row] = pattern.density
        for column, width in enumerate(widths):
            if kind == "bit_parallel":
                a_passes[row, column], b_passes[row, column] = math.ceil(a.bits / width), math.ceil(b.bits / width)
                continue
            taken = mac_cost(any_prices, ProcessingElement(kind=kind, bits=width), a, b).cycles_per_mac
            cycles[row, column] = max(taken, 1.0)
            if column == 0:  # only Bit Fusion takes less than a cycle, and it has one width
                share[row] *= min(taken, 1.0)
    return a_passes, b_passes, cycles, share


def mac_joules(p: Products, arrays: SystolicArrays, dataflow: str, prices: Technology) -> Floats:
    """Returns joules of a multiply-accumulate, registers included, of shape (products, accelerators).

    Which operand moves through registers depends on the dataflow: see `cosearch.hardware.systolic.model`. An element
    that can skip zeros picks its left operands for dense weights too.
    """
    kind, pattern = PE_KINDS[int(arrays.pe_kind[0])], _pattern(arrays)
    widths, column = np.unique(arrays.pe_bits, return_inverse=True)
    return _joules(Same(p), kind, pattern, tuple(map(int, widths)), dataflow, Same(prices))[:, column]


@lru_cache(maxsize=256)
def _joules(
    key: Same[Products],
    kind: PeKind,
    pattern: Sparsity | None,
    widths: tuple[int, ...],
    dataflow: str,
    prices: Same[Technology],
) -> Floats:
    operands = _operands(key.value)
    table = np.empty((len(operands), len(widths)))
    for row, (a, b, sparsity) in enumerate(operands):
        for column, width in enumerate(widths):
            cost = mac_cost(prices.value, ProcessingElement(kind=kind, bits=width), a, b, pattern)
            moving = {
                "os": cost.a_bits_per_mac + cost.b_bits_per_mac,
                "ws": cost.a_bits_per_mac,
                "is": cost.b_bits_per_mac,
            }[dataflow]
            pj = cost.pj + (moving + cost.sum_bits_per_mac) * prices.value.register_pj_per_bit
            if pattern is not None and not _skips(pattern, sparsity):
                pj /= pattern.density
            table[row, column] = 1e-12 * pj
    return table


def _operands(p: Products) -> list[tuple[NumberFormat, NumberFormat, tuple[int, int]]]:
    """Returns formats of left and right operand, and the sparsity of the right one, for each product."""
    formats = p.formats or (PLAIN,) * p.m.shape[0]
    return [
        (format_of(int(p.a_bits[row, 0]), a), format_of(int(p.b_bits[row, 0]), b), sparsity)
        for row, (a, b, sparsity) in enumerate(formats)
    ]


def _skips(pattern: Sparsity | None, weights: tuple[int, int]) -> bool:
    """Returns whether elements that skip zeros by ``pattern`` skip those of ``weights``, (kept, of).

    They do where no group of theirs can hold more values than they keep: 2:8 weights, all kept in one group of 4, are
    2:4 weights, but 4:8 weights are not.
    """
    if pattern is None:
        return False
    kept, of = weights
    if pattern.of % of == 0:
        return kept * (pattern.of // of) <= pattern.kept
    return of % pattern.of == 0 and min(kept, pattern.of) <= pattern.kept


def element_area(arrays: SystolicArrays, prices: Technology) -> tuple[Floats, Floats]:
    """Returns um2 and watts of leakage of one element of each array, both of shape (accelerators,)."""
    kind, pattern = PE_KINDS[int(arrays.pe_kind[0])], _pattern(arrays)
    if kind == "bit_parallel" and pattern is None:
        return (
            each(arrays.pe_bits, lambda bits: prices.mac_um2(int(bits))),
            each(arrays.pe_bits, lambda bits: prices.mac_leak_w(int(bits))),
        )
    return (
        each(arrays.pe_bits, lambda bits: _any_cost(prices, kind, int(bits), pattern).um2),
        each(arrays.pe_bits, lambda bits: _any_cost(prices, kind, int(bits), pattern).leak_w),
    )


def _pattern(arrays: SystolicArrays) -> Sparsity | None:
    name = SPARSITIES[int(arrays.sparsity[0])]
    if name == "dense":
        return None
    kept, of = name.split(":")
    return Sparsity(kept=int(kept), of=int(of))


@lru_cache(maxsize=1024)
def _any_cost(prices: Technology, kind: PeKind, bits: int, pattern: Sparsity | None) -> MacCost:
    """Returns the cost of any two formats that the element multiplies: its area does not depend on them."""
    element = ProcessingElement(kind=kind, bits=bits)
    formats = NUMBER_FORMATS.values()
    a, b = next((a, b) for a in formats for b in formats if supports(element, a, b))
    return mac_cost(prices, element, a, b, pattern)
