"""The workload of small models, counted by hand."""

from __future__ import annotations

import pytest

from cosearch.errors import SpecError
from cosearch.spec import TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.workload import RESIDUAL_BITS, Operator, OperatorKind, Workload, with_formats, workload

TASK = TaskShape(image=(8, 8), channels=3, classes=5, labels=2)


def make(method: str = "none", keep: int | None = None, bits: int = 4, **more: int) -> Workload:
    block = BlockSpec(heads=2, mlp_hidden=20, keep_tokens=keep, weight_bits=bits, activation_bits=2 * bits)
    fields = {"edge_bits": 8, **more}
    return workload(ModelSpec(task=TASK, patch=2, dim=12, blocks=(block,), token_method=method, **fields))


def named(load: Workload, name: str) -> Operator:
    return next(op for op in load.operators if op.name == name)


def shape(op: Operator) -> tuple[int, int, int, int]:
    return (op.m, op.k, op.n, op.count)


def test_a_plain_block_operator_by_operator() -> None:
    load = make()
    assert [(op.name, shape(op)) for op in load.operators] == [
        ("stem.proj", (16, 12, 12, 1)),
        ("embed", (17, 1, 12, 1)),
        ("block0.norm1", (17, 1, 12, 1)),
        ("block0.qkv", (17, 12, 36, 1)),
        ("block0.scores", (17, 6, 17, 2)),
        ("block0.softmax", (17, 1, 17, 2)),
        ("block0.context", (17, 17, 6, 2)),
        ("block0.proj", (17, 12, 12, 1)),
        ("block0.add1", (17, 1, 12, 1)),
        ("block0.norm2", (17, 1, 12, 1)),
        ("block0.fc1", (17, 12, 20, 1)),
        ("block0.gelu", (17, 1, 20, 1)),
        ("block0.fc2", (17, 20, 12, 1)),
        ("block0.add2", (17, 1, 12, 1)),
        ("norm", (1, 1, 12, 1)),
        ("head", (1, 12, 10, 1)),
    ]
    attention = 17 * 12 * 36 + 2 * 17 * 6 * 17 * 2 + 17 * 12 * 12
    assert load.macs == 16 * 12 * 12 + attention + 2 * 17 * 12 * 20 + 120
    assert load.weight_count == 144 + 432 + 144 + 240 + 240 + 120
    assert load.weight_bytes == 144 + 120 + (432 + 144 + 240 + 240) // 2


def test_widths_of_operands() -> None:
    load = make(bits=4)
    for name in ("block0.qkv", "block0.proj", "block0.fc1", "block0.fc2"):
        assert (named(load, name).a_bits, named(load, name).b_bits) == (8, 4), name
        assert named(load, name).weights
    for name in ("block0.scores", "block0.context"):
        assert (named(load, name).a_bits, named(load, name).b_bits) == (8, 8), name
        assert not named(load, name).weights
    for name in ("stem.proj", "head"):
        assert (named(load, name).a_bits, named(load, name).b_bits) == (8, 8), name
    assert named(load, "block0.add1").out_bits == RESIDUAL_BITS
    assert named(load, "block0.scores").out_bits == RESIDUAL_BITS
    assert named(load, "block0.softmax").out_bits == 8
    assert named(load, "head").out_bits == 32


def test_what_an_operator_reads_has_the_width_at_which_it_is_read() -> None:
    loads = [make(), make("prune", 5), make("merge", 9, stem_hidden=7)]
    loads += [with_formats(load, weights="mxfp4", activations="fp16") for load in loads]
    for load in loads:
        width = {tensor.name: tensor.bits for tensor in load.tensors}
        for op in load.operators:
            assert width[op.inputs[0]] == op.a_bits, op.name
            assert width[op.inputs[-1]] == op.b_bits or op.kind is not OperatorKind.MATMUL, op.name
            assert width[op.output] == op.out_bits, op.name


def test_a_floating_point_model_streams_floating_point() -> None:
    block = BlockSpec(heads=2, mlp_hidden=20)
    load = workload(ModelSpec(task=TASK, patch=2, dim=12, blocks=(block,)))
    assert {tensor.bits for tensor in load.tensors} == {32}


@pytest.mark.parametrize(("overlap", "stem_hidden", "macs"), [(1, 0, 16 * 48 * 12), (1, 7, 16 * 48 * 7 + 16 * 7 * 12)])
def test_stems(overlap: int, stem_hidden: int, macs: int) -> None:
    load = make(overlap=overlap, stem_hidden=stem_hidden)
    assert sum(op.macs for op in load.operators if op.name.startswith("stem")) == macs


def test_pruning_adds_scores_selection_and_fusion_but_no_product() -> None:
    load = make("prune", 5)
    assert [(op.name, op.kind) for op in load.operators if op.name.split(".")[-1] in ("score", "select", "fuse")] == [
        ("block0.score", OperatorKind.SCORE),
        ("block0.select", OperatorKind.SELECT),
        ("block0.fuse", OperatorKind.MERGE),
    ]
    assert shape(named(load, "block0.score")) == (1, 1, 16, 2)
    assert named(load, "block0.fc1").m == 6
    assert make().macs - load.macs == 2 * 11 * 12 * 20
    assert {t.name: t.elements for t in load.tensors}["block0.fuse"] == 6 * 12


