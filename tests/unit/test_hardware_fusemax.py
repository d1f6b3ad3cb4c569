from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.fusemax import ATTENTIONS, FuseMax, fusemax_ledger
from cosearch.hardware.ledger import Items, Ledger, breakdown, total
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

TECH = technology("horowitz_45nm")
ROWS = ("scores", "softmax", "context")
SMALL = {"rows": 4, "cols": 4, "lanes": 4, "buffer_kib": 64, "dram_bytes_per_s": 1e15, "clock_hz": 1e9}


def attention(tokens: int, depth: int, heads: int, bits: int = 16) -> Workload:
    """One attention, without the layers around it."""
    sizes = {"q": tokens * depth, "k": tokens * depth, "v": tokens * depth, "context": tokens * depth}
    sizes |= {"scores": tokens * tokens, "softmax": tokens * tokens}
    tensors = tuple(Tensor(name=name, elements=size * heads, bits=bits) for name, size in sizes.items())

    def op(name: str, kind: OperatorKind, k: int, n: int, inputs: tuple[str, ...]) -> Operator:
        return Operator(
            name=name,
            kind=kind,
            m=tokens,
            k=k,
            n=n,
            count=heads,
            a_bits=bits,
            b_bits=bits,
            out_bits=bits,
            inputs=inputs,
            output=name,
        )

    operators = (
        op("scores", OperatorKind.MATMUL, depth, tokens, ("q", "k")),
        op("softmax", OperatorKind.SOFTMAX, 1, tokens, ("scores",)),
        op("context", OperatorKind.MATMUL, tokens, depth, ("softmax", "v")),
    )
    return Workload(operators, tensors)


def ledger(load: Workload, *items: FuseMax) -> Ledger:
    return fusemax_ledger(load, Items(items), TECH)


def deit(method: str = "none", keep: int | None = None) -> Workload:
    block = BlockSpec(heads=3, mlp_hidden=768, keep_tokens=keep, weight_bits=8, activation_bits=8)
    rest = dataclasses.replace(block, keep_tokens=None)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    return workload(ModelSpec(task=task, patch=16, dim=192, blocks=(block, rest), token_method=method, edge_bits=8))


def row(load: Workload, name: str) -> int:
    return next(i for i, op in enumerate(load.operators) if op.name == name)


