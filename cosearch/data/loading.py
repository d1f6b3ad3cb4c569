"""From a run file's ``task`` section to images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cosearch.data.task import Task
from cosearch.errors import UserError, did_you_mean
from cosearch.spec import TaskShape

__all__ = ["TASKS", "load_task", "task_shape"]

TASKS: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "digit-pairs": {"size": 16},
    "digit-search": {},
    "cifar10": {"path": None},
    "cifar100": {"path": None},
    "images": {"path": None, "size": 32},
    "npz": {"path": None},
}
"""Fields of each task, with their defaults; ``None`` where there is none."""


def load_task(config: Mapping[str, Any]) -> Task:
    """Returns the task that a run file's ``task`` section names; the same section gives the same object.

    Raises:
        UserError: a name or field is unknown, or the files are not what they should be.
    """
    checked = _checked(config)
    return _load(tuple(sorted(checked.items())))


def task_shape(config: Mapping[str, Any]) -> TaskShape:
    """Returns what the task asks of a model; embedded tasks are not made for it.

    A user's own files are loaded and checked: better now than in a worker, after the search has started.

    Raises:
        UserError: as `load_task`.
    """
    from cosearch.data.search import SEARCH_SIZE

    checked = _checked(config)
    known = {
        "digits": TaskShape(image=(8, 8), channels=1, classes=10),
        "digit-pairs": TaskShape(image=(checked.get("size", 0) or 1,) * 2, channels=1, classes=10, labels=2),
        "digit-search": TaskShape(image=(SEARCH_SIZE, SEARCH_SIZE), channels=1, classes=10),
    }
    return known.get(checked["name"]) or load_task(config).shape


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    name = config.get("name")
    if not isinstance(name, str) or name not in TASKS:
        what = "has no name" if name is None else f"names {name!r}, which is no task"
        raise UserError(f"the task {what}; {did_you_mean(str(name), TASKS)}")
    fields = TASKS[name]
    for field in config:
        if field != "name" and field not in fields:
            raise UserError(f"task {name} has no field {field!r}; {did_you_mean(str(field), ['name', *fields])}")
    values = {**fields, **config}
    for field, value in values.items():
        if value is None:
            raise UserError(f"task {name} needs {field!r}; add it")
    _check_values(name, values)
    return values


def _check_values(name: str, values: Mapping[str, Any]) -> None:
    from cosearch.data.digits import PAIR_SIZES

    size, path = values.get("size", 1), values.get("path", "x")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(f"task {name}: size is {size!r}; write a whole number of pixels")
    if name == "digit-pairs" and size not in PAIR_SIZES:
        raise UserError(f"task {name}: size is {size}; write {' or '.join(map(str, PAIR_SIZES))}")
    if not isinstance(path, str):
        raise UserError(f"task {name}: path is {path!r}; write it as text")
    if "path" in values and not Path(path).exists():
        raise UserError(f"task {name}: {path} does not exist; check the path (it starts from the run file's folder)")


@lru_cache(maxsize=4)
def _load(items: tuple[tuple[str, Any], ...]) -> Task:
    values = dict(items)
    name = values["name"]
    if name == "digits":
        from cosearch.data.digits import digits

        return digits()
    if name == "digit-pairs":
        from cosearch.data.digits import digit_pairs

        return digit_pairs(values["size"])
    if name == "digit-search":
        from cosearch.data.search import digit_search

        return digit_search()
    path = Path(values["path"])
    if name == "images":
        from cosearch.data.folders import images

        return images(path, values["size"])
    if name == "npz":
        from cosearch.data.arrays import npz

        return npz(path)
    from cosearch.data.cifar import cifar

    return cifar(name, path)
