from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from cosearch_evaluators.analytical import Analytical

from cosearch.errors import EvaluationError, NotFoundError, SpecError
from cosearch.evaluator import BatchEvaluator, Context, LimitingEvaluator
from cosearch.hardware import (
    PIM,
    TEMPLATES,
    BatchCost,
    Fpga,
    FuseMax,
    GemminiArray,
    HeterogeneousASIC,
    Microcontroller,
    Roofline,
    SystolicArray,
    ViTCoD,
    estimate,
    estimate_batch,
    estimate_grid,
    fits,
    scalesim_counts,
    technology,
    trust,
)
from cosearch.hardware.vector import lane_operations
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

ROOT = Path(__file__).parent.parent.parent
TECH = technology("horowitz_45nm")
BASE = {
    "rows": 8,
    "cols": 8,
    "dataflow": "ws",
    "ifmap_kib": 64,
    "filter_kib": 64,
    "ofmap_kib": 64,
    "dram_bytes_per_s": 4e9,
    "clock_hz": 1e9,
}


def make(**changes: object) -> SystolicArray:
    return SystolicArray(**(BASE | changes))


EXAMPLES = {
    "systolic": make(),
    "gemmini": GemminiArray(),
    "fusemax": FuseMax(),
    "heterogeneous": HeterogeneousASIC(),
    "pim": PIM(),
    "vitcod": ViTCoD(),
    "fpga": Fpga(device="zcu102", style="temporal", clock_hz=2e8),
    "microcontroller": Microcontroller(device="stm32h743", clock_hz=480e6),
    "roofline": Roofline(device="h100_sxm"),
}
"""One accelerator of each template."""


def product(m: int, k: int, n: int, *, count: int = 1, a: int = 8, b: int = 8, out: int = 8) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        count=count,
        a_bits=a,
        b_bits=b,
        out_bits=out,
        weights=True,
        inputs=("x", "w"),
        output="p",
    )
    tensors = (
        Tensor(name="x", elements=m * k * count, bits=a),
        Tensor(name="w", elements=k * n * count, bits=b, weight=True),
        Tensor(name="p", elements=m * n * count, bits=out),
    )
    return Workload((op,), tensors)


def vector(kind: OperatorKind, m: int, n: int, count: int = 1) -> Operator:
    return Operator(
        name="v",
        kind=kind,
        m=m,
        k=1,
        n=n,
        count=count,
        a_bits=16,
        b_bits=16,
        out_bits=16,
        inputs=("x",),
        output="v",
    )


def model(bits: int = 8, blocks: int = 2) -> ModelSpec:
    block = BlockSpec(heads=2, mlp_hidden=32, weight_bits=bits, activation_bits=bits)
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    return ModelSpec(task=task, patch=4, dim=16, blocks=(block,) * blocks, edge_bits=bits)


def test_one_product_costs_scalesims_cycles_and_compulsory_traffic() -> None:
    array = make(dram_bytes_per_s=1e12)
    cost = estimate(product(50, 64, 40), array, TECH)
    counts = scalesim_counts(50, 64, 40, array)
    assert cost.compute_cycles == counts.compute_cycles + 1
    assert cost.dram_bytes == 50 * 64 + 64 * 40 + 50 * 40
    assert cost.stall_cycles == cost.vector_cycles == 0
    assert cost.latency_s == cost.cycles / 1e9
    assert cost.utilisation == 50 * 64 * 40 / (64 * cost.cycles)


def test_energy_of_a_product_by_hand() -> None:
    cost = estimate(product(8, 8, 8), make(), TECH)
    pass_pj = 0.3 + (8 + 32) * TECH.register_pj_per_bit
    assert cost.mac_j == pytest.approx(512 * pass_pj * 1e-12)
    # 64 values of 8 bits in each scratchpad, written once and read once
    assert cost.sram_j == pytest.approx(3 * 512 * (TECH.sram.read_pj(64) + TECH.sram.write_pj(64)) * 1e-12)
    assert cost.dram_j == pytest.approx(3 * 512 * TECH.dram_pj_per_bit * 1e-12)
    assert cost.energy_j == pytest.approx(cost.mac_j + cost.sram_j + cost.dram_j + cost.leakage_j)
    assert cost.power_w == pytest.approx(cost.energy_j / cost.latency_s)


