from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.errors import FileError, SpecError
from cosearch.hardware.zigzag import (
    ARCHITECTURES,
    Axis,
    Memory,
    NoOrderFitsError,
    Port,
    Product,
    architecture_yaml,
    mapping_yaml,
    predict_rows,
    read_architecture,
    zigzag_cost,
)
from cosearch.hardware.zigzag.latency import covered
from cosearch.hardware.zigzag.orders import orders, prime_factors

PUBLISHED = Path(__file__).parent.parent / "published"
FILES = PUBLISHED / "zigzag_arch"
WS16 = ARCHITECTURES["ws16_dbuf"]
EXACT = ("latency_total2_cycles", "ideal_temporal_cycle", "systolic_drain_cycle")
PARTS = ("stall_slack_comb", "data_onloading_cycle", "data_offloading_cycle")


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="") as file:
        return list(csv.DictReader(file))


def product(m: int = 50, k: int = 64, n: int = 48, a: int = 8, w: int = 8, psum: int = 16) -> Product:
    return Product(m=m, k=k, n=n, a_bits=a, w_bits=w, psum_bits=psum)


def row(**changes: str) -> dict[str, str]:
    given = {"M": "50", "K": "64", "N": "48", "w_bits": "8", "a_bits": "8", "psum_bits": "16", "opt": "latency"}
    return {**given, **changes}


@pytest.mark.parametrize(("table", "count"), [("zigzag_3.9.1.csv", 65), ("zigzag_3.9.1_more.csv", 573)])
def test_cycles_and_energy_are_zigzags_on_every_row(table: str, count: int) -> None:
    reference = rows(table)
    assert len(reference) == count
    split_otherwise = 0  # of two orders that tie in latency and energy, another may have been taken
    for found, wanted in zip(predict_rows(reference), reference, strict=True):
        for name in EXACT:
            assert found[name] == float(wanted[name]), (name, wanted)
        split_otherwise += any(found[name] != float(wanted[name]) for name in PARTS)
        assert found["mac_energy_pJ"] == pytest.approx(float(wanted["mac_energy_pJ"]), rel=1e-6, abs=0.01)
        assert found["energy_total_pJ"] == pytest.approx(float(wanted["energy_total_pJ"]), rel=1e-9, abs=0.01)
    assert split_otherwise <= 1


def test_energy_is_zigzags_at_every_memory() -> None:
    for wanted in rows("zigzag_3.9.1.csv"):
        if wanted["arch"] == "ws16_dbuf":
            shape = {name: int(wanted[name.upper()]) for name in ("m", "k", "n")}
            bits = {name: int(wanted[name]) for name in ("a_bits", "w_bits", "psum_bits")}
            cost = zigzag_cost(Product(**shape, **bits), WS16, goal=wanted["opt"], limit=int(wanted["lpf_limit"]))
            levels = [f"{value:.1f}" for operand in ("o", "i", "w") for value in cost.memory_pj[operand]]
            listed = wanted["mem_energy_breakdown_pJ"].translate(str.maketrans("", "", "{}[]'OIW: ")).split(",")
            for found, given_pj in zip(levels, listed, strict=True):
                assert float(found) == pytest.approx(float(given_pj), abs=0.11)


def test_only_the_columns_of_a_product_are_needed() -> None:
    full = next(r for r in rows("zigzag_3.9.1.csv") if r["arch"] == "ws16_dbuf" and r["lpf_limit"] == "6")
    few = {name: full[name] for name in ("M", "K", "N", "w_bits", "a_bits", "psum_bits", "opt")}
    assert predict_rows([few]) == predict_rows([full]) == predict_rows([few], WS16)


