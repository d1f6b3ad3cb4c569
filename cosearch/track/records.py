"""What MLflow is told, as plain names, texts and numbers within its limits."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cosearch.front import Front, Member
from cosearch.spec import to_json
from cosearch.words import describe_accelerator, describe_model

__all__ = ["environment", "finite", "flat", "key", "member_parameters", "shortened", "spread", "table"]

LONGEST = 500
"""Characters of a parameter's value; MLflow takes 6000, but its pages show the first line."""

PACKAGES = (
    "cosearch",
    "torch",
    "ray",
    "optuna",
    "pymoo",
    "moocore",
    "mlflow",
    "numpy",
    "scikit-learn",
    "onnx",
    "plotly",
)
"""Packages whose versions can change what a search finds or how it is written down."""


def key(name: str) -> str:
    """Returns ``name`` in the letters that MLflow allows: ``model.weight_bits[2]`` becomes ``model.weight_bits.2``."""
    dotted = re.sub(r"\[(\w+)\]", r".\1", name)
    return re.sub(r"[^\w\-./ :]", "_", dotted)[:250]


def shortened(value: object) -> str:
    """Returns ``value`` as text, cut where it is too long for a table cell, with a note of its full length."""
    text = value if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 40]}… ({len(text)} characters)"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns nested mappings as one, keys joined by dots; lists of plain values stay together."""
    out: dict[str, str] = {}
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            out.update(flat(value, path))
        elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
            out.update(flat({str(index): item for index, item in enumerate(value)}, path))
        else:
            out[key(path)] = shortened(value)
    return out


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics that are numbers, by the names that MLflow allows."""
    return {key(name): float(value) for name, value in metrics.items() if math.isfinite(value)}


def environment() -> dict[str, Any]:
    """Returns what the search runs on: Python, processor count, system, and versions of the packages that matter."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count() or 1,
        "packages": packages,
    }


def member_parameters(member: Member) -> dict[str, str]:
    """Returns a front member in words, and each of its values under its own name."""
    candidate = member.candidate
    accelerator = {"template": candidate.accelerator.template, **candidate.accelerator.as_dict()}
    return {
        "model": shortened(describe_model(candidate.model)),
        "accelerator": shortened(describe_accelerator(candidate.accelerator)),
        **flat({"model": to_json(candidate.model), "accelerator": accelerator}),
    }


def table(front: Front) -> dict[str, list[Any]]:
    """Returns the front as columns: id, objectives, the other metrics, model, accelerator."""
    objectives = [objective.metric for objective in front.objectives]
    others = sorted({name for member in front.members for name in member.metrics} - set(objectives))
    columns: dict[str, list[Any]] = {"id": [member.candidate.id for member in front.members]}
    for name in [*objectives, *others]:
        values = [member.metrics.get(name, math.nan) for member in front.members]
        columns[name] = [float(value) if math.isfinite(value) else None for value in values]
    columns["model"] = [describe_model(member.candidate.model) for member in front.members]
    columns["accelerator"] = [describe_accelerator(member.candidate.accelerator) for member in front.members]
    return columns


def spread(members: Sequence[Member], most: int) -> list[Member]:
    """Returns at most ``most`` members, evenly spread over the front, both ends among them."""
    if len(members) <= most:
        return list(members)
    return [members[round(i * (len(members) - 1) / (most - 1))] for i in range(most)]
