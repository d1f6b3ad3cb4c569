"""Mixers, token methods, pools, ranks and formats, operator by operator."""

from __future__ import annotations

from typing import Any

import pytest

from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import random_model
from cosearch.workload import RESIDUAL_BITS, Operator, OperatorKind, Workload, workload

TASK = TaskShape(image=(8, 8), channels=3, classes=5, labels=2)


def named(load: Workload, name: str) -> Operator:
    return next(op for op in load.operators if op.name == name)


def shape(op: Operator) -> tuple[int, int, int, int]:
    return (op.m, op.k, op.n, op.count)


def small(method: str = "none", keep: int | None = None, depth: int = 1, **fields: Any) -> Workload:
    """16 tokens of 8 values; 8-bit weights, 4-bit activations, 2 heads; the first block reduces."""
    model = {name: fields.pop(name) for name in ("norm", "pool", "edge_bits", "stem_hidden") if name in fields}
    block = {"heads": 2, "mlp_hidden": 20, "weight_bits": 8, "activation_bits": 4, **fields}
    blocks = tuple(BlockSpec(keep_tokens=keep if index == 0 else None, **block) for index in range(depth))
    spec = ModelSpec(task=TASK, patch=2, dim=8, blocks=blocks, token_method=method, **({"edge_bits": 8} | model))
    return workload(spec)


def listed(load: Workload, part: str = "block0.") -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """Name, kind and shape of the operators whose name begins with ``part``."""
    found = [(op.name.removeprefix(part), op.kind.value, shape(op)) for op in load.operators]
    return [one for one, op in zip(found, load.operators, strict=True) if op.name.startswith(part)]


QKV = ("qkv", "matmul", (17, 8, 24, 1))
PROJ = ("proj", "matmul", (17, 8, 8, 1))
NORM1, ADD1 = ("norm1", "layernorm", (17, 1, 8, 1)), ("add1", "add", (17, 1, 8, 1))


def mlp(tokens: int) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    return [
        ("norm2", "layernorm", (tokens, 1, 8, 1)),
        ("fc1", "matmul", (tokens, 8, 20, 1)),
        ("gelu", "gelu", (tokens, 1, 20, 1)),
        ("fc2", "matmul", (tokens, 20, 8, 1)),
        ("add2", "add", (tokens, 1, 8, 1)),
    ]


SOFTMAX = [
    QKV,
    ("scores", "matmul", (17, 4, 17, 2)),
    ("softmax", "softmax", (17, 1, 17, 2)),
    ("context", "matmul", (17, 17, 4, 2)),
    PROJ,
]
BY_STATE = [
    ("state", "matmul", (4, 17, 5, 2)),
    ("context", "matmul", (17, 4, 5, 2)),
]
DIVIDE = ("divide", "divide", (17, 1, 4, 2))


@pytest.mark.parametrize(
    ("fields", "operators"),
    [
        ({}, SOFTMAX),
        (
            {"mixer": "sigmoid"},
            [*SOFTMAX[:2], ("softmax", "sigmoid", (17, 1, 17, 2)), *SOFTMAX[3:]],
        ),
        ({"mixer": "linear"}, [QKV, *BY_STATE, DIVIDE, PROJ]),
        (
            {"mixer": "hashed"},
            [
                QKV,
                ("hash", "matmul", (2 * 17 * 2, 4, 4, 1)),
                ("mean", "pool", (17, 1, 5, 2)),
                *BY_STATE,
                ("shift", "add", (17, 1, 5, 2)),
                DIVIDE,
                PROJ,
            ],
        ),
        ({"mixer": "pool", "heads": 1}, [("pool", "pool", (17, 1, 8, 1))]),
        (
            {"heads": 4, "query_heads": 2, "kv_heads": 1},
            [
                ("qkv", "matmul", (17, 8, (2 + 1 + 1) * 2, 1)),
                ("scores", "matmul", (17, 2, 17, 2)),
                ("softmax", "softmax", (17, 1, 17, 2)),
                ("context", "matmul", (17, 17, 2, 2)),
                ("proj", "matmul", (17, 4, 8, 1)),
            ],
        ),
    ],
)
def test_mixers_operator_by_operator(fields: dict[str, Any], operators: list[Any]) -> None:
    assert listed(small(**fields)) == [NORM1, *operators, ADD1, *mlp(17)]


