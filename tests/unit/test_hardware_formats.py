"""Number formats, kinds of processing element and sparsity, from the workload to the cost."""

from __future__ import annotations

import dataclasses
import math

import pytest

from cosearch.errors import NotFoundError, SpecError
from cosearch.formats import number_format
from cosearch.hardware import BatchCost, GemminiArray, SystolicArray, estimate, estimate_batch, technology
from cosearch.hardware.arithmetic import ProcessingElement, Sparsity, mac_cost
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, with_formats, workload

TECH = technology("horowitz_45nm")


def array(**changes: object) -> SystolicArray:
    base: dict[str, object] = {
        "rows": 8,
        "cols": 8,
        "dataflow": "ws",
        "ifmap_kib": 64,
        "filter_kib": 64,
        "ofmap_kib": 64,
        "dram_bytes_per_s": 1e12,
        "clock_hz": 1e9,
    }
    return SystolicArray(**(base | changes))  # type: ignore[arg-type]


def product(m: int, k: int, n: int, a: int = 8, b: int = 8) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        a_bits=a,
        b_bits=b,
        out_bits=8,
        weights=True,
        inputs=("x", "w"),
        output="p",
    )
    tensors = (
        Tensor(name="x", elements=m * k, bits=a),
        Tensor(name="w", elements=k * n, bits=b, weight=True),
        Tensor(name="p", elements=m * n, bits=8),
    )
    return Workload((op,), tensors)


def vit(bits: int = 8) -> Workload:
    block = BlockSpec(heads=2, mlp_hidden=32, weight_bits=bits, activation_bits=bits)
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    return workload(ModelSpec(task=task, patch=4, dim=16, blocks=(block,) * 2, edge_bits=bits))


def test_formats_count_in_memory() -> None:
    load = with_formats(product(4, 64, 32), weights="mxfp4", activations="fp8_e4m3")
    x, w, _ = load.tensors
    assert x.bytes == 4 * 64
    assert w.bytes == 64 * 32 * 4.25 / 8  # 4 bits, and 8 more for each block of 32
    sparse = with_formats(product(4, 64, 32), sparsity=(2, 4))
    assert sparse.tensors[1].bytes == 64 * 32 * (8 + 2) / 2 / 8  # half of the values, each with 2 bits of place


def test_formats_reach_every_product_of_a_model() -> None:
    load = with_formats(vit(), weights="int4", activations="int8", sparsity=(2, 4))
    for op in load.operators:
        if op.kind is OperatorKind.MATMUL:
            assert op.a_format == "int8"
            assert op.b_format == ("int4" if op.weights else "int8")
            assert op.sparsity == ((2, 4) if op.weights else (1, 1))
    assert load.macs == vit().macs


@pytest.mark.parametrize("sparsity", [(0, 4), (5, 4), (1, 64)])
def test_impossible_sparsity(sparsity: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=r"sparsity is .*; write N:M with N of 1 to M"):
        with_formats(product(1, 1, 1), sparsity=sparsity)


def test_unknown_format() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'mxfp4'"):
        with_formats(product(1, 1, 1), weights="mxfp5")


def test_naming_the_integers_changes_nothing() -> None:
    plain, named = vit(), with_formats(vit(), weights="int8", activations="int8")
    for dataflow in ("ws", "os", "is"):
        one, other = (estimate(load, array(dataflow=dataflow), TECH) for load in (plain, named))
        for item in dataclasses.fields(BatchCost):
            assert getattr(other, item.name) == pytest.approx(getattr(one, item.name), rel=1e-12), item.name


def test_bit_serial_elements_take_a_cycle_a_bit() -> None:
    wide, narrow = (
        estimate(product(64, 64, 64, a=bits), array(pe_kind="stripes", pe_bits=8), TECH).compute_cycles
        for bits in (8, 4)
    )
    # 8 x 8 folds, each 2 * 8 + 8 - 2 cycles beside its 64 vectors of 8 or 4 cycles
    assert wide == 64 * (22 + 64 * 8)
    assert narrow == 64 * (22 + 64 * 4)