def test_a_row_of_an_unknown_architecture_or_that_does_not_fit_gets_no_figures() -> None:
    assert predict_rows([row(arch="eyeriss")]) == [{}]
    assert predict_rows([row(arch="tpu_like_32x32", psum_bits="32")]) == [{}]
    with pytest.raises(NoOrderFitsError, match=r"^memories of tpu_like_32x32 are too small for a 50 x 64 by 64 x 48"):
        zigzag_cost(product(psum=32), ARCHITECTURES["tpu_like_32x32"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"M": "0"}, "rows[1].M is '0', but a count is wanted; write a whole number of at least 1"),
        ({"K": "1.5"}, "rows[1].K is '1.5', but a count is wanted; write a whole number of at least 1"),
        ({"N": "many"}, "rows[1].N is 'many', but a count is wanted; write a whole number of at least 1"),
        ({"opt": "area"}, "rows[1].opt is 'area'; write one of latency, energy, EDP"),
        ({"lpf_limit": "20"}, "lpf_limit is 20; write 1 to 8"),
    ],
)
def test_a_wrong_row_names_itself(changes: dict[str, str], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        predict_rows([row(), row(**changes)])
    assert str(caught.value) == text


def test_a_missing_column_names_itself() -> None:
    lacking = row()
    del lacking["a_bits"]
    with pytest.raises(SpecError, match=r"^rows\[0\]\.a_bits is missing, but a count is wanted"):
        predict_rows([lacking])


shapes = st.builds(
    product,
    m=st.integers(1, 300),
    k=st.integers(1, 300),
    n=st.integers(1, 300),
    a=st.integers(1, 8),
    w=st.integers(1, 8),
    psum=st.integers(8, 32),
)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_each_goal_wins_at_its_own(shape: Product) -> None:
    fast, frugal, both = (zigzag_cost(shape, WS16, goal=goal) for goal in ("latency", "energy", "EDP"))
    assert fast.latency_cycles <= min(frugal.latency_cycles, both.latency_cycles)
    assert frugal.energy_pj <= min(fast.energy_pj, both.energy_pj)
    edp = [cost.latency_cycles * cost.energy_pj for cost in (fast, frugal, both)]
    assert edp[2] <= min(edp)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_no_part_is_negative_and_compute_is_the_folds(shape: Product) -> None:
    cost = zigzag_cost(shape, WS16)
    assert cost.compute_cycles == math.ceil(shape.k / 16) * math.ceil(shape.n / 16) * shape.m
    assert min(cost.stall_cycles, cost.onload_cycles, cost.offload_cycles, cost.drain_cycles) >= 0
    assert all(level >= 0 for levels in cost.memory_pj.values() for level in levels)


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(2, 8))
def test_dearer_memory_never_saves_energy(shape: Product, factor: int) -> None:
    *inner, dram = WS16.memories
    dear = dataclasses.replace(dram, read_pj=factor * dram.read_pj, write_pj=factor * dram.write_pj)
    architecture = dataclasses.replace(WS16, memories=(*inner, dear))
    assert (
        zigzag_cost(shape, architecture, goal="energy").energy_pj >= zigzag_cost(shape, WS16, goal="energy").energy_pj
    )


@given(st.integers(1, 10_000))
def test_prime_factors_multiply_to_the_number(number: int) -> None:
    factors = prime_factors(number)
    assert math.prod(factors) == number
    assert factors == sorted(factors)
    assert all(all(factor % d for d in range(2, math.isqrt(factor) + 1)) for factor in factors)


def test_orders_are_every_order_of_the_factors_once() -> None:
    table = orders({"m": 6, "k": 4, "n": 1})
    found = {
        tuple(zip(loops, np.diff(np.log2(upto)).round(3).tolist(), strict=True))
        for loops, upto in zip(table.loops.tolist(), table.upto, strict=True)
    }
    factors = [(0, 1.0), (0, round(math.log2(3), 3)), (1, 1.0), (1, 1.0)]
    assert found == set(itertools.permutations(factors))
    assert len(found) == len(table.upto) == 12


def test_factors_are_merged_in_the_loop_that_has_most() -> None:
    table = orders({"m": 197, "k": 12, "n": 36}, 6)  # k and n both have more than the limit leaves
    kinds = {
        (loop, int(size)) for loop, size in zip(table.loops[0], table.upto[0, 1:] / table.upto[0, :-1], strict=True)
    }
    assert kinds == {(0, 197), (1, 3), (1, 4), (2, 3), (2, 4)}
    assert table.loops.shape == (360, 6)


