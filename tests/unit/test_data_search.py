"""A digit among clutter: the label's digit is whole and alone in its square, the rest is pieces or nothing."""

import hashlib

import numpy as np
import pytest

from cosearch.data import load_task, task_shape
from cosearch.data.digits import DIGIT_SPLITS, load_digits
from cosearch.data.search import FRAGMENT_SIDE, FRAGMENTS, SEARCH_GRID, SEARCH_SIZE, draw_scenes

SPLITS = ("train", "validation", "test")
CONFIG = {"name": "digit-search"}


@pytest.mark.parametrize("name", SPLITS)
def test_the_digit_stands_whole_where_the_scene_says_and_the_label_names_it(name):
    digits, targets = load_digits()
    split, scenes = getattr(load_task(CONFIG), name), draw_scenes(name)
    assert split.labels[:, 0].tolist() == targets[scenes.digits].tolist()
    for index in range(0, len(split), 61):
        row, column = scenes.places[index]
        seen = split.images[index, row : row + 8, column : column + 8, 0]
        assert (seen == digits[scenes.digits[index]]).all()


@pytest.mark.parametrize("name", SPLITS)
def test_what_is_not_the_digit_is_pieces_of_the_same_splits_digits(name):
    digits, _ = load_digits()
    split, scenes = getattr(load_task(CONFIG), name), draw_scenes(name)
    assert set(np.unique(scenes.sources)) | set(np.unique(scenes.digits)) <= set(DIGIT_SPLITS[name])
    for index in range(0, len(split), 61):
        drawn = np.zeros((SEARCH_SIZE, SEARCH_SIZE), np.uint8)
        for fragment in range(FRAGMENTS):
            (cut_row, cut_column), (row, column) = scenes.cuts[index, fragment], scenes.fragment_places[index, fragment]
            source = digits[scenes.sources[index, fragment]]
            piece = source[cut_row : cut_row + FRAGMENT_SIDE, cut_column : cut_column + FRAGMENT_SIDE]
            drawn[row : row + FRAGMENT_SIDE, column : column + FRAGMENT_SIDE] = piece
        row, column = scenes.places[index]
        drawn[row : row + 8, column : column + 8] = digits[scenes.digits[index]]
        assert (split.images[index, :, :, 0] == drawn).all()


def test_digits_stand_everywhere_on_the_grid():
    places = draw_scenes("train").places
    for axis in range(2):
        assert set(np.unique(places[:, axis])) == set(range(0, SEARCH_SIZE - 7, SEARCH_GRID))


@pytest.mark.parametrize(("patch", "share"), [(2, 0.2), (4, 0.3), (8, 0.65)])
def test_most_tokens_are_background_where_patches_are_small(patch, share):
    images = load_task(CONFIG).train.images[..., 0]
    side = SEARCH_SIZE // patch
    assert images.reshape(-1, side, patch, side, patch).any(axis=(2, 4)).mean() < share


def test_no_canvas_is_in_two_splits():
    task = load_task(CONFIG)
    seen = [{image.tobytes() for image in getattr(task, name).images} for name in SPLITS]
    assert sum(len(images) for images in seen) == len(set.union(*seen))


def test_all_classes_are_about_as_frequent():
    for name in SPLITS:
        counts = np.bincount(getattr(load_task(CONFIG), name).labels[:, 0], minlength=10)
        assert counts.min() > 0.07 * counts.sum()


def test_the_canvases_never_change():
    """Accuracies of earlier runs stay comparable only as long as this digest holds."""
    task, digest = load_task(CONFIG), hashlib.sha256()
    for name in SPLITS:
        split = getattr(task, name)
        digest.update(split.images.tobytes() + split.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "273c9266d9eede3d"


def test_the_cheap_shape_is_the_tasks_and_the_task_is_made_once():
    task = load_task(CONFIG)
    assert task_shape(CONFIG) == task.shape
    assert task.train.images.shape == (8192, SEARCH_SIZE, SEARCH_SIZE, 1)
    assert load_task(dict(CONFIG)) is task