@pytest.mark.parametrize(
    ("dataflow", "ifmap", "filters", "ofmap"),
    [
        # 8 x 8 array, 64 x 64 by 64 x 40 values; sweeps of each operand, bits of each output in its scratchpad
        ("os", 5, 8, 8),
        ("ws", 5, 1, 7 * 32 + 8),  # 8 row folds: 7 partial sums of 32 bits, then the output
        ("is", 1, 8, 7 * 32 + 8),
    ],
)
def test_scratchpad_energy_counts_sweeps_and_partial_sums(dataflow: str, ifmap: int, filters: int, ofmap: int) -> None:
    cost = estimate(product(64, 64, 40), make(dataflow=dataflow), TECH)
    reads = 64 * 64 * 8 * ifmap + 64 * 40 * 8 * filters + 64 * 40 * ofmap
    writes = 64 * 64 * 8 + 64 * 40 * 8 + 64 * 40 * ofmap
    expected = reads * TECH.sram.read_pj(64) + writes * TECH.sram.write_pj(64)
    assert cost.sram_j == pytest.approx(expected * 1e-12)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize(
    ("pe", "a", "b", "passes"), [(8, 8, 8, 1), (8, 9, 8, 2), (4, 8, 8, 4), (2, 8, 3, 8), (8, 4, 4, 1)]
)
def test_wide_operands_take_passes(dataflow: str, pe: int, a: int, b: int, passes: int) -> None:
    one = estimate(product(20, 30, 40), make(dataflow=dataflow, pe_bits=8), TECH)
    wide = estimate(product(20, 30, 40, a=a, b=b), make(dataflow=dataflow, pe_bits=pe), TECH)
    assert wide.compute_cycles == passes * one.compute_cycles


def test_heads_repeat_the_product() -> None:
    one, three = (estimate(product(20, 30, 40, count=count), make(), TECH) for count in (1, 3))
    assert three.compute_cycles == 3 * one.compute_cycles
    assert three.dram_bytes == 3 * one.dram_bytes
    assert three.mac_j == pytest.approx(3 * one.mac_j)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_overlap_hides_all_but_the_first_fold(dataflow: str) -> None:
    plain, hidden = (make(dataflow=dataflow, overlap=mode) for mode in ("scalesim", "double_buffered"))
    one_fold = product(8, 8, 8)
    assert estimate(one_fold, plain, TECH).compute_cycles == estimate(one_fold, hidden, TECH).compute_cycles
    # 4 x 3 folds in each dataflow, 100 streamed
    shape = {"os": (32, 100, 24), "ws": (100, 32, 24), "is": (24, 32, 100)}[dataflow]
    first = {"os": 8, "ws": 16, "is": 16}[dataflow] + 8 + 100 - 2
    assert estimate(product(*shape), plain, TECH).compute_cycles == 12 * first
    assert estimate(product(*shape), hidden, TECH).compute_cycles == first + 11 * 100


def test_fewer_tokens_speed_up_overlapped_arrays_more() -> None:
    # qkv of DeiT-Tiny from 197 to 50 tokens on a 32 x 32 array: 2.5 and 3.9 times
    speedup = {}
    for mode in ("scalesim", "double_buffered"):
        array = make(rows=32, cols=32, overlap=mode)
        before, after = (estimate(product(tokens, 192, 576), array, TECH).compute_cycles for tokens in (197, 50))
        speedup[mode] = before / after
    assert speedup["double_buffered"] == pytest.approx(3.9, abs=0.06)
    assert 2.0 < speedup["scalesim"] < 2.6


def test_an_operand_that_does_not_fit_is_fetched_on_every_sweep() -> None:
    # ws: the left operand, 64 x 64 bytes, is swept by 5 column folds; half of 8 KiB is just enough
    load = product(64, 64, 40)
    fits, small = estimate(load, make(ifmap_kib=8), TECH), estimate(load, make(ifmap_kib=7), TECH)
    assert fits.dram_bytes == 4096 + 2560 + 2560
    assert small.dram_bytes == 5 * 4096 + 2560 + 2560
    # os: the right operand's 8 columns serve a whole column of folds
    assert estimate(load, make(dataflow="os", filter_kib=1), TECH).dram_bytes == 4096 + 2560 + 2560
    assert estimate(product(64, 80, 40), make(dataflow="os", filter_kib=1), TECH).dram_bytes == (
        64 * 80 + 8 * 80 * 40 + 2560
    )


