"""What a run left behind: its front, the front's page, and a pair to export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cosearch.errors import StoreError
from cosearch.front import Front, front_from_json, pick
from cosearch.plots import front_page
from cosearch.session.prepare import reopen
from cosearch.store import read_state, write_atomically

if TYPE_CHECKING:
    from cosearch.export import Bundle

__all__ = ["export", "read_front", "write_page"]

WEIGHTS = ("trained", "post_training", "supernet")
"""Evaluators that leave the weights of a model, which can then be exported."""


def read_front(folder: Path, name: str = "front.json") -> Front:
    """Returns the front that a run has found so far.

    Raises:
        StoreError: it has not written one yet.
    """
    try:
        return front_from_json(json.loads((folder / name).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise StoreError(
            f"{folder} has no {name} yet; wait for the run to end, or go on with: cosearch run --resume {folder.name}"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / name} cannot be read ({error}); write it again: --resume {folder.name}") from error


def write_page(folder: Path) -> Path:
    """Writes a run's front as one HTML page that works offline, and returns its path."""
    front = read_front(folder)
    state = read_state(folder)
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    search, baseline = comparison["search"], comparison.get("baseline")
    page = front_page(
        front,
        run=folder.name,
        seed=state["seed"],
        facts={
            "Models trained": search["trained"],
            **({"Tried briefly": search["briefed"]} if search.get("briefed") else {}),
            "Pairs costed": search["costed"],
            "Sampler": search["sampler"],
        },
        baseline=read_front(folder, "baseline-front.json") if baseline else None,
        cloud=_told_metrics(folder),
        history=[(step, value) for step, value in search["history"]],
        baseline_history=[(step, value) for step, value in baseline["history"]] if baseline else (),
        names=(search["sampler"], baseline["sampler"] if baseline else ""),
        runs="" if folder.parent == Path("runs") else str(folder.parent),
    )
    path = folder / "front.html"
    write_atomically(path, page)
    return path


def _told_metrics(folder: Path) -> list[Mapping[str, float]]:
    """Returns the metrics of every pair that the search told as ``ok``, after a full evaluation."""
    with (folder / "search.jsonl").open(encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    return [result["metrics"] for result in results if result["status"] == "ok" and "share" not in result]


def export(folder: Path, rule: str, out: Path, *, force: bool = False) -> Bundle:
    """Writes the pair that ``rule`` picks from a run's front into ``out``, checked.

    Raises:
        UserError: the rule picks nothing, or ``out`` is not empty.
        StoreError: the weights are gone, or ``out`` cannot be written.
    """
    from cosearch.export import export_bundle  # brings ONNX along, which a search does not need

    member = pick(read_front(folder), rule)
    prepared = reopen(folder)
    loaded = prepared.loaded
    name = next((n for n in prepared.problem.costly if loaded.file.evaluators[n].use in WEIGHTS), None)
    weights = folder / "artifacts" / f"{name}-{member.candidate.model.id}" / "weights.safetensors"
    if not weights.is_file():
        raise StoreError(
            f"{weights} is missing, so there is no trained model to export; search with one of {', '.join(WEIGHTS)}"
        )
    cost = next((s for s in loaded.file.evaluators.values() if s.use == "analytical"), None)
    return export_bundle(
        member.candidate,
        weights.read_bytes(),
        prepared.problem.task,
        member.metrics,
        out,
        run=folder.name,
        seed=prepared.problem.seed,
        recipe=loaded.file.evaluators[str(name)].options.get("recipe", {}),
        technology=str((cost.options if cost else {}).get("technology", "horowitz_45nm")),
        force=force,
    )