def test_defaults_are_the_papers_cloud_configuration() -> None:
    array = FuseMax()
    assert (array.rows, array.cols, array.lanes, array.pe_bits, array.attention) == (256, 256, 256, 16, "fusemax")
    assert array.buffer_kib * 1024 == 16 * 2**20
    assert array.dram_bytes_per_s == 400 * 2**30
    assert array.clock_hz == 940e6


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"rows": 0}, "rows", "rows is 0, but a fused-attention array has 1 to 4096 rows; write 1 to 4096"),
        ({"cols": 8.0}, "cols", "cols is 8.0; write a whole number of columns"),
        ({"lanes": True}, "lanes", "lanes is True"),
        ({"clock_hz": "fast"}, "clock_hz", "write a number of Hz"),
        ({"dram_bytes_per_s": float("nan")}, "dram_bytes_per_s", "nan"),
        ({"pe_bits": 3}, "pe_bits", "choose one of 2, 4, 8, 16"),
        ({"attention": "fused"}, "attention", "choose one of unfused, flat, cascade, architecture, fusemax"),
        ({"buffer_kib": 1}, "buffer_kib", "write at least 4, or make the array smaller"),
    ],
)
def test_bad_fields_say_what_to_write(changes: dict[str, object], field: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        FuseMax(**changes)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert text in str(caught.value)


def test_whole_and_real_clock_are_the_same_array() -> None:
    assert FuseMax(clock_hz=940_000_000) == FuseMax(clock_hz=940e6)


def test_floating_point_operands_are_refused() -> None:
    block = BlockSpec(heads=2, mlp_hidden=16)
    load = workload(ModelSpec(task=TaskShape(image=(16, 16), channels=1, classes=2), patch=4, dim=8, blocks=(block,)))
    with pytest.raises(SpecError, match="fused-attention array"):
        ledger(load, FuseMax())


# 8 tokens of depth 2 are 2 x 2 tiles of 4 x 4; the 1D array takes up queries twice, which makes 4 corrections.
# fill: 4 + 4 - 2 = 6 cycles
BY_HAND = {
    # scores 4 tiles of 4 cycles (a tile leaves over 4 rows) + fill; softmax 4 * 64 / 4; context 4 tiles of 2 + fill
    "unfused": (22, 64, 14),
    # 64 cycles of softmax hide 16 of products
    "flat": (14, 48, 8),
    # softmax 64, corrections 4 * (5 + 2 * 2), division 2 * 2
    "cascade": (14, 104 - 16, 8),
    # max(8 + 4, 4 + 4) + 4 * 4 for the maximum to travel, 4, max(4 * 8, 4 * 8), max(8, 4 * 4); 2D softmax 4 * 9
    "architecture": (14, 80 - 16, 8),
    # max(8 + 4, 4 * 3 + 4), 4, 32, max(8, 8)
    "fusemax": (14, 60 - 16, 8),
}


@pytest.mark.parametrize("mode", ATTENTIONS)
def test_cycles_by_hand(mode: str) -> None:
    costs = ledger(attention(8, 2, 1), FuseMax(**SMALL, attention=mode))  # type: ignore[arg-type]
    cycles = costs.compute_cycles + costs.vector_cycles
    assert tuple(cycles[costs.members, 0]) == BY_HAND[mode]
    in_softmax = {"architecture": 4 * 9, "fusemax": 4 * 9}.get(mode, 0)
    assert costs.compute_cycles[costs.members[1], 0] == in_softmax
    assert total(costs).utilisation[0] == pytest.approx(
        (8 * 8 * (2 + 2) + (8 * 8 * 9 if in_softmax else 0)) / (16 * sum(BY_HAND[mode]))
    )


def test_heads_follow_each_other_and_the_array_fills_once() -> None:
    one, three = (total(ledger(attention(8, 2, heads), FuseMax(**SMALL))).cycles[0] for heads in (1, 3))
    assert three - 6 == 3 * (one - 6)


def test_narrow_multipliers_take_passes_for_products_and_exponentials() -> None:
    load = attention(8, 2, 1)
    wide, narrow = (ledger(load, FuseMax(**SMALL, pe_bits=bits)) for bits in (16, 8))  # type: ignore[arg-type]
    assert narrow.compute_cycles[narrow.members[2], 0] == 4 * wide.compute_cycles[wide.members[2], 0]
    assert narrow.compute_cycles[narrow.members[1], 0] == 4 * (1 + 6 * 4 + 2)


def test_a_bias_runs_where_the_maximum_is_taken() -> None:
    load = deit("merge", 150)
    costs = ledger(load, FuseMax(), FuseMax(attention="flat"))
    bias = costs.members[row(load, "block1.bias")]
    assert costs.compute_cycles[bias, 0] == 3 * 2  # three heads of one tile: a multiplication and an addition
    assert np.all(costs.dram_bytes[bias] == 0)
    soft = [costs.members[row(load, f"block{i}.softmax")] for i in (0, 1)]
    plain, biased = (costs.vector_cycles[position, 1] for position in soft)
    tokens = 197, 151
    assert plain == 3 * 4 * tokens[0] - 2 * 3 * 64
    assert biased == 3 * 6 * tokens[1] - 2 * 3 * 64


@pytest.mark.parametrize(
    ("mode", "kib", "latency_s", "util_2d"),
    [
        # github.com/FPSG-UIUC/micro24-fusemax-artifact, outputs/pregenerated/results/attn-*.csv: BERT, 1K, batch of 64
        ("unfused", 32768, 0.02182357659574468, 0.0766721058359586),
        ("flat", 32768, 0.013386076595744683, 0.125),
        ("cascade", 16384, 0.015333855319148937, 0.10912190963341858),
        ("architecture", 16384, 0.005987131914893616, 0.2991266375545852),
        ("fusemax", 16384, 0.002013140425531915, 0.8896103896103895),
    ],
)
def test_latency_and_utilisation_agree_with_the_artifact(mode: str, kib: int, latency_s: float, util_2d: float) -> None:
    array = FuseMax(attention=mode, buffer_kib=kib)  # type: ignore[arg-type]
    cost = total(ledger(attention(1024, 64, 64 * 12), array))
    assert cost.latency_s[0] == pytest.approx(latency_s, rel=1e-3)  # the artifact does not fill the array
    assert cost.utilisation[0] == pytest.approx(util_2d, rel=1e-3)


def test_traffic_by_hand() -> None:
    one, many = attention(8, 2, 1), {mode: FuseMax(**SMALL, attention=mode) for mode in ATTENTIONS}  # type: ignore[arg-type]
    moved = dict(zip(many, total(ledger(one, *many.values())).dram_bytes, strict=True))
    tensor, scores = 8 * 2 * 2, 8 * 8 * 2
    assert moved == {
        "unfused": 4 * tensor + 4 * scores,
        **dict.fromkeys(("flat", "cascade", "architecture", "fusemax"), 4 * tensor),
    }


def test_a_small_buffer_holds_a_stripe_of_queries() -> None:
    array = FuseMax(**(SMALL | {"buffer_kib": 1}))  # type: ignore[arg-type]
    costs = ledger(attention(1024, 2, 1), array)
    # 4 keys and values of 64 bits beside queries of 32 bits with 64 bits of outputs, maximum and denominator
    queries = (8192 - 4 * 64) // (32 + 64 + 32)
    stripes = -(-1024 // (queries // 4 * 4))
    assert stripes == 18
    scores, _, context = (costs.dram_bytes[position, 0] for position in costs.members)
    assert scores == 4096 + 4096 * stripes
    assert context == 4096 * stripes + 4096


def test_flat_spills_the_share_of_scores_that_does_not_fit() -> None:
    array = FuseMax(**(SMALL | {"buffer_kib": 1}), attention="flat")  # type: ignore[arg-type]
    costs = ledger(attention(1024, 2, 1), array)
    share = 1 - (8192 - 4 * 64) / (4 * (1024 * 16 + 32 + 32))
    assert costs.dram_bytes[costs.members[1], 0] == np.ceil(share * 4 * 1024 * 1024 * 2)


def test_an_attention_waits_for_memory_as_a_whole() -> None:
    slow = FuseMax(**(SMALL | {"dram_bytes_per_s": 1e9}))  # type: ignore[arg-type]
    costs = ledger(attention(8, 2, 1), slow)
    assert list(costs.stall_cycles[costs.members, 0]) == [0, 0, 128 - 66]


def test_a_row_of_the_map_is_stored_for_pruning() -> None:
    kept, pruned = deit(), deit("prune", 100)
    arrays = (FuseMax(), FuseMax(attention="flat"), FuseMax(attention="unfused"))
    one, two = ledger(kept, *arrays), ledger(pruned, *arrays)
    softmax = [costs.members[row(load, "block0.softmax")] for costs, load in ((one, kept), (two, pruned))]
    added = two.dram_bytes[softmax[1]] - one.dram_bytes[softmax[0]]
    assert list(added) == [3 * 196 * 2, 3 * 196, 0]  # 16-bit scores, 8-bit probabilities, the map is there
    score = two.members[row(pruned, "block0.score")]
    assert list(two.dram_bytes[score] - two.dram_bytes[score, 2]) == [3 * 196, 0, 0]
    assert two.vector_cycles[score, 0] > two.vector_cycles[score, 2] == two.vector_cycles[score, 1]


def test_linear_layers_keep_outputs_in_the_array() -> None:
    load = deit()
    costs = ledger(load, FuseMax())
    qkv = costs.members[row(load, "block0.qkv")]
    # 197 x 576 outputs are 1 x 3 tiles; 192 cycles each, but a tile leaves over 197 rows
    assert costs.compute_cycles[qkv, 0] == 3 * 197 + 510
    head = costs.members[row(load, "head")]
    assert costs.compute_cycles[head, 0] == 4 * 192 + 510


def test_every_operator_costs_and_rows_add_up() -> None:
    for load in (deit(), deit("prune", 100), deit("merge", 120)):
        for mode in ATTENTIONS:
            costs = ledger(load, FuseMax(attention=mode))  # type: ignore[arg-type]
            whole = breakdown(load, costs, TECH)
            assert whole.cycles == pytest.approx(sum(op.cycles for op in whole.operators))
            assert [op.name for op in whole.operators if op.cycles == 0] in ([], ["block1.bias"])


def test_silicon_pays_for_exponential_units_and_registers() -> None:
    flat, fused = (total(ledger(deit(), FuseMax(attention=mode))) for mode in ("flat", "fusemax"))  # type: ignore[arg-type]
    lanes = 256 * (8240.0 / 1545.0) * TECH.mac_um2(16)
    registers = (12 * 256 * 256 + 16 * 256) * 16 * TECH.register_um2_per_bit
    assert fused.area_mm2[0] - flat.area_mm2[0] == pytest.approx(1e-6 * (registers - lanes))
    assert fused.leakage_j[0] / fused.latency_s[0] < flat.leakage_j[0] / flat.latency_s[0]


def test_modes_side_by_side_are_each_as_alone() -> None:
    load, arrays = deit("prune", 100), [FuseMax(attention=mode) for mode in ATTENTIONS]  # type: ignore[arg-type]
    together = ledger(load, *arrays)
    for position, array in enumerate(arrays):
        alone = ledger(load, array)
        for item in dataclasses.fields(Ledger):
            values = getattr(together, item.name)
            if item.name == "members":
                assert values == alone.members
            else:
                assert np.array_equal(values[..., position], getattr(alone, item.name)[..., 0]), item.name
