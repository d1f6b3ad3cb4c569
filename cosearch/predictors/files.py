"""Predictors in files: arrays as safetensors, all else as JSON in its header; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import FileError, NotFoundError, did_you_mean
from cosearch.predictors.base import Link, Predictor
from cosearch.predictors.gaussian import GaussianProcess
from cosearch.predictors.trees import BoostedTrees

__all__ = ["PREDICTORS", "load_predictor", "make_predictor", "save_predictor"]

PREDICTORS = ("gaussian_process", "boosted_trees", "pretrained_network")
"""Every predictor by name."""

FORMAT = "cosearch predictor/1"


def make_predictor(kind: str, *, link: Link = "identity", seed: int = 0) -> Predictor:
    """Returns a new predictor.

    Raises:
        NotFoundError: there is none called ``kind``.
    """
    made: Predictor = _class(kind)(link=link, seed=seed)
    return made


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Writes all that a predictor has learnt.

    Raises:
        UserError: it has learnt nothing.
    """
    from safetensors.numpy import save_file

    arrays, meta = predictor.state()
    head = {"format": FORMAT, "kind": type(predictor).kind, **meta}  # type: ignore[attr-defined]
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(kept, path, metadata={"cosearch": json.dumps(head, sort_keys=True)})


def load_predictor(path: Path) -> Predictor:
    """Returns the predictor in a file.

    Raises:
        FileError: there is no such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads((file.metadata() or {}).get("cosearch", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(str(path), "", f"cannot be read: {error}", "fit the predictor again") from error
    if head.get("format") != FORMAT or head.get("kind") not in PREDICTORS:
        raise FileError(str(path), "", "holds no predictor", f"give a file that says it is {FORMAT!r}")
    read: Callable[[Mapping[str, NDArray[Any]], Mapping[str, Any]], Predictor] = _class(head["kind"]).from_state
    return read(arrays, head)


def _class(kind: str) -> Any:
    if kind == "gaussian_process":
        return GaussianProcess
    if kind == "boosted_trees":
        return BoostedTrees
    if kind == "pretrained_network":
        from cosearch.predictors.network import PretrainedNetwork  # torch, which nobody else here needs

        return PretrainedNetwork
    raise NotFoundError(f"there is no predictor {kind!r}; {did_you_mean(kind, PREDICTORS)}")
