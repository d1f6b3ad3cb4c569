"""Puts a run together from its file, runs it, and leaves its front behind: ``cosearch run`` for Python users.

loaded = load_run_file(find_run_file("quickstart"))
summary = run(loaded, Path("runs"))
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosearch import __version__
from cosearch.data import task_shape
from cosearch.errors import EnvironmentProblem, FileError, StoreError, UserError, did_you_mean
from cosearch.evaluator import Evaluator, Metric
from cosearch.front import Front, FrontBuilder, Objective, Scale, front_from_json, front_text, pick
from cosearch.plots import front_page
from cosearch.plugins import EVALUATORS, SAMPLERS, PluginRef, refer
from cosearch.pool import make_pool
from cosearch.runfile import LoadedRun, SamplerSection, load_run_file
from cosearch.samplers import Sampler
from cosearch.search import Leg, Listener, Problem, cost_batch
from cosearch.space import load_space
from cosearch.store import Store, read_state, write_atomically
from cosearch.track import Tracker, locate

if TYPE_CHECKING:
    from cosearch.export import Bundle

__all__ = [
    "Prepared",
    "Summary",
    "begin",
    "build_problem",
    "export",
    "make_sampler",
    "read_front",
    "reopen",
    "run",
    "run_metrics",
    "write_page",
]

SAMPLER_ARGUMENTS = ("space", "objectives", "seed")


ROOM = 10.0
"""How far below the best random cost that box reaches."""

BOX_SAMPLE = 64
"""Random pairs whose costs give the box that the hypervolume is measured in while a search runs."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to.

    Attributes:
        folder: the run's folder.
        front: the non-dominated candidates.
        legs: the search, and the baseline where the run file has one.
        samplers: by leg.
        hypervolumes: by leg, in one common box.
        seconds: wall time of this session.
        warnings: what went wrong without stopping it.
    """

    folder: Path
    front: Front
    legs: Mapping[str, Leg]
    samplers: Mapping[str, str]
    hypervolumes: Mapping[str, float]
    seconds: float
    warnings: tuple[str, ...] = ()


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
    _legs_of(loaded, origin, problem)  # samplers refuse wrong options now, not after the first leg
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


def _legs_of(loaded: LoadedRun, origin: Path, problem: Problem) -> dict[str, Sampler]:
    return {name: make_sampler(loaded, name, section, origin, problem) for name, section in _sections(loaded).items()}


def run(prepared: Prepared, listener: Listener) -> Summary:
    """Runs a prepared search to its end, and writes its front into the run's folder and into MLflow.

    Whatever ends it early, results so far are on disk and `reopen` goes on from there.

    Raises:
        StoreError, PoolError, TrackingError: the machine stands in the way.
        KeyboardInterrupt: the user stopped it; the front so far was written.
    """
    started = time.monotonic()
    file, problem = prepared.loaded.file, prepared.problem
    with ExitStack() as stack:
        store = _open_store(prepared)
        stack.callback(store.close)
        try:
            tracker = _open_tracker(prepared, store)
            pool = make_pool(file.pool.address, file.pool.workers)
        except EnvironmentProblem:
            if prepared.fresh:  # nothing was searched: leave no empty run behind
                shutil.rmtree(prepared.folder, ignore_errors=True)
            raise
        stack.callback(pool.close)
        heard = _Tracked(listener, tracker)
        bounds = _live_bounds(problem, run_metrics(prepared.loaded, prepared.origin))
        legs = {
            name: Leg(
                name,
                problem,
                sampler,
                trainings=file.search.trainings,
                window=file.search.window,
                points=file.search.points,
                store=store,
                pool=pool,
                listener=heard,
                front=FrontBuilder(problem.objectives, bounds),
            )
            for name, sampler in _legs_of(prepared.loaded, prepared.origin, problem).items()
        }
        try:
            for leg in legs.values():
                leg.run()
        except BaseException as error:
            if not isinstance(error, StoreError):
                _write_front(prepared, store, legs)
            if tracker is not None:
                stopped = isinstance(error, KeyboardInterrupt)
                tracker.abort("stopped by the user" if stopped else str(error), failed=not stopped)
            raise
        return _finish(prepared, store, legs, heard, started)


def _finish(prepared: Prepared, store: Store, legs: Mapping[str, Leg], heard: _Tracked, started: float) -> Summary:
    front, hypervolumes = _write_front(prepared, store, legs)
    page = write_page(prepared.folder)
    search = legs["search"].counts
    closing = {f"{name}_hypervolume": value for name, value in hypervolumes.items()}
    closing |= {"trained": float(search.trained), "costed_pairs": float(search.costed)}
    heard.finish(front, files=[page, prepared.folder / "front.json"], metrics=closing)
    store.update(done=True)
    return Summary(
        folder=prepared.folder,
        front=front,
        legs=legs,
        samplers={name: section.sampler for name, section in _sections(prepared.loaded).items()},
        hypervolumes=hypervolumes,
        seconds=time.monotonic() - started,
        warnings=tuple(heard.warnings),
    )


def _open_store(prepared: Prepared) -> Store:
    if not prepared.fresh:
        return Store.open(prepared.folder)
    files = {"run.yaml": prepared.loaded.text, "space.yaml": Path(prepared.problem.space.file).read_text("utf-8")}
    state = {
        "cosearch": __version__,
        "origin": str(prepared.origin),
        "changes": prepared.changes,
        "seed": prepared.problem.seed,
    }
    return Store.create(prepared.folder, files, state)


def _open_tracker(prepared: Prepared, store: Store) -> Tracker | None:
    section = prepared.loaded.file.mlflow
    if not section.enabled:
        return None
    file = prepared.loaded.file
    tracker = Tracker.open(
        locate(prepared.folder.parent, section.tracking_uri),
        experiment=section.experiment,
        name=prepared.folder.name,
        parameters={
            "space": prepared.problem.space.name,
            "task": file.task,
            "seed": file.seed,
            "objectives": ", ".join(file.objectives),
            "limits": ", ".join(file.limits),
            "sampler": file.search.sampler,
            "trainings": file.search.trainings,
            "window": file.search.window,
            "baseline": file.baseline.sampler if file.baseline else "",
        },
        files=[store.folder / "run.yaml", store.folder / "space.yaml"],
        run_id=store.state.get("mlflow_run"),
    )
    store.update(mlflow_run=tracker.run_id)
    return tracker


def _live_bounds(problem: Problem, metrics: Mapping[str, Metric]) -> dict[str, tuple[float, float]]:
    """Returns best and worst value of the objectives whose range is known before anything is trained."""
    rng = np.random.default_rng(problem.seed)
    points = [problem.space.sample(rng) for _ in range(BOX_SAMPLE)]
    costs = [cost_batch(problem, [problem.space.decode(point)])[0] for point in points]
    bounds = {}
    for objective in problem.objectives:
        values = [cost[objective.metric] for cost in costs if not isinstance(cost, str) and objective.metric in cost]
        low, high = (min(values), max(values)) if values else metrics[objective.metric].bounds or (0.0, 0.0)
        if values and low > 0:
            low /= ROOM  # a search finds better than a random sample; the box should still hold it
        if low < high:
            bounds[objective.metric] = (low, high) if objective.direction == "min" else (high, low)
    return bounds


class _Tracked:
    """Passes what happens on to the user's listener, and to MLflow once for each trained model."""

    def __init__(self, listener: Listener, tracker: Tracker | None) -> None:
        self._listener, self._tracker = listener, tracker
        self._logged = 0
        self.warnings: list[str] = []

    def told(self, leg: Leg) -> None:
        self._listener.told(leg)
        if self._tracker is None or leg.name != "search" or leg.counts.trained <= self._logged:
            return
        self._logged = leg.counts.trained
        values = {
            "hypervolume": leg.front.hypervolume,
            "front_size": len(leg.front),
            "costed": leg.counts.costed,
            "infeasible": leg.counts.infeasible,
            "failed": leg.counts.failed,
        }
        self._warn(self._tracker.progress(leg.counts.trained, {name: float(value) for name, value in values.items()}))

    def waiting(self, leg: Leg) -> None:
        self._listener.waiting(leg)

    def finish(self, front: Front, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
        if self._tracker is not None:
            self._warn(self._tracker.finish(front, files=files, metrics=metrics))

    def _warn(self, warning: str | None) -> None:
        if warning:
            self.warnings.append(warning)


def _write_front(prepared: Prepared, store: Store, legs: Mapping[str, Leg]) -> tuple[Front, dict[str, float]]:
    """Writes the fronts and how the legs compare; returns the search's front, and each leg's hypervolume."""
    began = {name: leg for name, leg in legs.items() if len(leg.front)}
    objectives = prepared.problem.objectives
    scale = Scale.of_fronts(objectives, *(leg.front.points for leg in began.values())) if began else None
    hypervolumes = {name: scale.hypervolume(leg.front.points) for name, leg in began.items()} if scale else {}
    for name, leg in legs.items():
        file = "front.json" if name == "search" else f"{name}-front.json"
        store.write(file, front_text(leg.front.front, hypervolume=hypervolumes.get(name), scale=scale))
    comparison = {
        name: {
            "sampler": section.sampler,
            "trained": legs[name].counts.trained,
            "costed": legs[name].counts.costed,
            "failed": legs[name].counts.failed,
            "history": legs[name].history,
        }
        for name, section in _sections(prepared.loaded).items()
    }
    store.write("comparison.json", json.dumps(comparison, indent=1, sort_keys=True) + "\n")
    return legs["search"].front.front, hypervolumes


def _sections(loaded: LoadedRun) -> dict[str, SamplerSection]:
    sections: dict[str, SamplerSection | None] = {"search": loaded.file.search, "baseline": loaded.file.baseline}
    return {name: section for name, section in sections.items() if section is not None}


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
        facts={"Models trained": search["trained"], "Pairs costed": search["costed"], "Sampler": search["sampler"]},
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
    """Returns the metrics of every pair that the search told as ``ok``."""
    with (folder / "search.jsonl").open(encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    return [result["metrics"] for result in results if result["status"] == "ok"]


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
    name = next((n for n in prepared.problem.costly if loaded.file.evaluators[n].use == "trained"), None)
    weights = folder / "artifacts" / f"{name}-{member.candidate.model.id}" / "weights.safetensors"
    if not weights.is_file():
        raise StoreError(f"{weights} is missing, so there is no trained model to export; search with 'use: trained'")
    cost = next((s for s in loaded.file.evaluators.values() if s.use == "systolic"), None)
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
