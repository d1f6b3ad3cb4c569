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

from cosearch.data import load_task
from cosearch.evaluator import Context, Metric
from cosearch.spec import Candidate
from cosearch.train import Recipe, train, weights_to_bytes

__all__ = ["Trained"]


class Trained:
    """Trains each model by a recipe, on the run's task, and reads the validation split.

    The test split stays untouched: it is for the model that is exported in the end.

    A space's models may change the recipe (`cosearch.spec.ModelSpec.training`).

    Args:
        recipe: fields of `cosearch.train.Recipe`; those left out keep their defaults.
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

    def __init__(self, recipe: Mapping[str, Any] | None = None) -> None:
        self.recipe = Recipe.from_config(recipe or {})

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns accuracy, exact and loss; leaves weights and the training's course as artifacts.

        Raises:
            EvaluationError: the training diverged, or the recipe does not suit the model.
            UserError: the model changes what is no part of a recipe, or a file that it names cannot be read.
        """
        trained = train(candidate.model, load_task(context.task), self.recipe, context.seed)
        context.artifacts["weights.safetensors"] = weights_to_bytes(trained.model)
        course = {
            "steps": trained.steps,
            "curve": [[step, round(loss, 6)] for step, loss in trained.curve],
            "recipe": dataclasses.asdict(trained.recipe),
        }
        context.artifacts["training.json"] = (json.dumps(course, indent=1) + "\n").encode()
        return {"accuracy": trained.score.accuracy, "exact": trained.score.exact, "loss": trained.score.loss}