def test_a_block_without_a_mixer_is_its_mlp() -> None:
    assert listed(small(mixer="identity", heads=1)) == mlp(17)
    assert listed(small(mixer="identity", heads=1, mlp="none", mlp_hidden=0)) == []


def test_a_gate_doubles_the_first_layer_and_multiplies() -> None:
    gated = listed(small(mlp="glu"))[-6:]
    assert gated == [
        ("norm2", "layernorm", (17, 1, 8, 1)),
        ("fc1", "matmul", (17, 8, 40, 1)),
        ("gelu", "gelu", (17, 1, 20, 1)),
        ("gate", "multiply", (17, 1, 20, 1)),
        ("fc2", "matmul", (17, 20, 8, 1)),
        ("add2", "add", (17, 1, 8, 1)),
    ]
    load = small(mlp="glu")
    # what GELU writes is no operand of a product, what the gate writes is
    assert (named(load, "block0.gelu").out_bits, named(load, "block0.gate").out_bits) == (RESIDUAL_BITS, 4)
    assert named(load, "block0.gate").inputs == ("block0.gelu", "block0.fc1")
    assert listed(small(mlp="none", mlp_hidden=0)) == [NORM1, *SOFTMAX, ADD1]


def test_binary_codes_take_two_bits_and_multiply_the_values() -> None:
    load = small(mixer="hashed")
    assert (named(load, "block0.hash").a_bits, named(load, "block0.hash").b_bits) == (4, 8)
    assert named(load, "block0.hash").out_bits == 2
    assert (named(load, "block0.state").a_bits, named(load, "block0.state").b_bits) == (2, 4)
    assert (named(load, "block0.context").a_bits, named(load, "block0.context").b_bits) == (2, 4)
    assert {t.name: t.elements for t in load.tensors}["block0.mean"] == 2 * 5
    assert named(load, "block0.shift").inputs == ("block0.context", "block0.mean")


@pytest.mark.parametrize("mixer", ["linear", "hashed"])
@pytest.mark.parametrize("method", ["merge", "cluster"])
def test_keys_of_merged_tokens_are_multiplied_by_their_sizes(method: str, mixer: str) -> None:
    plain = {"heads": 2, "mlp_hidden": 20, "weight_bits": 8, "activation_bits": 4}
    blocks = (BlockSpec(**plain, keep_tokens=10), BlockSpec(**plain, mixer=mixer))
    load = workload(ModelSpec(task=TASK, patch=2, dim=8, blocks=blocks, token_method=method, edge_bits=8))
    assert (named(load, "block1.weigh").kind, shape(named(load, "block1.weigh"))) == (
        OperatorKind.MULTIPLY,
        (11, 1, 4, 2),
    )
    assert named(load, "block1.state").inputs == ("block1.weigh", "block1.qkv")
    assert named(load, "block1.state").a_bits == 4
    assert not any(op.name.endswith("weigh") for op in small(mixer=mixer).operators)


