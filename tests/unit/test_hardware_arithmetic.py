"""Processing elements: cycles in closed form, energies against published constants and ratios, and refusals."""

from __future__ import annotations

import math

import pytest

from cosearch.errors import SpecError
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

HOROWITZ = technology("horowitz_45nm")
ALL = [ProcessingElement(kind=kind, bits=bits) for kind in PE_KINDS for bits in PE_WIDTHS[kind]]


def cost(kind: str, bits: int, a: str, b: str | None = None, **more: object) -> MacCost:
    accumulator = more.pop("accumulator", "fp32")
    pe = ProcessingElement(kind=kind, bits=bits, accumulator=accumulator)  # type: ignore[arg-type]
    return mac_cost(HOROWITZ, pe, number_format(a), number_format(b or a), **more)  # type: ignore[arg-type]


def widths(bits: int) -> NumberFormat:
    return number_format(f"int{bits}")


@pytest.mark.parametrize("table", TECHNOLOGIES)
def test_bit_parallel_is_what_the_systolic_array_charges(table: str) -> None:
    tech = technology(table)
    for pe_bits in (2, 4, 8, 16):
        pe = ProcessingElement(bits=pe_bits)
        for a in range(2, 17):
            for b in range(2, 17):
                got = mac_cost(tech, pe, widths(a), widths(b))
                passes = math.ceil(a / pe_bits) * math.ceil(b / pe_bits)
                assert got.pj == passes * tech.mac_pj(min(a, pe_bits), min(b, pe_bits))
                assert got.cycles_per_mac == passes
                assert got.um2 == tech.mac_um2(pe_bits)
                assert got.leak_w == tech.mac_leak_w(pe_bits)


def test_serial_elements_take_a_cycle_for_each_bit() -> None:
    for a in (2, 3, 8, 16):
        for b in (2, 5, 8, 16):
            names = f"int{a}", f"int{b}"
            assert cost("stripes", 8, *names).cycles_per_mac == a * math.ceil(b / 8)
            assert cost("loom", 1, *names).cycles_per_mac == a * b
            assert cost("bismo", 1, *names).cycles_per_mac == a * b


def test_bit_fusion_has_the_papers_throughput() -> None:
    # Sharma et al. 2018, section III: products a cycle of one fusion unit
    for (a, b), products in {(2, 2): 16, (2, 4): 8, (4, 4): 4, (8, 2): 4, (8, 4): 2, (8, 8): 1}.items():
        assert cost("bit_fusion", 8, f"int{a}", f"int{b}").cycles_per_mac == 1 / products
    assert cost("bit_fusion", 8, "int3", "int5").cycles_per_mac == cost("bit_fusion", 8, "int4", "int8").cycles_per_mac
    assert cost("bit_fusion", 8, "int16").cycles_per_mac == 4


def test_bit_fusion_against_its_authors_synthesis() -> None:
    fused, fixed = cost("bit_fusion", 8, "int8"), cost("bit_parallel", 8, "int8")
    assert fused.pj / fixed.pj == pytest.approx(1.881, abs=1e-3)
    assert fused.um2 / fixed.um2 == pytest.approx(2.521, abs=1e-3)


def test_floats_are_horowitzs() -> None:
    # ISSCC 2014, figure 1.1.9: multiply 3.7 and add 0.9 pJ of 32 bits; 1.1 and 0.4 of 16
    assert cost("float", 32, "fp32").pj == pytest.approx(3.7 + 0.9)
    assert cost("float", 16, "fp16", accumulator="fp16").pj == pytest.approx(1.1 + 0.4)
    assert cost("float", 16, "fp16").pj == pytest.approx(1.1 + 0.9)


