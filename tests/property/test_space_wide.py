"""The widest shipped space: everything that a model can be made of occurs, and comes back from its spec."""

from __future__ import annotations

import numpy as np
import pytest

from cosearch.hardware import build, fits
from cosearch.space import Space, load_space
from cosearch.spec import MIXERS, TOKEN_METHODS, ModelSpec, TaskShape
from cosearch.workload import workload

TASK = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("vit_digits_wide", TASK)


@pytest.fixture(scope="module")
def models(space: Space) -> list[ModelSpec]:
    rng = np.random.default_rng(0)
    return [space.side("model").spec(space.side("model").sample(rng)) for _ in range(250)]


def test_a_model_comes_back_from_its_spec(space: Space, models: list[ModelSpec]) -> None:
    side = space.side("model")
    for spec in models:
        point = side.encode(spec)
        assert side.spec(point) == spec
        assert side.canonical(point) == point


def test_everything_occurs(models: list[ModelSpec]) -> None:
    blocks = [block for spec in models for block in spec.blocks]
    assert {spec.token_method for spec in models} == set(TOKEN_METHODS)
    assert {block.mixer for block in blocks} == set(MIXERS) - {"pool", "hashed"}
    assert {block.weights_in for block in blocks} == {"int4", "int8", "fp4_e2m1", "fp8_e4m3", "mxfp4", "mxfp8_e4m3"}
    assert {block.sparsity for block in blocks} == {(1, 1), (2, 4)}
    assert {block.mlp for block in blocks} == {"gelu", "glu"}
    assert any(block.query_heads for block in blocks)
    assert any(block.rank for block in blocks)
    assert {dict(spec.training)["shift"] for spec in models} == {0, 1}
    assert {spec.norm for spec in models} == {"layernorm", "batchnorm"}


def test_what_a_block_has_no_use_for_is_not_in_its_spec(models: list[ModelSpec]) -> None:
    idle = [block for spec in models for block in spec.blocks if block.mixer == "identity"]
    assert idle
    assert {(block.heads, block.query_heads, block.kv_heads) for block in idle} == {(1, 0, 0)}


def test_core_tokens_are_set_once(models: list[ModelSpec]) -> None:
    for spec in models:
        if spec.core_tokens is not None:
            assert spec.tokens == ((spec.core_tokens + 1,) * 2,) * len(spec.blocks)


def test_some_arrays_multiply_a_models_formats_and_others_say_why_not(space: Space, models: list[ModelSpec]) -> None:
    rng = np.random.default_rng(1)
    kinds = [build(space.side("accelerator").spec(space.side("accelerator").sample(rng))) for _ in range(20)]
    for spec in models[:40]:
        broken = [fits(workload(spec), array) for array in kinds]
        assert () in broken
        assert any("which pe_kind" in found[0].limit for found in broken if found)