periods = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@given(periods, st.lists(st.floats(0, 1), min_size=5, max_size=5), st.integers(1, 3), st.randoms())
def test_covered_cycles_are_those_of_counting(steps, shares, repeats, rng) -> None:
    period = list(itertools.accumulate(steps, lambda a, b: a * b))
    window = [math.floor(share * length) for share, length in zip(shares, period, strict=False)]
    total = period[-1] * repeats
    counted = sum(any(t % p < w for p, w in zip(period, window, strict=True)) for t in range(total))
    shuffled = list(zip(period, window, strict=True))
    rng.shuffle(shuffled)
    columns = np.array(shuffled, dtype=np.float64)
    assert covered(columns[:, :1], columns[:, 1:], np.array([total], dtype=np.float64)) == [counted]


def test_the_shipped_architecture_is_the_published_file() -> None:
    assert read_architecture(FILES / "ws16_dbuf.yaml", FILES / "map_16.yaml") == WS16


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_survives_its_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text(architecture_yaml(ARCHITECTURES[name]))
    (tmp_path / "map.yaml").write_text(mapping_yaml(ARCHITECTURES[name]))
    found = read_architecture(tmp_path / "arch.yaml", tmp_path / "map.yaml")
    assert found == ARCHITECTURES[name]


@pytest.mark.parametrize(
    ("file", "old", "new", "field"),
    [
        ("ws16_dbuf.yaml", "size: 16777216", "size: 0", "memories.sram_2MB.size"),
        ("ws16_dbuf.yaml", "- I1, fh", "- I1, sideways", "memories.sram_2MB.w_port_1"),
        (
            "ws16_dbuf.yaml",
            "    - I2\n    ports:\n    - name: r_port_1",
            "    - I9\n    ports:\n    - name: r",
            "memories",
        ),
        (
            "ws16_dbuf.yaml",
            "bandwidth_min: 64\n      bandwidth_max: 64",
            "bandwidth_min: 64\n      bandwidth_max: 8",
            "bits_min",
        ),
        ("map_16.yaml", "- K, 16", "- OX, 16", "spatial_mapping.D1"),
        ("map_16.yaml", "- C, 16", "- C, 8", "spatial_mapping.D2"),
        ("map_16.yaml", "W: I2", "W: I1", "memory_operand_links"),
        ("map_16.yaml", "name: default", "name: Gemm", ""),
    ],
)
def test_a_file_that_the_model_does_not_know_names_the_field(file, old, new, field, tmp_path: Path) -> None:
    for name in ("ws16_dbuf.yaml", "map_16.yaml"):
        text = (FILES / name).read_text()
        assert name != file or old in text
        (tmp_path / name).write_text(text.replace(old, new) if name == file else text)
    with pytest.raises(FileError) as caught:
        read_architecture(tmp_path / "ws16_dbuf.yaml", tmp_path / "map_16.yaml")
    assert caught.value.field.startswith(field)
    assert caught.value.file.endswith(file)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Axis(name="D1", size=0, loop="n"), "size"),
        (lambda: Port(name="p", bits_min=16, bits_max=8, carries=()), "bits_min"),
        (lambda: Port(name="p", bits_min=0, bits_max=8, carries=()), "bits_min"),
        (lambda: Memory(name="s", bits=0, read_pj=1, write_pj=1, holds=("i",), ports=()), "bits"),
        (lambda: Memory(name="s", bits=1, read_pj=-1, write_pj=1, holds=("i",), ports=()), "read_pj"),
        (lambda: dataclasses.replace(WS16, axes=(WS16.axes[0], WS16.axes[0])), "axes"),
        (lambda: dataclasses.replace(WS16, memories=WS16.memories[:1]), "memories"),
        (lambda: dataclasses.replace(WS16.memories[0], holds=("i",)), "ports"),
        (lambda: product(m=0), "m"),
        (lambda: product(psum=0), "psum_bits"),
    ],
)
def test_what_cannot_exist_names_its_field(make, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field