def test_an_exact_accumulator_is_as_wide_as_the_products_reach() -> None:
    # E2M1 holds multiples of 1/2 up to 6, so products are multiples of 1/4 up to 36: 8 bits and a sign
    assert cost("float", 4, "fp4_e2m1", accumulator="fixed").sum_bits_per_mac == 8 + 1 + 12
    assert cost("mx_float", 4, "mxfp4").sum_bits_per_mac == 8 + 1 + 5 + 32 / 32
    for name in ("fp8_e4m3", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1"):
        x = number_format(name)
        # Aggarwal et al. 2024 (FPL), after Uguen & de Dinechin 2017, less the carries of the sum
        width = 2 * (2**x.exponent_bits + x.mantissa_bits) - 1
        assert cost("float", 8, name, accumulator="fixed").sum_bits_per_mac == width + 12


def test_floats_cost_more_than_integers_as_published() -> None:
    # van Baalen et al. 2023 (arXiv 2303.17951): FP8 takes 50 to 180 % more than INT8, by the accumulator
    int8 = cost("bit_parallel", 8, "int8").pj
    ratios = [cost("float", 8, "fp8_e4m3", accumulator=how).pj / int8 for how in ("fixed", "fp16", "fp32")]
    assert ratios == sorted(ratios)
    assert 1.3 < ratios[0] < 2.8
    assert 1.5 < ratios[1] < 2.8
    # Chen et al. 2025 (arXiv 2510.25602), section 6: MXINT8 takes 37 % less than MXFP8
    assert cost("mx_integer", 8, "mxint8").pj / cost("mx_float", 8, "mxfp8_e4m3").pj == pytest.approx(0.63, abs=0.05)


def test_mx_amortises_its_scales() -> None:
    inside = (
        cost("float", 4, "fp4_e2m1", accumulator="fixed").pj - 7 * HOROWITZ.add_pj / 32
    )  # carries of 5, not 12 bits
    assert cost("mx_float", 4, "mxfp4").pj == pytest.approx(inside + (0.1 * 8 / 32 + 0.9) / 32)
    assert cost("mx_integer", 8, "mxint8").pj < cost("mx_float", 8, "mxfp8_e4m3").pj


def test_ternary_and_shift_are_cheaper_than_multiplying() -> None:
    int8 = cost("bit_parallel", 8, "int8").pj
    assert cost("ternary", 8, "int8", "ternary").pj < cost("bit_parallel", 8, "int8", "ternary").pj < int8
    shifts = [cost("shift", 8, "int8", f"pow2_{bits}").pj for bits in range(2, 6)]
    assert shifts == sorted(shifts)
    assert shifts[-1] < int8
    assert cost("shift", 8, "pow2_4", "int8").pj == cost("shift", 8, "int8", "pow2_4").pj


def test_l_mul_saves_what_its_paper_claims() -> None:
    # Luo & Sun 2024, abstract: 95 % of a multiplication, 80 % of a dot product (binary32 by an integer addition)
    multiply = HOROWITZ.adder_pj(32) / 3.7
    assert 1 - multiply == pytest.approx(0.95, abs=0.03)
    assert 1 - cost("l_mul", 32, "fp32").pj / cost("float", 32, "fp32").pj == pytest.approx(0.80, abs=0.03)


def test_sparsity_halves_the_work_and_stores_where() -> None:
    half = Sparsity(kept=2, of=4)
    assert half.metadata_bits == 2  # Mishra et al. 2021
    assert half.storage_bits_per_value(number_format("int8")) == 0.5 * (8 + 2)
    dense, sparse = cost("bit_parallel", 8, "int8"), cost("bit_parallel", 8, "int8", sparsity=half)
    assert sparse.cycles_per_mac == dense.cycles_per_mac / 2
    assert sparse.pj == pytest.approx((dense.pj + HOROWITZ.shifter_pj(8, 3)) / 2)
    assert sparse.um2 > dense.um2
    assert sparse.leak_w > dense.leak_w
    assert cost("bit_parallel", 8, "int8", sparsity=Sparsity(kept=4, of=4)) == dense
    assert Sparsity(kept=4, of=4).metadata_bits == 0


@pytest.mark.parametrize(
    ("kept", "of", "text"),
    [(0, 4, "kept is 0"), (5, 4, "kept is 5, but a group has 4 values"), (1, 64, "of is 64, but groups have 1 to 32")],
)
def test_patterns_that_cannot_be(kept: int, of: int, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        Sparsity(kept=kept, of=of)


@pytest.mark.parametrize(
    ("pe", "text"),
    [
        ({"kind": "bit_paralel"}, "pe_kind is 'bit_paralel', which is unknown; did you mean 'bit_parallel'"),
        ({"bits": 3}, "pe_bits is 3, but a bit_parallel PE has 2, 4, 8, 16; write one of 2, 4, 8, 16"),
        ({"kind": "loom", "bits": 8}, "pe_bits is 8, but a loom PE has 1; write one of 1"),
        ({"kind": "float", "bits": 32, "accumulator": "fp16"}, "accumulator is 'fp16', .* write one of fp32"),
        ({"kind": "bit_parallel", "accumulator": "fixed"}, "accumulator is 'fixed'"),
        ({"bits": True}, "pe_bits is True"),
    ],
)
def test_elements_that_cannot_be(pe: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        ProcessingElement(**pe)  # type: ignore[arg-type]


def test_refusals_name_what_can() -> None:
    with pytest.raises(
        SpecError,
        match="pe_kind is bit_parallel, which does not multiply fp8_e4m3 by fp8_e4m3; choose"
        r" pe_kind float \(pe_bits 8 or 16 or 32\), l_mul",
    ):
        cost("bit_parallel", 8, "fp8_e4m3")
    with pytest.raises(SpecError, match="pe_bits is 8, but a float PE of that width does not multiply fp16 by fp16"):
        cost("float", 8, "fp16")
    with pytest.raises(SpecError, match="give both operands formats of one family"):
        cost("bit_parallel", 8, "int8", "mxfp4")


@pytest.mark.parametrize("pe", ALL, ids=lambda pe: f"{pe.kind}-{pe.bits}")
def test_what_is_supported_has_a_price_and_the_rest_a_reason(pe: ProcessingElement) -> None:
    able = 0
    for a in NUMBER_FORMATS.values():
        for b in NUMBER_FORMATS.values():
            if not supports(pe, a, b):
                continue
            able += 1
            got = mac_cost(HOROWITZ, pe, a, b)
            for value in (got.pj, got.cycles_per_mac, got.a_bits_per_mac, got.b_bits_per_mac, got.sum_bits_per_mac):
                assert value > 0
                assert math.isfinite(value)
            assert got.um2 > 0
            assert got.leak_w > 0
    assert able > 0
    foreign = number_format("fp32" if pe.kind in ("bit_parallel", "shift") else "pow2_3")
    with pytest.raises(SpecError, match="does not multiply"):
        mac_cost(HOROWITZ, pe, foreign, foreign)


def test_every_format_has_an_element() -> None:
    for name, x in NUMBER_FORMATS.items():
        partner = number_format("int8") if x.family == "power_of_two" else x
        assert any(supports(pe, partner, x) for pe in ALL), name


def test_costs_are_tabulated() -> None:
    pe = ProcessingElement()
    first = mac_cost(HOROWITZ, pe, widths(5), widths(7))
    assert mac_cost(technology("horowitz_45nm"), ProcessingElement(), widths(5), widths(7)) is first
