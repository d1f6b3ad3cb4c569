"""What the processing elements of an array take for a multiply-accumulate, by number format and sparsity.

Bit-parallel elements take operands wider than themselves in passes over the array (`folding`). Elements of other kinds
take c cycles for a multiply-accumulate (`cosearch.hardware.arithmetic.mac_cost`): with c above 1, bit-serial ones say,
streamed vectors follow each other every c cycles; with c below 1 (Bit Fusion on narrow operands, skipped zeros), an
element works on 1 / c values of the reduction at once, so that a fold covers R / c of them.

Zeros of a pattern are skipped where weights are at least as sparse as the pattern of the array; denser ones run as
dense weights do.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.formats import NUMBER_FORMATS
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
from cosearch.hardware.ledger import each
from cosearch.hardware.systolic.array import SPARSITIES, SystolicArrays
from cosearch.hardware.technology import Technology, technology
from cosearch.workload import OperatorKind, Workload, format_of

__all__ = ["check_formats", "cycles_per_mac", "element_area", "mac_joules", "plain"]

Floats = NDArray[np.float64]


def plain(p: Products, arrays: SystolicArrays) -> bool:
    """Returns whether elements are bit-parallel and skip nothing, and all products multiply dense integers."""
    return int(arrays.pe_kind[0]) == 0 and int(arrays.sparsity[0]) == 0 and not p.formats


def check_formats(workload: Workload, arrays: SystolicArrays) -> None:
    """Checks that the elements of ``arrays``, all of one kind, multiply what ``workload`` has.

    Raises:
        SpecError: they do not; names the operator and the kinds that do.
    """
    kind = PE_KINDS[int(arrays.pe_kind[0])]
    elements = [ProcessingElement(kind=kind, bits=int(bits)) for bits in np.unique(arrays.pe_bits)]
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


def cycles_per_mac(p: Products, arrays: SystolicArrays) -> Floats | None:
    """Returns the cycles of an element for each multiply-accumulate; None where passes say it (`plain`).

    Of shape (products, accelerators).
    """
    if plain(p, arrays):
        return None
    return _table(p, arrays, technology("horowitz_45nm"), lambda cost, _: cost.cycles_per_mac)


def mac_joules(p: Products, arrays: SystolicArrays, dataflow: str, prices: Technology) -> Floats:
    """Returns joules of a multiply-accumulate, registers included, of shape (products, accelerators).

    Which operand moves through registers depends on the dataflow: see `cosearch.hardware.systolic.model`.
    """

    def price(cost: MacCost, _: int) -> float:
        moving = {
            "os": cost.a_bits_per_mac + cost.b_bits_per_mac,
            "ws": cost.a_bits_per_mac,
            "is": cost.b_bits_per_mac,
        }[dataflow]
        return 1e-12 * (cost.pj + (moving + cost.sum_bits_per_mac) * prices.register_pj_per_bit)

    return _table(p, arrays, prices, price)


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


def _table(p: Products, arrays: SystolicArrays, prices: Technology, read: object) -> Floats:
    kind, pattern = PE_KINDS[int(arrays.pe_kind[0])], _pattern(arrays)
    widths, position = np.unique(arrays.pe_bits, return_inverse=True)
    formats = p.formats or (PLAIN,) * p.m.shape[0]
    table = np.empty((p.m.shape[0], widths.size))
    for row, (a_name, b_name, (kept, of)) in enumerate(formats):
        a, b = format_of(int(p.a_bits[row, 0]), a_name), format_of(int(p.b_bits[row, 0]), b_name)
        skipped = pattern if pattern is not None and kept / of <= pattern.density else None
        for column, width in enumerate(widths):
            element = ProcessingElement(kind=kind, bits=int(width))
            table[row, column] = read(mac_cost(prices, element, a, b, skipped), int(width))  # type: ignore[operator]
    return table[:, position]


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
