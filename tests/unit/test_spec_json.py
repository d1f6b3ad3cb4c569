"""Specs as JSON and back, and the ids that come of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cosearch.errors import SpecError
from cosearch.spec import (
    MIXERS,
    MLPS,
    NORMS,
    POOLS,
    TOKEN_METHODS,
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


def test_the_page_on_models_has_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for method in TOKEN_METHODS.values():
        assert f"| `{method.name}` | {method.summary} | {method.least(64)} |" in page
    for mixer in MIXERS.values():
        assert f"| `{mixer.name}` | {mixer.summary} |" in page
    for table in (MLPS, NORMS, POOLS):
        for name, text in table.items():
            assert f"| `{name}` | {text} |" in page
