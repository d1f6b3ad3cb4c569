"""A user's own images as arrays: one ``.npz`` file.

Keys: ``x_train`` and ``y_train``, ``x_test`` and ``y_test``, and, if they are to be fixed, ``x_validation`` and
``y_validation`` (else the last tenth of the training images); ``class_names`` is optional. Images are uint8, shape
(n, height, width) or (n, height, width, channels); labels are whole numbers from 0, shape (n,) or (n, labels).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosearch.data.cifar import VALIDATION_SHARE
from cosearch.data.task import Split, Task, make_task
from cosearch.errors import UserError, did_you_mean

__all__ = ["MOST_CLASSES", "npz"]

MOST_CLASSES = 65_536
"""A higher label means something other than classes numbered from 0."""


def npz(path: Path) -> Task:
    """Returns the task in an ``.npz`` file.

    Raises:
        UserError: the file is not there or is no ``.npz``, lacks an array, or its arrays make no sense.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"task npz: {path} cannot be read ({error}); give a file that numpy.savez wrote") from error
    train, test = _split(path, arrays, "train"), _split(path, arrays, "test")
    if "x_validation" in arrays:
        validation = _split(path, arrays, "validation")
    else:
        cut = len(train) - max(1, round(len(train) * VALIDATION_SHARE))
        train, validation = (
            Split(images=train.images[:cut], labels=train.labels[:cut]),
            Split(images=train.images[cut:], labels=train.labels[cut:]),
        )
    shapes = {split.images.shape[1:] for split in (train, validation, test)}
    if len(shapes) > 1:
        raise UserError(f"task npz: {path} has images of several shapes, {sorted(shapes)}; make them the same")
    widths = {split.labels.shape[1] for split in (train, validation, test)}
    if len(widths) > 1:
        raise UserError(f"task npz: {path} has splits with {sorted(widths)} labels an image; make them the same")
    return make_task("npz", _class_names(path, arrays, (train, validation, test)), train, validation, test)


def _class_names(path: Path, arrays: dict[str, NDArray[np.generic]], splits: tuple[Split, ...]) -> tuple[str, ...]:
    if "class_names" in arrays:
        return tuple(str(name) for name in arrays["class_names"].reshape(-1))
    highest = max(int(split.labels.max(initial=-1)) for split in splits)
    if highest > MOST_CLASSES:
        raise UserError(f"task npz: {path} has label {highest}; number the classes from 0, without gaps")
    return tuple(str(number) for number in range(highest + 1))


def _split(path: Path, arrays: dict[str, NDArray[np.generic]], name: str) -> Split:
    for key in (f"x_{name}", f"y_{name}"):
        if key not in arrays:
            raise UserError(f"task npz: {path} has no array {key!r}; {did_you_mean(key, arrays)}")
    images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise UserError(
            f"task npz: {path}: x_{name} holds NaN or infinity; mend those pixels, then write uint8, 0 to 255"
        )
    if images.dtype != np.uint8:
        raise UserError(f"task npz: {path}: x_{name} is {images.dtype}; write pixels as uint8, 0 to 255")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(f"task npz: {path}: x_{name} has shape {images.shape}; write (n, height, width, channels)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"task npz: {path}: y_{name} is {labels.dtype}; write whole numbers from 0")
    if labels.ndim not in (1, 2) or len(labels) != len(images) or labels.size == 0:
        raise UserError(
            f"task npz: {path}: y_{name} has shape {labels.shape} for {len(images)} images; write one row an image"
        )
    if images.ndim == 3:
        images = images[..., None]
    return Split(images=images.astype(np.uint8, copy=False), labels=labels.astype(np.int64).reshape(len(labels), -1))