def test_partial_sums_that_do_not_fit_go_to_dram_and_back() -> None:
    # ws: 8 row folds accumulate 64 x 8 sums of 32 bits, 2 KiB: half of 4 KiB
    load = product(64, 64, 40)
    fits, small = estimate(load, make(ofmap_kib=4), TECH), estimate(load, make(ofmap_kib=3), TECH)
    assert small.dram_bytes - fits.dram_bytes == 2 * 7 * 64 * 40 * 4
    assert estimate(load, make(dataflow="os", ofmap_kib=3), TECH).dram_bytes == fits.dram_bytes


def test_stalls_are_what_dram_takes_beyond_the_array() -> None:
    cost = estimate(product(50, 64, 40), make(dram_bytes_per_s=1e8), TECH)
    assert cost.cycles == cost.dram_bytes * 10
    assert cost.stall_cycles == cost.cycles - cost.compute_cycles > 0


@pytest.mark.parametrize(
    ("op", "operations"),
    [
        (vector(OperatorKind.SOFTMAX, 5, 7, 3), 11 * 105 + 16 * 15),
        (vector(OperatorKind.LAYERNORM, 5, 7), 7 * 35 + 88 * 5),
        (vector(OperatorKind.GELU, 5, 7), 9 * 35),
        (vector(OperatorKind.ADD, 5, 7), 2 * 35),
        (vector(OperatorKind.SCORE, 1, 7, 3), 3 * 21),
        (vector(OperatorKind.MERGE, 5, 7), 3 * 35 + 16 * 5),
        (vector(OperatorKind.SELECT, 1, 8), 24),  # bitonic network of 8: 24 exchanges (Batcher 1968)
        (vector(OperatorKind.SELECT, 1, 1), 0),
        (vector(OperatorKind.SELECT, 4, 3), 12 + 6),  # maxima of 4 rows, then a network of 4: 6 exchanges
        (product(2, 2, 2).operators[0], 0),
    ],
)
def test_lane_operations_by_hand(op: Operator, operations: int) -> None:
    assert lane_operations(op) == operations


def test_vector_operator_takes_lanes_and_bandwidth() -> None:
    tensors = (Tensor(name="x", elements=35, bits=16), Tensor(name="v", elements=35, bits=16))
    load = Workload((vector(OperatorKind.GELU, 5, 7),), tensors)
    cost = estimate(load, make(vector_lanes=16, dram_bytes_per_s=1e12), TECH)
    assert cost.vector_cycles == math.ceil(9 * 35 / 16)
    assert (cost.compute_cycles, cost.stall_cycles, cost.utilisation) == (0, 0, 0)
    assert cost.dram_bytes == 140
    slow = estimate(load, make(vector_lanes=16, dram_bytes_per_s=1e9), TECH)
    assert slow.cycles == 140


def test_breakdown_adds_up() -> None:
    load = workload(model())
    cost = estimate(load, make(dram_bytes_per_s=1e9), TECH)
    parts = cost.operators
    assert [part.name for part in parts] == [op.name for op in load.operators]
    assert sum(part.macs for part in parts) == load.macs
    for name in ("compute_cycles", "vector_cycles", "stall_cycles", "dram_bytes", "cycles"):
        assert sum(getattr(part, name) for part in parts) == getattr(cost, name)
    assert math.fsum(part.energy_j for part in parts) == pytest.approx(cost.energy_j, rel=1e-12)
    assert all(0 <= part.utilisation <= 1 for part in parts)
    assert cost.technology == "horowitz_45nm"


def test_floating_point_is_refused_with_a_way_out() -> None:
    with pytest.raises(
        SpecError,
        match=r"stem.proj multiplies fp32 by fp32, which pe_kind bit_parallel .* does not; .* quantise the model",
    ):
        estimate(workload(model(bits=32)), make(), TECH)


def test_empty_batch() -> None:
    assert estimate_batch(workload(model()), [], TECH).latency_s.shape == (0,)


