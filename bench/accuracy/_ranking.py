"""The trainings that proxies are held against, and cheap ones: each is made once and kept in a file of JSON lines."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from _candidates import random_candidate

from cosearch.data import Split, Task, load_task
from cosearch.errors import EvaluationError
from cosearch.predictors.scores import SCORES
from cosearch.train import Recipe, train

__all__ = ["TASK", "Brief", "Cache", "Job", "Plan", "Row", "jobs", "scored", "train_all"]

TASK = {"name": "digit-pairs", "size": 16}

Row = dict[str, Any]


class Brief(NamedTuple):
    """A short training: few images set the scales, make up a step and are read at the end.

    Attributes:
        steps: optimiser steps.
        batch: images in a step.
        calibration: images that set the scales.
        read: images of the validation split that are read; 0 is all.
        quantise_from: share of the steps after which numbers are quantised.
    """

    steps: int
    batch: int
    calibration: int = 64
    read: int = 256
    quantise_from: float = 0.0

    @property
    def name(self) -> str:
        float_first = f" (quantised from {self.quantise_from:g})" if self.quantise_from else ""
        return f"{self.steps} steps of {self.batch} images{float_first}"


class Plan(NamedTuple):
    """How much is trained.

    Attributes:
        candidates: that are ranked.
        extra: further candidates, which get the short training ``label`` alone.
        seeds: full trainings of each candidate.
        full: steps of these.
        briefs: short trainings of each candidate.
        label: the one of these that further candidates get.
        longer: candidates that are trained twice as long as well.
        repeats: draws of the folds that predictors are cross-validated in.
    """

    candidates: int
    extra: int
    seeds: int
    full: int
    briefs: tuple[Brief, ...]
    label: Brief
    longer: int
    repeats: int


class Job(NamedTuple):
    """One training; no ``brief`` is a full one."""

    candidate: int
    steps: int
    seed: int
    brief: Brief | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return ("training", self.candidate, self.steps, self.seed, *(self.brief or ()))


def jobs(plan: Plan) -> Iterator[Job]:
    """Yields all trainings; no two of a candidate share a seed."""
    every, extra = range(plan.candidates), range(plan.candidates, plan.candidates + plan.extra)
    for place, brief in enumerate(plan.briefs):
        yield from (Job(candidate, brief.steps, 10 + place, brief) for candidate in every)
    place = plan.briefs.index(plan.label)
    yield from (Job(candidate, plan.label.steps, 10 + place, plan.label) for candidate in extra)
    for seed in range(1, plan.seeds + 1):
        yield from (Job(candidate, plan.full, seed) for candidate in every)
    yield from (Job(candidate, 2 * plan.full, 90) for candidate in range(plan.longer))


def trained(job: Job) -> Row:
    """Returns the row of a training."""
    import torch

    torch.set_num_threads(1)
    task = load_task(TASK)
    spec = random_candidate(task.shape, job.candidate)
    row: Row = {"kind": "training", **job._asdict(), "brief": job.brief and list(job.brief), "model": spec.id}
    recipe = Recipe(steps=job.steps)
    start = time.process_time()
    if job.brief is not None:
        brief = job.brief
        changes = {"batch": brief.batch, "calibration": brief.calibration, "quantise_from": brief.quantise_from}
        recipe = dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]
        task = _read_less(task, job.brief.read)
    try:
        found = train(spec, task, recipe, 1000 * job.seed + job.candidate)
        row |= {"accuracy": found.score.accuracy, "loss": found.score.loss, "curve": [loss for _, loss in found.curve]}
    except EvaluationError as error:
        row["failed"] = str(error)
    return row | {"cpu_s": time.process_time() - start}


def _read_less(task: Task, images: int) -> Task:
    """Returns the task with a validation split of the first images alone."""
    split = task.validation
    few = Split(images=split.images[: images or None], labels=split.labels[: images or None])
    return dataclasses.replace(task, validation=few)


def scored(candidate: int, name: str) -> Row:
    """Returns the row of a zero-cost score."""
    task = load_task(TASK)
    spec = random_candidate(task.shape, candidate)
    start = time.process_time()
    value = SCORES[name](spec, task, candidate)
    spent = time.process_time() - start
    return {"kind": "score", "candidate": candidate, "name": name, "value": value, "cpu_s": spent, "model": spec.id}


class Cache:
    """Rows in a file, by what they are of; those of another model under the same number are left out."""

    def __init__(self, folder: Path, models: Mapping[int, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._models = folder / "ranking.jsonl", models
        self.rows: dict[tuple[object, ...], Row] = {}
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
            try:
                self._note(json.loads(line))
            except ValueError:
                continue  # a line that was being written when the run was stopped

    def add(self, row: Row) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._note(row)

    def _note(self, row: Row) -> None:
        if self._models.get(row["candidate"]) != row["model"]:
            return
        if row["kind"] == "training":
            job = Job(row["candidate"], row["steps"], row["seed"], Brief(*row["brief"]) if row["brief"] else None)
            self.rows[job.key] = row
        else:
            self.rows["score", row["candidate"], row["name"]] = row


def train_all(plan: Plan, cache: Cache, workers: int) -> None:
    """Trains what the cache lacks."""
    todo: Sequence[Job] = [job for job in jobs(plan) if job.key not in cache.rows]
    start = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(trained, job) for job in todo]), start=1):
            row = future.result()
            cache.add(row)
            said = row.get("failed") or f"{row['accuracy']:.3f}"
            left = (time.monotonic() - start) / done * (len(todo) - done)
            what = f"candidate {row['candidate']}, {row['steps']} steps"
            print(f"{done}/{len(todo)} {what}: {said}, {row['cpu_s']:.1f} s; {left:.0f} s left", flush=True)
