"""Specs check themselves, go to JSON and back, and keep their id when fields with a default are added."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cosearch.errors import SpecError
from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.spec import (
    TOKEN_METHODS,
    BlockSpec,
    ModelSpec,
    TaskShape,
    bits_and_format,
    from_json,
    layer_rank,
    to_json,
)
from cosearch.testing.models import random_model

TASK = TaskShape(image=(8, 12), channels=1, classes=10)
BLOCK = BlockSpec(heads=2, mlp_hidden=16)


def make_model(**changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {"task": TASK, "patch": 2, "dim": 8, "blocks": (BLOCK, BLOCK)}
    return ModelSpec(**(fields | changes))


def keep(*counts: int | None) -> tuple[BlockSpec, ...]:
    return tuple(dataclasses.replace(BLOCK, keep_tokens=count) for count in counts)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"patch": 3}, "patch is 3, which does not divide the 8 x 12 image; choose a divisor of both sides"),
        ({"patch": 0}, "patch is 0; write at least 1 pixel"),
        ({"overlap": 3}, "overlap is 3; write 0 to 2"),
        ({"overlap": -1}, "overlap is -1; write 0 to 2"),
        ({"stem_hidden": -1}, "stem_hidden is -1; write 0 or more"),
        ({"blocks": ()}, "blocks is empty; a model needs at least 1 block"),
        ({"dim": 9}, "blocks[0].heads is 2, which does not divide dim 9; choose a divisor of dim"),
        ({"dim": 0}, "blocks[0].heads is 2, which does not divide dim 0; choose a divisor of dim"),
        (
            {"token_method": "drop"},
            "token_method is 'drop'; choose one of none, prune, merge, hired, cluster, contribution, detail, lookup, "
            "memory",
        ),
        (
            {"token_method": "prune"},
            "token_method is 'prune', but no block reduces its tokens; write 'none', or set keep_tokens in a block",
        ),
        (
            {"edge_bits": 20},
            "edge_bits is 20, but integers have 2 to 16 bits; write 2 to 16, or 32 for floating point",
        ),
        (
            {"token_method": "merge", "blocks": keep(None, 11)},
            "blocks[1].keep_tokens is 11, but 'merge' can take 24 tokens to 12 up to 23; "
            "choose a count in that range, or leave it out to keep all",
        ),
        (
            {"token_method": "prune", "blocks": keep(10, 10)},
            "blocks[1].keep_tokens is 10, but 'prune' can take 10 tokens to 2 up to 9; "
            "choose a count in that range, or leave it out to keep all",
        ),
    ],
)
def test_a_model_that_cannot_exist_says_why(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_model(**changes)
    assert str(caught.value) == text


METHODS = "none, prune, merge, hired, cluster, contribution, detail, lookup, memory"
NAMES = ", ".join(NUMBER_FORMATS)
RANGE = "choose a count in that range, or leave it out to keep all"


def block(**changes: Any) -> BlockSpec:
    return dataclasses.replace(BLOCK, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"heads": 0}, "heads is 0; write at least 1"),
        ({"keep_tokens": 0}, "keep_tokens is 0; keep at least 1 token, or leave it out to keep all"),
        (
            {"weight_bits": 17},
            "weight_bits is 17, but integers have 2 to 16 bits; write 2 to 16, or 32 for floating point",
        ),
        ({"weight_format": "int99"}, f"weight_format is 'int99'; choose one of {NAMES}"),
        (
            {"activation_bits": 8, "activation_format": "int8"},
            "activation_format is 'int8', which activation_bits says by itself; leave it out",
        ),
        ({"weight_format": "fp32"}, "weight_format is 'fp32', which weight_bits says by itself; leave it out"),
        (
            {"weight_bits": 8, "weight_format": "mxfp4"},
            "weight_format is 'mxfp4', but weight_bits is 8; write weight_bits 4",
        ),
        (
            {"activation_format": "fp8_e4m3"},
            "activation_format is 'fp8_e4m3', but activation_bits is 32; write activation_bits 8",
        ),
        ({"mixer": "fourier"}, "mixer is 'fourier'; choose one of softmax, sigmoid, linear, hashed, pool, identity"),
        ({"mlp": "swiglu"}, "mlp is 'swiglu'; choose one of gelu, glu, none"),
        ({"mlp": "none"}, "mlp_hidden is 16, but there is no MLP; write 0"),
        ({"mlp": "glu", "mlp_hidden": 0}, "mlp_hidden is 0; write at least 1 hidden unit"),
        ({"mixer": "pool"}, "heads is 2, but mixer 'pool' has none; write 1"),
        ({"mixer": "identity"}, "heads is 2, but mixer 'identity' has none; write 1"),
        (
            {"mixer": "linear", "query_heads": 1},
            "query_heads is 1, but mixer 'linear' forms no attention map; leave it out, or take softmax or sigmoid",
        ),
        (
            {"mixer": "hashed", "kv_heads": 1},
            "kv_heads is 1, but mixer 'hashed' forms no attention map; leave it out, or take softmax or sigmoid",
        ),
        ({"query_heads": 2}, "query_heads is 2 of 2; write 1 to 1, or leave it out for all"),
        ({"query_heads": -1}, "query_heads is -1 of 2; write 1 to 1, or leave it out for all"),
        (
            {"heads": 4, "query_heads": 3, "kv_heads": 2},
            "kv_heads is 2, but 3 heads ask; write a divisor of 3 below it, or leave it out for as many",
        ),
        ({"kv_heads": 2}, "kv_heads is 2, but 2 heads ask; write a divisor of 2 below it, or leave it out for as many"),
        (
            {"kv_heads": -1},
            "kv_heads is -1, but 2 heads ask; write a divisor of 2 below it, or leave it out for as many",
        ),
        ({"rank": -1}, "rank is -1; write 1 or more, or 0 for whole layers"),
        *(
            (
                {"sparsity": (n, m)},
                f"sparsity is {n}:{m}; "
                "write N:M with N below M and M of at most 32, such as 2:4, or 1:1 for dense weights",
            )
            for n, m in ((0, 4), (4, 4), (4, 2), (1, 33), (-1, 2))
        ),
    ],
)
def test_a_block_that_cannot_exist_says_why(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        block(**changes)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"norm": "groupnorm"}, "norm is 'groupnorm'; choose one of layernorm, batchnorm"),
        ({"pool": "max"}, "pool is 'max'; choose one of class, mean, ggem"),
        ({"edge_format": "fp5"}, f"edge_format is 'fp5'; choose one of {NAMES}"),
        (
            {"edge_bits": 4, "edge_format": "bf16"},
            "edge_format is 'bf16', but edge_bits is 4; write edge_bits 16",
        ),
        (
            {"blocks": (BLOCK, block(sparsity=(2, 3)))},
            "blocks[1].sparsity is 2:3, but dim is 8, which is no whole number of groups of 3; "
            "choose groups that divide 8, or another length",
        ),
        (
            {"blocks": (block(sparsity=(2, 4), mlp_hidden=10),)},
            "blocks[0].sparsity is 2:4, but blocks[0].mlp_hidden is 10, which is no whole number of groups of 4; "
            "choose groups that divide 10, or another length",
        ),
        (
            {"blocks": (block(sparsity=(2, 4), rank=6),)},
            "blocks[0].sparsity is 2:4, but blocks[0].rank is 6, which is no whole number of groups of 4; "
            "choose groups that divide 6, or another length",
        ),
        (
            {"blocks": (block(heads=4, query_heads=3, sparsity=(1, 8)),)},
            "blocks[0].sparsity is 1:8, but the width of all heads that ask is 6, which is no whole number of groups "
            "of 8; choose groups that divide 6, or another length",
        ),
        *(
            (
                {"token_method": method, "blocks": (block(keep_tokens=9), block(heads=1, mixer="pool"))},
                "blocks[1].mixer is 'pool', which needs all tokens in their places, but they are reduced by then; "
                "take another mixer, or reduce later",
            )
            for method in ("prune", "contribution", "lookup", "memory")
        ),
        *(
            (
                {"token_method": method, "blocks": keep(9, 9)},
                f"blocks[1].keep_tokens is 9, but '{method}' has as many core tokens in every block as in the first; "
                "leave it out",
            )
            for method in ("lookup", "memory")
        ),
        *(
            (
                {"token_method": method, "blocks": keep(24, None)},
                f"blocks[0].keep_tokens is 24, but '{method}' can take 24 tokens to {least} up to 23; {RANGE}",
            )
            for method, least in (
                ("prune", 2),
                ("merge", 12),
                *((name, 1) for name in ("hired", "cluster", "contribution", "detail", "lookup", "memory")),
            )
        ),
        (
            {"token_method": "prune", "blocks": keep(1, None)},
            f"blocks[0].keep_tokens is 1, but 'prune' can take 24 tokens to 2 up to 23; {RANGE}",
        ),
        *(
            (
                {"token_method": method, "blocks": (block(keep_tokens=9, mixer="linear"),)},
                f"blocks[0].mixer is 'linear', but '{method}' reads its attention map; "
                "take another mixer, or reduce in another block",
            )
            for method in ("prune", "hired", "cluster", "contribution", "detail")
        ),
        (
            {"token_method": "merge", "blocks": (block(keep_tokens=12, heads=1, mixer="identity"),)},
            "blocks[0].mixer is 'identity', but 'merge' reads its keys; take another mixer, or reduce in another block",
        ),
        *(
            (
                {"token_method": method},
                f"token_method is '{method}', but no block reduces its tokens; "
                "write 'none', or set keep_tokens in a block",
            )
            for method in METHODS.split(", ")[1:]
        ),
        (
            {
                "token_method": "detail",
                "patch": 1,
                "blocks": keep(9, None),
            },
            "patch is 1, but 'detail' begins at half the resolution; choose an even patch",
        ),
    ],
)
def test_what_does_not_go_together_says_why(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_model(**changes)
    assert str(caught.value) == text


def test_core_tokens_are_the_first_blocks_and_stay() -> None:
    for method in ("lookup", "memory"):
        model = make_model(blocks=keep(6, None, None), token_method=method)
        assert model.core_tokens == 6
        assert model.tokens == ((7, 7),) * 3
    assert make_model(blocks=keep(6, None), token_method="hired").core_tokens is None


@pytest.mark.parametrize(
    ("rank", "inputs", "outputs", "found"), [(0, 8, 8, 0), (3, 8, 8, 3), (4, 8, 8, 0), (4, 8, 9, 4), (5, 8, 24, 5)]
)
def test_a_rank_counts_where_it_holds_fewer_weights(rank: int, inputs: int, outputs: int, found: int) -> None:
    assert layer_rank(rank, inputs, outputs) == found


def test_bits_and_names_of_formats_are_each_others_inverse() -> None:
    for name in NUMBER_FORMATS:
        if number_format(name).family == "integer" and not number_format(name).signed:
            continue  # operands are unsigned where they cannot be negative; no spec says so
        bits, written = bits_and_format(name)
        one = block(weight_bits=bits, weight_format=written, activation_bits=bits, activation_format=written)
        assert (one.weights_in, one.activations_in) == (name, name)
        assert make_model(edge_bits=bits, edge_format=written).edges_in == name


def test_every_new_field_changes_the_id_and_its_default_does_not() -> None:
    plain = make_model()
    assert make_model(norm="layernorm", pool="class", edge_format="", training=()).id == plain.id
    same = block(mixer="softmax", query_heads=0, kv_heads=0, mlp="gelu", rank=0, sparsity=(1, 1), weight_format="")
    assert make_model(blocks=(same, same)).id == plain.id
    blocks = [
        {"weight_bits": 8},
        {"weight_bits": 8, "weight_format": "fp8_e4m3"},
        {"weight_bits": 8, "weight_format": "fp8_e5m2"},
        {"activation_bits": 8, "activation_format": "fp8_e5m2"},
        {"mixer": "sigmoid"},
        {"query_heads": 1},
        {"kv_heads": 1},
        {"mlp": "glu"},
        {"rank": 2},
        {"sparsity": (2, 4)},
        {"sparsity": (1, 4)},
    ]
    models = [plain, *(make_model(blocks=(BLOCK, block(**changes))) for changes in blocks)]
    models += [make_model(norm="batchnorm"), make_model(pool="mean"), make_model(training=(("lr", 0.1),))]
    models += [make_model(edge_bits=16, edge_format="bf16"), make_model(edge_bits=16)]
    assert len({model.id for model in models}) == len(models)


def test_random_models_go_to_json_and_back_and_are_drawn_again() -> None:
    for seed in range(100):
        model = random_model(seed)
        assert from_json(ModelSpec, json.loads(json.dumps(to_json(model)))) == model
        assert random_model(seed).id == model.id
    trained = make_model(training=ModelSpec.trained_by({"steps": 30, "lr": 0.5}))
    assert trained.training == (("lr", 0.5), ("steps", 30))
    assert from_json(ModelSpec, json.loads(json.dumps(to_json(trained)))) == trained


@pytest.mark.parametrize("method", list(TOKEN_METHODS))
def test_the_random_model_of_a_method_has_it(method: str) -> None:
    for seed in range(20):
        assert random_model(seed, token_method=method, formats=("fp32", "int4")).token_method in (method, "none")
    assert any(random_model(seed, token_method=method).token_method == method for seed in range(20))
    blocks = [b for seed in range(20) for b in random_model(seed, token_method=method, formats=("int4",)).blocks]
    assert {b.weights_in for b in blocks} | {b.activations_in for b in blocks} == {"int4"}


@pytest.mark.parametrize(
    ("cls", "fields", "text"),
    [
        (TaskShape, {"image": (0, 4), "channels": 1, "classes": 2}, "image is (0, 4); "),
        (TaskShape, {"image": (4, 4), "channels": 0, "classes": 2}, "channels is 0; "),
        (TaskShape, {"image": (4, 4), "channels": 1, "classes": 1}, "classes is 1; "),
        (TaskShape, {"image": (4, 4), "channels": 1, "classes": 2, "labels": 0}, "labels is 0; "),
        (BlockSpec, {"heads": 0, "mlp_hidden": 1}, "heads is 0; "),
        (BlockSpec, {"heads": 1, "mlp_hidden": 0}, "mlp_hidden is 0; "),
        (BlockSpec, {"heads": 1, "mlp_hidden": 1, "keep_tokens": 0}, "keep_tokens is 0; "),
        (BlockSpec, {"heads": 1, "mlp_hidden": 1, "weight_bits": 1}, "weight_bits is 1, "),
        (BlockSpec, {"heads": 1, "mlp_hidden": 1, "activation_bits": 17}, "activation_bits is 17, "),
    ],
)
def test_parts_check_themselves(cls: type, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        cls(**fields)
    assert str(caught.value).startswith(text)


def test_a_method_that_reduces_nothing_is_no_method() -> None:
    with pytest.raises(SpecError, match="keep_tokens"):
        make_model(blocks=keep(10, None))


def test_token_counts() -> None:
    model = make_model(blocks=keep(None, 9, None, 4), token_method="prune")
    assert model.patches == 24
    assert model.tokens == ((25, 25), (25, 10), (10, 10), (10, 5))
