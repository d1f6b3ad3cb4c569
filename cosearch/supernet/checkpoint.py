"""A supernet as a file: numbers as safetensors, all else as JSON in the file's header; nothing that runs.

The file is replaced whole: a reader sees the old one or the new one. It holds what a training needs to go on as if it
had never stopped: parameters, optimisers' states, generators.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cosearch.data import Task
from cosearch.errors import StoreError, UserError
from cosearch.supernet.choices import Choices
from cosearch.supernet.recipe import SupernetRecipe
from cosearch.supernet.training import Supernet, SupernetTraining
from cosearch.supernet.weights import SharedWeights

__all__ = ["load_supernet", "resume_training", "save_training"]

_HEADER = "cosearch.supernet"
_VERSION = 1


def save_training(training: SupernetTraining, path: Path) -> None:
    """Writes a training, finished or not.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    supernet, optimizer = training.supernet, training.optimizer
    tensors = {f"values/{name}": tensor for name, tensor in supernet.weights.values.items()}
    tensors |= {f"first/{name}": tensor for name, tensor in optimizer.first.items()}
    tensors |= {f"second/{name}": tensor for name, tensor in optimizer.second.items()}
    tensors["generator"] = training.generator.get_state()
    header = {
        "version": _VERSION,
        "space": supernet.space,
        "task": supernet.task,
        "recipe": supernet.recipe.as_config(),
        "seed": supernet.seed,
        "steps": supernet.steps,
        "losses": supernet.losses,
        "counts": optimizer.counts,
        "order": {kind: list(states) for kind, states in _ordered(training).items()},
        "rng": training.rng.bit_generator.state,
    }
    data = save({n: t.contiguous() for n, t in sorted(tensors.items())}, metadata={_HEADER: json.dumps(header)})
    _write(path, data)


def load_supernet(path: Path) -> Supernet:
    """Returns the supernet of a checkpoint, to read models from.

    Raises:
        UserError: there is no such file, or it is no supernet.
    """
    tensors, header = _opened(path)
    return _supernet(tensors, header)


def resume_training(path: Path, choices: Choices, task: Task) -> SupernetTraining:
    """Returns a training that goes on from a checkpoint, bit for bit as if it had not stopped.

    Raises:
        UserError: the checkpoint is of another space or task, or no supernet.
    """
    tensors, header = _opened(path)
    for what, given in (("space", choices.name), ("task", task.name)):
        if header[what] != given:
            raise UserError(f"{path} was trained for {what} {header[what]!r}, not {given!r}; name that one")
    supernet = _supernet(tensors, header)
    training = SupernetTraining(choices, task, supernet.recipe, supernet.seed)
    training.adopt(supernet)
    optimizer, order = training.optimizer, header["order"]
    optimizer.first.update({name: tensors[f"first/{name}"] for name in order["first"]})
    optimizer.second.update({name: tensors[f"second/{name}"] for name in order["second"]})
    optimizer.counts.update(header["counts"])
    training.generator.set_state(tensors["generator"])
    training.rng.bit_generator.state = header["rng"]
    return training


def _ordered(training: SupernetTraining) -> dict[str, Any]:
    """Returns what is gone through in its order, which a file of tensors does not keep."""
    optimizer = training.optimizer
    return {"values": training.supernet.weights.values, "first": optimizer.first, "second": optimizer.second}


def _supernet(tensors: dict[str, Tensor], header: dict[str, Any]) -> Supernet:
    weights = SharedWeights(header["seed"])
    weights.values.update({name: tensors[f"values/{name}"] for name in header["order"]["values"]})
    return Supernet(
        weights=weights,
        space=header["space"],
        task=header["task"],
        recipe=SupernetRecipe.from_config(header["recipe"]),
        seed=header["seed"],
        steps=header["steps"],
        losses=list(header["losses"]),
    )


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); train a supernet first: cosearch supernet") from error
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is no supernet; give a file that cosearch supernet wrote") from error
    if header.get("version") != _VERSION:
        raise UserError(f"{path} has version {header.get('version')} of the format, not {_VERSION}; train it again")
    return tensors, header


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; free some space there") from error
