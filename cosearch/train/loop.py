"""The training loop, and reading a model's accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosearch.data import Split, Task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.spec import ModelSpec
from cosearch.train.optim import Muon, ScaleAdam
from cosearch.train.recipe import Recipe

__all__ = ["Score", "Trained", "accuracy", "normalised", "predictions", "score", "train"]

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


def normalised(images: NDArray[np.uint8], task: Task) -> Tensor:
    """Returns uint8 images (n, height, width, channels) as a model takes them: float (n, channels, height, width).

    Each channel has the training split's mean taken away and is divided by its standard deviation.
    """
    pixels = torch.from_numpy(np.moveaxis(images, 3, 1).astype(np.float32)).div_(255)
    mean = torch.tensor(task.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(task.std, dtype=torch.float32).view(1, -1, 1, 1)
    return pixels.sub_(mean).div_(std).contiguous()


def train(spec: ModelSpec, task: Task, recipe: Recipe, seed: int) -> Trained:
    """Trains a model from scratch on the training split, and scores it on the validation split.

    The same arguments give the same weights on the same machine, whatever else runs: one thread, one generator.

    Raises:
        EvaluationError: the loss stopped being a number.
    """
    with _one_thread():
        images, labels = normalised(task.train.images, task), torch.tensor(task.train.labels)
        generator = torch.Generator().manual_seed(seed)
        model = build_model(spec, seed)
        calibrate(model, images[torch.randperm(len(images), generator=generator)[: recipe.calibration]])
        _learn(model, images, labels, recipe, generator)
        model.eval()
        return Trained(model=model, score=score(model, task.validation, task))


def _learn(
    model: VisionTransformer, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> None:
    model.train()
    muon, scales, adamw = _optimizers(model, recipe)
    for step in range(recipe.steps):
        factor = recipe.learning_rate_factor(step)
        for group in adamw.param_groups:
            group["lr"] = recipe.lr * factor
        picked = torch.randint(len(images), (recipe.batch,), generator=generator)
        logits = model(_augmented(images[picked], recipe, generator))
        loss = F.cross_entropy(logits.flatten(0, 1), labels[picked].flatten(), label_smoothing=recipe.label_smoothing)
        if not math.isfinite(loss.item()):
            raise EvaluationError(f"training diverged at step {step} of {recipe.steps}: loss is {loss.item()}")
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adamw.step()
        muon.step(recipe.matrix_lr * factor)
        scales.step(recipe.scale_lr * factor)


def _optimizers(model: nn.Module, recipe: Recipe) -> tuple[Muon, ScaleAdam, torch.optim.AdamW]:
    """Returns Muon for the stem's and the blocks' matrices (if asked for), ScaleAdam for scales, AdamW for the rest."""
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith("quantizer.scale")]
    hidden = [
        parameter
        for name, parameter in model.named_parameters()
        if recipe.optimizer == "muon" and name.startswith(("stem.", "blocks.")) and parameter.dim() == 2
    ]
    taken = {id(parameter) for parameter in (*hidden, *scales)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), fused=True)
    return Muon(hidden, recipe.momentum), ScaleAdam(scales), adamw


def _augmented(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    if recipe.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.shift:
        reach, (height, width) = recipe.shift, images.shape[2:]
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        moves = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
        down = (moves[0][:, None] + torch.arange(height))[:, None, :, None]
        right = (moves[1][:, None] + torch.arange(width))[:, None, None, :]
        which = torch.arange(len(images))[:, None, None, None]
        channel = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[which, channel, down, right]
    return images


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Returns logits of shape (n, labels, classes) for images as `normalised` gives them, read in batches."""
    return torch.cat([model(images[start : start + READ_BATCH]) for start in range(0, len(images), READ_BATCH)])


def score(model: nn.Module, split: Split, task: Task) -> Score:
    """Returns how well ``model`` reads ``split``.

    Raises:
        EvaluationError: its outputs are no numbers.
    """
    training = model.training
    model.eval()
    logits = predictions(model, normalised(split.images, task))
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
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
