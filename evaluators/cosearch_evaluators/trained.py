"""Accuracy by training from scratch.

Beside the metrics an evaluation leaves two artifacts: ``weights.safetensors``, the weights with the model's spec in the
file's metadata, and ``training.json``:

    {"steps": 150,                       steps made
     "curve": [[8, 2.29], ...],          steps made, mean training loss since the point before
     "recipe": {"steps": 150, ...}}      the recipe that the model was trained by, changes of its spec included
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from cosearch.data import Split, Task, load_task
from cosearch.errors import UserError
from cosearch.evaluator import Context, Metric
from cosearch.spec import Candidate
from cosearch.train import Recipe, train, weights_to_bytes
from cosearch.train import Trained as TrainedModel

__all__ = ["Trained"]

_BRIEF_STEPS, _BRIEF_BATCH = 1 / 8, 1 / 2
"""Of the full training's, in a short one."""

_BRIEF_QUANTISE_FROM = 0.75
"""Of its steps: what is in floating point until then is cheaper, and ranks better."""

_BRIEF_CALIBRATION, _BRIEF_READ = 64, 256
"""Images that set the scales of a short training, and that are read after it."""


class Trained:
    """Trains each model by a recipe, on the run's task, and reads the validation split.

    The test split stays untouched: it is for the model that is exported in the end.

    A space's models may change the recipe (`cosearch.spec.ModelSpec.training`).

    A cheap guess is a short training on small batches, read on a few images; it leaves nothing behind.

    Args:
        recipe: fields of `cosearch.train.Recipe`; those left out keep their defaults.
        brief: fields that differ in a short training; left out, it takes an eighth of the steps and half the images
            in each, and quantises in the last quarter alone (``bench/accuracy/ranking.md`` compares).

    Attributes:
        brief_share: cost of a short training over that of a full one, where half of what a step costs does not depend
            on its images (assumption: of small models it is more, of large ones less).
    """

    metrics = (
        Metric(
            name="accuracy",
            unit="",
            direction="max",
            description="share of labels read right, validation split",
            bounds=(0.0, 1.0),
        ),
        Metric(
            name="exact",
            unit="",
            direction="max",
            description="share of images with every label read right, validation split",
            bounds=(0.0, 1.0),
        ),
        Metric(name="loss", unit="nat", direction="min", description="mean cross-entropy a label, validation split"),
    )
    scope: Literal["model", "pair"] = "model"
    cheap = False
    paths = ("recipe.teacher", "recipe.warm_start")

    def __init__(self, recipe: Mapping[str, Any] | None = None, brief: Mapping[str, Any] | None = None) -> None:
        full = self.recipe = Recipe.from_config(recipe or {})
        less = {
            "steps": max(1, round(full.steps * _BRIEF_STEPS)),
            "batch": max(1, round(full.batch * _BRIEF_BATCH)),
            "calibration": min(full.calibration, _BRIEF_CALIBRATION),
            "quantise_from": max(full.quantise_from, _BRIEF_QUANTISE_FROM),
        }
        self.brief = Recipe.from_config({**dataclasses.asdict(full), **less, **(brief or {})})
        self.brief_share = self.brief.steps / full.steps * (1 + self.brief.batch / full.batch) / 2
        if brief and not self.brief_share < 1:
            raise UserError(
                f"a brief training of {self.brief.steps} steps of {self.brief.batch} images is no shorter than the "
                f"full one; write fewer than {full.steps} steps"
            )

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns accuracy, exact and loss; leaves weights and the training's course as artifacts.

        Raises:
            EvaluationError: the training diverged, or the recipe does not suit the model.
            UserError: the model changes what is no part of a recipe, or a file that it names cannot be read.
        """
        task = load_task(context.task)
        if context.brief:
            return self._numbers(train(candidate.model, _read_less(task), self.brief, context.seed))
        trained = train(candidate.model, task, self.recipe, context.seed)
        context.artifacts["weights.safetensors"] = weights_to_bytes(trained.model)
        course = {
            "steps": trained.steps,
            "curve": [[step, round(loss, 6)] for step, loss in trained.curve],
            "recipe": dataclasses.asdict(trained.recipe),
        }
        context.artifacts["training.json"] = (json.dumps(course, indent=1) + "\n").encode()
        return self._numbers(trained)

    def _numbers(self, found: TrainedModel) -> Mapping[str, float]:
        return {"accuracy": found.score.accuracy, "exact": found.score.exact, "loss": found.score.loss}


def _read_less(task: Task) -> Task:
    """Returns the task with a validation split of its first images alone."""
    split = task.validation
    few = Split(images=split.images[:_BRIEF_READ], labels=split.labels[:_BRIEF_READ])
    return dataclasses.replace(task, validation=few)