@pytest.mark.parametrize(
    ("method", "operators", "kept"),
    [
        (
            "prune",
            [
                ("score", "score", (1, 1, 16, 2)),
                ("select", "select", (1, 1, 16, 1)),
                ("fuse", "merge", (17, 1, 8, 1)),
            ],
            {"score": 16, "select": 16, "fuse": 10 * 8},
        ),
        (
            "merge",
            [
                ("metric", "score", (16, 1, 4, 2)),
                ("similarity", "matmul", (8, 4, 8, 1)),
                ("select", "select", (8, 1, 8, 1)),
                ("merge", "merge", (17, 1, 8, 1)),
            ],
            {"metric": 16 * 4, "similarity": 64, "merge": 10 * 8},
        ),
        (
            "hired",
            [
                ("score", "score", (1, 1, 16, 2)),
                ("rank", "select", (1, 1, 16, 1)),
                ("select", "select", (1, 1, 16, 1)),
                ("gather", "gather", (10, 1, 8, 1)),
            ],
            {"score": 16, "gather": 10 * 8},
        ),
        (
            "cluster",
            [
                ("score", "score", (1, 1, 16, 2)),
                ("centres", "select", (1, 1, 16, 1)),
                ("metric", "score", (16, 1, 4, 2)),
                ("similarity", "matmul", (16, 4, 9, 1)),
                ("select", "select", (16, 1, 9, 1)),
                ("merge", "merge", (17, 1, 8, 1)),
            ],
            {"score": 16, "metric": 16 * 4, "similarity": 16 * 9, "merge": 10 * 8},
        ),
        (
            "contribution",
            [
                ("lengths", "score", (16, 1, 4, 2)),
                ("score", "score", (17, 1, 16, 2)),
                ("select", "select", (1, 1, 16, 1)),
                ("gather", "gather", (10, 1, 8, 1)),
            ],
            {"lengths": 16 * 2, "score": 16, "gather": 10 * 8},
        ),
        (
            "detail",
            [
                ("score", "score", (1, 1, 16, 2)),
                ("select", "select", (1, 1, 16, 1)),
                ("gather", "gather", (10, 1, 8, 1)),
                ("patches", "gather", (9, 1, 12, 1)),
                ("lift", "matmul", (9, 12, 8, 1)),
                ("refine", "add", (9, 1, 8, 1)),
            ],
            {"patches": 9 * 12, "lift": 9 * 8, "refine": 10 * 8},
        ),
    ],
)
def test_token_methods_operator_by_operator(method: str, operators: list[Any], kept: dict[str, int]) -> None:
    load = small(method, 9)
    assert listed(load) == [NORM1, *SOFTMAX, ADD1, *operators, *mlp(10)]
    elements = {t.name: t.elements for t in load.tensors}
    assert {name: elements[f"block0.{name}"] for name in kept} == kept


def test_detail_begins_at_half_the_resolution_and_is_given_once() -> None:
    load = small("detail", 9)
    assert listed(load, "stem.") == [("halve", "pool", (48, 1, 4, 1)), ("proj", "matmul", (16, 3, 8, 1))]
    assert {t.name: t.elements for t in load.tensors}["stem.halve"] == 48
    # the full image waits until the detail is read
    assert named(load, "block0.patches").inputs == ("image", "block0.select")
    assert (named(load, "block0.lift").a_bits, named(load, "block0.lift").b_bits) == (8, 8)
    alive = dict(zip((op.name for op in load.operators), load.live_activation_bytes(), strict=True))
    other = small("hired", 9)
    without = dict(zip((op.name for op in other.operators), other.live_activation_bytes(), strict=True))
    assert alive["block0.scores"] - without["block0.scores"] == 8 * 8 * 3
    plain = {"heads": 2, "mlp_hidden": 20}
    blocks = tuple(BlockSpec(**plain, keep_tokens=keep) for keep in (12, 9))
    twice = workload(ModelSpec(task=TASK, patch=2, dim=8, blocks=blocks, token_method="detail"))
    assert [op.name for op in twice.operators if "lift" in op.name] == ["block0.lift"]
    assert named(twice, "block1.gather").n == 8


