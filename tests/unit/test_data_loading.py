"""The task section: each mistake in it has its own message."""

import numpy as np
import pytest

from cosearch.data import TASKS, Split, load_task, make_task, task_shape
from cosearch.errors import UserError


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"^the task has no name; "),
        ({"name": "digit-pair"}, r"^the task names 'digit-pair', which is no task; did you mean 'digit-pairs'\?"),
        ({"name": 3}, r"^the task names 3, which is no task; known: "),
        ({"name": "digits", "size": 8}, r"^task digits has no field 'size'; "),
        ({"name": "digit-pairs", "sise": 16}, r"^task digit-pairs has no field 'sise'; did you mean 'size'\?"),
        ({"name": "digits", 1: 2}, r"^task digits has no field 1; known: name$"),
        ({"name": "digit-pairs", "size": 20}, r"^task digit-pairs: size is 20; write 16 or 24$"),
        ({"name": "digit-pairs", "size": "16"}, r"^task digit-pairs: size is '16'; write a whole number of pixels$"),
        ({"name": "digit-pairs", "size": True}, r"^task digit-pairs: size is True; write a whole number of pixels$"),
        ({"name": "cifar10"}, r"^task cifar10 needs 'path'; add it$"),
        ({"name": "npz", "path": 3}, r"^task npz: path is 3; write it as text$"),
        ({"name": "npz", "path": "not-there.npz"}, r"^task npz: not-there\.npz does not exist; check the path"),
    ],
)
def test_each_mistake_in_the_section_is_named(config, message):
    for ask in (load_task, task_shape):
        with pytest.raises(UserError, match=message):
            ask(config)


def test_every_task_that_needs_nothing_else_loads_by_its_name():
    for name, fields in TASKS.items():
        if None not in fields.values():
            assert load_task({"name": name}).name == name


def split(labels, side=4):
    return Split(
        images=np.zeros((len(labels), side, side, 1), np.uint8), labels=np.array(labels, np.int64).reshape(-1, 1)
    )


@pytest.mark.parametrize(
    ("names", "train", "validation", "test", "message"),
    [
        ("a", [0], [0], [0], r"^task 't' has 1 class; give images of at least 2$"),
        ("ab", [], [0], [0], r"^the training split of task 't' is empty; "),
        ("ab", [0, 1], [], [0], r"^the validation split of task 't' is empty; "),
        ("ab", [0, 1], [0], [], r"^the test split of task 't' is empty; "),
        ("abc", [0, 2], [0], [0], r"^task 't' has no training image of class 'b'; "),
        (
            "ab",
            [0, 1],
            [2],
            [0],
            r"^the validation split of task 't' has label 2, but its 2 classes are numbered 0 to 1; ",
        ),
        ("ab", [0, 1], [0], [-1], r"^the test split of task 't' has label -1, "),
    ],
)
def test_splits_that_make_no_task_are_refused(names, train, validation, test, message):
    with pytest.raises(UserError, match=message):
        make_task("t", tuple(names), split(train), split(validation), split(test))


def test_splits_must_be_alike_and_complete():
    with pytest.raises(UserError, match=r"^the test split of task 't' has images of \(5, 5, 1\)"):
        make_task("t", ("a", "b"), split([0, 1]), split([0]), split([0], side=5))
    short = Split(images=np.zeros((3, 4, 4, 1), np.uint8), labels=np.zeros((2, 1), np.int64))
    with pytest.raises(UserError, match=r"^the training split of task 't' has 3 images, but labels for 2; "):
        make_task("t", ("a", "b"), short, split([0]), split([0]))


def test_a_constant_channel_can_be_divided_by_its_deviation():
    assert make_task("t", ("a", "b"), split([0, 1]), split([0]), split([0])).std == (1 / 255,)


def test_a_class_that_only_validation_or_test_lacks_is_no_mistake():
    """They are for reading accuracy, which is then over the classes that are there."""
    task = make_task("t", ("a", "b", "c"), split([0, 1, 2]), split([1]), split([0, 2]))
    assert task.shape.classes == 3
    assert (len(task.validation), len(task.test)) == (1, 2)


def test_one_image_a_class_makes_a_task():
    task = make_task("t", ("a", "b"), split([0, 1]), split([0]), split([1]))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [2, 1, 1]
