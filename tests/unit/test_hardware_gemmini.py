from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cosearch.errors import SpecError
from cosearch.hardware import PE_BITS, BatchCost, technology
from cosearch.hardware.gemmini import (
    GEMMINI_DATAFLOWS,
    GemminiArray,
    GemminiArrays,
    gemmini_cycles,
    gemmini_tiles,
    predict_rows,
)
from cosearch.hardware.gemmini.model import gemmini_ledger
from cosearch.hardware.gemmini.tiling import least_traffic
from cosearch.hardware.gemmini.timing import FIRESIM
from cosearch.hardware.ledger import Ledger, breakdown, total
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

PUBLISHED = Path(__file__).parent.parent / "published"
TECH = technology("horowitz_45nm")
DEFAULT, AUTO = "gemmini_default_cycles_median", "gemmini_auto_cycles_median"

# tiles that the artifact's software printed (dataset.csv, dse.auto_tiling): columns, rows, K, N
CONVOLUTIONS = {
    (4, 256, 256): (2, 2, 256, 256),
    (16, 256, 256): (4, 4, 256, 256),
    (49, 512, 2048): (7, 7, 512, 160),
    (49, 2048, 256): (7, 7, 624, 160),
    (196, 256, 1024): (14, 14, 256, 32),
    (196, 1024, 512): (14, 14, 568, 32),
    (784, 128, 512): (23, 22, 128, 16),
    (784, 512, 256): (23, 22, 240, 16),
    (3136, 64, 64): (23, 22, 64, 16),
    (3136, 256, 128): (23, 22, 240, 16),
    (150544, 64, 2): (23, 22, 64, 2),
}
MATMULS = {
    (128, 64, 128): (80, 1, 64, 96),
    (128, 128, 64): (128, 1, 128, 64),
    (128, 768, 3072): (80, 1, 768, 80),
    (128, 3072, 768): (80, 1, 816, 80),
    (1, 2048, 1000): (1, 1, 896, 128),  # it printed 16 rows, one block: only one of them is there
}


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="") as file:
        return list(csv.DictReader(file))


SHARED, OTHER = rows("gemmini_firesim_gemm.csv"), rows("gemmini_firesim_gemm_held_out.csv")


def errors(table: list[dict[str, str]], column: str = DEFAULT, timing=FIRESIM) -> np.ndarray:
    ours = np.array([getattr(row, column) for row in predict_rows(table, timing=timing)])
    return ours / np.array([float(row[column]) for row in table]) - 1


@pytest.mark.parametrize(("operation", "tiles"), [("convolution", CONVOLUTIONS), ("matmul", MATMULS)])
def test_tiles_are_those_that_gemminis_software_printed(operation, tiles):
    for product, expected in tiles.items():
        found = gemmini_tiles(*product, GemminiArray(), "auto", operation)
        sides = [float(np.ravel(side)[0]) for side in (found.cols, found.rows, found.k, found.n)]
        assert sides == list(expected), product


def test_the_default_mapping_is_judged_on_rows_that_were_not_fitted():
    odd = SHARED[1::2]
    assert len(SHARED) == 11
    assert np.abs(errors(odd)).mean() <= 0.12
    assert np.abs(errors(SHARED)).mean() <= 0.12
    ours = [row.gemmini_default_cycles_median for row in predict_rows(SHARED)]
    assert spearmanr(ours, [float(row[DEFAULT]) for row in SHARED]).statistic >= 0.98


def test_the_default_mapping_holds_on_the_other_file():
    assert len(OTHER) == 11
    assert np.abs(errors(OTHER)).mean() <= 0.12
    assert np.abs(errors([row for row in OTHER if row["M"] != "150544"])).mean() <= 0.12
    ours = [row.gemmini_default_cycles_median for row in predict_rows(SHARED + OTHER)]
    assert spearmanr(ours, [float(row[DEFAULT]) for row in SHARED + OTHER]).statistic >= 0.98


def test_gemminis_own_tiling_is_within_a_quarter():
    for table in (SHARED, OTHER):
        assert np.abs(errors(table, AUTO)).mean() <= 0.25
        ours = [row.gemmini_auto_cycles_median for row in predict_rows(table)]
        assert spearmanr(ours, [float(row[AUTO]) for row in table]).statistic >= 0.93


