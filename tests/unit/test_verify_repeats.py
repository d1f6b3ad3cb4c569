"""What workers do: other seeds, alone or in a stack, the test split, and failures of one seed."""

import dataclasses
import math

import pytest

from cosearch.data import load_task
from cosearch.errors import EvaluationError
from cosearch.evaluator import Context
from cosearch.plugins import EVALUATORS, PluginRef
from cosearch.pool import Job, run_job
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec
from cosearch.train import Recipe, score, train
from cosearch.verification.repeats import TEST_METRICS, Repeat, RepeatStacked, trainings_of

DIGITS = {"name": "digits"}
RECIPE = {"steps": 6, "batch": 16, "calibration": 32}
TRAINED = PluginRef(group=EVALUATORS, use="trained", options={"recipe": RECIPE})
STRANGER = """
from cosearch.evaluator import Metric

class Odd:
    metrics = (Metric(name="accuracy", unit="", direction="max", description="toy"),)
    scope, cheap = "model", False
    def evaluate(self, candidate, context):
        return {"accuracy": float("nan") if context.seed == 13 else context.seed / 100}
"""
ODD = PluginRef(group=EVALUATORS, use="odd.py:Odd", source=STRANGER)


def candidate():
    task = load_task(DIGITS)
    block = BlockSpec(heads=2, mlp_hidden=16, weight_bits=8, activation_bits=8)
    model = ModelSpec(task=task.shape, patch=4, dim=16, edge_bits=8, blocks=(block,))
    return Candidate(model=model, accelerator=AcceleratorSpec.of("systolic", {}))


def done(evaluator):
    context = Context(seed=0, task=DIGITS)
    assert evaluator.evaluate(candidate(), context) == {}
    return trainings_of(context.artifacts)


def stacked(*seeds, **changes):
    return done(RepeatStacked({**RECIPE, **changes}, seeds))


def unhurried(trainings):
    return [dataclasses.replace(one, seconds=0.0) for one in trainings]


def test_one_seed_gives_what_the_evaluator_gives_and_the_test_split():
    task = load_task(DIGITS)
    (found,) = done(Repeat(TRAINED, 5))
    trained = train(candidate().model, task, Recipe.from_config(RECIPE), 5)
    assert found.metrics == dataclasses.asdict(trained.score)
    assert found.test == dataclasses.asdict(score(trained.model, task.test, task))
    assert tuple(found.test) == TEST_METRICS
    assert (found.seed, found.failed) == (5, "")
    assert found.seconds > 0


def test_a_stack_gives_each_seed_the_same_whatever_shares_it():
    """So the numbers do not hang on how many workers there are, or on which seeds were there before."""
    whole = unhurried(stacked(1, 2, 3))
    assert [one.seed for one in whole] == [1, 2, 3]
    assert unhurried(stacked(3, 1)) == [whole[2], whole[0]]
    assert unhurried(stacked(2)) == [whole[1]]
    assert whole[0].metrics != whole[1].metrics


def test_a_stack_agrees_with_one_by_one_but_for_rounding():
    (alone,), (together, _) = done(Repeat(TRAINED, 5)), stacked(5, 6)
    assert together.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-3)
    assert together.test["loss"] == pytest.approx(alone.test["loss"], rel=1e-3)


def test_seeds_that_diverge_say_so_each():
    for one in stacked(1, 2, lr=1e30, matrix_lr=1e30, steps=20):
        assert one.failed.startswith("training diverged")
        assert (one.metrics, one.test) == ({}, {})


def test_a_strangers_evaluator_gives_no_test_split():
    (found,) = done(Repeat(ODD, 7))
    assert (found.metrics, found.test) == ({"accuracy": 0.07}, {})


def test_nan_from_a_strangers_evaluator_is_a_failure():
    with pytest.raises(EvaluationError, match=r"^accuracy is nan$"):
        done(Repeat(ODD, 13))
    ref = PluginRef(
        group=EVALUATORS, use="cosearch.verification.repeats:Repeat", options={"evaluator": ODD, "seed": 13}
    )
    result = run_job(Job(key="k", evaluator=ref, candidate=candidate(), seed=13, task=DIGITS))
    assert result.failed == "accuracy is nan"


def test_numbers_of_the_test_split_are_no_numbers_of_the_validation_split():
    (found,) = done(Repeat(TRAINED, 5))
    assert found.test != found.metrics
    assert all(math.isfinite(value) for value in found.test.values())
