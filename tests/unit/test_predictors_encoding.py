"""The encoding: fixed length, named, finite, and blind to nothing that it says it sees."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.model.formats import quantizer
from cosearch.predictors import encode, encode_models, names, relative_error
from cosearch.predictors.encoding import TRAINING_COLUMNS
from cosearch.spec import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import random_model
from cosearch.workload import workload


def column(model, name):
    return encode_models([model])[0, names().index(name)]


def facts(load):
    """All that an operator is, but for names of tensors and operators."""
    return [
        (op.kind, op.m, op.k, op.n, op.count, op.a_bits, op.b_bits, op.out_bits, op.a_format, op.b_format, op.sparsity)
        for op in load.operators
    ]


@given(st.integers(0, 5000))
@settings(max_examples=40, deadline=None)
def test_every_model_has_as_many_finite_numbers_as_there_are_names(seed):
    row = encode(workload(random_model(seed)), random_model(seed))
    assert row.shape == (len(names()),)
    assert np.isfinite(row).all()


def test_names_are_unique_and_list_what_specs_know():
    assert len(set(names())) == len(names())
    for group, known in (("method", TOKEN_METHODS), ("mixer", MIXERS), ("mlp", MLPS), ("norm", NORMS), ("pool", POOLS)):
        assert [name for name in names() if name.startswith(f"{group}.")] == [f"{group}.{name}" for name in known]


@given(st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=30, deadline=None)
def test_workloads_that_differ_are_encoded_differently(one, other):
    first, second = workload(random_model(one)), workload(random_model(other))
    if facts(first) != facts(second):
        assert not np.array_equal(encode(first), encode(second))


@given(st.integers(0, 2000), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_a_change_of_one_operator_is_seen(seed, random):
    load = workload(random_model(seed))
    place = random.randrange(len(load.operators))
    op = load.operators[place]
    change = random.choice(["m", "n", "count", "bits"])
    if change != "bits":
        changed = dataclasses.replace(op, **{change: getattr(op, change) + 1})
    elif op.macs:  # what a product writes is seen by its readers
        changed = dataclasses.replace(op, a_format="", a_bits=5 if op.a_bits != 5 else 6)
    else:
        changed = dataclasses.replace(op, out_bits=op.out_bits + 1)
    other = dataclasses.replace(load, operators=(*load.operators[:place], changed, *load.operators[place + 1 :]))
    assert not np.array_equal(encode(load), encode(other))


def test_what_the_workload_cannot_see_enters_from_the_spec():
    drawn = (random_model(seed, token_method="prune") for seed in range(200))
    base = next(model for model in drawn if model.token_method == "prune")
    hired = dataclasses.replace(base, token_method="contribution")
    assert column(base, "method.prune") == 1.0
    assert column(hired, "method.contribution") == 1.0
    trained = dataclasses.replace(base, training=(("lr", 0.01), ("optimizer", "adamw")))
    slower = dataclasses.replace(base, training=(("lr", 0.001), ("optimizer", "adamw")))
    rows = encode_models([base, trained, slower])
    differs = [[name for name, a, b in zip(names(), rows[0], row, strict=True) if a != b] for row in rows[1:]]
    assert all(differs)
    assert all(name.startswith("training[") for changed in differs for name in changed)
    assert not np.array_equal(rows[1], rows[2])
    assert sum(name.startswith("training[") for name in names()) == TRAINING_COLUMNS


def test_an_imported_model_has_none_of_the_specs_columns():
    model = random_model(1)
    row, alone = encode(workload(model), model), encode(workload(model))
    known = np.array([name.split(".")[0] in ("spec", "method", "mixer", "mlp", "norm", "pool") for name in names()])
    assert (alone[known] == 0).all()
    assert np.array_equal(row[~known], alone[~known])


def test_totals_are_those_of_the_workload():
    model = random_model(7)
    load = workload(model)
    assert column(model, "total.macs") == pytest.approx(np.log2(1 + load.macs))
    assert column(model, "total.weights") == pytest.approx(np.log2(1 + load.weight_count))
    operations = sum(op.macs * op.a_bits * op.b_bits for op in load.operators)
    assert column(model, "total.bit_operations") == pytest.approx(np.log2(1 + operations))


@pytest.mark.parametrize("name", ["int2", "int4", "int8", "fp8_e4m3", "fp8_e5m2", "fp4_e2m1", "ternary", "pow2_3"])
def test_relative_error_is_what_calibration_reaches(name):
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    made = quantizer(name, values=values.numel())
    with torch.no_grad():
        made(values)  # the first values set the scale
        error = float(((made(values) - values).square().mean() / values.square().mean()).sqrt())
    assert relative_error(number_format(name)) == pytest.approx(error, rel=0.25)


def test_more_bits_disturb_less():
    for group in (["int2", "int3", "int4", "int8", "int12"], ["fp4_e2m1", "fp6_e2m3", "bf16", "fp16", "fp32"]):
        errors = [relative_error(number_format(name)) for name in group]
        assert errors == sorted(errors, reverse=True)
    assert all(0 <= relative_error(found) < 1 for found in NUMBER_FORMATS.values())


@pytest.mark.parametrize(
    ("changes", "block", "column", "value"),
    [
        ({"overlap": 2}, {}, "overlap", 0.5),
        ({"stem_hidden": 32}, {}, "stem_hidden", 1.0),
        ({"dim": 64}, {}, "dim", 6.0),
        ({}, {"heads": 4}, "heads", 2.0),
        ({}, {"mlp_hidden": 96}, "mlp_ratio", 3.0),
        ({}, {"rank": 8}, "rank", 1.0),
        ({}, {"sparsity": (2, 4)}, "sparsity", 1.0),
        ({}, {"kv_heads": 1}, "kv_heads", 1.0),
        ({}, {"query_heads": 1}, "query_heads", 1.0),
    ],
)
def test_what_a_spec_says_has_its_column(changes, block, column, value):
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    blocks = (BlockSpec(**{"heads": 2, "mlp_hidden": 64, **block}),) * 3
    plain = ModelSpec(task=task, patch=4, dim=32, blocks=(BlockSpec(heads=2, mlp_hidden=64),) * 3)
    found = dict(
        zip(
            names(),
            encode_models([ModelSpec(**{"task": task, "patch": 4, "dim": 32, **changes}, blocks=blocks)])[0],
            strict=True,
        )
    )
    before = dict(zip(names(), encode_models([plain])[0], strict=True))
    assert found[f"spec.{column}"] == value != before[f"spec.{column}"]
    assert (found["spec.patch"], found["spec.depth"], found["spec.patches"]) == (2.0, 3.0, 4.0)
