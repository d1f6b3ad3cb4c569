"""Predictors in files: arrays as safetensors, all else as JSON in its header; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import FileError, NotFoundError, did_you_mean
from cosearch.predictors.base import Link, Predictor
from cosearch.predictors.gaussian import GaussianProcess
from cosearch.predictors.trees import BoostedTrees
from cosearch.predictors.trend import Trended

__all__ = ["PREDICTORS", "load_predictor", "make_predictor", "save_predictor"]

PREDICTORS = ("gaussian_process", "boosted_trees", "pretrained_network")
"""Every predictor by name."""

FORMAT = "cosearch predictor/1"


def make_predictor(kind: str, *, link: Link = "identity", seed: int = 0, readings: int = 0) -> Predictor:
    """Returns a new predictor.

    Args:
        kind: a name in `PREDICTORS`.
        link: how values are seen; ``logit`` for accuracies.
        seed: of all that it draws.
        readings: last columns of the encodings that are readings of the candidate itself, such as the logit of its
            accuracy after a short training; a straight line through them comes first (`Trended`).

    Raises:
        NotFoundError: there is none called ``kind``.
    """
    made: Predictor = _class(kind)(link="identity" if readings else link, seed=seed)
    return Trended(made, readings, link) if readings else made


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Writes all that a predictor has learnt.

    Raises:
        UserError: it has learnt nothing.
    """
    from safetensors.numpy import save_file

    arrays, meta = predictor.state()
    head = {"format": FORMAT, "kind": predictor.kind, **meta}
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
    if head.get("format") != FORMAT or head.get("kind") not in (*PREDICTORS, Trended.kind):
        raise FileError(str(path), "", "holds no predictor", f"give a file that says it is {FORMAT!r}")
    if head["kind"] == Trended.kind:
        return Trended.from_state(_read(arrays, head["inner"]), arrays, head)
    return _read(arrays, head)


def _read(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Predictor:
    found: Predictor = _class(meta["kind"]).from_state(arrays, meta)
    return found


def _class(kind: str) -> Any:
    if kind == "gaussian_process":
        return GaussianProcess
    if kind == "boosted_trees":
        return BoostedTrees
    if kind == "pretrained_network":
        from cosearch.predictors.network import PretrainedNetwork  # torch, which nobody else here needs

        return PretrainedNetwork
    raise NotFoundError(f"there is no predictor {kind!r}; {did_you_mean(kind, PREDICTORS)}")
