"""Training the shared parameters of a space's models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cosearch.data import Task
from cosearch.errors import EvaluationError
from cosearch.spec import ModelSpec
from cosearch.supernet.choices import Choices
from cosearch.supernet.optim import SharedOptimizer
from cosearch.supernet.recipe import SupernetRecipe
from cosearch.supernet.weights import SharedWeights
from cosearch.train.batches import Batches, Drawn, drawn
from cosearch.train.loop import one_thread

__all__ = ["Supernet", "SupernetTraining", "train_supernet"]

_ROOM = 64
"""Random models that room is made for before the first step, after the largest."""


@dataclass(slots=True, kw_only=True)
class Supernet:
    """Shared parameters and where they come from.

    Attributes:
        weights: the parameters.
        space: name of the space whose models they were trained for.
        task: name of the task.
        recipe: how they are trained.
        seed: of all that is drawn.
        steps: steps made.
        losses: training loss of each step, mean over the step's models.
    """

    weights: SharedWeights
    space: str
    task: str
    recipe: SupernetRecipe
    seed: int
    steps: int = 0
    losses: list[float] = field(default_factory=list)


class SupernetTraining:
    """A training on its way; the same arguments give the same parameters, on one thread.

    Args:
        choices: models are drawn from them.
        task: what they learn.
        recipe: how.
        seed: of all that is drawn.
    """

    def __init__(self, choices: Choices, task: Task, recipe: SupernetRecipe, seed: int) -> None:
        self.supernet = Supernet(
            weights=SharedWeights(seed), space=choices.name, task=task.name, recipe=recipe, seed=seed
        )
        self.optimizer = SharedOptimizer(self.supernet.weights, recipe.base)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self._choices = choices
        self._batches = Batches(task.train, task)
        room = [self._choices.draw(self.rng) for _ in range(_ROOM)]
        self.supernet.weights.grow([self._choices.largest, *room])

    def adopt(self, supernet: Supernet) -> None:
        """Goes on with the parameters and the count of another training of the same recipe."""
        self.supernet = supernet
        self.optimizer = SharedOptimizer(supernet.weights, supernet.recipe.base)

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.supernet.steps >= self.supernet.recipe.base.steps

    def advance(self) -> float:
        """Makes a step; returns its loss, the mean over its models.

        Raises:
            EvaluationError: the loss stopped being a number.
        """
        supernet = self.supernet
        recipe, step = supernet.recipe, supernet.steps
        share = step / recipe.base.steps
        models = self._models(share)
        with one_thread():
            batch, teacher, losses = drawn(self._batches, recipe.base, self.generator), None, []
            for spec in models:
                loss, logits = self._backward(spec, batch, teacher, share)
                losses.append(loss)
                if spec is self._choices.largest and len(models) > 1:
                    teacher = logits.softmax(dim=2)
            mean = math.fsum(losses) / len(losses)
            if not math.isfinite(mean):
                raise EvaluationError(f"the supernet diverged at step {step}: loss is {mean}; lower its learning rates")
            boost = recipe.first_rate if share < recipe.largest_first else 1.0
            self.optimizer.step(boost * recipe.base.learning_rate_factor(step))
        supernet.steps += 1
        supernet.losses.append(mean)
        return mean

    def _models(self, share: float) -> list[ModelSpec]:
        """Returns the models of a step, after a share of all steps."""
        recipe, choices = self.supernet.recipe, self._choices
        if share < recipe.largest_first:
            return [choices.largest]
        of = 1
        if share < recipe.shrink_until:
            left = 1 - (share - recipe.largest_first) / (recipe.shrink_until - recipe.largest_first)
            of += round(left * (recipe.shrink_from - 1))
        drawn = [choices.draw(self.rng, of) for _ in range(recipe.random)]
        return drawn if recipe.strategy == "uniform" else [choices.largest, *drawn, choices.smallest]

    def _backward(self, spec: ModelSpec, batch: Drawn, teacher: Tensor | None, share: float) -> tuple[float, Tensor]:
        """Adds a model's gradients to the shared ones; returns its loss and its logits."""
        recipe, subnet = self.supernet.recipe, self.supernet.weights.cut(spec)
        subnet.model.train()
        subnet.model.progress(share)
        logits = subnet.model(batch.images)
        flat, smoothing = logits.flatten(0, 1), recipe.base.label_smoothing
        loss = F.cross_entropy(flat, batch.labels.flatten(), label_smoothing=smoothing)
        if batch.others is not None:
            other = F.cross_entropy(flat, batch.others.flatten(), label_smoothing=smoothing)
            loss = batch.share * loss + (1 - batch.share) * other
        if teacher is not None and recipe.in_place:
            taught = F.cross_entropy(flat, teacher.flatten(0, 1))
            loss = (1 - recipe.in_place) * loss + recipe.in_place * taught
        loss.backward()  # type: ignore[no-untyped-call]
        self.supernet.weights.accumulate(subnet)
        return loss.item(), logits.detach()


def train_supernet(choices: Choices, task: Task, recipe: SupernetRecipe, seed: int) -> Supernet:
    """Returns shared parameters for the models of ``choices``, trained on the training split of ``task``.

    Raises:
        EvaluationError: the loss stopped being a number.
    """
    training = SupernetTraining(choices, task, recipe, seed)
    while not training.done:
        training.advance()
    return training.supernet
