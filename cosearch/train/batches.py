"""Images as models take them, a batch at a time: a split stays in bytes, or on disk, as the task has it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cosearch.data import Split, Task
from cosearch.train.recipe import Recipe

__all__ = ["Batches", "augmented", "normalised"]


def normalised(images: NDArray[np.uint8], task: Task) -> Tensor:
    """Returns uint8 images (n, height, width, channels) as a model takes them: float (n, channels, height, width).

    Each channel has the training split's mean taken away and is divided by its standard deviation.
    """
    pixels = torch.from_numpy(np.moveaxis(images, 3, 1).astype(np.float32)).div_(255)
    mean = torch.tensor(task.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(task.std, dtype=torch.float32).view(1, -1, 1, 1)
    return pixels.sub_(mean).div_(std).contiguous()


class Batches:
    """Batches of a split, normalised when they are asked for.

    A whole split in floating point would take four times its bytes; normalising is the same whichever images are
    together, so nothing else changes.

    Args:
        split: images and labels.
        task: the one that the split is of.

    Attributes:
        labels: shape (images, labels).
    """

    def __init__(self, split: Split, task: Task) -> None:
        self._pixels, self._task = split.images, task
        self.labels = torch.tensor(split.labels)

    def __len__(self) -> int:
        return len(self._pixels)

    def images(self, picked: Tensor) -> Tensor:
        """Returns the images at the positions ``picked``, shape (n,), as `normalised` gives them."""
        return normalised(self._pixels[picked.numpy()], self._task)


def augmented(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Returns images of the same shape, mirrored and moved at random as the recipe says."""
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
