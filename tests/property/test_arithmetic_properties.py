"""What must hold of every processing element by every table: fewer bits never cost more."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.formats import NUMBER_FORMATS, NumberFormat, number_format
from cosearch.hardware.arithmetic import (
    PE_KINDS,
    PE_WIDTHS,
    MacCost,
    ProcessingElement,
    Sparsity,
    mac_cost,
    supports,
)
from cosearch.hardware.technology import TECHNOLOGIES, technology

INTEGER_KINDS = ("bit_parallel", "stripes", "loom", "bismo", "bit_fusion")
ELEMENTS = [
    *(ProcessingElement(kind=kind, bits=bits) for kind in PE_KINDS for bits in PE_WIDTHS[kind]),
    *(ProcessingElement(kind="float", bits=bits, accumulator="fixed") for bits in (4, 6, 8)),
    *(
        ProcessingElement(kind=kind, bits=bits, accumulator="fp16")
        for kind in ("float", "l_mul")
        for bits in (4, 8, 16)
    ),
]
tables = st.sampled_from(sorted(TECHNOLOGIES))
supported = st.sampled_from(
    [
        (pe, a, b)
        for pe in ELEMENTS
        for a, x in NUMBER_FORMATS.items()
        for b, y in NUMBER_FORMATS.items()
        if supports(pe, x, y)
    ]
)


def dynamic(cost: MacCost) -> tuple[float, ...]:
    return cost.pj, cost.cycles_per_mac, cost.a_bits_per_mac, cost.b_bits_per_mac, cost.sum_bits_per_mac


@pytest.mark.parametrize("table", TECHNOLOGIES)
@pytest.mark.parametrize("kind", INTEGER_KINDS)
def test_fewer_bits_never_cost_more(kind: str, table: str) -> None:
    tech = technology(table)
    for bits in PE_WIDTHS[kind]:  # type: ignore[index]
        pe = ProcessingElement(kind=kind, bits=bits)  # type: ignore[arg-type]
        costs = {
            (a, b): dynamic(mac_cost(tech, pe, number_format(f"int{a}"), number_format(f"int{b}")))
            for a, b in itertools.product(range(2, 17), repeat=2)
        }
        for a, b in itertools.product(range(2, 16), range(2, 17)):
            # a relative 1e-12: 2 passes of 8 bits and 16 of 1 add up in another order
            assert all(x <= y * (1 + 1e-12) for x, y in zip(costs[a, b], costs[a + 1, b], strict=True)), (a, b)
            assert all(x <= y * (1 + 1e-12) for x, y in zip(costs[b, a], costs[b, a + 1], strict=True)), (b, a)


@pytest.mark.parametrize("table", TECHNOLOGIES)
@pytest.mark.parametrize(
    ("kind", "weights"), [("ternary", ("ternary",)), ("shift", tuple(f"pow2_{bits}" for bits in range(2, 6)))]
)
def test_fewer_bits_never_cost_more_without_a_multiplier(kind: str, weights: tuple[str, ...], table: str) -> None:
    tech = technology(table)
    for bits in PE_WIDTHS[kind]:  # type: ignore[index]
        pe = ProcessingElement(kind=kind, bits=bits)  # type: ignore[arg-type]
        costs = [
            [dynamic(mac_cost(tech, pe, number_format(f"int{a}"), number_format(b))) for a in range(2, 17)]
            for b in weights
        ]
        for row in (*costs, *zip(*costs, strict=True)):
            for less, more in itertools.pairwise(row):
                assert all(x <= y * (1 + 1e-12) for x, y in zip(less, more, strict=True))


def no_wider(x: NumberFormat, y: NumberFormat) -> bool:
    """Whether ``x`` is of the same kind as ``y`` and has none of its fields wider."""
    return (
        x.family == y.family
        and x.is_float == y.is_float
        and x.bits <= y.bits
        and x.exponent_bits <= y.exponent_bits
        and x.mantissa_bits <= y.mantissa_bits
    )


NARROWER = {
    name: sorted(other for other, x in NUMBER_FORMATS.items() if no_wider(x, y)) for name, y in NUMBER_FORMATS.items()
}


@settings(max_examples=600, deadline=None)
@given(supported, tables, st.data())
def test_narrower_formats_never_cost_more(
    case: tuple[ProcessingElement, str, str], table: str, data: st.DataObject
) -> None:
    (pe, a, b), tech = case, technology(table)
    a_narrow, b_narrow = (number_format(data.draw(st.sampled_from(NARROWER[name]))) for name in (a, b))
    assert supports(pe, a_narrow, b_narrow)
    narrow = dynamic(mac_cost(tech, pe, a_narrow, b_narrow))
    wide = dynamic(mac_cost(tech, pe, number_format(a), number_format(b)))
    assert all(less <= more * (1 + 1e-12) for less, more in zip(narrow, wide, strict=True))


@settings(max_examples=300, deadline=None)
@given(supported, tables, st.integers(2, 32), st.data())
def test_keeping_fewer_values_never_costs_more(
    case: tuple[ProcessingElement, str, str], table: str, of: int, data: st.DataObject
) -> None:
    (pe, a, b), tech = case, technology(table)
    kept = data.draw(st.integers(1, of))
    fewer = data.draw(st.integers(1, kept))
    more, less = (
        mac_cost(tech, pe, number_format(a), number_format(b), Sparsity(kept=n, of=of)) for n in (kept, fewer)
    )
    assert less.cycles_per_mac <= more.cycles_per_mac
    if kept < of:  # against dense operands, the multiplexer may cost more than it saves
        assert less.pj <= more.pj
        assert less.um2 == more.um2


@pytest.mark.parametrize("table", TECHNOLOGIES)
def test_wider_elements_are_not_smaller(table: str) -> None:
    tech = technology(table)
    for kind in PE_KINDS:
        areas = []
        for bits in PE_WIDTHS[kind]:
            pe = ProcessingElement(kind=kind, bits=bits)
            pair = next((a, b) for a in NUMBER_FORMATS.values() for b in NUMBER_FORMATS.values() if supports(pe, a, b))
            areas.append(mac_cost(tech, pe, *pair).um2)
        assert areas == sorted(areas), kind