@pytest.mark.parametrize("name", ["issue_cycles", "start_cycles"])
@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_constants_fit_the_even_rows_better_than_their_neighbours(name, factor):
    def loss(timing) -> float:
        logs = np.log1p(errors(SHARED[::2], timing=timing))
        return float(np.sum(np.sqrt(1 + (logs / 0.1) ** 2) - 1))

    moved = dataclasses.replace(FIRESIM, **{name: factor * getattr(FIRESIM, name)})
    assert loss(moved) > loss(FIRESIM)


def test_predictions_read_text_and_numbers_alike():
    assert predict_rows([{"M": "49", "K": "512", "N": "64"}]) == predict_rows([{"M": 49.0, "K": 512, "N": 64}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"M": 1, "K": 2}, "rows[0].N is missing; give every row M, K and N"),
        ({"M": 0, "K": 2, "N": 3}, "rows[0].M is 0; write a whole number of at least 1"),
        ({"M": 1, "K": "x", "N": 3}, "rows[0].K is 'x'; write a whole number of at least 1"),
    ],
)
def test_a_row_that_is_no_product_is_refused(row, message):
    with pytest.raises(SpecError) as raised:
        predict_rows([row])
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 1}, "dim is 1, but a Gemmini array has 2 to 256 rows; write 2 to 256"),
        ({"dim": 16.0}, "dim is 16.0; write a whole number of rows"),
        ({"dim": True}, "dim is True; write a whole number of rows"),
        (
            {"clock_hz": float("nan")},
            "clock_hz is nan, but a Gemmini array has 1e+06 to 1e+10 Hz; write 1e+06 to 1e+10",
        ),
        ({"dataflow": "is"}, "dataflow is 'is', which a Gemmini array does not have; choose one of ws, os"),
        ({"pe_bits": 3}, "pe_bits is 3, which a Gemmini array does not have; choose one of 2, 4, 8, 16"),
        ({"dma_bits": 100}, "dma_bits is 100, but a bus is whole bytes wide; write a multiple of 8"),
        (
            {"scratchpad_kib": 1},
            "scratchpad_kib is 1, but half of it (512 bytes) must hold one tile of a 16 x 16 array (1024 bytes); "
            "write at least 2, or make dim smaller",
        ),
        (
            {"accumulator_kib": 1},
            "accumulator_kib is 1, but half of it (512 bytes) must hold one tile of a 16 x 16 array (1024 bytes); "
            "write at least 2, or make dim smaller",
        ),
    ],
)
def test_bad_arrays_are_refused(changes, message):
    with pytest.raises(SpecError) as raised:
        GemminiArray(**changes)
    assert str(raised.value) == message


def test_one_bad_array_among_many_is_named():
    arrays = GemminiArrays.of([GemminiArray(), GemminiArray()])
    columns = {item.name: getattr(arrays, item.name) for item in dataclasses.fields(arrays)}
    with pytest.raises(SpecError) as raised:
        GemminiArrays(**(columns | {"scratchpad_kib": np.array([256.0, 1.0])}))
    assert str(raised.value).startswith("accelerators[1].scratchpad_kib is 1, but half of it")
    with pytest.raises(SpecError, match=r"accelerators\[0\].pe_bits is 3"):
        GemminiArrays(**(columns | {"pe_bits": np.array([3.0, 8.0])}))
    with pytest.raises(SpecError, match="dim has shape"):
        GemminiArrays(**(columns | {"dim": np.array([[16.0, 16.0]])}))
    with pytest.raises(SpecError, match="give one value for each accelerator"):
        GemminiArrays(**(columns | {"l2_kib": np.array([512.0])}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 8), "m is 0; write whole numbers from 1 to 2**31 - 1"),
        ((8, 2.5, 8), "k is 2.5; write whole numbers from 1 to 2**31 - 1"),
        ((8, 8, float("nan")), "n is nan; write whole numbers from 1 to 2**31 - 1"),
    ],
)
def test_sides_are_positive_whole_numbers(arguments, message):
    with pytest.raises(SpecError) as raised:
        gemmini_cycles(*arguments, GemminiArray())
    assert str(raised.value) == message


def test_names_are_checked_and_convolutions_are_square():
    with pytest.raises(SpecError, match="mapping is 'best', which is unknown"):
        gemmini_cycles(4, 4, 4, GemminiArray(), "best")
    with pytest.raises(SpecError, match="operation is 'conv', which is unknown"):
        gemmini_cycles(4, 4, 4, GemminiArray(), "auto", "conv")
    with pytest.raises(SpecError, match="m is 128, which is no square number"):
        gemmini_cycles([4, 128], 4, 4, GemminiArray(), "auto", "convolution")


