"""The embedded tasks: labels tell what is on the canvas, and no digit is in two splits."""

import hashlib

import numpy as np
import pytest
import sklearn.datasets

from cosearch.data import load_task, task_shape
from cosearch.data.digits import DIGIT_SPLITS, PAIR_GRID, PAIR_SIZES, draw_pairs, load_digits

SPLITS = ("train", "validation", "test")


def test_the_splits_cut_the_set_in_its_order_and_share_no_digit():
    rows = [row for name in SPLITS for row in DIGIT_SPLITS[name]]
    assert rows == list(range(1797))
    assert DIGIT_SPLITS["validation"].stop == 1297


def test_digits_are_those_of_scikit_learn():
    bunch = sklearn.datasets.load_digits()
    task = load_task({"name": "digits"})
    for name in SPLITS:
        rows, split = DIGIT_SPLITS[name], getattr(task, name)
        assert split.labels[:, 0].tolist() == bunch.target[rows.start : rows.stop].tolist()
        assert np.abs(split.images[..., 0] * (16 / 255) - bunch.images[rows.start : rows.stop]).max() < 0.04


@pytest.mark.parametrize("size", PAIR_SIZES)
@pytest.mark.parametrize("name", SPLITS)
def test_a_pair_shows_the_digits_that_its_labels_name_left_to_right(name, size):
    digits, targets = load_digits()
    split = getattr(load_task({"name": "digit-pairs", "size": size}), name)
    pairs = draw_pairs(name, size)
    assert split.labels.tolist() == targets[pairs.sources].tolist()
    for index in range(0, len(split), 97):
        blank = split.images[index, :, :, 0].copy()
        for side in range(2):
            top, left = pairs.tops[index, side], pairs.lefts[index, side]
            half = size // 2
            assert side * half <= left <= (side + 1) * half - 8
            assert (blank[top : top + 8, left : left + 8] == digits[pairs.sources[index, side]]).all()
            blank[top : top + 8, left : left + 8] = 0
        assert not blank.any()


@pytest.mark.parametrize("size", PAIR_SIZES)
def test_pairs_are_made_of_their_own_splits_digits_in_all_places(size):
    for name in SPLITS:
        pairs = draw_pairs(name, size)
        assert set(np.unique(pairs.sources)) <= set(DIGIT_SPLITS[name])
        assert set(np.unique(pairs.tops)) == set(range(0, size - 7, PAIR_GRID))


def test_no_image_of_the_pairs_is_in_two_splits():
    task = load_task({"name": "digit-pairs"})
    seen = [{image.tobytes() for image in getattr(task, name).images} for name in SPLITS]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_the_pairs_never_change():
    """Accuracies of earlier runs stay comparable only as long as this digest holds."""
    task = load_task({"name": "digit-pairs", "size": 16})
    digest = hashlib.sha256()
    for name in SPLITS:
        split = getattr(task, name)
        digest.update(split.images.tobytes() + split.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "bbee4f9dc3b3cd68"


@pytest.mark.parametrize("config", [{"name": "digits"}, {"name": "digit-pairs"}, {"name": "digit-pairs", "size": 24}])
def test_the_cheap_shape_is_the_tasks_shape(config):
    task = load_task(config)
    assert task_shape(config) == task.shape
    assert task.train.images.shape[1:] == (*task.shape.image, task.shape.channels)
    assert task.class_names == tuple("0123456789")


def test_asking_again_gives_the_same_read_only_task():
    task = load_task({"name": "digit-pairs"})
    assert load_task({"name": "digit-pairs", "size": 16}) is task
    with pytest.raises(ValueError, match="read-only"):
        task.train.images[0, 0, 0, 0] = 1


def test_statistics_come_from_the_training_images_alone():
    task = load_task({"name": "digits"})
    assert task.mean[0] == pytest.approx(task.train.images.mean() / 255)
    assert task.std[0] == pytest.approx(task.train.images.std() / 255)
