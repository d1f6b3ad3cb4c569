"""Attention in a single pass, worked out by hand on a small array."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cosearch.hardware import BatchCost, Cost, OperatorCost, SystolicArray, estimate, technology
from cosearch.hardware.attentions import attention_chains
from cosearch.hardware.systolic.attention import without_scores
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import OperatorKind, Workload, workload

TECH = technology("horowitz_45nm")
FAST = 1e15
"""A bandwidth at which nothing waits."""


def vit(
    tokens_per_side: int = 8, *, dim: int = 16, heads: int = 2, blocks: int = 1, method: str = "none", keep: int = 0
) -> Workload:
    first = BlockSpec(
        heads=heads, mlp_hidden=32, weight_bits=8, activation_bits=8, keep_tokens=keep if method != "none" else None
    )
    rest = dataclasses.replace(first, keep_tokens=None)
    side = 4 * tokens_per_side
    task = TaskShape(image=(side, side), channels=1, classes=10)
    return workload(
        ModelSpec(
            task=task,
            patch=4,
            dim=dim,
            blocks=(first, *(rest,) * (blocks - 1)),
            token_method=method,
            edge_bits=8,
        )
    )


def array(**changes: object) -> SystolicArray:
    base: dict[str, object] = {
        "rows": 8,
        "cols": 8,
        "dataflow": "ws",
        "ifmap_kib": 64,
        "filter_kib": 64,
        "ofmap_kib": 64,
        "dram_bytes_per_s": FAST,
        "clock_hz": 1e9,
        "attention": "fused",
    }
    return SystolicArray(**(base | changes))  # type: ignore[arg-type]


def part(cost: Cost, name: str) -> OperatorCost:
    return next(op for op in cost.operators if op.name == name)


def apart(load: Workload, one: SystolicArray) -> Cost:
    return estimate(load, dataclasses.replace(one, attention="unfused"), TECH)


def test_the_operators_of_an_attention_are_found() -> None:
    load = vit(blocks=3, method="merge", keep=60)
    names = [op.name for op in load.operators]
    found = attention_chains(load)
    assert len(found) == 3
    for block, one in enumerate(found):
        assert names[one.scores] == f"block{block}.scores"
        assert names[one.context] == f"block{block}.context"
        inner = ["softmax"] if block == 0 else ["bias", "softmax"]  # proportional attention after the first merge
        assert [names[position] for position in one.between] == [f"block{block}.{name}" for name in inner]


def test_tensors_inside_are_empty_for_the_planner() -> None:
    load = vit(method="prune", keep=20, blocks=2)
    inside = {tensor.name: tensor.elements for tensor in without_scores(load).tensors}
    assert inside["block0.scores"] == inside["block1.scores"] == inside["block1.softmax"] == 0
    assert inside["block0.softmax"] == 2 * 64  # the class token's row of each head, by which tokens are pruned


def test_whole_rows_stay_on_the_chip() -> None:
    # 65 tokens, 2 heads of 8: rows of 65 scores and 8 outputs, 112 of them in half of 64 KiB: one tile of 65 rows
    load = vit()
    cost, separate = estimate(load, array(), TECH), apart(load, array())
    assert part(cost, "block0.scores").dram_bytes == 2 * 65 * 16  # queries and keys of both heads, 8 bits
    assert part(cost, "block0.softmax").dram_bytes == 0
    assert part(cost, "block0.context").dram_bytes == 2 * 65 * 16  # values in, context out
    # separate operators move the scores (16 bits) twice and the softmax (8 bits) twice
    assert separate.dram_bytes - cost.dram_bytes == 2 * 65 * 65 * (2 + 2 + 1 + 1)
    # one tile: the array takes what it takes anyway
    for name in ("block0.scores", "block0.context"):
        assert part(cost, name).compute_cycles == part(separate, name).compute_cycles
    assert cost.vector_j == separate.vector_j  # whole rows need no corrections


def test_the_vector_unit_works_beside_the_array() -> None:
    load = vit()
    for lanes in (1, 64, 4096):
        one = array(vector_lanes=lanes)
        cost, separate = estimate(load, one, TECH), apart(load, one)
        products = sum(part(cost, f"block0.{name}").cycles for name in ("scores", "context"))
        lanes_take = part(separate, "block0.softmax").vector_cycles
        assert part(cost, "block0.softmax").vector_cycles == max(lanes_take - products, 0)


def test_rows_that_do_not_fit_are_normalised_as_keys_come() -> None:
    # half of 1 KiB holds 128 sums: no row of 65 + 8 with the 8 rows that os needs, but 8 rows of 8 scores + 8 outputs
    load, one = vit(), array(dataflow="os", ofmap_kib=1)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    tiles = 9  # of 8 rows, for 65 tokens; keys in 9 tiles of 8 columns
    # keys and values of one head, 2 x 65 x 8 bytes, fit in half of 64 KiB: fetched once
    assert part(cost, "block0.scores").dram_bytes == 2 * 65 * 16
    # each tile of keys after the first corrects 8 outputs and 2 statistics of each row
    corrections = 2 * 65 * (9 - 1) * (8 + 2)
    lane_j = 1e-12 * TECH.mac_pj(16, 16)
    assert cost.vector_j - separate.vector_j == pytest.approx(corrections * lane_j)
    # a filter scratchpad too small for a head's keys and values fetches them for each tile of rows
    small = estimate(load, dataclasses.replace(one, filter_kib=2), TECH)
    assert part(small, "block0.scores").dram_bytes == 65 * 16 + tiles * 65 * 16


def test_tiles_cut_the_streamed_queries_of_a_weight_stationary_array() -> None:
    # half of 5 KiB holds 640 sums: 8 rows of 65 + 8, so 9 tiles, each the 8 rows that the next fold takes to load
    load = vit()
    for overlap, extra in (("double_buffered", 9 * 8 - 65), ("scalesim", 8 * (2 * 8 + 8 - 2))):
        one = array(ofmap_kib=5, overlap=overlap)
        cost, separate = estimate(load, one, TECH), apart(load, one)
        folds = 2 * 9  # two heads, keys in 9 columns of folds, one row of folds
        assert part(cost, "block0.scores").compute_cycles == (
            part(separate, "block0.scores").compute_cycles + folds * extra
        )


def test_tiles_are_multiples_of_the_array_that_holds_the_queries() -> None:
    # 256 sums in half of 2 KiB: 10 rows of 8 scores and 16 outputs, of which os and is take 8: 9 tiles, not 7
    load = vit(dim=32)
    for dataflow in ("os", "is"):
        cost = estimate(load, array(dataflow=dataflow, ofmap_kib=2, filter_kib=2), TECH)
        assert part(cost, "block0.scores").dram_bytes == 65 * 32 + 9 * 65 * 32


@pytest.mark.parametrize(
    ("overlap", "piece"),
    [
        ("scalesim", 8 * (8 + 8 - 2)),  # the array is filled and drained for each piece of keys
        ("double_buffered", 9 * 8 - 65),  # each piece is as long as a fold takes to shift out
    ],
)
def test_keys_stream_in_pieces_past_outputs(overlap: str, piece: int) -> None:
    load, one = vit(), array(dataflow="os", ofmap_kib=1, overlap=overlap)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    # 2 heads, 9 folds of rows, one of columns; scores stream the values of a head, which nothing cuts
    added = 2 * 9 * piece
    assert part(cost, "block0.context").compute_cycles == part(separate, "block0.context").compute_cycles + added
    assert part(cost, "block0.scores").compute_cycles == part(separate, "block0.scores").compute_cycles


def test_keys_stream_in_pieces_past_inputs() -> None:
    # 128 sums: 8 columns of queries with 8 keys and 8 outputs each; keys in 9 pieces, in 9 folds of 8 rows either way
    load, one = vit(), array(dataflow="is", ofmap_kib=1)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    added = 2 * 9 * 8 * (2 * 8 + 8 - 2)
    assert part(cost, "block0.scores").compute_cycles == part(separate, "block0.scores").compute_cycles + added
    assert part(cost, "block0.context").compute_cycles == part(separate, "block0.context").compute_cycles


def test_a_tile_of_keys_does_not_share_a_fold_with_the_next() -> None:
    # 256 sums: 21 rows of 4 scores and 8 outputs, 4 tiles of up to 17; beside 17 x 8 outputs no more than 4 scores a
    # row. Keys in 17 tiles of 4, each in 4 of the 16 rows
    load = vit()
    one = array(rows=16, cols=4, ofmap_kib=2, filter_kib=1, overlap="scalesim")
    cost, separate = estimate(load, one, TECH), apart(load, one)
    assert part(cost, "block0.scores").dram_bytes == 65 * 16 + 4 * 65 * 16
    folds, fill = 2 * 2, 2 * 16 + 4 - 2
    added = folds * ((17 - 5) * (65 + fill) + 17 * (4 - 1) * fill)
    assert part(cost, "block0.context").compute_cycles == part(separate, "block0.context").compute_cycles + added


def test_keys_come_in_the_widest_tiles_that_fit() -> None:
    # half of the ifmap scratchpad holds 16 queries of 32 values: 5 tiles of 16 rows. Half of 8 KiB holds 64 sums for
    # each row, 32 of them outputs: keys in tiles of 32, 32 and 1, corrected twice
    load, one = vit(dim=32, heads=1), array(dataflow="os", rows=16, ifmap_kib=1, ofmap_kib=8)
    corrected = estimate(load, one, TECH).vector_j - apart(load, one).vector_j
    assert corrected == pytest.approx(65 * 2 * (32 + 2) * 1e-12 * TECH.mac_pj(16, 16))


def test_scratchpads_of_a_single_pass_by_hand() -> None:
    # 640 sums in half of 5 KiB: 8 whole rows of 65 + 8, so 9 tiles; no sums of separate operators go to memory
    load, one = vit(), array(ofmap_kib=5)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    softmax, keys_and_values = 2 * 65 * 65 * 8, 2 * 2 * 65 * 8 * 8
    # softmax is not brought into the ifmap scratchpad; keys and values are loaded into the array for each tile
    added = 8 * keys_and_values * TECH.sram.read_pj(64) - softmax * TECH.sram.write_pj(64)
    assert cost.sram_j - separate.sram_j == pytest.approx(added * 1e-12)


def test_corrections_read_and_write_the_ofmap_scratchpad() -> None:
    load, one = vit(), array(dataflow="os", ofmap_kib=1)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    corrections, softmax = 2 * 65 * (9 - 1) * (8 + 2), 2 * 65 * 65 * 8
    added = 32 * corrections * (TECH.sram.read_pj(1) + TECH.sram.write_pj(1)) - softmax * TECH.sram.write_pj(64)
    assert cost.sram_j - separate.sram_j == pytest.approx(added * 1e-12)


def test_a_weight_stationary_array_falls_back_rather_than_stream_few_queries() -> None:
    # half of 3 KiB holds 24 rows of 8 scores and 8 outputs: enough for 16 rows of elements, too few for 32
    load = vit()
    for rows, fused in ((16, True), (32, False)):
        one = array(rows=rows, ofmap_kib=3)
        assert (estimate(load, one, TECH).dram_bytes < apart(load, one).dram_bytes) == fused


def test_an_array_falls_back_where_no_tile_fits() -> None:
    # os needs 32 rows at once: 32 x (32 + 8) sums are more than half of 8 KiB holds
    load, one = vit(), array(dataflow="os", rows=32, cols=32, ofmap_kib=8)
    cost, separate = estimate(load, one, TECH), apart(load, one)
    for item in dataclasses.fields(BatchCost):
        assert getattr(cost, item.name) == getattr(separate, item.name)


def test_the_row_by_which_tokens_are_pruned_leaves_the_chip() -> None:
    cost = estimate(vit(method="prune", keep=20, blocks=2), array(), TECH)
    assert part(cost, "block0.softmax").dram_bytes == 2 * 64
    assert part(cost, "block1.softmax").dram_bytes == 0


def test_the_bias_of_proportional_attention_stays_inside() -> None:
    load = vit(method="merge", keep=60, blocks=2)
    cost, separate = estimate(load, array(), TECH), apart(load, array())
    assert part(separate, "block1.bias").dram_bytes > 0
    assert part(cost, "block1.bias").dram_bytes == part(cost, "block1.bias").cycles == 0
    assert cost.vector_j == separate.vector_j


def test_queries_and_values_that_are_kept_do_not_come_from_dram() -> None:
    cost = estimate(vit(), array(activation_kib=64), TECH)
    moved = [part(cost, f"block0.{name}").dram_bytes for name in ("scores", "softmax", "context")]
    assert moved == [0, 0, 0]


def test_the_longer_the_sequence_the_more_a_single_pass_saves() -> None:
    """FlashAttention (Dao et al. 2022): traffic without quadratic terms; FLAT (Kao et al. 2023) likewise."""
    ratios = []
    for side in (4, 8, 16, 24):
        load = vit(side, dim=32, heads=2)
        products = [op.name for op in load.operators if op.kind is not OperatorKind.MATMUL or not op.weights]
        one = array(rows=16, cols=16, ofmap_kib=256, filter_kib=256, ifmap_kib=256)
        cost, separate = estimate(load, one, TECH), apart(load, one)
        inner = [name for name in products if name.rpartition(".")[2] in ("scores", "softmax", "context")]
        fused, unfused = (sum(part(c, name).dram_bytes for name in inner) for c in (cost, separate))
        ratios.append(unfused / fused)
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(1 + 6 * 577 * 577 * 2 / (4 * 577 * 32), rel=0.01)


@pytest.mark.parametrize("method", ["none", "prune", "merge"])
@pytest.mark.parametrize("kib", [0, 1, 4, 64])
def test_a_single_pass_never_moves_more(method: str, kib: int) -> None:
    load = vit(method=method, keep=40, blocks=2)
    rng = np.random.default_rng(kib)
    for _ in range(20):
        one = array(
            rows=int(rng.choice([4, 8, 16])),
            cols=int(rng.choice([4, 8, 16])),
            dataflow=str(rng.choice(["ws", "os", "is"])),
            ifmap_kib=int(rng.integers(1, 16)),
            filter_kib=int(rng.integers(1, 16)),
            ofmap_kib=int(rng.integers(1, 16)),
            mapping=str(rng.choice(["folds", "search"])),
            activation_kib=kib,
        )
        assert estimate(load, one, TECH).dram_bytes <= apart(load, one).dram_bytes