@pytest.mark.parametrize("image", [(8, 8), (6, 6)])
def test_merging_compares_two_alternating_sets(image: tuple[int, int]) -> None:
    tokens = image[0] * image[1] // 4
    block = BlockSpec(heads=2, mlp_hidden=20, keep_tokens=tokens - 2)
    task = TaskShape(image=image, channels=3, classes=5)
    load = workload(ModelSpec(task=task, patch=2, dim=12, blocks=(block,), token_method="merge"))
    sources = len(range(tokens)[::2])
    assert shape(named(load, "block0.similarity")) == (sources, 6, tokens - sources, 1)
    assert shape(named(load, "block0.metric")) == (tokens, 1, 6, 2)
    assert {t.name: t.elements for t in load.tensors}["block0.metric"] == tokens * 6
    assert {t.name: t.elements for t in load.tensors}["block0.merge"] == (tokens - 1) * 12


def test_reduction_reads_what_attention_wrote_and_later_blocks_are_smaller() -> None:
    blocks = tuple(BlockSpec(heads=2, mlp_hidden=20, keep_tokens=keep) for keep in (9, None))
    load = workload(ModelSpec(task=TASK, patch=2, dim=12, blocks=blocks, token_method="prune"))
    assert named(load, "block0.qkv").m == 17
    assert named(load, "block1.qkv").m == 10
    assert "block0.softmax" in named(load, "block0.score").inputs
    assert "block0.add1" in named(load, "block0.fuse").inputs


@pytest.mark.parametrize(("method", "keep"), [(name, None if name == "none" else 9) for name in TOKEN_METHODS])
def test_every_tensor_is_written_before_it_is_read(method: str, keep: int | None) -> None:
    load = make(method, keep)
    known = {"image"} | {tensor.name for tensor in load.tensors if tensor.weight}
    for op in load.operators:
        assert set(op.inputs) <= known, op.name
        known.add(op.output)
    assert known == {tensor.name for tensor in load.tensors}


def test_live_bytes_by_hand() -> None:
    load = make()
    alive = dict(zip((op.name for op in load.operators), load.live_activation_bytes(), strict=True))
    stream, normed = 17 * 12 * 2, 17 * 12
    assert alive["stem.proj"] == 8 * 8 * 3 + 16 * 12 * 2
    assert alive["block0.norm1"] == stream + normed
    assert alive["block0.qkv"] == stream + normed + 3 * normed
    # the queries, keys and values wait until the context is made
    assert alive["block0.softmax"] == stream + 3 * normed + 17 * 17 * 2 * 2 + 17 * 17 * 2
    assert alive["head"] == 12 + 10 * 4
    assert load.peak_activation_bytes == max(alive.values())


def test_odd_bits_are_rounded_up_to_bytes() -> None:
    load = make(bits=3)
    assert {t.name: t.bytes for t in load.tensors}["block0.fc1.weight"] == 12 * 20 * 3 // 8
    assert {t.name: t.bytes for t in load.tensors}["block0.norm1"] == (17 * 12 * 6 + 7) // 8


def test_attention_is_proportional_in_every_block_after_a_merge_and_in_none_before():
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    plain = BlockSpec(heads=2, mlp_hidden=8, weight_bits=8, activation_bits=8)
    merging = BlockSpec(heads=2, mlp_hidden=8, keep_tokens=10, weight_bits=8, activation_bits=8)
    spec = ModelSpec(
        task=task, patch=4, dim=8, blocks=(plain, merging, plain, plain), token_method="merge", edge_bits=8
    )
    operators = {op.name: op for op in workload(spec).operators}
    assert [name for name in operators if name.endswith(".bias")] == ["block2.bias", "block3.bias"]
    assert operators["block2.bias"].elements == 2 * 11 * 11
    assert operators["block2.softmax"].inputs == ("block2.bias",)
    assert operators["block1.softmax"].inputs == ("block1.scores",)


def test_formats_of_weights_leave_activations_and_the_other_way_round() -> None:
    for load in (with_formats(make("prune", 5), weights="mxfp4"), with_formats(make("prune", 5), activations="fp16")):
        tensors = {tensor.name: tensor for tensor in load.tensors}
        for op in load.operators:
            if op.kind is OperatorKind.MATMUL:
                assert op.a_format == tensors[op.inputs[0]].format
                assert op.b_format == tensors[op.inputs[-1]].format
            assert op.out_format == tensors[op.output].format
    both = with_formats(with_formats(make(), weights="mxfp4", sparsity=(2, 4)), activations="fp16")
    fc1 = named(both, "block0.fc1")
    assert (fc1.a_format, fc1.b_format, fc1.sparsity) == ("fp16", "mxfp4", (2, 4))
    assert {t.name: t for t in both.tensors}["block0.fc1.weight"].sparsity == (2, 4)


def test_groups_of_a_pattern_divide_the_reduction() -> None:
    with pytest.raises(
        SpecError,
        match=r"sparsity is 2:8, but stem.proj sums over 12 values, which are no whole groups of 8; choose groups that "
        r"divide 12, or make the layer's input a multiple of 8 wide",
    ):
        with_formats(make(), sparsity=(2, 8))
