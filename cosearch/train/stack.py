"""Training several models of one shape at once, on one core."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cosearch.data import Task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec
from cosearch.train.batches import Batches, drawn
from cosearch.train.loop import Trained, curve, one_thread, score, train
from cosearch.train.optim import BETAS, Muon, Packed, ScaleAdam, parameter_groups
from cosearch.train.recipe import Recipe
from cosearch.train.stacked import StackedTransformer

__all__ = [
    "LARGEST",
    "STACK",
    "Targets",
    "drawn_for_all",
    "mixed_losses",
    "stack_losses",
    "stackable",
    "stacks",
    "steps",
    "train_stack",
]

STACK = 16
"""Models trained at once: beyond it little is gained (``bench/train/stack.md``)."""

LARGEST = 600
"""Tokens times dim of an image up to which a stack is faster than training one by one (``bench/train/stack.md``).

Above it a stack's tensors no longer fit in the caches, and calls are no longer what a step spends its time on."""

_KNOWN_MODEL = {"task", "patch", "dim", "blocks", "token_method", "overlap", "stem_hidden", "edge_bits", "training"}
_KNOWN_BLOCK = {"heads", "mlp_hidden", "keep_tokens", "weight_bits", "activation_bits"}
_KNOWN_METHODS = {"none", "prune", "merge"}


def stackable(a: ModelSpec, b: ModelSpec) -> bool:
    """Returns whether two models can be trained in one stack.

    They can if they are alike in everything but bits (what changes the recipe included), are quantised in the same
    places, are small enough to gain (`LARGEST`), and have nothing that `StackedTransformer` does not compute. A model
    that fails by itself is stackable
    with none, itself included.
    """
    return _fits(a) and _fits(b) and _without_bits(a) == _without_bits(b)


def stacks(models: Sequence[ModelSpec], most: int = STACK) -> list[list[int]]:
    """Returns positions in ``models`` that are to be trained together: stackable, at most ``most``, in order."""
    open_groups: list[list[int]] = []
    for index, model in enumerate(models):
        for group in open_groups:
            if len(group) < most and stackable(models[group[0]], model):
                group.append(index)
                break
        else:
            open_groups.append([index])
    return open_groups


def train_stack(
    models: Sequence[ModelSpec], task: Task, recipe: Recipe, seeds: Sequence[int], *, most: int = STACK
) -> list[Trained | EvaluationError]:
    """Trains models together where they are `stackable`, and scores each on the validation split.

    Each model has the weights, images and order of images that `train` would give it with its seed; what comes out
    differs by rounding (`cosearch.train.stacked`). It does not depend on which models share the stack, nor on their
    number, bit for bit, if the batch is a multiple of 16. Models that fit in no stack are trained by `train`.

    Args:
        models: what to train.
        task: what on.
        recipe: how; where it is not `Recipe.stackable` for a model, `train` trains it.
        seeds: one for each model.
        most: models in a stack.

    Returns:
        For each model what came of it: one that diverges leaves the others alone, and is an error in its place.

    Raises:
        ValueError: there are not as many seeds as models.
    """
    if len(seeds) != len(models):
        raise ValueError(f"{len(models)} models, but {len(seeds)} seeds")
    results: dict[int, Trained | EvaluationError] = {}
    for group in stacks(models, most):
        specs, own = [models[index] for index in group], [seeds[index] for index in group]
        changed = recipe.overridden(specs[0].training)
        if changed.stackable and _fits(specs[0]):
            found = _train_alike(specs, task, changed, own)
        else:
            found = [_alone(spec, task, recipe, seed) for spec, seed in zip(specs, own, strict=True)]
        results.update(zip(group, found, strict=True))
    return [results[index] for index in range(len(models))]


def _alone(spec: ModelSpec, task: Task, recipe: Recipe, seed: int) -> Trained | EvaluationError:
    try:
        return train(spec, task, recipe, seed)
    except EvaluationError as error:
        return error


def _train_alike(
    specs: Sequence[ModelSpec], task: Task, recipe: Recipe, seeds: Sequence[int]
) -> list[Trained | EvaluationError]:
    with one_thread():
        batches = Batches(task.train, task)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        models = [build_model(spec, seed) for spec, seed in zip(specs, seeds, strict=True)]
        for model, generator in zip(models, generators, strict=True):
            calibrate(model, batches.images(torch.randperm(len(batches), generator=generator)[: recipe.calibration]))
        stack = StackedTransformer(models)
        losses, failures = _learn(stack, batches, recipe, generators)
        stack.unstack()
        results: list[Trained | EvaluationError] = []
        for index, model in enumerate(models):
            model.eval()
            try:
                results.append(failures.get(index) or _scored(model, task, recipe, [row[index] for row in losses]))
            except EvaluationError as error:
                results.append(error)
        return results


def _scored(model: VisionTransformer, task: Task, recipe: Recipe, losses: Sequence[float]) -> Trained:
    found = score(model, task.validation, task)
    return Trained(model=model, score=found, recipe=recipe, steps=len(losses), curve=curve(losses))


