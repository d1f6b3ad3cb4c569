"""Accuracy without training: by a predictor that was fitted to models trained before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cosearch.errors import EvaluationError, UserError
from cosearch.evaluator import Context, Metric
from cosearch.predictors import encode_models, load_predictor
from cosearch.spec import Candidate

__all__ = ["Predicted"]

OUTSIDE = ("refuse", "answer")


class Predicted:
    """Says what a training would give, for milliseconds.

    The predictor must have been fitted to `cosearch.predictors.encode_models` alone (no readings), and kept by
    `cosearch.predictors.save_predictor`.

    Args:
        predictor: its file.
        metric: what it predicts: ``accuracy`` or ``exact``.
        outside: what happens to a model outside the range that was learnt: ``refuse`` fails it, ``answer`` answers.

    Raises:
        UserError: the file cannot be read, or an option is wrong.
    """

    scope: Literal["model", "pair"] = "model"
    cheap = True

    def __init__(self, predictor: str, metric: str = "accuracy", outside: str = "refuse") -> None:
        if outside not in OUTSIDE:
            raise UserError(f"outside is {outside!r}; write one of {', '.join(OUTSIDE)}")
        self._learnt, self._outside = load_predictor(Path(predictor)), outside
        self.metrics = (
            Metric(
                name=metric,
                unit="",
                direction="max",
                description=f"{metric} as {Path(predictor).name} predicts it, no training",
                bounds=(0.0, 1.0),
            ),
        )

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:  # noqa: ARG002
        """Returns the predicted metric, between 0 and 1.

        Raises:
            EvaluationError: the model is outside the range that was learnt.
            UserError: the predictor was fitted to other columns than encodings have.
        """
        said = self._learnt.predict(encode_models([candidate.model]))
        if self._outside == "refuse" and not said.inside[0]:
            raise EvaluationError(
                "the predictor cannot say: the model is unlike all that it has learnt; "
                "train it, fit the predictor to more models, or set outside: answer"
            )
        return {self.metrics[0].name: float(min(max(said.mean[0], 0.0), 1.0))}
