"""Accuracy read from a supernet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cosearch.data import load_task
from cosearch.errors import EvaluationError, UserError
from cosearch.evaluator import Context, Metric
from cosearch.spec import Candidate
from cosearch.supernet import Supernet, load_supernet, read
from cosearch.train import weights_to_bytes

__all__ = ["FromSupernet"]

_LEAST_KNOWN = 0.9
"""Share of a model's weights below which a reading says little of it (assumption)."""


class FromSupernet:
    """Reads each model from shared parameters that were trained once, at once or after a few steps of its own.

    Args:
        checkpoint: file that ``cosearch supernet`` wrote.
        finetune_steps: steps from the inherited weights before the model is read.

    Raises:
        UserError: the checkpoint cannot be read, or the steps are below 0.
    """

    metrics = (
        Metric(
            name="accuracy",
            unit="",
            direction="max",
            description="share of labels read right with a supernet's weights, validation split",
            bounds=(0.0, 1.0),
        ),
        Metric(
            name="loss",
            unit="nat",
            direction="min",
            description="mean cross-entropy a label with a supernet's weights, validation split",
        ),
    )
    scope: Literal["model", "pair"] = "model"
    cheap = False
    paths = ("checkpoint",)

    def __init__(self, checkpoint: str, finetune_steps: int = 0) -> None:
        if isinstance(finetune_steps, bool) or not isinstance(finetune_steps, int) or finetune_steps < 0:
            raise UserError(f"finetune_steps is {finetune_steps!r}; write a whole number, 0 to read at once")
        self.checkpoint, self.finetune_steps = checkpoint, finetune_steps
        _loaded(checkpoint)

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns accuracy and loss; leaves the weights that were read as the artifact ``weights.safetensors``.

        Raises:
            EvaluationError: the supernet was trained on another task or shares too little with the model, or
                fine-tuning diverged.
        """
        supernet, task = _loaded(self.checkpoint), load_task(context.task)
        if supernet.task != task.name:
            raise EvaluationError(
                f"{self.checkpoint} was trained on task {supernet.task!r}, not {task.name!r}; train another"
            )
        found = read(supernet, candidate.model, task, finetune_steps=self.finetune_steps, seed=context.seed)
        if found.known < _LEAST_KNOWN:
            raise EvaluationError(
                f"{self.checkpoint}, trained for space {supernet.space!r}, has {found.known:.0%} of the model's "
                "weights; train one for the run's space"
            )
        context.artifacts["weights.safetensors"] = weights_to_bytes(found.model)
        return {"accuracy": found.score.accuracy, "loss": found.score.loss}


@lru_cache(maxsize=2)
def _loaded(checkpoint: str) -> Supernet:
    return load_supernet(Path(checkpoint))
