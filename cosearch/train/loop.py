"""The training loop, and reading a model's accuracy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.data import Split, Task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.model.formats import Quantizer
from cosearch.spec import ModelSpec
from cosearch.train.batches import Batches, Drawn, drawn, normalised
from cosearch.train.optim import Optimizers
from cosearch.train.recipe import LARGE, SELF, Recipe
from cosearch.train.teachers import distillation_loss, large_teacher, taught, teacher_from_file
from cosearch.train.twins import check_stages, copy_fitting, float_twin, stage, twin_recipe, unreduced, warm_start
from cosearch.train.weights import tensors_from_file

__all__ = [
    "Plateau",
    "Score",
    "Trained",
    "Training",
    "accuracy",
    "curve",
    "one_thread",
    "predictions",
    "score",
    "steps",
    "train",
]

READ_BATCH = 64
"""Images read at a time when nothing is learnt; with more, activations no longer fit in the caches."""

CURVE_POINTS = 20
"""Of a training's loss, kept with its result."""


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
        recipe: what it was trained by, changes of its spec included.
        steps: that were made; fewer than the recipe's where it had learnt before.
        curve: (steps made, mean training loss since the point before) at a few points.
    """

    model: VisionTransformer
    score: Score
    recipe: Recipe
    steps: int
    curve: tuple[tuple[int, float], ...]


def train(spec: ModelSpec, task: Task, recipe: Recipe, seed: int) -> Trained:
    """Trains a model from scratch on the training split, and scores it on the validation split.

    The recipe's fields that ``spec.training`` names have its values. The same arguments give the same weights on the
    same machine, whatever else runs: one thread, one generator.

    Raises:
        EvaluationError: the loss stopped being a number, or the recipe does not suit the model.
        UserError: ``spec.training`` is no part of a recipe, or a file that the recipe names cannot be read.
    """
    recipe = recipe.overridden(spec.training)
    check_stages(spec, recipe)
    with one_thread():
        teacher, start = _twins(spec, task, recipe, seed)
        batches = Batches(task.train, task)
        generator = torch.Generator().manual_seed(seed)
        first = stage(spec, recipe, 0.0)
        model = build_model(first, seed)
        if start is not None:
            warm_start(model, first, start, recipe.warm_start)
        images = batches.images(torch.randperm(len(batches), generator=generator)[: recipe.calibration])
        calibrate(model, images)
        training = Training(model, batches, recipe, generator, teacher=teacher)
        losses = []
        while training.step < training.total:
            training.become(stage(spec, recipe, training.step / training.total), images, seed)
            losses.append(training.advance())
        training.become(spec, images, seed)
        model = training.model.eval()
        found = score(model, task.validation, task)
        return Trained(model=model, score=found, recipe=recipe, steps=len(losses), curve=curve(losses))


def _twins(
    spec: ModelSpec, task: Task, recipe: Recipe, seed: int
) -> tuple[VisionTransformer | None, Mapping[str, Tensor] | None]:
    """Returns the teacher and the weights to begin with, where the recipe asks for them."""
    taught_by, begins = recipe.teacher if recipe.distill else "", recipe.warm_start
    twin: VisionTransformer | None = None
    if SELF in (taught_by, begins):
        own = dataclasses.replace(unreduced(float_twin(spec)), training=())
        twin = train(own, task, twin_recipe(recipe), seed).model
    if taught_by in ("", SELF):
        teacher = twin if taught_by else None
    else:
        teacher = large_teacher(task) if taught_by == LARGE else teacher_from_file(taught_by, task)
    if begins == SELF and twin is not None:
        return teacher, twin.state_dict()
    return teacher, tensors_from_file(begins) if begins else None


def steps(model: VisionTransformer, batches: Batches, recipe: Recipe, generator: torch.Generator) -> Iterator[float]:
    """Trains a calibrated model step by step, as it is; yields the loss of each.

    Raises:
        EvaluationError: the loss stopped being a number.
    """
    training = Training(model, batches, recipe, generator)
    while training.step < training.total:
        yield training.advance()


class Training:
    """A training on its way.

    Args:
        model: calibrated.
        batches: what it learns from.
        recipe: how.
        generator: of all that is drawn.
        teacher: in evaluation mode; needed if the recipe distils.

    Attributes:
        model: as it is now.
        step: steps made.
        total: steps in all; fewer once the loss has stopped falling.
    """

    def __init__(
        self,
        model: VisionTransformer,
        batches: Batches,
        recipe: Recipe,
        generator: torch.Generator,
        *,
        teacher: VisionTransformer | None = None,
    ) -> None:
        self.model, self.step, self.total = model.train(), 0, recipe.steps
        self._batches, self._recipe, self._generator, self._teacher = batches, recipe, generator, teacher
        self._plateau = Plateau(recipe.patience) if recipe.patience else None
        self._optimizers = Optimizers(dict(model.named_parameters()), recipe)
        self._forward = _runnable(model, recipe)

    def become(self, spec: ModelSpec, images: Tensor, seed: int) -> None:
        """Goes on with the model that ``spec`` describes; nothing happens where it is that already.

        Weights and optimisers' states stay where names and shapes do; scales that are new are set by ``images``.
        """
        if spec == self.model.spec:
            return
        model = build_model(spec, seed)
        copy_fitting(model, self.model.state_dict())
        with torch.no_grad():
            model(images)  # sets the scales that are not set
        optimizers = Optimizers(dict(model.named_parameters()), self._recipe)
        optimizers.carry(self._optimizers)
        self.model, self._optimizers, self._forward = model, optimizers, _runnable(model, self._recipe)
        self._tell_progress()

    def advance(self) -> float:
        """Makes a step; returns its loss.

        Raises:
            EvaluationError: the loss stopped being a number.
        """
        recipe = self._recipe
        factor = recipe.learning_rate_factor(self.step, self.total)
        batch = drawn(self._batches, recipe, self._generator)
        with _precision(self.model, recipe.dtype):
            logits = self._forward(batch.images)
        loss = self._loss(logits.float(), batch)
        value = loss.item()
        if not math.isfinite(value):
            raise EvaluationError(f"training diverged at step {self.step} of {self.total}: loss is {value}")
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizers.step(factor)
        self.step += 1
        if self._plateau and self.step < recipe.hold * self.total and self._plateau.reached(value):
            self.total = min(self.total, math.ceil(self.step / recipe.hold))
            self._plateau = None
        self._tell_progress()
        return value

    def _loss(self, logits: Tensor, batch: Drawn) -> Tensor:
        loss = _cross_entropy(logits, batch.labels, self._recipe)
        if batch.others is not None:
            loss = batch.share * loss + (1 - batch.share) * _cross_entropy(logits, batch.others, self._recipe)
        if self._teacher is None or not self._recipe.distill:
            return loss
        other = distillation_loss(logits, taught(self._teacher, batch.images), self._recipe.temperature)
        return (1 - self._recipe.distill) * loss + self._recipe.distill * other

    def _tell_progress(self) -> None:
        """Tells a model that changes in training (a normalisation that is phased out, say) how far it has come."""
        progress = getattr(self.model, "progress", None)
        if callable(progress):
            progress(self.step / self.total)


class Plateau:
    """Sees whether the loss has stopped falling, once it has fallen at all.

    A transformer's loss stands still at first, at chance: that is not the end.

    Args:
        patience: steps in which the smoothed loss must fall by `LEAST_FALL`.
    """

    BEGUN = 0.8
    """Share of the first loss that the smoothed one must fall below before anything counts (assumption)."""

    LEAST_FALL = 0.01
    """Relative; assumption: what falls more slowly in the holding phase is left to the falling one."""

    DECAY = 0.9
    """Of the loss's moving average: about 10 steps count."""

    def __init__(self, patience: int) -> None:
        self._patience, self._steps, self._since = patience, 0, 0
        self._average, self._least, self._first = 0.0, math.inf, math.nan

    def reached(self, loss: float) -> bool:
        """Takes the loss of one more step; returns whether it has not fallen for ``patience`` of them."""
        if self._steps == 0:
            self._first = loss
        self._steps += 1
        self._average += (1 - self.DECAY) * (loss - self._average)
        smoothed = self._average / (1 - self.DECAY**self._steps)
        if smoothed < (1 - self.LEAST_FALL) * self._least or smoothed > self.BEGUN * self._first:
            self._least, self._since = min(smoothed, self._least), 0
        else:
            self._since += 1
        return self._since >= self._patience


def curve(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Returns (steps made, mean loss since the point before) at up to 20 points spread evenly."""
    ends = sorted({round(len(losses) * (point + 1) / CURVE_POINTS) for point in range(CURVE_POINTS)} - {0})
    return tuple(
        (end, math.fsum(losses[start:end]) / (end - start)) for start, end in zip([0, *ends], ends, strict=False)
    )


@contextmanager
def _precision(model: nn.Module, dtype: str) -> Iterator[None]:
    """Runs what is inside with products in ``dtype``; quantisers stay in single precision, as do their gradients."""
    if dtype == "float32":
        yield
        return
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))
        for module in model.modules()
        if isinstance(module, Quantizer)
    ]
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _runnable(model: VisionTransformer, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    model.train()
    return torch.compile(model) if recipe.compile else model


def _cross_entropy(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=recipe.label_smoothing)


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
