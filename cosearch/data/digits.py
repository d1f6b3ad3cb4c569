"""Tasks made of scikit-learn's handwritten digits: real data that needs no download.

The set is the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49): 1,797 digits of 13 people, 8 x 8 pixels, 17 levels of grey. People
follow one another in it, so cutting it in its own order keeps the splits' writers apart (but for the one at a cut).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.data.task import Split, Task, make_task

__all__ = ["DIGIT_SPLITS", "PAIR_SIZES", "Pairs", "digit_pairs", "digits", "draw_pairs", "load_digits", "paint_pairs"]

DIGIT_SPLITS = {"train": range(1000), "validation": range(1000, 1297), "test": range(1297, 1797)}
"""Positions in scikit-learn's set that each split is made of."""

PAIR_SIZES = (16, 24)
"""Sides of the canvas that `digit_pairs` paints on, in pixels."""

_PAIRS = {"train": 16_384, "validation": 1_024, "test": 2_048}
_SIDE = 8
_NAMES = tuple(str(digit) for digit in range(10))


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns all digits, shape (1797, 8, 8), 0 to 255, and what they are, shape (1797,)."""
    import sklearn.datasets  # slow to import, and only these two tasks need it

    bunch = sklearn.datasets.load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def digits() -> Task:
    """Returns the task of reading one digit of 8 x 8 pixels."""
    images, labels = load_digits()
    splits = {
        name: Split(images=images[rows.start : rows.stop, :, :, None], labels=labels[rows.start : rows.stop, None])
        for name, rows in DIGIT_SPLITS.items()
    }
    return make_task("digits", _NAMES, splits["train"], splits["validation"], splits["test"])


def digit_pairs(size: int = 16) -> Task:
    """Returns the task of reading two digits side by side, left to right.

    Args:
        size: side of the canvas, one of `PAIR_SIZES`.
    """
    images, labels = load_digits()
    splits = {}
    for stream, (name, rows) in enumerate(DIGIT_SPLITS.items()):
        pairs = draw_pairs(images, np.arange(rows.start, rows.stop), _PAIRS[name], size, stream)
        splits[name] = Split(images=paint_pairs(images, pairs, size)[..., None], labels=labels[pairs.sources])
    return make_task("digit-pairs", _NAMES, splits["train"], splits["validation"], splits["test"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Which digits stand where; all arrays have shape (pairs, 2), the left digit first.

    Attributes:
        sources: positions in the set.
        tops: row of the canvas that the digit's first row falls on.
        lefts: column of the canvas that the digit's first column falls on (its frame's, which may be blank and then
            lie outside).
    """

    sources: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