def test_lookup_operator_by_operator() -> None:
    load = small("lookup", 4, depth=2)
    mixer = [
        ("norm1", "layernorm", (5, 1, 8, 1)),
        ("qkv", "matmul", (5, 8, 24, 1)),
        ("scores", "matmul", (5, 4, 5, 2)),
        ("softmax", "softmax", (5, 1, 5, 2)),
        ("context", "matmul", (5, 5, 4, 2)),
        ("proj", "matmul", (5, 8, 8, 1)),
        ("add1", "add", (5, 1, 8, 1)),
    ]
    read = [
        ("ask", "layernorm", (5, 1, 8, 1)),
        ("tell", "layernorm", (16, 1, 8, 1)),
        ("read.q", "matmul", (5, 8, 8, 1)),
        ("read.kv", "matmul", (16, 8, 16, 1)),
        ("read.scores", "matmul", (5, 4, 16, 2)),
        ("read.softmax", "softmax", (5, 1, 16, 2)),
        ("read.context", "matmul", (5, 16, 4, 2)),
        ("read.proj", "matmul", (5, 8, 8, 1)),
        ("read.add", "add", (5, 1, 8, 1)),
    ]
    written = [
        ("back", "layernorm", (5, 1, 8, 1)),
        ("write.v", "matmul", (5, 8, 8, 1)),
        ("write.softmax", "softmax", (16, 1, 5, 2)),
        ("write.context", "matmul", (16, 5, 4, 2)),
        ("write.proj", "matmul", (16, 8, 8, 1)),
        ("write.add", "add", (16, 1, 8, 1)),
    ]
    assert listed(load) == [*read, *mixer, *mlp(5), *written]
    assert listed(load, "block1.") == [*read, *mixer, *mlp(5)]  # nobody reads what the last block would write
    assert listed(load, "core") == [("", "pool", (17, 1, 8, 1))]
    assert {t.name: t.elements for t in load.tensors}["core"] == 5 * 8
    assert named(load, "block0.write.softmax").inputs == ("block0.read.scores",)
    assert named(load, "block1.tell").inputs == ("block0.write.add",)


def test_memory_operator_by_operator() -> None:
    load = small("memory", 4, depth=2)

    def moved(way: str, sources: int, targets: int) -> list[Any]:
        found = [
            ("ask", "layernorm", (targets, 1, 8, 1)),
            ("tell", "layernorm", (sources, 1, 8, 1)),
            ("q", "matmul", (targets, 8, 8, 1)),
            ("k", "matmul", (sources, 8, 8, 1)),
            ("state", "matmul", (8, sources, 9, 1)),
            ("context", "matmul", (targets, 8, 9, 1)),
            ("divide", "divide", (targets, 1, 8, 1)),
            ("add", "add", (targets, 1, 8, 1)),
        ]
        return [(f"{way}.{name}", kind, size) for name, kind, size in found]

    first, second = listed(load), listed(load, "block1.")
    assert first[:8] == moved("read", 16, 5)
    assert first[-8:] == moved("write", 5, 16)
    assert len(first) == 8 + 7 + 5 + 8
    assert second == first[:-8]
    assert named(load, "block0.write.k").inputs[0] == "block0.write.tell"
    assert named(load, "block0.read.state").inputs == ("block0.read.k", "block0.read.tell")


@pytest.mark.parametrize(
    ("pool", "operators"),
    [
        ("class", []),
        ("mean", [("pool", "pool", (16, 1, 8, 1), 8)]),
        (
            "ggem",
            [
                ("power", "power", (16, 1, 8, 1), 128),
                ("pool", "pool", (16, 1, 8, 1), 8),
                ("root", "power", (1, 1, 8, 1), 8),
            ],
        ),
    ],
)
def test_pools_operator_by_operator(pool: str, operators: list[Any]) -> None:
    load = small(pool=pool)
    elements = {t.name: t.elements for t in load.tensors}
    last = [op.name for op in load.operators].index("block0.add2")
    found = [(op.name, op.kind.value, shape(op), elements[op.name]) for op in load.operators[last + 1 :]]
    assert found == [*operators, ("norm", "layernorm", (1, 1, 8, 1), 8), ("head", "matmul", (1, 8, 10, 1), 10)]


