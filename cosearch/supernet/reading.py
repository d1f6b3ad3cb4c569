"""What a supernet says of a model: its accuracy, read at once or after a few steps of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from cosearch.data import Task
from cosearch.model import VisionTransformer
from cosearch.spec import ModelSpec
from cosearch.supernet.training import Supernet
from cosearch.train import Recipe, Score, score
from cosearch.train.batches import Batches
from cosearch.train.loop import one_thread, steps

__all__ = ["FINETUNE", "Reading", "inherit", "read"]

FINETUNE = Recipe(lr=1.2e-3, matrix_lr=6e-3, scale_lr=0.02, warmup=0.0, hold=0.0)
"""How inherited weights go on: a fifth of a fresh model's rates, falling from the start (assumption)."""

_SETTLING = 30
"""Batches that settle a BatchNorm's statistics, which forget a tenth with each; other models see one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read.

    Attributes:
        model: with the weights that it was read with, in evaluation mode: an ordinary model, which can be exported.
        score: on the validation split.
        known: share of its weights that the supernet has; the others are untrained.
    """

    model: VisionTransformer
    score: Score
    known: float


def inherit(supernet: Supernet, spec: ModelSpec, batches: Batches, generator: torch.Generator) -> VisionTransformer:
    """Returns the model with its part of the shared parameters; scales and statistics that are not shared are set.

    The supernet stays as it is.
    """
    model = supernet.weights.cut(spec, keep=False).model.train()
    model.progress(supernet.steps / supernet.recipe.base.steps)
    settling = _SETTLING if spec.norm == "batchnorm" else 1
    with torch.no_grad():
        for _ in range(settling):
            model(batches.images(torch.randint(len(batches), (FINETUNE.batch,), generator=generator)))
    return model


def read(supernet: Supernet, spec: ModelSpec, task: Task, *, finetune_steps: int = 0, seed: int = 0) -> Reading:
    """Returns how well a model reads the validation split with shared parameters.

    Args:
        supernet: trained.
        spec: any model of the task; a parameter that the supernet never had is drawn from its seed, untrained.
        task: that the supernet was trained on.
        finetune_steps: steps by `FINETUNE` before the model is read.
        seed: of the images of these steps.

    Raises:
        EvaluationError: fine-tuning diverged.
    """
    with one_thread():
        batches, generator = Batches(task.train, task), torch.Generator().manual_seed(seed)
        known = supernet.weights.known(spec)
        model = inherit(supernet, spec, batches, generator)
        if finetune_steps:
            for _ in steps(model, batches, replace(FINETUNE, steps=finetune_steps), generator):
                pass
        model.eval()
        return Reading(model=model, score=score(model, task.validation, task), known=known)
