"""Number formats, kinds of processing element and sparsity, from the workload to the cost."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from cosearch.errors import NotFoundError, SpecError
from cosearch.formats import number_format
from cosearch.hardware import (
    BatchCost,
    GemminiArray,
    SystolicArray,
    SystolicArrays,
    estimate,
    estimate_batch,
    technology,
)
from cosearch.hardware.arithmetic import PE_KINDS, PE_WIDTHS, PeKind, ProcessingElement, Sparsity, mac_cost, supports
from cosearch.hardware.groups import Groups
from cosearch.hardware.systolic.attention import without_scores
from cosearch.hardware.systolic.elements import rates
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, with_formats, workload

TECH = technology("horowitz_45nm")
FORMATS = ("int2", "int3", "int8", "int9", "int16", "ternary", "pow2_4", "fp32", "fp8_e4m3", "mxfp4", "mxint8")


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


@pytest.mark.parametrize("pe_bits", [4, 8])
def test_naming_the_integers_changes_nothing(pe_bits: int) -> None:
    plain, named = vit(), with_formats(vit(), weights="int8", activations="int8")
    for dataflow in ("ws", "os", "is"):
        one, other = (estimate(load, array(dataflow=dataflow, pe_bits=pe_bits), TECH) for load in (plain, named))
        for item in dataclasses.fields(BatchCost):
            assert getattr(other, item.name) == getattr(one, item.name), item.name


def test_outputs_and_scores_are_moved_in_their_formats() -> None:
    block = BlockSpec(heads=2, mlp_hidden=32, keep_tokens=8, weight_bits=8, activation_bits=8)
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    model = ModelSpec(task=task, patch=4, dim=16, blocks=(block,), token_method="prune", edge_bits=8)
    load = with_formats(workload(model), weights="mxint8", activations="mxint8")
    rows = {op.name: op for op in estimate(load, array(pe_kind="mx_integer"), TECH).operators}
    sizes = {tensor.name: tensor.bytes for tensor in load.tensors}
    qkv = ("block0.norm1", "block0.qkv.weight", "block0.qkv")
    assert rows["block0.qkv"].dram_bytes == math.ceil(sum(17 * 16 * n * 8.25 / 8 for n in (1, 3)) + 16 * 48 * 8.25 / 8)
    assert abs(rows["block0.qkv"].dram_bytes - sum(sizes[name] for name in qkv)) <= 2
    # the class token's row of 16 probabilities of each of 2 heads, 33 bits for 4 values; 16-bit scores
    assert rows["block0.score"].dram_bytes == 2 * 16 * 33 // 4 // 8 + 16 * 2


def test_attention_in_a_single_pass_knows_formats_too() -> None:
    load = with_formats(vit(), weights="mxint8", activations="mxint8", sparsity=(2, 4))
    inside, whole = ({tensor.name: tensor for tensor in one.tensors} for one in (without_scores(load), load))
    for name, tensor in whole.items():
        assert (inside[name].format, inside[name].sparsity) == (tensor.format, tensor.sparsity)
    assert inside["block0.qkv"].bytes == whole["block0.qkv"].bytes


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


@pytest.mark.parametrize(
    ("weights", "skips", "times"),
    [
        ((4, 8), "2:4", 1),  # all 4 may stand in one group of 4
        ((2, 8), "2:4", 2),
        ((2, 8), "1:4", 1),
        ((1, 2), "2:4", 2),
        ((1, 8), "1:4", 4),
        ((1, 8), "2:4", 2),  # elements that keep 2 of 4 take the time of 2
        ((1, 3), "2:4", 1),  # no groups of 4
    ],
)
def test_only_patterns_that_fit_are_skipped(weights: tuple[int, int], skips: str, times: int) -> None:
    load = with_formats(product(64, 96, 64), sparsity=weights)
    cost, dense = (estimate(one, array(sparsity=skips), TECH) for one in (load, product(64, 96, 64)))
    assert dense.compute_cycles == 96 * (22 + 64)
    assert cost.compute_cycles == dense.compute_cycles / times
    assert cost.mac_j == pytest.approx(dense.mac_j / times)


def test_sparse_weights_take_as_many_passes_as_dense_ones() -> None:
    for bits in (4, 8, 16):
        dense = product(64, 64, 64, a=bits, b=bits)
        one, other = (estimate(load, array(pe_bits=4), TECH) for load in (dense, with_formats(dense, sparsity=(2, 4))))
        assert one.compute_cycles == other.compute_cycles == 64 * (22 + 64) * (bits // 4) ** 2
        assert other.mac_j == pytest.approx(one.mac_j)


def test_sparse_weights_are_stored_as_they_stand_where_places_take_more() -> None:
    (_, tensor, _) = with_formats(product(4, 64, 32, b=2), sparsity=(4, 8)).tensors
    assert tensor.bytes == 64 * 32 * 2 / 8  # half of them with 3 bits of place would be 2.5 bits a value


def test_folds_go_no_deeper_than_scratchpads_allow() -> None:
    # 6 column folds stream the same 512 x 8 values of the left operand, or 512 x 32 where PEs work on 4 at once;
    # half of the smaller scratchpad, 12 KiB, keeps 512 x 16 of them
    load, fusion = product(512, 128, 48, a=8, b=2), {"pe_kind": "bit_fusion", "mapping": "search"}
    roomy, tight = (estimate(load, array(ifmap_kib=kib, **fusion), TECH) for kib in (128, 24))
    wide = estimate(load, array(ifmap_kib=24, mapping="search"), TECH)
    assert roomy.compute_cycles == 4 * 6 * (22 + 512)
    assert tight.compute_cycles == 8 * 6 * (22 + 512)
    assert wide.compute_cycles == 16 * 6 * (22 + 512)
    assert tight.dram_bytes == wide.dram_bytes


@pytest.mark.parametrize("kind", PE_KINDS)
def test_rates_are_those_of_the_element(kind: PeKind) -> None:
    formats = [number_format(name) for name in FORMATS]
    for width, a, b in itertools.product(PE_WIDTHS[kind], formats, formats):
        element = ProcessingElement(kind=kind, bits=width)
        if not supports(element, a, b):
            continue
        load = with_formats(product(16, 64, 16), weights=b.name, activations=a.name, sparsity=(2, 4))
        arrays = SystolicArrays.of([array(pe_kind=kind, pe_bits=width, sparsity="2:4")])
        rate = rates(Groups.of(load).products, arrays)
        assert rate is not None
        expected = mac_cost(TECH, element, a, b, Sparsity(kept=2, of=4)).cycles_per_mac
        assert float(rate.cycles_per_mac[0, 0]) == expected, (width, a.name, b.name)


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
