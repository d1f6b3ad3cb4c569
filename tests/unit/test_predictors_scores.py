"""Zero-cost scores: defined for every model, deterministic, and of the shape that their papers give them."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch

from cosearch.data import Split, load_task
from cosearch.data.task import make_task
from cosearch.model import build_model
from cosearch.predictors.probes import _layers, _PreActivations
from cosearch.predictors.scores import COUNTED, PROBED, SCORES
from cosearch.spec import MIXERS, TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import random_model
from cosearch.workload import workload


@pytest.fixture(scope="module")
def task():
    return load_task({"name": "digits"})


def model(task, *, dim=16, depth=2, bits=32, hidden=32, heads=2, **changes):
    block = BlockSpec(heads=heads, mlp_hidden=hidden, weight_bits=bits, activation_bits=bits, **changes)
    blocks = (block,) * depth
    return ModelSpec(task=task.shape, patch=2, dim=dim, blocks=blocks)


@pytest.mark.parametrize("seed", range(10))
def test_every_model_has_every_score(seed):
    spec = random_model(seed)
    rng = np.random.default_rng(seed)
    shape = spec.task
    splits = [
        Split(
            images=rng.integers(0, 256, (80, *shape.image, shape.channels), dtype=np.uint8),
            labels=rng.integers(0, shape.classes, (80, shape.labels)),
        )
        for _ in range(3)
    ]
    noise = make_task("noise", tuple(str(name) for name in range(shape.classes)), *splits)
    for name, score in SCORES.items():
        assert math.isfinite(score(spec, noise, 1)), name


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_the_same_for_the_same_seed_and_disturbs_nothing(task, name):
    spec, score = model(task, bits=4), SCORES[name]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = score(spec, task, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float32
    torch.manual_seed(6)
    assert score(spec, task, 3) == first
    if name in PROBED:
        assert score(spec, task, 4) != first


@pytest.mark.parametrize("name", [*COUNTED, "synflow", "dss", "naswot", "zico"])
def test_a_larger_model_scores_more(task, name):
    score = SCORES[name]
    small, large = model(task), model(task, dim=32, depth=4, hidden=96)
    assert score(large, task, 1) > score(small, task, 1)


@pytest.mark.parametrize("name", ["bit_operations", "entropy"])
def test_fewer_bits_score_less(task, name):
    values = [SCORES[name](model(task, bits=bits), task, 0) for bits in (2, 4, 8, 32)]
    assert values == sorted(values)


def test_counts_are_the_workloads(task):
    spec = model(task, bits=4)
    load = workload(spec)
    assert 2 ** SCORES["params"](spec, task, 0) == pytest.approx(load.weight_count)
    assert 2 ** SCORES["macs"](spec, task, 0) == pytest.approx(load.macs)


def test_synflow_and_dss_are_those_of_the_float_twin(task):
    for name in ("synflow", "dss"):
        assert SCORES[name](model(task, bits=2), task, 0) == SCORES[name](model(task), task, 0)


def test_synaptic_flow_is_conserved(task):
    """Without norms and with positive weights each MLP layer in a row carries the flow of the next (Tanaka et al.)."""
    from cosearch.predictors.probes import _flow, _positive, _saliency, _without_norms

    spec = dataclasses.replace(model(task, depth=1, mixer="identity", heads=1), pool="mean")
    flowing = _positive(spec, 0)
    with torch.no_grad():
        for layer in _layers(flowing):
            layer.bias.zero_()
        flowing.blocks[0].mlp.fc1.weight.mul_(100)  # so that GELU is the identity
    with _without_norms(flowing):
        _flow(flowing)
    first, second = (float(_saliency(layer)) for layer in (flowing.blocks[0].mlp.fc1, flowing.blocks[0].mlp.fc2))
    assert first == pytest.approx(second, rel=1e-6)


def test_naswot_sees_what_enters_nonlinearities(task):
    spec = model(task, depth=2)
    built = build_model(spec).eval()
    with _PreActivations() as seen, torch.no_grad():
        built(torch.zeros(3, 1, 8, 8))
    assert [tuple(values.shape) for values in seen.found] == [(3, 32)] * 2
    bare = model(task, mlp="none", hidden=0)
    assert SCORES["naswot"](bare, task, 0) == pytest.approx(0.0, abs=1e-9)


def test_names_of_methods_and_mixers_are_not_listed_here():
    """A new method or mixer needs no line in this package."""
    from pathlib import Path

    import cosearch.predictors as package

    text = "".join(path.read_text(encoding="utf-8") for path in Path(package.__file__).parent.glob("*.py"))
    for name in (*TOKEN_METHODS, *MIXERS):
        if name not in ("none", "identity", "linear"):
            assert f'"{name}"' not in text


def test_a_flow_beyond_double_precision_is_the_largest_number():
    block = BlockSpec(heads=2, mlp_hidden=256)
    shape = TaskShape(image=(16, 16), channels=1, classes=10)
    deep = ModelSpec(task=shape, patch=2, dim=64, blocks=(block,) * 8)
    assert SCORES["synflow"](deep, None, 0) == pytest.approx(math.log10(sys.float_info.max))
