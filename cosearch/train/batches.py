"""Images as models take them, a batch at a time: a split stays in bytes, or on disk, as the task has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosearch.data import Split, Task
from cosearch.train.recipe import Recipe

__all__ = ["Batches", "Drawn", "augmented", "drawn", "normalised"]

_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.8, 1.0
"""Of the beta distributions of shares (DeiT: Touvron et al. 2021, table 9, https://arxiv.org/abs/2012.12877)."""

_ERASED_AREA, _ERASED_ASPECT = (0.02, 1 / 3), (0.3, 10 / 3)
"""Ranges of a rectangle's share of the image and of its height to width; noise fills it: `timm`'s random erasing, which
DeiT uses (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, has 0.02 to 0.4 and 0.3 to 1 / 0.3)."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a step learns from.

    Attributes:
        images: shape (batch, channels, height, width).
        labels: shape (batch, labels).
        others: labels of what was mixed in, likewise; None where nothing was.
        share: of ``labels`` in the target, the rest of it being ``others``.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0


def drawn(batches: Batches, recipe: Recipe, generator: torch.Generator) -> Drawn:
    """Returns a batch, changed at random as the recipe says; all of it depends on the generator alone."""
    picked = torch.randint(len(batches), (recipe.batch,), generator=generator)
    images, labels = augmented(batches.images(picked), recipe, generator), batches.labels[picked]
    if not (recipe.mixup or recipe.cutmix):
        return Drawn(images=images, labels=labels)
    rng = _numpy_generator(generator)
    chance = rng.random()
    if chance < recipe.mixup:
        share = float(rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA))
        images = images.lerp(images.flip(0), 1 - share)
    elif chance < recipe.mixup + recipe.cutmix:
        images, share = _pasted(images, float(rng.beta(_CUTMIX_ALPHA, _CUTMIX_ALPHA)), rng)
    else:
        return Drawn(images=images, labels=labels)
    return Drawn(images=images, labels=labels, others=labels.flip(0), share=share)


def augmented(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Returns images of the same shape, mirrored, moved and erased at random as the recipe says."""
    if recipe.flip or recipe.shift:
        images = _moved(images, recipe, generator)
    return _erased(images, recipe.erase, _numpy_generator(generator)) if recipe.erase else images


def _numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Returns a generator for what torch draws only from its global one."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def _moved(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Returns images mirrored, then moved; what comes in from outside is the nearest pixel. One gather for both."""
    (count, _, height, width), reach = images.shape, recipe.shift
    mirrored = torch.rand(count, generator=generator) < 0.5 if recipe.flip else None
    rows, columns = torch.arange(height), torch.arange(width)
    if reach:
        moves = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
        rows, columns = (rows + moves[0]).clamp_(0, height - 1), (columns + moves[1]).clamp_(0, width - 1)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    places = (rows.view(-1, height, 1) * width + columns.view(-1, 1, width)).expand(count, height, width)
    return images.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def _erased(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Returns images of which a share has a rectangle of noise, of the deviation that normalised pixels have."""
    height, width = images.shape[2:]
    images = images.clone()
    for index in np.flatnonzero(rng.random(len(images)) < share):
        area = rng.uniform(*_ERASED_AREA) * height * width
        aspect = np.exp(rng.uniform(*np.log(_ERASED_ASPECT)))
        down, right = (max(1, round(side)) for side in (np.sqrt(area * aspect), np.sqrt(area / aspect)))
        down, right = min(down, height), min(right, width)
        top, left = rng.integers(height - down + 1), rng.integers(width - right + 1)
        noise = rng.standard_normal((images.shape[1], down, right), np.float32)
        images[index, :, top : top + down, left : left + right] = torch.from_numpy(noise)
    return images


def _pasted(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Returns images with a rectangle of others in them, and the share of the area that stays their own.

    CutMix: Yun et al., ICCV 2019, equations 1 and 2, https://arxiv.org/abs/1905.04899: the rectangle has the image's
    proportions and 1 - ``share`` of its area, is centred anywhere, and is cut off at the border.
    """
    height, width = images.shape[2:]
    bounds = []
    for side in (height, width):
        half, centre = side * np.sqrt(1 - share) / 2, rng.integers(side)
        bounds.append((max(0, round(centre - half)), min(side, round(centre + half))))
    (top, bottom), (left, right) = bounds
    other, images = images.flip(0), images.clone()
    images[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)