def test_the_execute_queue_alone_by_hand():
    """Four pixels a block wait for the next commands, sixteen do not; an endless bus leaves only the array's cycles."""
    arrays = GemminiArrays.of([GemminiArray(l2_kib=65536, dram_bytes_per_s=1e13, dma_bits=512)])
    timing = dataclasses.replace(FIRESIM, start_cycles=0.0)
    narrow = float(gemmini_cycles(16, 4096, 16, arrays, "default", "convolution", timing)[0])
    wide = float(gemmini_cycles(16, 4096, 16, arrays, "default", "matmul", timing)[0])
    assert narrow > 256 * 4 * FIRESIM.issue_cycles
    assert wide > 256 * 16
    assert wide < narrow  # one block of 16 against four of 4


def test_stores_to_a_shared_line_wait():
    cycles = gemmini_cycles(128 * 128, 64, [[2], [16]], GemminiArray(), "default", "convolution")
    assert cycles[0, 0] > 128 * 128 * FIRESIM.shared_line_cycles * 0.9
    assert cycles[0, 0] > cycles[1, 0]


def test_least_traffic_keeps_weights_that_fit_and_takes_the_largest_tile():
    tiles = least_traffic(56, 56, 64, 64, 16, 131072, 8192)
    assert np.all(tiles[:, 2:] == 64)
    assert np.all(tiles[:, 0] * tiles[:, 1] == 112)  # 112 x 64 sums of 8192; the next divisors give 196
    assert np.all(56 % tiles[:, :2] == 0)


arrays_ = st.builds(
    GemminiArray,
    dim=st.sampled_from((4, 8, 16, 32)),
    dataflow=st.sampled_from(GEMMINI_DATAFLOWS),
    scratchpad_kib=st.integers(16, 512),
    accumulator_kib=st.integers(8, 256),
    dma_bits=st.sampled_from((32, 64, 128, 256)),
    dram_bytes_per_s=st.floats(1e8, 1e11),
    clock_hz=st.floats(1e8, 2e9),
    l2_kib=st.sampled_from((0, 64, 512)),
    pe_bits=st.sampled_from(PE_BITS),
    vector_lanes=st.integers(1, 64),
)
sides = st.integers(1, 700)


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays_, min_size=1, max_size=4), st.lists(st.tuples(sides, sides, sides), min_size=1, max_size=3))
def test_one_product_on_one_array_costs_the_same_in_any_batch(arrays, products):
    m, k, n = (np.array(column)[:, None] for column in zip(*products, strict=True))
    for mapping in ("auto", "default"):
        whole = gemmini_cycles(m, k, n, GemminiArrays.of(arrays), mapping)
        assert whole.shape == (len(products), len(arrays))
        for row, product in enumerate(products):
            for column, array in enumerate(arrays):
                assert float(gemmini_cycles(*product, array, mapping)[0]) == whole[row, column]


@settings(max_examples=80, deadline=None)
@given(arrays_, sides, sides, sides)
def test_tiles_fit_and_cycles_stay_below_no_roofline(array, m, k, n):
    tiles = gemmini_tiles(m, k, n, array)
    i, d, j = (float(np.ravel(side)[0]) for side in (tiles.cols, tiles.k, tiles.n))
    halves = 1 if array.dataflow == "os" else 2
    blocks = [np.ceil(x / array.dim) for x in (i, d, j)]
    element = array.pe_bits / 8
    slices = np.ceil(8 / array.pe_bits)
    spad = (blocks[0] + blocks[2]) * blocks[1] * array.dim**2 * element * slices
    assert spad <= array.scratchpad_kib * 1024 / halves
    assert blocks[0] * blocks[2] * array.dim**2 * 4 <= array.accumulator_kib * 1024 / halves
    assert (i, d, j) <= (m, k, n)
    cycles = float(gemmini_cycles(m, k, n, array)[0])
    assert cycles >= m * k * n * slices**2 / array.dim**2
    assert cycles >= (m * k + k * n + m * n) / (array.dram_bytes_per_s / array.clock_hz)


@settings(max_examples=60, deadline=None)
@given(arrays_, sides, sides, sides, st.sampled_from(("dma_bits", "dram_bytes_per_s")))
def test_a_wider_bus_never_costs_time(array, m, k, n, field):
    wider = dataclasses.replace(array, **{field: getattr(array, field) * 2})
    for mapping in ("auto", "default"):
        assert gemmini_cycles(m, k, n, wider, mapping)[0] <= gemmini_cycles(m, k, n, array, mapping)[0] * (1 + 1e-12)


