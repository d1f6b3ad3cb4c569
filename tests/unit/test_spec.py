"""Specs check themselves, go to JSON and back, and keep their id when fields with a default are added."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cosearch.errors import SpecError
from cosearch.spec import (
    AcceleratorSpec,
    BlockSpec,
    Candidate,
    ModelSpec,
    Result,
    Status,
    TaskShape,
    Violation,
    canonical_json,
    from_json,
    to_json,
)

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


EVERYTHING = ModelSpec(
    task=TaskShape(image=(8, 8), channels=3, classes=4, labels=2),
    patch=2,
    dim=8,
    blocks=(BlockSpec(heads=4, mlp_hidden=8, keep_tokens=9, weight_bits=2, activation_bits=8),),
    token_method="merge",
    overlap=1,
    stem_hidden=5,
    edge_bits=8,
)
ACCELERATOR = AcceleratorSpec.of("systolic", {"rows": 8, "dataflow": "ws", "clock_hz": 5e8})


@pytest.mark.parametrize(
    "value",
    [
        make_model(),
        EVERYTHING,
        ACCELERATOR,
        Candidate(model=EVERYTHING, accelerator=ACCELERATOR),
        Result(index=3, point={"model.dim": 8, "a": "b"}, status=Status.OK, metrics={"x": 0.5}, objectives=(0.5, -1.0)),
        Result(
            index=0, point={}, status=Status.INFEASIBLE, violations=(Violation(limit="area_mm2 <= 4", excess=0.25),)
        ),
    ],
)
def test_json_there_and_back(value: Any) -> None:
    text = json.dumps(to_json(value))
    assert from_json(type(value), json.loads(text)) == value


def test_defaults_are_left_out_and_keys_sorted() -> None:
    assert canonical_json(BLOCK) == '{"heads":2,"mlp_hidden":16}'
    text = canonical_json(make_model())
    assert "overlap" not in text
    assert "labels" not in text


def test_ids_tell_models_apart_and_never_change() -> None:
    assert make_model().id == make_model().id
    assert make_model().id == "96e7cdf7c097"
    variants = [
        make_model(),
        make_model(overlap=1),
        make_model(stem_hidden=4),
        make_model(edge_bits=8),
        make_model(dim=16),
        make_model(blocks=(BLOCK,)),
        make_model(blocks=(BLOCK, dataclasses.replace(BLOCK, weight_bits=4))),
        make_model(blocks=(BLOCK, dataclasses.replace(BLOCK, activation_bits=4))),
        make_model(task=dataclasses.replace(TASK, labels=2)),
    ]
    assert len({model.id for model in variants}) == len(variants)
    assert all(len(model.id) == 12 for model in variants)


def test_the_order_of_an_accelerators_parameters_does_not_matter() -> None:
    other = AcceleratorSpec.of("systolic", {"clock_hz": 5e8, "dataflow": "ws", "rows": 8})
    assert other == ACCELERATOR
    assert other.id == ACCELERATOR.id
    assert hash(other) == hash(ACCELERATOR)
    assert other.as_dict() == {"clock_hz": 5e8, "dataflow": "ws", "rows": 8}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"heads": 2}, "BlockSpec lacks 'mlp_hidden'; add it"),
        (
            {"heads": 2, "mlp_hidden": 4, "bits": 3},
            "BlockSpec has no field ['bits']; its fields: heads, mlp_hidden, keep_tokens, weight_bits, "
            "activation_bits, weight_format, activation_format, mixer, query_heads, kv_heads, mlp, rank, sparsity",
        ),
        ({"heads": 2.5, "mlp_hidden": 4}, "BlockSpec.heads is 2.5; give a whole number"),
        ({"heads": True, "mlp_hidden": 4}, "BlockSpec.heads is True; give a whole number"),
        ([1], "BlockSpec is [1]; give a mapping"),
    ],
)
def test_json_that_makes_no_sense_says_where(data: Any, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_json(BlockSpec, data)
    assert str(caught.value) == text


def test_json_errors_name_the_path() -> None:
    data = to_json(make_model())
    data["blocks"][1]["heads"] = "2"
    with pytest.raises(SpecError, match=r"ModelSpec\.blocks\[1\]\.heads is '2'; give a whole number"):
        from_json(ModelSpec, data)
    data = to_json(make_model())
    data["task"]["image"] = [8]
    with pytest.raises(SpecError, match=r"ModelSpec\.task\.image has 1 entries; give 2"):
        from_json(ModelSpec, data)


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_model().dim = 4  # type: ignore[misc]
