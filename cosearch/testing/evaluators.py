# ruff: noqa: D102 - the name of a test says what it holds
"""The tests that every evaluator passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cosearch.evaluator import BatchEvaluator, Context, Evaluator
from cosearch.spec import Candidate

__all__ = ["EvaluatorContract"]


class EvaluatorContract:
    """Subclass it under a name that begins with ``Test``, and define `make` and `candidates`."""

    def make(self) -> Evaluator:
        """Returns a new evaluator."""
        raise NotImplementedError("define make(self) in your subclass")

    def candidates(self) -> Sequence[Candidate]:
        """Returns a few candidates that it can score; at least two, with different accelerators."""
        raise NotImplementedError("define candidates(self) in your subclass")

    def context(self) -> Context:
        """Returns what an evaluation may use; define it where the evaluator reads the ``task``."""
        return Context(seed=7)

    def test_it_says_what_it_measures(self) -> None:
        evaluator = self.make()
        assert isinstance(evaluator, Evaluator)
        names = [metric.name for metric in evaluator.metrics]
        assert names, "it measures nothing"
        assert len(set(names)) == len(names), f"a name is there twice: {names}"
        assert all(metric.direction in ("min", "max") for metric in evaluator.metrics)
        assert all(metric.description for metric in evaluator.metrics)
        assert evaluator.scope in ("model", "pair")
        assert isinstance(evaluator.cheap, bool)

    def test_every_metric_is_a_finite_float_within_its_bounds(self) -> None:
        evaluator = self.make()
        for candidate in self.candidates():
            values = evaluator.evaluate(candidate, self.context())
            assert set(values) == {metric.name for metric in evaluator.metrics}
            for metric in evaluator.metrics:
                value = values[metric.name]
                assert type(value) is float, f"{metric.name} is a {type(value)}, not a plain float"
                assert math.isfinite(value), f"{metric.name} is {value}; raise EvaluationError instead"
                low, high = metric.bounds or (-math.inf, math.inf)
                assert low <= value <= high, f"{metric.name} is {value}, outside its bounds {metric.bounds}"

    def test_the_same_candidate_gives_the_same_numbers(self) -> None:
        candidate, other = self.candidates()[:2]
        used, new = self.make(), self.make()
        first = self._evaluate(used, candidate)
        self._evaluate(used, other)
        np.random.seed(12345)
        assert self._evaluate(used, candidate) == first, "an evaluation left something behind"
        assert self._evaluate(new, candidate) == first, "a new evaluator gives other numbers"

    def test_a_model_scope_does_not_see_the_accelerator(self) -> None:
        evaluator = self.make()
        if evaluator.scope == "model":
            one, other = self.candidates()[:2]
            assert one.accelerator != other.accelerator, "candidates() needs two different accelerators"
            swapped = Candidate(model=one.model, accelerator=other.accelerator)
            assert self._evaluate(evaluator, one) == self._evaluate(evaluator, swapped)

    def test_artifacts_are_bytes(self) -> None:
        context = self.context()
        self.make().evaluate(self.candidates()[0], context)
        assert all(isinstance(content, bytes) for content in context.artifacts.values())

    def test_a_batch_equals_one_by_one(self) -> None:
        evaluator, candidates = self.make(), self.candidates()
        if not isinstance(evaluator, BatchEvaluator):
            return
        model = candidates[0].model
        accelerators = [candidate.accelerator for candidate in candidates]
        batch = evaluator.evaluate_batch(model, accelerators)
        assert set(batch) == {metric.name for metric in evaluator.metrics}
        for index, accelerator in enumerate(accelerators):
            alone = self._evaluate(evaluator, Candidate(model=model, accelerator=accelerator))
            for name, values in batch.items():
                assert np.shape(values) == (len(accelerators),)
                assert math.isclose(float(values[index]), alone[name], rel_tol=1e-12), f"{name} differs in a batch"

    def _evaluate(self, evaluator: Evaluator, candidate: Candidate) -> Mapping[str, float]:
        return dict(evaluator.evaluate(candidate, self.context()))