def spec(**changes: object) -> AcceleratorSpec:
    return AcceleratorSpec.of("systolic", BASE | changes)


def test_evaluator_keeps_the_contract() -> None:
    evaluator = Analytical("stillmaker_7nm")
    assert isinstance(evaluator, BatchEvaluator)
    assert evaluator.cheap
    assert evaluator.scope == "pair"
    specs = [spec(), spec(rows=16, dataflow="os"), spec(overlap="double_buffered")]
    batch = evaluator.evaluate_batch(model(), specs)
    assert list(batch) == [metric.name for metric in evaluator.metrics]
    for position, accelerator in enumerate(specs):
        alone = evaluator.evaluate(Candidate(model=model(), accelerator=accelerator), Context(seed=0))
        assert {name: values[position] for name, values in batch.items()} == alone
    assert batch["edp_js"].tolist() == (batch["energy_j"] * batch["latency_s"]).tolist()


def test_evaluator_says_why_it_cannot() -> None:
    with pytest.raises(NotFoundError, match="technology 'horowitz' is unknown"):
        Analytical("horowitz")
    with pytest.raises(EvaluationError, match="quantise the model"):
        Analytical().evaluate(Candidate(model=model(bits=32), accelerator=spec()), Context(seed=0))
    with pytest.raises(EvaluationError, match="rows is 0"):
        Analytical().evaluate_batch(model(), [spec(rows=0)])


def test_batch_fields_are_float64_and_mirror_the_single_cost() -> None:
    cost = estimate_batch(workload(model()), [make(), make(rows=4)], TECH)
    for item in dataclasses.fields(BatchCost):
        values = getattr(cost, item.name)
        assert values.dtype == np.float64
        assert values.shape == (2,)


def test_a_grid_has_a_row_for_each_workload() -> None:
    loads = [workload(model(bits)) for bits in (4, 8)]
    arrays = [make(), make(rows=4, mapping="search", overlap="double_buffered"), make(dataflow="os")]
    grid = estimate_grid(loads, arrays, TECH)
    for row, load in enumerate(loads):
        alone = estimate_batch(load, arrays, TECH)
        for item in dataclasses.fields(BatchCost):
            assert getattr(grid, item.name)[row].tolist() == getattr(alone, item.name).tolist()
    assert estimate_grid([], arrays, TECH).latency_s.shape == (0, 3)


def test_templates_do_not_mix_in_a_batch() -> None:
    with pytest.raises(SpecError, match="mix GemminiArray and SystolicArray; give a batch of one template"):
        estimate_batch(workload(model()), [make(), GemminiArray()], TECH)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_template_says_how_far_to_trust_it(name: str) -> None:
    lines = trust(EXAMPLES[name])
    assert lines
    for line in lines:
        for mentioned in re.findall(r"bench/\S+\.md", line):
            assert (ROOT / mentioned).is_file(), mentioned


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_template_answers_through_the_same_door(name: str) -> None:
    """Costs are finite, add up, and are the same alone and in a batch."""
    load, accelerator = workload(model(blocks=1)), EXAMPLES[name]
    assert fits(load, accelerator) == ()
    cost, batch = estimate(load, accelerator, TECH), estimate_batch(load, [accelerator] * 3, TECH)
    assert math.fsum(op.cycles for op in cost.operators) == pytest.approx(cost.cycles)
    assert math.fsum(op.energy_j for op in cost.operators) == pytest.approx(cost.energy_j)
    for item in dataclasses.fields(BatchCost):
        assert getattr(batch, item.name).tolist() == [getattr(cost, item.name)] * 3
        assert math.isfinite(getattr(cost, item.name))


def test_a_model_that_a_device_does_not_hold_is_infeasible_not_failed() -> None:
    small = Microcontroller(device="stm32f746", clock_hz=216e6, sram_reserve_kib=319)
    spec = AcceleratorSpec.of("microcontroller", {"device": "stm32f746", "clock_hz": 216e6, "sram_reserve_kib": 319})
    candidate = Candidate(model=model(), accelerator=spec)
    assert isinstance(Analytical(), LimitingEvaluator)
    broken = Analytical().violations(candidate)
    assert broken == fits(workload(model()), small)
    assert "sram" in broken[0].limit
    assert broken[0].excess > 0
