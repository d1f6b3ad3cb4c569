"""What scores a candidate: the contract between the search and its evaluators.

Evaluators live outside this package (entry-point group ``cosearch.evaluators``, a ``module:Class``, or a file); the
search knows them only through these types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cosearch.spec import AcceleratorSpec, Candidate, ModelSpec, Scalar, Violation

__all__ = ["BatchEvaluator", "BriefEvaluator", "Context", "Evaluator", "LimitingEvaluator", "Metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that an evaluator gives.

    Attributes:
        name: as used in run files, with the SI unit as suffix where it has one (``latency_s``).
        unit: unit for people, such as ``s``; empty for a ratio.
        direction: whether more is better (``max``) or less is (``min``).
        description: one line.
        bounds: smallest and largest possible value, where the metric has them (0 and 1 for a share).
    """

    name: str
    unit: str
    direction: Literal["min", "max"]
    description: str
    bounds: tuple[float, float] | None = None


@dataclass(kw_only=True)
class Context:
    """What a single evaluation may use.

    Attributes:
        seed: derives from the run's seed and the model's id; the only source of randomness.
        task: the run file's ``task`` section.
        artifacts: files to keep with the result, by name; put bytes here (weights, logs).
        brief: whether a `BriefEvaluator` is to give its cheap guess; others are never asked for one.
    """

    seed: int
    task: Mapping[str, Any] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    brief: bool = False


@runtime_checkable
class Evaluator(Protocol):
    """Scores candidates. Stateless: the same candidate and context give the same numbers, on any worker.

    Attributes:
        metrics: what `evaluate` returns, every name each time.
        scope: ``model`` where the numbers depend on the model alone (then a model is evaluated once, whatever
            accelerators it is paired with), ``pair`` where they depend on both.
        cheap: whether it costs so little that the search calls it in its own process, before anything is trained.
    """

    metrics: tuple[Metric, ...]
    scope: Literal["model", "pair"]
    cheap: bool

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns the value of each metric.

        Raises:
            EvaluationError: the candidate cannot be scored; the text is the reason that the user reads.
        """
        ...


@runtime_checkable
class BatchEvaluator(Evaluator, Protocol):
    """An evaluator that scores one model on many accelerators at once."""

    def evaluate_batch(
        self, model: ModelSpec, accelerators: Sequence[AcceleratorSpec]
    ) -> Mapping[str, NDArray[np.float64]]:
        """Returns, for each metric, an array of shape (accelerators,), equal to what `evaluate` gives one by one."""
        ...


@runtime_checkable
class BriefEvaluator(Evaluator, Protocol):
    """An evaluator that can guess its own metrics for a part of its cost, such as by a short training.

    It is told by `Context.brief`. The guess need not be near: it is there to rank candidates.

    Attributes:
        brief_share: cost of a guess over the cost of a full evaluation, above 0 and below 1.
    """

    brief_share: float


@runtime_checkable
class LimitingEvaluator(Evaluator, Protocol):
    """An evaluator that knows of pairs that cannot be, such as a model that a device's memory does not hold."""

    def violations(self, candidate: Candidate) -> Sequence[Violation]:
        """Returns the limits that a pair breaks, and by how much; nothing where it can be scored.

        The search asks before it evaluates: a pair that breaks one is infeasible, not failed, and gets no metrics.
        """
        ...


Config = Mapping[str, Scalar | Mapping[str, Any]]
"""Keyword arguments that make an evaluator, as the run file gives them."""