def test_batchnorm_is_a_scale_and_a_shift_but_not_where_core_tokens_are_exchanged() -> None:
    kinds = {op.name: op.kind for op in small(norm="batchnorm").operators if "norm" in op.name}
    assert kinds == dict.fromkeys(("block0.norm1", "block0.norm2", "norm"), OperatorKind.AFFINE)
    load = small("memory", 4, norm="batchnorm")
    assert named(load, "block0.read.ask").kind is OperatorKind.LAYERNORM


def test_a_rank_makes_two_products_where_they_hold_fewer_weights() -> None:
    load = small(rank=4)
    found = {op.name.removeprefix("block0."): shape(op) for op in load.operators if op.weights}
    assert found == {
        "stem.proj": (16, 12, 8, 1),
        "qkv.down": (17, 8, 4, 1),
        "qkv": (17, 4, 24, 1),
        "proj": (17, 8, 8, 1),  # 4 * 16 is not less than 64
        "fc1.down": (17, 8, 4, 1),
        "fc1": (17, 4, 20, 1),
        "fc2.down": (17, 20, 4, 1),
        "fc2": (17, 4, 8, 1),
        "head": (1, 8, 10, 1),
    }
    down = named(load, "block0.fc1.down")
    assert (down.a_bits, down.b_bits, down.out_bits) == (4, 8, 4)
    assert load.weight_count == 96 + 4 * 8 + 4 * 24 + 64 + 2 * (4 * 8 + 4 * 20) + 80
    assert {t.name for t in load.tensors if t.weight and "fc1" in t.name} == {
        "block0.fc1.down.weight",
        "block0.fc1.weight",
    }


def test_sparse_weights_take_their_values_and_places() -> None:
    load, dense = small(sparsity=(2, 4)), small()
    sizes = {t.name: t for t in load.tensors}
    for name in ("qkv", "proj", "fc1", "fc2"):
        assert named(load, f"block0.{name}").sparsity == (2, 4)
        weight = sizes[f"block0.{name}.weight"]
        assert weight.bytes == weight.elements // 2 * (8 + 2) // 8  # half the values, each with 2 bits of place
    assert named(load, "head").sparsity == named(load, "block0.scores").sparsity == (1, 1)
    assert load.macs == dense.macs  # what an array skips is the array's affair
    # where places take more than they save, all values are stored
    assert small(sparsity=(3, 4), weight_bits=2).weight_bytes == small(weight_bits=2).weight_bytes


def test_formats_are_where_the_operands_are() -> None:
    formats = {"weight_bits": 4, "weight_format": "mxfp4", "activation_bits": 8, "activation_format": "fp8_e4m3"}
    load = small(**formats)
    for name in ("qkv", "proj", "fc1", "fc2"):
        op = named(load, f"block0.{name}")
        assert (op.a_format, op.b_format) == ("fp8_e4m3", "mxfp4")
    for name in ("scores", "context"):
        op = named(load, f"block0.{name}")
        assert (op.a_format, op.b_format) == ("fp8_e4m3", "fp8_e4m3")
    assert named(load, "block0.add1").out_format == ""
    assert named(load, "head").b_format == ""
    # 32 values of 4 bits share a scale of 8
    assert {t.name: t.bytes for t in load.tensors}["block0.qkv.weight"] == 8 * 24 * 4 // 8 + 8 * 24 // 32


def test_random_models_write_before_they_read_and_nothing_in_vain() -> None:
    for seed in range(150):
        load = workload(random_model(seed))
        known = {"image"} | {tensor.name for tensor in load.tensors if tensor.weight}
        read: set[str] = set()
        names = [op.name for op in load.operators]
        assert len(set(names)) == len(names), seed
        for op in load.operators:
            assert set(op.inputs) <= known, (seed, op.name)
            known.add(op.output)
            read |= set(op.inputs)
        assert known == {tensor.name for tensor in load.tensors}, seed
        assert known - read == {"head"}, (seed, known - read)