# ------------------------------------------------------------------------------------------------------------ ledger


def product(m: int, k: int, n: int, *, count: int = 1, a: int = 8, b: int = 8) -> Workload:
    op = Operator(
        name="p", kind=OperatorKind.MATMUL, m=m, k=k, n=n, count=count, a_bits=a, b_bits=b, out_bits=8,
        weights=True, inputs=("x", "w"), output="p",
    )  # fmt: skip
    tensors = (
        Tensor(name="x", elements=m * k * count, bits=a),
        Tensor(name="w", elements=k * n * count, bits=b, weight=True),
        Tensor(name="p", elements=m * n * count, bits=8),
    )
    return Workload((op,), tensors)


def ledger(work: Workload, *arrays: GemminiArray) -> Ledger:
    return gemmini_ledger(work, GemminiArrays.of(arrays), TECH)


def model(bits: int = 8) -> Workload:
    blocks = tuple(BlockSpec(heads=3, mlp_hidden=384, weight_bits=bits, activation_bits=bits) for _ in range(2))
    task = TaskShape(image=(64, 64), channels=3, classes=10)
    return workload(ModelSpec(task=task, patch=8, dim=96, blocks=blocks, edge_bits=bits))


def test_a_product_in_the_ledger_takes_the_cycles_of_the_model():
    found = ledger(product(197, 192, 576, count=3), GemminiArray())
    assert total(found).cycles[0] == pytest.approx(3 * float(gemmini_cycles(197, 192, 576, GemminiArray())[0]))
    assert found.dram_bytes[0, 0] == 3 * (197 * 192 + 192 * 576 + 197 * 576)
    assert found.busy[0, 0] == 3 * 197 * 192 * 576


def test_traffic_on_the_chip_by_hand():
    """One tile: operands are written once; inputs are read for each block of columns, weights once."""
    found = ledger(product(32, 32, 48), GemminiArray(l2_kib=0))
    sram, kib = TECH.sram, GemminiArray()
    a, b, out = 32 * 32 * 8, 32 * 48 * 8, 32 * 48 * 32 * 2
    spad = (a + b) * sram.write_pj(kib.scratchpad_kib) + (3 * a + b) * sram.read_pj(kib.scratchpad_kib)
    sums = out * (sram.read_pj(kib.accumulator_kib) + sram.write_pj(kib.accumulator_kib))
    assert found.sram_j[0, 0] == pytest.approx(1e-12 * (spad + sums))


def test_what_the_l2_cannot_hold_is_fetched_again():
    work = product(1024, 1024, 1024)
    cached, bare = ledger(work, GemminiArray(l2_kib=4096), GemminiArray(l2_kib=0)).dram_bytes[0]
    assert cached == 3 * 1024 * 1024
    assert bare > 2 * cached


def test_many_arrays_cost_what_each_costs_alone():
    arrays = [
        GemminiArray(),
        GemminiArray(dim=32, dataflow="os", l2_kib=0),
        GemminiArray(dim=8, scratchpad_kib=32, accumulator_kib=8, pe_bits=4),
    ]
    work = model()
    together = total(ledger(work, *arrays))
    for place, array in enumerate(arrays):
        alone = total(ledger(work, array))
        for item in dataclasses.fields(BatchCost):
            assert getattr(alone, item.name)[0] == getattr(together, item.name)[place], item.name


@settings(max_examples=40, deadline=None)
@given(arrays_, st.integers(2, 16))
def test_costs_are_finite_and_below_no_roofline(array, bits):
    work = model(bits)
    found = ledger(work, array)
    costs = total(found)
    for item in dataclasses.fields(BatchCost):
        value = getattr(costs, item.name)[0]
        assert np.isfinite(value), item.name
        assert value >= 0, item.name
    assert 0 < costs.utilisation[0] <= 1
    assert np.all(found.stall_cycles >= 0)
    assert costs.latency_s[0] * array.dram_bytes_per_s >= costs.dram_bytes[0] * (1 - 1e-9)
    whole = breakdown(work, found, TECH)
    assert sum(op.energy_j for op in whole.operators) == pytest.approx(whole.energy_j)


def test_floating_point_is_refused():
    with pytest.raises(SpecError, match="a Gemmini array multiplies"):
        ledger(product(8, 8, 8, a=32, b=32), GemminiArray())
