"""Who a candidate learns from beside its labels.

Soft targets are those of Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2
(https://arxiv.org/abs/1503.02531), hard ones those of DeiT (Touvron et al. 2021, equations 2 and 3,
https://arxiv.org/abs/2012.12877). There is no distillation token: the head that reads the labels learns from both.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cosearch.data import Task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.train.recipe import Recipe
from cosearch.train.weights import model_from_file

__all__ = ["LARGE_RECIPE", "distillation_loss", "large_spec", "large_teacher", "taught", "teacher_from_file"]

LARGE_RECIPE = Recipe(steps=600)
"""How the large teacher is trained."""

_MOST_TOKENS = 64


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Returns how far the student is from the teacher.

    Args:
        logits: the student's, shape (..., classes).
        taught: the teacher's, likewise.
        temperature: T of T^2 * KL(softmax(taught / T) || softmax(logits / T)); 0 is the cross-entropy with the
            teacher's choice.
    """
    logits, taught = logits.flatten(0, -2), taught.flatten(0, -2)
    if temperature == 0:
        return F.cross_entropy(logits, taught.argmax(1))
    own, other = (F.log_softmax(values / temperature, dim=1) for values in (logits, taught))
    return F.kl_div(own, other, log_target=True, reduction="batchmean") * temperature**2


def large_spec(task: TaskShape) -> ModelSpec:
    """Returns the large teacher of a task: dim 64, 4 blocks, single precision, at most 64 patches if sides allow."""
    height, width = task.image
    sides = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
    patch = next((side for side in sides if height * width <= _MOST_TOKENS * side**2), sides[-1])
    block = BlockSpec(heads=4, mlp_hidden=128)
    return ModelSpec(task=task, patch=patch, dim=64, overlap=patch // 2, stem_hidden=64, blocks=(block,) * 4)


@lru_cache(maxsize=2)
def large_teacher(task: Task) -> VisionTransformer:
    """Returns the large teacher, trained by `LARGE_RECIPE` from seed 0; once for a task in each process."""
    from cosearch.train.loop import train

    return train(large_spec(task.shape), task, LARGE_RECIPE, 0).model


def teacher_from_file(path: str, task: Task) -> VisionTransformer:
    """Returns a teacher whose weights and spec stand in a file.

    Raises:
        EvaluationError: it reads other images or gives other labels.
        UserError: as `cosearch.train.weights.model_from_file`.
    """
    model = model_from_file(path)
    if model.spec.task != task.shape:
        raise EvaluationError(
            f"recipe.teacher: {path} was trained on {model.spec.task}, but the task is {task.shape}; give a teacher of "
            "the same task"
        )
    return model


@torch.no_grad()
def taught(teacher: VisionTransformer, images: Tensor) -> Tensor:
    """Returns the teacher's logits for a batch."""
    logits: Tensor = teacher(images)
    return logits
