"""A slow evaluator's numbers, predicted from what it gave before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import EvaluationError, UserError, did_you_mean
from cosearch.evaluator import BatchEvaluator, Context, Evaluator, LimitingEvaluator, Metric
from cosearch.plugins import EVALUATORS, refer
from cosearch.spec import AcceleratorSpec, Candidate, ModelSpec, Violation
from cosearch.surrogate import FILE, Prediction, Surrogate

__all__ = ["Surrogated"]

_OUTSIDE = ("refuse", "evaluate")


class Surrogated:
    """Stands for a slow evaluator inside the range that it was learnt in; gives the same metrics.

    Args:
        of: the evaluator that it stands for, as a run file names one: ``{use: ..., options: ...}``.
        run: what it was learnt from: a file that ``cosearch surrogate fit`` wrote, a run's folder that has one, or the
            name of a run under ``runs/``.
        outside: what to do with a candidate outside the range. ``refuse``: it fails, with the reason. ``evaluate``:
            the slow evaluator scores it.

    Raises:
        UserError: the surrogate gives other metrics than the evaluator, or looks at what that one does not.
        FileError: there is no surrogate.
    """

    def __init__(self, of: Mapping[str, Any], run: str, outside: str = "refuse") -> None:
        if outside not in _OUTSIDE:
            raise UserError(f"outside is {outside!r}; {did_you_mean(str(outside), _OUTSIDE)}")
        self._real, self._evaluate = _slow(of), outside == "evaluate"
        path = _find(run)
        self._learnt = Surrogate.load(path)
        missing = [metric.name for metric in self._real.metrics if metric.name not in self._learnt.targets]
        if missing:
            raise UserError(
                f"{path} has not learnt {missing[0]!r}, which {of['use']!r} gives; fit it to a run of that evaluator"
            )
        if self._learnt.pair and self._real.scope == "model":
            raise UserError(
                f"{path} looks at the accelerator, which {of['use']!r} does not; fit it to a run of that evaluator"
            )
        self.metrics: tuple[Metric, ...] = tuple(self._described(metric) for metric in self._real.metrics)
        self.scope: Literal["model", "pair"] = self._real.scope
        self.cheap: bool = not self._evaluate or self._real.cheap

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns the predicted metrics, or the slow evaluator's where the candidate is outside and that is wanted.

        Raises:
            EvaluationError: the candidate is outside the range; or as the slow evaluator.
        """
        said = self._learnt.predict([candidate])
        if not said.inside[0]:
            if self._evaluate:
                return self._real.evaluate(candidate, context)
            raise EvaluationError(f"the surrogate cannot say: outside its range: {said.why[0]}")
        return {name: float(column[0]) for name, column in self._bounded(said).items()}

    def evaluate_batch(
        self, model: ModelSpec, accelerators: Sequence[AcceleratorSpec]
    ) -> Mapping[str, NDArray[np.float64]]:
        """Returns, for each metric, an array of shape (accelerators,).

        Raises:
            EvaluationError: a candidate is outside the range and the slow evaluator does not take batches; one by one,
                `evaluate` says which.
        """
        said = self._learnt.predict([Candidate(model=model, accelerator=spec) for spec in accelerators])
        values = self._bounded(said)
        beyond = np.flatnonzero(~said.inside)
        if beyond.size:
            if not (self._evaluate and isinstance(self._real, BatchEvaluator)):
                raise EvaluationError(f"the surrogate cannot say: outside its range: {said.why[int(beyond[0])]}")
            real = self._real.evaluate_batch(model, [accelerators[int(i)] for i in beyond])
            for name, column in values.items():
                column[beyond] = real[name]
        return values

    def violations(self, candidate: Candidate) -> Sequence[Violation]:
        """Returns what the slow evaluator knows to be impossible; nothing where it knows of none."""
        return self._real.violations(candidate) if isinstance(self._real, LimitingEvaluator) else ()

    def _bounded(self, said: Prediction) -> dict[str, NDArray[np.float64]]:
        """Returns the predictions, cut to what each metric can be."""
        bounds = {metric.name: metric.bounds or (-np.inf, np.inf) for metric in self._real.metrics}
        return {name: np.clip(said.values[name], *bounds[name]) for name in bounds}

    def _described(self, metric: Metric) -> Metric:
        found = self._learnt.report.metrics.get(metric.name)
        if found is None:
            return metric
        error = f"{100 * found.median:.1f} %" if found.relative else f"{found.median:.3g} {metric.unit}".rstrip()
        return replace(metric, description=f"{metric.description}; predicted, median error {error}")


def _slow(of: Mapping[str, Any]) -> Evaluator:
    if not isinstance(of, Mapping) or "use" not in of or set(of) - {"use", "options"}:
        raise UserError(f"of is {of!r}; name the evaluator as a run file does: {{use: ..., options: {{...}}}}")
    return refer(EVALUATORS, str(of["use"]), of.get("options") or {}, Path()).evaluator()


def _find(run: str) -> Path:
    given = Path(run)
    if given.is_file():
        return given
    places = [folder / FILE for folder in (given, Path("runs") / run)]
    return next((path for path in places if path.is_file()), given if given.suffix == ".npz" else places[0])
