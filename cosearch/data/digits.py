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

__all__ = [
    "DIGIT_SIDE",
    "DIGIT_SPLITS",
    "PAIR_GRID",
    "PAIR_SIZES",
    "Pairs",
    "digit_pairs",
    "digits",
    "draw_pairs",
    "load_digits",
    "paint_pairs",
]

DIGIT_SIDE = 8
"""Side of a digit of the set, in pixels."""

DIGIT_SPLITS = {"train": range(1000), "validation": range(1000, 1297), "test": range(1297, 1797)}
"""Positions in scikit-learn's set that each split is made of."""

PAIR_SIZES = (16, 24)
"""Sides of the canvas that `digit_pairs` paints on, in pixels."""

PAIR_GRID = 2
"""Digits stand on multiples of this many pixels: a step finer than usual patches, so that patches cut them in several
ways, and short trainings still learn to read them."""

_PAIRS = {"train": 8_192, "validation": 1_024, "test": 2_048}
_NAMES = tuple(str(digit) for digit in range(10))


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns all digits, shape (1797, 8, 8), 0 to 255, and what they are, shape (1797,)."""
    import sklearn.datasets  # slow to import, and only the embedded tasks need it

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

    Each stands somewhere in its half of the canvas. Pairs are drawn within a split, so a validation pair is made of
    validation digits alone.

    Args:
        size: side of the canvas, one of `PAIR_SIZES`.
    """
    images, labels = load_digits()
    splits = {}
    for name in DIGIT_SPLITS:
        pairs = draw_pairs(name, size)
        splits[name] = Split(images=paint_pairs(images, pairs, size)[..., None], labels=labels[pairs.sources])
    return make_task("digit-pairs", _NAMES, splits["train"], splits["validation"], splits["test"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Which digits stand where; all arrays have shape (pairs, 2), the left digit first.

    Attributes:
        sources: positions in the set.
        tops: row of the canvas that the digit's first row falls on.
        lefts: column of the canvas that the digit's first column falls on.
    """

    sources: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]


def draw_pairs(split: str, size: int) -> Pairs:
    """Returns the pairs of a split, drawn from its own digits, the same each time.

    Args:
        split: a name in `DIGIT_SPLITS`.
        size: side of the canvas.
    """
    rng = np.random.default_rng([1998, size, *split.encode()])
    rows, pairs, half = DIGIT_SPLITS[split], (_PAIRS[split], 2), size // 2
    sources = rng.integers(rows.start, rows.stop, pairs)
    tops = PAIR_GRID * rng.integers(0, (size - DIGIT_SIDE) // PAIR_GRID + 1, pairs)
    lefts = PAIR_GRID * rng.integers(0, (half - DIGIT_SIDE) // PAIR_GRID + 1, pairs) + np.array([0, half])
    return Pairs(sources=sources, tops=tops, lefts=lefts)


def paint_pairs(images: NDArray[np.uint8], pairs: Pairs, size: int) -> NDArray[np.uint8]:
    """Returns the canvases, shape (pairs, size, size).

    Args:
        images: all digits, shape (digits, 8, 8).
        pairs: which of them stand where.
        size: side of a canvas.
    """
    canvas = np.zeros((len(pairs.sources), size, size), np.uint8)
    which = np.arange(len(canvas))[:, None, None]
    reach = np.arange(DIGIT_SIDE)
    for side in range(2):
        down = pairs.tops[:, side, None, None] + reach[:, None]
        right = pairs.lefts[:, side, None, None] + reach[None, :]
        canvas[which, down, right] = images[pairs.sources[:, side]]
    return canvas