def test_fused_bricks_take_narrow_operands_several_at_once() -> None:
    costs = {
        bits: estimate(product(64, 64, 64, a=bits, b=bits), array(pe_kind="bit_fusion"), TECH) for bits in (8, 4, 2)
    }
    folds = {8: 64, 4: 16, 2: 8}  # 8 x 1, 8 x 4 and 8 x 16 values of K a fold: 8, 2 and 1 row folds
    for bits, cost in costs.items():
        assert cost.compute_cycles == folds[bits] * (22 + 64)
    # the array is the same, bricks too: what a multiply-accumulate takes is what mac_cost says
    price = mac_cost(TECH, ProcessingElement(kind="bit_fusion", bits=8), number_format("int4"), number_format("int4"))
    moved = price.a_bits_per_mac + price.sum_bits_per_mac
    assert costs[4].mac_j == pytest.approx(64**3 * 1e-12 * (price.pj + moved * TECH.register_pj_per_bit))
    assert costs[8].area_mm2 == costs[2].area_mm2


def test_arrays_that_skip_zeros_take_half_the_folds() -> None:
    dense, sparse = product(64, 64, 64), with_formats(product(64, 64, 64), sparsity=(2, 4))
    skipping = array(sparsity="2:4")
    assert estimate(dense, skipping, TECH).compute_cycles == estimate(dense, array(), TECH).compute_cycles
    assert estimate(sparse, array(), TECH).compute_cycles == estimate(dense, array(), TECH).compute_cycles
    assert estimate(sparse, skipping, TECH).compute_cycles == 32 * (22 + 64)
    assert estimate(sparse, skipping, TECH).mac_j < 0.6 * estimate(dense, array(), TECH).mac_j
    assert estimate(dense, skipping, TECH).area_mm2 > estimate(dense, array(), TECH).area_mm2
    # 1:4 elements run 2:4 weights as dense ones
    assert estimate(sparse, array(sparsity="1:4"), TECH).compute_cycles == 64 * (22 + 64)
    kept = estimate(sparse, array(), TECH).dram_bytes
    assert kept == 64 * 64 + 64 * 64 * Sparsity(kept=2, of=4).storage_bits_per_value(number_format("int8")) / 8 + 4096


def test_floating_point_runs_on_floating_point_elements() -> None:
    cost = estimate(vit(bits=32), array(pe_kind="float", pe_bits=32), TECH)
    integers = estimate(vit(), array(), TECH)
    assert cost.mac_j > 5 * integers.mac_j
    assert math.isfinite(cost.latency_s)


def test_an_element_that_does_not_multiply_a_format_says_which_do() -> None:
    load = with_formats(vit(), weights="mxint8", activations="mxint8")
    with pytest.raises(
        SpecError,
        match=r"stem.proj multiplies mxint8 by mxint8, which pe_kind bit_parallel with pe_bits 8 does not; choose "
        r"pe_kind mx_integer \(pe_bits 8\)",
    ):
        estimate(load, array(), TECH)
    assert estimate(load, array(pe_kind="mx_integer"), TECH).energy_j > 0


def test_a_width_that_the_kind_lacks() -> None:
    with pytest.raises(SpecError, match="pe_bits is 8, but a loom PE has 1; write one of 1"):
        array(pe_kind="loom")


def test_other_templates_refuse_what_they_do_not_multiply() -> None:
    with pytest.raises(
        SpecError, match=r"multiplies fp8_e4m3 by fp8_e4m3, but .* choose a systolic array with a pe_kind"
    ):
        estimate(with_formats(vit(), weights="fp8_e4m3", activations="fp8_e4m3"), GemminiArray(), TECH)
    with pytest.raises(SpecError, match=r"2 in 4 are kept, but .* skips none; leave the sparsity out"):
        estimate(with_formats(vit(), sparsity=(2, 4)), GemminiArray(), TECH)


def test_kinds_mix_in_a_batch() -> None:
    arrays = [array(), array(pe_kind="stripes"), array(sparsity="2:4"), array(pe_kind="bit_fusion", dataflow="os")]
    load = with_formats(vit(4), sparsity=(2, 4))
    together = estimate_batch(load, arrays, TECH)
    for position, one in enumerate(arrays):
        alone = estimate(load, one, TECH)
        for item in dataclasses.fields(BatchCost):
            assert getattr(together, item.name)[position] == getattr(alone, item.name)
