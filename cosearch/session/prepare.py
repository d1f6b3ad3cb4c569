"""From a run file to a search that was checked in full and can start."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosearch.data import task_shape
from cosearch.errors import FileError, UserError, did_you_mean
from cosearch.evaluator import Evaluator, Metric
from cosearch.front import Objective
from cosearch.plugins import EVALUATORS, SAMPLERS, PluginRef, refer
from cosearch.runfile import LoadedRun, SamplerSection, load_run_file
from cosearch.samplers import Sampler
from cosearch.search import Problem
from cosearch.space import load_space
from cosearch.store import read_state

__all__ = ["Prepared", "begin", "build_problem", "make_sampler", "reopen", "run_metrics", "samplers_of", "sections_of"]

SAMPLER_ARGUMENTS = ("space", "objectives", "seed")


def resolve_task(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the task section with its path, if it has one, made absolute from the run file's folder."""
    resolved = dict(task)
    if isinstance(path := resolved.get("path"), str):
        resolved["path"] = str((folder / path).resolve())
    return resolved


def build_problem(loaded: LoadedRun, folder: Path, space_file: Path | None = None) -> Problem:
    """Returns what a run file asks to search.

    Args:
        loaded: the run file.
        folder: what its relative paths start from.
        space_file: a copy of the space, to read instead of the one that the run file names.

    Raises:
        UserError: a name leads nowhere, or the parts do not fit.
    """
    file = loaded.file
    task = resolve_task(file.task, folder)
    with _blaming(loaded, "task"):
        shape = task_shape(task)
    space = load_space(str(space_file or _relative(file.space, folder)), shape)
    cheap, costly, metrics = _evaluators(loaded, folder)
    for place, name in _wanted_metrics(loaded):
        if name not in metrics:
            raise loaded.error(
                place, f"names {name!r}, which no evaluator of this run gives", did_you_mean(name, metrics)
            )
    objectives = tuple(
        Objective(metric=name, direction=metrics[name].direction, unit=metrics[name].unit) for name in file.objectives
    )
    if not costly and file.search.points is None:
        raise loaded.error("search.points", "is missing, and nothing in this run is trained", "say how many to propose")
    return Problem(
        space=space, objectives=objectives, limits=loaded.limits, cheap=cheap, costly=costly, task=task, seed=file.seed
    )


@contextmanager
def _blaming(loaded: LoadedRun, field: str) -> Iterator[None]:
    """Turns a user's error raised inside into one that names the run file and ``field``."""
    try:
        yield
    except FileError:
        raise
    except UserError as error:
        problem, separator, remedy = str(error).partition("; ")
        raise loaded.error(field, f"is wrong: {problem}", remedy if separator else "mend it") from error


def _relative(name: str, folder: Path) -> str | Path:
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    return folder / name if is_path else name


def _wanted_metrics(loaded: LoadedRun) -> list[tuple[str, str]]:
    wanted = [(f"objectives[{i}]", name) for i, name in enumerate(loaded.file.objectives)]
    return wanted + [(f"limits[{i}]", limit.metric) for i, limit in enumerate(loaded.limits)]


def _evaluators(
    loaded: LoadedRun, folder: Path
) -> tuple[tuple[Evaluator, ...], dict[str, PluginRef], dict[str, Metric]]:
    cheap: list[Evaluator] = []
    costly: dict[str, PluginRef] = {}
    metrics: dict[str, Metric] = {}
    for name, section in loaded.file.evaluators.items():
        with _blaming(loaded, f"evaluators.{name}"):
            ref = refer(EVALUATORS, section.use, section.options, folder)
            evaluator = ref.evaluator()
        for metric in evaluator.metrics:
            if metric.name in metrics:
                raise loaded.error(
                    f"evaluators.{name}", f"gives {metric.name!r}, as another one does", "leave one of the two out"
                )
            metrics[metric.name] = metric
        if evaluator.cheap:
            cheap.append(evaluator)
        else:
            costly[name] = ref
    return tuple(cheap), costly, metrics


def run_metrics(loaded: LoadedRun, folder: Path) -> dict[str, Metric]:
    """Returns every metric that the run's evaluators give, by name."""
    return _evaluators(loaded, folder)[2]


def make_sampler(loaded: LoadedRun, field: str, section: SamplerSection, folder: Path, problem: Problem) -> Sampler:
    """Returns the sampler that a section of the run file (``search`` or ``baseline``) asks for.

    Raises:
        FileError: there is no such sampler, or it refuses its options.
    """
    with _blaming(loaded, f"{field}.sampler"):
        ref = refer(SAMPLERS, section.sampler, section.options, folder)
        factory = ref.load()
    with _blaming(loaded, f"{field}.options"):
        ref.check_options(given=SAMPLER_ARGUMENTS)
        made = factory(problem.space, len(problem.objectives), problem.seed, **section.options)
    if not isinstance(made, Sampler):
        raise loaded.error(f"{field}.sampler", f"is {section.sampler!r}, which has no ask and tell", "name a sampler")
    return made


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that was checked and can start.

    Attributes:
        folder: where its results go.
        loaded: the run file.
        origin: what the run file's relative paths start from.
        problem: what is searched.
        changes: values that the command line put in place of the file's.
        fresh: whether the run is new.
    """

    folder: Path
    loaded: LoadedRun
    origin: Path
    problem: Problem
    changes: Mapping[str, Any]
    fresh: bool


def begin(loaded: LoadedRun, runs: Path, changes: Mapping[str, Any] | None = None) -> Prepared:
    """Returns a new run, checked in full but not started; its folder is the first free of NAME, NAME-2, NAME-3...

    Raises:
        UserError: the run file, or a part that it names, is wrong.
    """
    origin = loaded.path.resolve().parent
    problem = build_problem(loaded, origin)
    samplers_of(loaded, origin, problem)  # samplers refuse wrong options now, not after the first leg
    name = loaded.file.name
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    folder = next(runs / f"{name}{n}" for n in numbers if not (runs / f"{name}{n}").exists())
    return Prepared(
        folder=folder, loaded=loaded, origin=origin, problem=problem, changes=dict(changes or {}), fresh=True
    )


def reopen(folder: Path, changes: Mapping[str, Any] | None = None) -> Prepared:
    """Returns a run that was begun before, to go on with.

    Args:
        folder: the run's folder.
        changes: values to put in place of the run file's; only ``pool`` and ``mlflow`` may change.

    Raises:
        StoreError: it is not a whole run.
    """
    state = read_state(folder)
    both = {**state["changes"], **(changes or {})}
    origin = Path(state["origin"])
    loaded = load_run_file(folder / "run.yaml", both)
    problem = build_problem(loaded, origin, folder / "space.yaml")
    return Prepared(folder=folder, loaded=loaded, origin=origin, problem=problem, changes=both, fresh=False)


def samplers_of(loaded: LoadedRun, origin: Path, problem: Problem) -> dict[str, Sampler]:
    """Returns the sampler of each leg of a run."""
    return {name: make_sampler(loaded, name, section, origin, problem) for name, section in sections_of(loaded).items()}


def sections_of(loaded: LoadedRun) -> dict[str, SamplerSection]:
    """Returns the run file's samplers by leg: ``search``, and ``baseline`` where there is one."""
    sections: dict[str, SamplerSection | None] = {"search": loaded.file.search, "baseline": loaded.file.baseline}
    return {name: section for name, section in sections.items() if section is not None}
