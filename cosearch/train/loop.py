"""The training loop, and reading a model's accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.data import Split, Task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.spec import ModelSpec
from cosearch.train.batches import Batches, augmented, normalised
from cosearch.train.optim import BETAS, Muon, ScaleAdam, parameter_groups
from cosearch.train.recipe import Recipe

__all__ = ["Score", "Trained", "accuracy", "one_thread", "predictions", "score", "steps", "train"]

READ_BATCH = 500
"""Images read at a time when nothing is learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well a model reads a split.

    Attributes:
        accuracy: share of labels read right.
        exact: share of images with every label read right.
        loss: mean cross-entropy, in nats a label.
    """

    accuracy: float
    exact: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained model.

    Attributes:
        model: in evaluation mode.
        score: on the validation split.
    """

    model: VisionTransformer
    score: Score


def train(spec: ModelSpec, task: Task, recipe: Recipe, seed: int) -> Trained:
    """Trains a model from scratch on the training split, and scores it on the validation split.

    The same arguments give the same weights on the same machine, whatever else runs: one thread, one generator.

    Raises:
        EvaluationError: the loss stopped being a number.
    """
    with one_thread():
        batches = Batches(task.train, task)
        generator = torch.Generator().manual_seed(seed)
        model = build_model(spec, seed)
        calibrate(model, batches.images(torch.randperm(len(batches), generator=generator)[: recipe.calibration]))
        for _ in steps(model, batches, recipe, generator):
            pass
        model.eval()
        return Trained(model=model, score=score(model, task.validation, task))


def steps(model: VisionTransformer, batches: Batches, recipe: Recipe, generator: torch.Generator) -> Iterator[float]:
    """Trains a calibrated model step by step; yields the loss of each.

    Raises:
        EvaluationError: the loss stopped being a number.
    """
    model.train()
    muon, scales, adamw = _optimizers(model, recipe)
    for step in range(recipe.steps):
        factor = recipe.learning_rate_factor(step)
        for group in adamw.param_groups:
            group["lr"] = recipe.lr * factor
        picked = torch.randint(len(batches), (recipe.batch,), generator=generator)
        logits, labels = model(augmented(batches.images(picked), recipe, generator)), batches.labels[picked]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=recipe.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise EvaluationError(f"training diverged at step {step} of {recipe.steps}: loss is {value}")
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adamw.step()
        muon.step(recipe.matrix_lr * factor)
        scales.step(recipe.scale_lr * factor)
        yield value


def _optimizers(model: nn.Module, recipe: Recipe) -> tuple[Muon, ScaleAdam, torch.optim.AdamW]:
    found = parameter_groups(dict(model.named_parameters()), recipe)
    groups = [
        {"params": found.decayed, "weight_decay": recipe.weight_decay},
        {"params": found.plain, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=BETAS, fused=True)
    return Muon(found.hidden, recipe.momentum), ScaleAdam(found.scales, BETAS), adamw


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Returns logits of shape (n, labels, classes) for images as `normalised` gives them, read in batches."""
    return torch.cat([model(images[start : start + READ_BATCH]) for start in range(0, len(images), READ_BATCH)])


@torch.no_grad()
def _read(model: nn.Module, split: Split, task: Task) -> Tensor:
    """Returns the `predictions` for a split without holding all of it in floating point."""
    starts = range(0, len(split), READ_BATCH)
    return torch.cat([model(normalised(split.images[start : start + READ_BATCH], task)) for start in starts])


def score(model: nn.Module, split: Split, task: Task) -> Score:
    """Returns how well ``model`` reads ``split``.

    Raises:
        EvaluationError: its outputs are no numbers.
    """
    training = model.training
    model.eval()
    logits = _read(model, split, task)
    model.train(training)
    labels = torch.tensor(split.labels)
    if not bool(torch.isfinite(logits).all()):
        raise EvaluationError("training diverged: the trained model's outputs are not all numbers")
    right = logits.argmax(dim=2) == labels
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return Score(accuracy=right.double().mean().item(), exact=right.all(dim=1).double().mean().item(), loss=loss.item())


def accuracy(model: nn.Module, split: Split, task: Task) -> float:
    """Returns the share of labels that ``model`` reads right in ``split``."""
    return score(model, split, task).accuracy


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs what is inside on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
