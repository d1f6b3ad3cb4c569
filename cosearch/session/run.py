"""Runs a prepared search, and writes its front into the run folder and into MLflow."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosearch import __version__
from cosearch.errors import EnvironmentProblem, StoreError
from cosearch.evaluator import Metric
from cosearch.front import Front, FrontBuilder, Scale, front_text
from cosearch.pool import make_pool
from cosearch.search import Leg, Listener, Problem, cost_batch
from cosearch.session.prepare import Prepared, run_metrics, samplers_of, sections_of
from cosearch.session.results import write_page
from cosearch.store import Store
from cosearch.track import Tracker, locate

__all__ = ["Silent", "Summary", "run"]

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


class Silent:
    """A listener that says nothing."""

    def told(self, leg: Leg) -> None:
        """Says nothing."""

    def waiting(self, leg: Leg) -> None:
        """Says nothing."""


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
            for name, sampler in samplers_of(prepared.loaded, prepared.origin, problem).items()
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
    closing |= {"trained": float(search.trained), "tried_briefly": float(search.briefed)}
    closing |= {"costed_pairs": float(search.costed)}
    heard.finish(front, files=[page, prepared.folder / "front.json"], metrics=closing)
    store.update(done=True)
    return Summary(
        folder=prepared.folder,
        front=front,
        legs=legs,
        samplers={name: section.sampler for name, section in sections_of(prepared.loaded).items()},
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
        values = [cost[objective.metric] for cost in costs if isinstance(cost, dict) and objective.metric in cost]
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
            "briefed": legs[name].counts.briefed,
            "costed": legs[name].counts.costed,
            "failed": legs[name].counts.failed,
            "history": legs[name].history,
        }
        for name, section in sections_of(prepared.loaded).items()
    }
    store.write("comparison.json", json.dumps(comparison, indent=1, sort_keys=True) + "\n")
    return legs["search"].front.front, hypervolumes
