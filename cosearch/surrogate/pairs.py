"""What a surrogate learns from: candidates and the numbers that an evaluator gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosearch.data import task_shape
from cosearch.errors import NotFoundError, StoreError, UserError, did_you_mean
from cosearch.plugins import EVALUATORS, PluginRef, refer
from cosearch.runfile import LoadedRun, load_run_file
from cosearch.space import Space, load_space
from cosearch.spec import Candidate, Status
from cosearch.store import read_state

__all__ = ["Pairs", "read_pairs"]

_LEGS = ("search", "baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Candidates and their metrics.

    Attributes:
        candidates: what was evaluated.
        metrics: by name, one value for each candidate.
        pair: whether the metrics depend on the accelerator; where not, it is not looked at.
        evaluator: the name that the run gives to the evaluator, where they are from a run.
    """

    candidates: Sequence[Candidate]
    metrics: Mapping[str, Sequence[float]]
    pair: bool = True
    evaluator: str = ""

    def __post_init__(self) -> None:
        for name, values in self.metrics.items():
            if len(values) != len(self.candidates):
                raise UserError(
                    f"{name} has {len(values)} values for {len(self.candidates)} candidates; give one for each"
                )


def read_pairs(folder: Path, evaluator: str = "") -> Pairs:
    """Returns what an evaluator of a run gave, each candidate once (each model, where it looks at models alone).

    Args:
        folder: the run's folder.
        evaluator: its name in the run file; left out: the only one that is not cheap.

    Raises:
        StoreError: it is not a whole run.
        NotFoundError: the run has no such evaluator.
        UserError: it has several costly ones, or none, and ``evaluator`` does not say which is meant.
    """
    state = read_state(folder)
    loaded = load_run_file(folder / "run.yaml", state["changes"])
    origin = Path(state["origin"])
    name, ref = _evaluator(loaded, origin, evaluator)
    made = ref.evaluator()
    pair, wanted = made.scope == "pair", [metric.name for metric in made.metrics]
    found: dict[str, tuple[Candidate, list[float]]] = {}
    for candidate, metrics in _told(folder, _space(loaded, folder, origin)):
        if all(metric in metrics for metric in wanted):
            key = candidate.id if pair else candidate.model.id
            found.setdefault(key, (candidate, [metrics[metric] for metric in wanted]))
    rows = list(found.values())
    return Pairs(
        candidates=[candidate for candidate, _ in rows],
        metrics={metric: [values[i] for _, values in rows] for i, metric in enumerate(wanted)},
        pair=pair,
        evaluator=name,
    )


def _evaluator(loaded: LoadedRun, origin: Path, wanted: str) -> tuple[str, PluginRef]:
    sections = loaded.file.evaluators
    refs = {name: refer(EVALUATORS, section.use, section.options, origin) for name, section in sections.items()}
    if wanted:
        if wanted not in refs:
            raise NotFoundError(f"the run has no evaluator {wanted!r}; {did_you_mean(wanted, refs)}")
        return wanted, refs[wanted]
    costly = [name for name, ref in refs.items() if not ref.evaluator().cheap]
    if len(costly) != 1:
        raise UserError(
            f"the run has {len(costly)} costly evaluators, so say which to learn; known: {', '.join(sorted(refs))}"
        )
    return costly[0], refs[costly[0]]


def _space(loaded: LoadedRun, folder: Path, origin: Path) -> Space:
    task = dict(loaded.file.task)
    if isinstance(path := task.get("path"), str):
        task["path"] = str((origin / path).resolve())
    return load_space(str(folder / "space.yaml"), task_shape(task))


def _told(folder: Path, space: Space) -> list[tuple[Candidate, Mapping[str, float]]]:
    out = []
    for leg in _LEGS:
        path = folder / f"{leg}.jsonl"
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
            lines = content[: content.rfind(b"\n") + 1].decode("utf-8").splitlines()  # a torn last line is left out
            for result in map(json.loads, lines):
                if result["status"] != Status.FAILED and result.get("candidate_id"):
                    out.append((space.decode(result["point"]), result.get("metrics", {})))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({error}); this is not a whole run: begin a new one") from error
    return out
