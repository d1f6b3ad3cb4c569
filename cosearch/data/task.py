"""What a task is, once its images are in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import UserError
from cosearch.spec import TaskShape

__all__ = ["Split", "Task", "make_task"]

_STATISTIC_IMAGES = 10_000
"""Training images that the channel statistics are taken from, spread evenly over a larger set."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Images and what is to be read from them.

    Attributes:
        images: shape (images, height, width, channels), 0 to 255; read-only, possibly memory-mapped.
        labels: shape (images, labels), classes from 0; read-only.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Images in three splits that share nothing: training sees ``train`` alone.

    Attributes:
        name: as in the run file.
        shape: what the task asks of a model.
        class_names: one for each class.
        mean: of each channel over the training images, in units of the full range (0 to 1).
        std: standard deviation, likewise; never below 1/255, so that a constant channel can be divided by it.
        train: what training sees.
        validation: what a search compares candidates by.
        test: left for models that a search has found.
    """

    name: str
    shape: TaskShape
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split


def make_task(name: str, class_names: tuple[str, ...], train: Split, validation: Split, test: Split) -> Task:
    """Returns a checked task; its arrays become read-only.

    Raises:
        UserError: a split is empty or does not fit the others, or a class has no training image.
    """
    for where, split in (("training", train), ("validation", validation), ("test", test)):
        _check(name, where, split, train, len(class_names))
    missing = sorted(set(range(len(class_names))) - set(np.unique(train.labels).tolist()))
    if missing:
        raise UserError(
            f"task {name!r} has no training image of class {class_names[missing[0]]!r}; add some, or drop the class"
        )
    seen = train.images[:: max(1, len(train) // _STATISTIC_IMAGES)]
    mean = seen.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    std = np.maximum(seen.std(axis=(0, 1, 2), dtype=np.float64), 1) / 255
    _, height, width, channels = train.images.shape
    return Task(
        name=name,
        shape=TaskShape(
            image=(height, width), channels=channels, classes=len(class_names), labels=train.labels.shape[1]
        ),
        class_names=class_names,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        train=train,
        validation=validation,
        test=test,
    )


def _check(name: str, where: str, split: Split, train: Split, classes: int) -> None:
    if classes < 2:
        raise UserError(f"task {name!r} has {classes} class; give images of at least 2")
    if len(split) == 0:
        raise UserError(f"the {where} split of task {name!r} is empty; give it at least 1 image")
    if len(split.images) != len(split.labels):
        raise UserError(
            f"the {where} split of task {name!r} has {len(split.images)} images, but labels for {len(split.labels)}; "
            "give each image its labels"
        )
    if split.images.shape[1:] != train.images.shape[1:] or split.labels.shape[1:] != train.labels.shape[1:]:
        raise UserError(
            f"the {where} split of task {name!r} has images of {split.images.shape[1:]} and labels of "
            f"{split.labels.shape[1:]}, but training has {train.images.shape[1:]} and {train.labels.shape[1:]}; "
            "make them alike"
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise UserError(
            f"the {where} split of task {name!r} has label {low if low < 0 else high}, but its {classes} classes "
            f"are numbered 0 to {classes - 1}; renumber the labels or name more classes"
        )
    for array in (split.images, split.labels):
        array.flags.writeable = False
