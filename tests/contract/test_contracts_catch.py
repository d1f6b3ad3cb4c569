"""The contract tests catch samplers and evaluators that break their contract."""

import math

import numpy as np
import pytest

from cosearch.evaluator import Metric
from cosearch.samplers.random import RandomSampler
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.testing import EvaluatorContract, SamplerContract


class Honest(RandomSampler):
    """Random, with a place to put a fault."""

    def __init__(self, space, objectives, seed):
        super().__init__(space, objectives, seed)
        self.space, self.asked, self.told = space, [], 0

    def ask(self, n):
        points = [self.spoil(dict(p)) for p in super().ask(n)]
        self.asked.extend(points)
        return points

    def spoil(self, point):
        return point

    def tell(self, results):
        self.told += len(results)


class Repeats(Honest):
    def spoil(self, point):
        return self.asked[0] if self.asked else point


class Invalid(Honest):
    def spoil(self, point):
        return {**point, "model.dim": 32, "model.heads": 3}


class NumpyValues(Honest):
    def spoil(self, point):
        return {**point, "accelerator.rows": np.int64(point["accelerator.rows"])}


class Complete(Honest):
    def spoil(self, point):
        return {"model.keep": 0.5, **point}


class Greedy(Honest):
    def ask(self, n):
        return super().ask(n + 1)


class GlobalRandom(Honest):
    def spoil(self, point):
        return {**point, "accelerator.bandwidth": float(np.random.uniform(0.5e9, 16e9))}


class GivesUp(Honest):
    def tell(self, results):
        super().tell(results)
        self.over = any(r.status != "ok" for r in results) or getattr(self, "over", False)

    def ask(self, n):
        return [] if getattr(self, "over", False) else super().ask(n)


class Endless(Honest):
    def ask(self, n):
        return super().ask(n) or [self.asked[0]]


class NeedsResults(Honest):
    def tell(self, results):
        self.best = results[0]


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (Repeats, "test_no_point_is_asked_twice"),
        (Invalid, "test_points_are_valid_canonical_and_plain"),
        (NumpyValues, "test_points_are_valid_canonical_and_plain"),
        (Complete, "test_points_are_valid_canonical_and_plain"),
        (Greedy, "test_n_counts_models"),
        (GlobalRandom, "test_same_seed_gives_same_points_whatever_the_global_generators_do"),
        (GivesUp, "test_it_goes_on_when_everything_fails"),
        (GivesUp, "test_it_goes_on_when_everything_is_infeasible"),
        (GivesUp, "test_it_goes_on_when_some_fail"),
        (Endless, "test_a_tiny_space_is_asked_whole_and_then_nothing"),
        (Endless, "test_a_space_of_one_point_is_asked_once"),
        (NeedsResults, "test_telling_nothing_is_harmless"),
    ],
)
def test_a_faulty_sampler_is_caught(fault, test):
    class Contract(SamplerContract):
        models = 8

        def make(self, space, objectives, seed):
            return fault(space, objectives, seed)

    class Sound(Contract):
        def make(self, space, objectives, seed):
            return Honest(space, objectives, seed)

    # pytest.fail would hide which of the two it was: the sound one passes, the faulty one raises
    getattr(Sound(), test)()
    with pytest.raises((AssertionError, IndexError, KeyError)):
        getattr(Contract(), test)()


class Flops:
    """An evaluator that keeps its contract, with places to put faults."""

    metrics = (Metric(name="size", unit="", direction="min", description="A size.", bounds=(0.0, 1e9)),)
    scope = "model"
    cheap = True

    def evaluate(self, candidate, context):
        context.artifacts["log"] = b"fine"
        return {"size": float(candidate.model.dim)}

    def evaluate_batch(self, model, accelerators):
        return {"size": np.full(len(accelerators), float(model.dim))}


class Missing(Flops):
    def evaluate(self, candidate, context):
        return {}


class NotFinite(Flops):
    def evaluate(self, candidate, context):
        return {"size": math.inf}


class OutOfBounds(Flops):
    def evaluate(self, candidate, context):
        return {"size": -1.0}


class NumpyFloat(Flops):
    def evaluate(self, candidate, context):
        return {"size": np.float64(candidate.model.dim)}


class Remembers(Flops):
    calls = 0

    def evaluate(self, candidate, context):
        self.calls += 1
        return {"size": float(self.calls)}


class SeesTheAccelerator(Flops):
    def evaluate(self, candidate, context):
        return {"size": float(candidate.accelerator.as_dict()["rows"])}


class TextArtifact(Flops):
    def evaluate(self, candidate, context):
        context.artifacts["log"] = "text"
        return {"size": 1.0}


class OtherBatch(Flops):
    def evaluate_batch(self, model, accelerators):
        return {"size": np.full(len(accelerators), model.dim + 1.0)}


class Twice(Flops):
    metrics = Flops.metrics * 2


class Described(EvaluatorContract):
    def make(self):
        return Flops()

    def candidates(self):
        task = TaskShape(image=(16, 16), channels=1, classes=10)
        model = ModelSpec(task=task, patch=4, dim=16, blocks=(BlockSpec(heads=2, mlp_hidden=16),))
        return [Candidate(model=model, accelerator=AcceleratorSpec.of("systolic", {"rows": n})) for n in (4, 8)]


class TestASoundEvaluator(Described):
    pass


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (Missing, "test_every_metric_is_a_finite_float_within_its_bounds"),
        (NotFinite, "test_every_metric_is_a_finite_float_within_its_bounds"),
        (OutOfBounds, "test_every_metric_is_a_finite_float_within_its_bounds"),
        (NumpyFloat, "test_every_metric_is_a_finite_float_within_its_bounds"),
        (Remembers, "test_the_same_candidate_gives_the_same_numbers"),
        (SeesTheAccelerator, "test_a_model_scope_does_not_see_the_accelerator"),
        (TextArtifact, "test_artifacts_are_bytes"),
        (OtherBatch, "test_a_batch_equals_one_by_one"),
        (Twice, "test_it_says_what_it_measures"),
    ],
)
def test_a_faulty_evaluator_is_caught(fault, test):
    class Contract(Described):
        def make(self):
            return fault()

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()
