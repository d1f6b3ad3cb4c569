"""What workers do to verify a model: evaluate it again with other seeds, and read the test split.

Two evaluators for `cosearch.pool`, made by reference like any other. Both return no metrics of their own; what came of
each seed is an artifact, which `trainings_of` reads.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cosearch.data import load_task
from cosearch.errors import EvaluationError
from cosearch.evaluator import Context, Metric
from cosearch.model import VisionTransformer, build_model
from cosearch.plugins import PluginRef
from cosearch.spec import Candidate
from cosearch.train import Recipe, Score, Trained, score, train_stack, weights_from_bytes
from cosearch.train.loop import one_thread

__all__ = ["TEST_METRICS", "Repeat", "RepeatStacked", "Training", "trainings_of"]

FILE = "trainings.json"
WEIGHTS = "weights.safetensors"
"""What an evaluator calls the weights that it leaves (`cosearch_evaluators.trained`)."""

TEST_METRICS = tuple(field.name for field in dataclasses.fields(Score))
"""What is read of the test split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What came of one seed.

    Attributes:
        seed: what the evaluator was given.
        metrics: the evaluator's own; empty where it failed.
        test: `TEST_METRICS` on the test split; empty where the evaluator left no weights.
        failed: why it failed; empty where it did not.
        seconds: wall time on its worker; a stack's is shared out evenly.
    """

    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    seconds: float = 0.0


class Repeat:
    """Evaluates a candidate with one more seed, by whatever evaluator the run has.

    Args:
        evaluator: the run's evaluator, by reference.
        seed: to evaluate with.
    """

    metrics: tuple[Metric, ...] = ()
    scope: Literal["model", "pair"] = "model"
    cheap = False

    def __init__(self, evaluator: PluginRef, seed: int) -> None:
        self.evaluator, self.seed = evaluator, seed

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Leaves what came of the seed as an artifact.

        Raises:
            EvaluationError: the candidate cannot be scored with this seed.
        """
        started = time.perf_counter()
        own = Context(seed=self.seed, task=context.task)
        metrics = dict(self.evaluator.evaluator().evaluate(candidate, own))
        test: dict[str, float] = {}
        if WEIGHTS in own.artifacts:
            model = build_model(candidate.model)
            weights_from_bytes(model, own.artifacts[WEIGHTS])
            test = _read_test(model, context.task)
        seconds = time.perf_counter() - started
        _leave([_checked(Training(seed=self.seed, metrics=metrics, test=test, seconds=seconds))], context)
        return {}


class RepeatStacked:
    """Trains a model with several seeds at once, as the evaluator ``trained`` trains it with one, but for rounding.

    What comes out of a seed does not depend on which others share the stack (`cosearch.train.train_stack`) if the
    recipe's batch is a multiple of 16; use it for no other.

    Args:
        recipe: fields of `cosearch.train.Recipe`.
        seeds: to train with.
    """

    metrics: tuple[Metric, ...] = ()
    scope: Literal["model", "pair"] = "model"
    cheap = False

    def __init__(self, recipe: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.recipe, self.seeds = Recipe.from_config(recipe), tuple(seeds)

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Leaves what came of each seed as an artifact; one that fails leaves the others alone."""
        started = time.perf_counter()
        task = load_task(context.task)
        found = train_stack([candidate.model] * len(self.seeds), task, self.recipe, self.seeds)
        outcomes = [self._outcome(seed, result, context.task) for seed, result in zip(self.seeds, found, strict=True)]
        share = (time.perf_counter() - started) / len(self.seeds)
        _leave([dataclasses.replace(outcome, seconds=share) for outcome in outcomes], context)
        return {}

    def _outcome(self, seed: int, result: Trained | EvaluationError, task: Mapping[str, Any]) -> Training:
        if isinstance(result, EvaluationError):
            return Training(seed=seed, failed=str(result))
        try:
            test = _read_test(result.model, task)
            return _checked(Training(seed=seed, metrics=dataclasses.asdict(result.score), test=test))
        except EvaluationError as error:
            return Training(seed=seed, failed=str(error))


def trainings_of(artifacts: Mapping[str, bytes]) -> list[Training]:
    """Returns what a worker left of each seed, in the order of its seeds."""
    return [Training(**entry) for entry in json.loads(artifacts[FILE])]


def _leave(outcomes: Sequence[Training], context: Context) -> None:
    context.artifacts[FILE] = json.dumps([dataclasses.asdict(outcome) for outcome in outcomes]).encode()


def _read_test(model: VisionTransformer, task: Mapping[str, Any]) -> dict[str, float]:
    loaded = load_task(task)
    with one_thread():
        return dataclasses.asdict(score(model, loaded.test, loaded))


def _checked(outcome: Training) -> Training:
    for values in (outcome.metrics, outcome.test):
        for name, value in values.items():
            if not math.isfinite(value):
                raise EvaluationError(f"{name} is {value}")
    return dataclasses.replace(outcome, metrics={name: float(value) for name, value in outcome.metrics.items()})