def _learn(
    stack: StackedTransformer, batches: Batches, recipe: Recipe, generators: Sequence[torch.Generator]
) -> tuple[list[list[float]], Mapping[int, EvaluationError]]:
    """Trains; returns the losses of each step, and the models whose loss stopped being a number."""
    failures: dict[int, EvaluationError] = {}
    course: list[list[float]] = []
    for step, losses in enumerate(steps(stack, batches, recipe, generators)):
        course.append(losses)
        for index, loss in enumerate(losses):
            if not math.isfinite(loss) and index not in failures:
                failures[index] = EvaluationError(f"training diverged at step {step} of {recipe.steps}: loss is {loss}")
        if len(failures) == len(stack):
            break
    return course, failures


def steps(
    stack: StackedTransformer, batches: Batches, recipe: Recipe, generators: Sequence[torch.Generator]
) -> Iterator[list[float]]:
    """Trains step by step; yields the losses of each, one for a model, numbers or not."""
    optimizers = _Optimizers(stack, recipe)
    for step in range(recipe.steps):
        images, targets = drawn_for_all(batches, recipe, generators)
        losses = mixed_losses(stack(images), targets, recipe.label_smoothing)
        for parameter in stack.parameters.values():
            parameter.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizers.step(recipe.learning_rate_factor(step))
        yield losses.tolist()


class _Optimizers:
    """The optimisers of `cosearch.train.loop`, each for all models of a stack."""

    def __init__(self, stack: StackedTransformer, recipe: Recipe) -> None:
        groups = parameter_groups(stack.parameters, recipe, stacked=True)
        self._recipe = recipe
        self._muon = Muon(groups.hidden, recipe.momentum)
        decayed, plain, scales = (Packed(group) for group in (groups.decayed, groups.plain, groups.scales))
        self._packed = (decayed, plain, scales)
        self._adamw = torch.optim.AdamW(
            [
                {"params": [decayed.values], "weight_decay": recipe.weight_decay},
                {"params": [plain.values], "weight_decay": 0.0},
            ],
            lr=recipe.lr,
            betas=BETAS,
            fused=True,
        )
        self._scales = ScaleAdam([scales.values], BETAS)

    def step(self, factor: float) -> None:
        """Moves every parameter against its gradient, at ``factor`` times the highest learning rates."""
        for packed in self._packed:
            packed.gather()
        for group in self._adamw.param_groups:
            group["lr"] = self._recipe.lr * factor
        self._adamw.step()
        self._muon.step(self._recipe.matrix_lr * factor)
        self._scales.step(self._recipe.scale_lr * factor)
        for packed in self._packed:
            packed.scatter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the models of a stack are to read.

    Attributes:
        labels: shape (models, batch, labels).
        others: labels of what was mixed in, likewise; None where nothing was.
        shares: of ``labels`` in each model's target, shape (models,).
    """

    labels: Tensor
    others: Tensor | None = None
    shares: Tensor | None = None


def drawn_for_all(batches: Batches, recipe: Recipe, generators: Sequence[torch.Generator]) -> tuple[Tensor, Targets]:
    """Returns a batch for each model, as `cosearch.train.batches.drawn` gives it: images (models, batch, ...)."""
    if not (recipe.flip or recipe.shift or recipe.erase or recipe.mixup or recipe.cutmix):
        picked = torch.stack([torch.randint(len(batches), (recipe.batch,), generator=own) for own in generators])
        flat = batches.images(picked.flatten())
        return flat.view(*picked.shape, *flat.shape[1:]), Targets(labels=batches.labels[picked])
    found = [drawn(batches, recipe, own) for own in generators]
    images, labels = torch.stack([one.images for one in found]), torch.stack([one.labels for one in found])
    if all(one.others is None for one in found):
        return images, Targets(labels=labels)
    others = torch.stack([one.labels if one.others is None else one.others for one in found])
    return images, Targets(labels=labels, others=others, shares=torch.tensor([one.share for one in found]))


def mixed_losses(logits: Tensor, targets: Targets, label_smoothing: float) -> Tensor:
    """Returns the loss of each model, shape (models,)."""
    losses = stack_losses(logits, targets.labels, label_smoothing)
    if targets.others is None or targets.shares is None:
        return losses
    return losses * targets.shares + stack_losses(logits, targets.others, label_smoothing) * (1 - targets.shares)


def stack_losses(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Returns the mean cross-entropy of each model, shape (models,)."""
    each = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), label_smoothing=label_smoothing, reduction="none")
    return each.view(len(logits), -1).mean(1)


def _fits(spec: ModelSpec) -> bool:
    """Returns whether it is small enough and the stack computes all that it has: other fields are at their default."""
    return (
        (spec.patches + 1) * spec.dim <= LARGEST
        and _others_at_default(spec, _KNOWN_MODEL)
        and all(_others_at_default(block, _KNOWN_BLOCK) for block in spec.blocks)
        and spec.token_method in _KNOWN_METHODS
    )


def _others_at_default(spec: ModelSpec | BlockSpec, known: set[str]) -> bool:
    return all(
        getattr(spec, field.name) == field.default for field in dataclasses.fields(spec) if field.name not in known
    )


def _without_bits(spec: ModelSpec) -> ModelSpec:
    """Returns the spec with all integers at one width."""
    blocks = tuple(
        dataclasses.replace(block, weight_bits=_one(block.weight_bits), activation_bits=_one(block.activation_bits))
        for block in spec.blocks
    )
    return dataclasses.replace(spec, blocks=blocks, edge_bits=_one(spec.edge_bits))


def _one(bits: int) -> int:
    return bits if bits == FLOAT_BITS else 8
