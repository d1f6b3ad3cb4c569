"""A digit among clutter: one digit of 8 x 8 pixels on a canvas of 32 x 32, with fragments of other digits around it.

Most of the canvas is empty and most of what is not is of no use, so a model that spends its tokens where the digit is
reads as well for less: the kind of task that token budgets are for. It has the making of the cluttered, translated
digits of Mnih et al., "Recurrent Models of Visual Attention", NIPS 2014, section 4.1 (https://arxiv.org/abs/1406.6247),
from the real digits of `cosearch.data.digits`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.data.digits import DIGIT_SIDE, DIGIT_SPLITS, load_digits
from cosearch.data.task import Split, Task, make_task

__all__ = ["FRAGMENTS", "FRAGMENT_SIDE", "SEARCH_GRID", "SEARCH_SIZE", "Scenes", "digit_search", "draw_scenes", "paint"]

SEARCH_SIZE = 32
"""Side of the canvas in pixels."""

SEARCH_GRID = 2
"""The digit and the fragments stand on multiples of this many pixels, as the digits of `digit_pairs` do."""

FRAGMENTS = 6
"""Pieces of other digits on a canvas."""

FRAGMENT_SIDE = 4
"""Side of a piece in pixels: a quarter of a digit, so that only the digit itself is whole."""

_SCENES = {"train": 8_192, "validation": 1_024, "test": 2_048}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenes:
    """What stands where on each canvas.

    Attributes:
        digits: positions in the set of the digits to be read, shape (scenes,).
        places: row and column of the canvas that the digit's first pixel falls on, shape (scenes, 2).
        sources: positions in the set of the digits that fragments are cut from, shape (scenes, fragments).
        cuts: row and column of the source where a fragment starts, shape (scenes, fragments, 2).
        fragment_places: row and column of the canvas where it is put, shape (scenes, fragments, 2).
    """

    digits: NDArray[np.int64]
    places: NDArray[np.int64]
    sources: NDArray[np.int64]
    cuts: NDArray[np.int64]
    fragment_places: NDArray[np.int64]


def digit_search() -> Task:
    """Returns the task of reading the one whole digit among fragments of others.

    Canvases are drawn within a split: a validation canvas holds digits and fragments of validation writers alone.
    """
    images, labels = load_digits()
    splits = {}
    for name in DIGIT_SPLITS:
        scenes = draw_scenes(name)
        splits[name] = Split(images=paint(images, scenes)[..., None], labels=labels[scenes.digits][:, None])
    names = tuple(str(digit) for digit in range(10))
    return make_task("digit-search", names, splits["train"], splits["validation"], splits["test"])


def draw_scenes(split: str) -> Scenes:
    """Returns the scenes of a split, drawn from its own digits, the same each time.

    Args:
        split: a name in `DIGIT_SPLITS`.
    """
    rng = np.random.default_rng([2014, SEARCH_SIZE, *split.encode()])
    rows, scenes = DIGIT_SPLITS[split], _SCENES[split]

    def on_grid(side: int, *shape: int) -> NDArray[np.int64]:
        return SEARCH_GRID * rng.integers(0, (SEARCH_SIZE - side) // SEARCH_GRID + 1, shape)

    return Scenes(
        digits=rng.integers(rows.start, rows.stop, scenes),
        places=on_grid(DIGIT_SIDE, scenes, 2),
        sources=rng.integers(rows.start, rows.stop, (scenes, FRAGMENTS)),
        cuts=rng.integers(0, DIGIT_SIDE - FRAGMENT_SIDE + 1, (scenes, FRAGMENTS, 2)),
        fragment_places=on_grid(FRAGMENT_SIDE, scenes, FRAGMENTS, 2),
    )


def paint(images: NDArray[np.uint8], scenes: Scenes) -> NDArray[np.uint8]:
    """Returns the canvases, shape (scenes, size, size).

    The digit is put down last and its whole square with it, so that no fragment covers or touches its strokes.

    Args:
        images: all digits, shape (digits, 8, 8).
        scenes: what stands where.
    """
    canvas = np.zeros((len(scenes.digits), SEARCH_SIZE, SEARCH_SIZE), np.uint8)
    for index in range(scenes.sources.shape[1]):
        _put(
            canvas,
            images,
            scenes.sources[:, index],
            scenes.cuts[:, index],
            scenes.fragment_places[:, index],
            FRAGMENT_SIDE,
        )
    _put(canvas, images, scenes.digits, np.zeros_like(scenes.places), scenes.places, DIGIT_SIDE)
    return canvas


def _put(
    canvas: NDArray[np.uint8],
    images: NDArray[np.uint8],
    sources: NDArray[np.int64],
    cuts: NDArray[np.int64],
    places: NDArray[np.int64],
    side: int,
) -> None:
    """Copies a square of ``side`` pixels of one digit onto each canvas."""
    reach = np.arange(side)
    rows, columns = reach[:, None], reach[None, :]
    cut, place = cuts[:, :, None, None], places[:, :, None, None]
    piece = images[sources[:, None, None], cut[:, 0] + rows, cut[:, 1] + columns]
    canvas[np.arange(len(canvas))[:, None, None], place[:, 0] + rows, place[:, 1] + columns] = piece
