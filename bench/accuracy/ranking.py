"""How well do cheap proxies rank candidates as full trainings do, and what do they cost? Writes ranking.md.

    python bench/accuracy/ranking.py --cache CACHE      two to four hours of CPU, two processes
    python bench/accuracy/ranking.py --cache CACHE --quick   a smoke run, which writes nothing beside this file

Candidates are random models of the wide space of ``_candidates.py`` on ``digit-pairs`` 16. Truth is the mean accuracy
of three full trainings; every proxy is held against it by Kendall's tau. Finished trainings and readings are kept in
``CACHE/ranking.jsonl``, so that a run which was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _candidates import random_candidate
from numpy.typing import NDArray
from scipy.stats import kendalltau

from cosearch.data import Task, load_task
from cosearch.errors import EvaluationError
from cosearch.predictors import PREDICTORS, encode, encode_models, make_predictor
from cosearch.predictors.scores import COUNTED, PROBED, SCORES
from cosearch.spec import ModelSpec
from cosearch.workload import workload

HERE = Path(__file__).parent
TASK = {"name": "digit-pairs", "size": 16}
SPREAD_OVER = 500
"""Candidates that costs paid once are shared by."""

Floats = NDArray[np.float64]


class Plan(NamedTuple):
    """How much is trained."""

    candidates: int
    extra: int
    seeds: int
    full: int
    short: tuple[int, ...]
    longer: int
    repeats: int


FULL = Plan(candidates=60, extra=100, seeds=3, full=400, short=(20, 30, 60, 100, 150), longer=12, repeats=3)
QUICK = Plan(candidates=12, extra=4, seeds=2, full=4, short=(1, 2), longer=3, repeats=1)


class Job(NamedTuple):
    """One training."""

    candidate: int
    steps: int
    seed: int


class Reading(NamedTuple):
    """What a proxy says of all candidates.

    Attributes:
        values: larger is better, shape (candidates,).
        once_s: CPU-seconds paid once, however many candidates.
        each_s: CPU-seconds for each candidate.
    """

    values: Floats
    once_s: float
    each_s: float


SUPERNETS: tuple[tuple[str, Callable[[Task, Sequence[ModelSpec]], Reading]], ...] = ()
"""Readings of weight-sharing networks: a name, and what trains one and reads every candidate from it."""


# Trainings, and what is kept of them.


def trained(job: Job) -> dict[str, float | int | str]:
    import torch

    from cosearch.train import Recipe, train

    torch.set_num_threads(1)
    task = load_task(TASK)
    spec = random_candidate(task.shape, job.candidate)
    start = time.process_time()
    row: dict[str, float | int | str] = {"kind": "training", **job._asdict(), "model": spec.id}
    try:
        found = train(spec, task, Recipe(steps=job.steps), 1000 * job.seed + job.candidate)
        row |= {"accuracy": found.score.accuracy, "loss": found.score.loss}
    except EvaluationError as error:
        row["failed"] = str(error)
    return row | {"cpu_s": time.process_time() - start}


def scored(candidate: int, name: str) -> dict[str, float | int | str]:
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
        self.rows: dict[tuple[object, ...], dict[str, float | int | str]] = {}
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else ():
            try:
                self._note(json.loads(line))
            except ValueError:
                continue  # a line that was being written when the run was stopped

    def add(self, row: dict[str, float | int | str]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._note(row)

    def _note(self, row: dict[str, float | int | str]) -> None:
        if self._models.get(int(row["candidate"])) == row["model"]:
            which = (row["steps"], row["seed"]) if row["kind"] == "training" else (row["name"],)
            self.rows[(row["kind"], row["candidate"], *which)] = row

    def training(self, job: Job) -> dict[str, float | int | str] | None:
        return self.rows.get(("training", job.candidate, job.steps, job.seed))


def jobs(plan: Plan) -> Iterator[Job]:
    """Yields all trainings, cheap ones of all candidates first; no two of a candidate share a seed."""
    every, extra = range(plan.candidates), range(plan.candidates, plan.candidates + plan.extra)
    for place, steps in enumerate(plan.short):
        yield from (Job(candidate, steps, 10 + place) for candidate in every)
    yield from (Job(candidate, label_steps(plan), 10) for candidate in extra)
    for seed in range(1, plan.seeds + 1):
        yield from (Job(candidate, plan.full, seed) for candidate in every)
    yield from (Job(candidate, 2 * plan.full, 20) for candidate in range(plan.longer))


def label_steps(plan: Plan) -> int:
    """Steps of short trainings that predictors learn from."""
    return 100 if 100 in plan.short else plan.short[-1]


def train_all(plan: Plan, cache: Cache, workers: int) -> None:
    todo = [job for job in jobs(plan) if cache.training(job) is None]
    start = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(trained, job) for job in todo]), start=1):
            row = future.result()
            cache.add(row)
            said = row.get("failed") or f"{row['accuracy']:.3f}"
            left = (time.monotonic() - start) / done * (len(todo) - done)
            print(f"{done}/{len(todo)} candidate {row['candidate']}, {row['steps']} steps: {said}; {left:.0f} s left",
                  flush=True)  # fmt: skip


# What is held against the truth.


@dataclass(frozen=True)
class Measured:
    """All trainings as arrays, candidates without a failure only.

    Attributes:
        numbers: of the candidates.
        models: their specs.
        full: accuracies, shape (seeds, candidates).
        full_s: mean CPU-seconds of a full training.
        short: by steps: accuracies and losses, shape (candidates,) each, and mean CPU-seconds.
        scores: by name: values, and mean CPU-seconds.
        extra: specs of further candidates, and what a short training gave each.
    """

    numbers: list[int]
    models: list[ModelSpec]
    full: Floats
    full_s: float
    short: dict[int, tuple[Floats, Floats, float]]
    scores: dict[str, tuple[Floats, float]]
    extra: tuple[list[ModelSpec], Floats, float]

    @property
    def truth(self) -> Floats:
        return np.asarray(self.full.mean(axis=0))


def measured(plan: Plan, cache: Cache, models: Sequence[ModelSpec]) -> Measured:
    def rows(steps: int, seed: int, numbers: Sequence[int]) -> list[dict[str, float | int | str]]:
        return [cache.rows[("training", number, steps, seed)] for number in numbers]

    def column(found: Sequence[Mapping[str, float | int | str]], name: str) -> Floats:
        return np.array([float(row[name]) for row in found])

    failed = {int(row["candidate"]) for row in cache.rows.values() if "failed" in row}
    numbers = [number for number in range(plan.candidates) if number not in failed]
    extra = [n for n in range(plan.candidates, plan.candidates + plan.extra) if n not in failed]
    full = [rows(plan.full, seed, numbers) for seed in range(1, plan.seeds + 1)]
    short = {}
    for place, steps in enumerate(plan.short):
        found = rows(steps, 10 + place, numbers)
        short[steps] = column(found, "accuracy"), column(found, "loss"), float(column(found, "cpu_s").mean())
    scores = {}
    for name in SCORES:
        for number in numbers:
            if ("score", number, name) not in cache.rows:
                cache.add(scored(number, name))
        kept = [cache.rows[("score", number, name)] for number in numbers]
        scores[name] = column(kept, "value"), float(column(kept, "cpu_s").mean())
    labelled = rows(label_steps(plan), 10, extra)
    return Measured(
        numbers=numbers,
        models=[models[number] for number in numbers],
        full=np.stack([column(one, "accuracy") for one in full]),
        full_s=float(np.mean([column(one, "cpu_s").mean() for one in full])),
        short=short,
        scores=scores,
        extra=([models[n] for n in extra], column(labelled, "accuracy"), float(column(labelled, "cpu_s").mean())),
    )


def tau(one: Floats, other: Floats) -> float:
    return float(kendalltau(one, other).statistic)


def ceilings(full: Floats) -> tuple[float, float]:
    """Returns tau between two seeds, and between one and the mean of the others."""
    pairs = [tau(full[a], full[b]) for a, b in combinations(range(len(full)), 2)]
    others = [tau(full[a], np.delete(full, a, axis=0).mean(axis=0)) for a in range(len(full))]
    return float(np.mean(pairs)), float(np.mean(others))


def simple_proxies(found: Measured) -> dict[str, Reading]:
    readings = {f"score {name}": Reading(values, 0.0, spent) for name, (values, spent) in found.scores.items()}
    for steps, (accuracy, loss, spent) in found.short.items():
        readings[f"{steps} steps, accuracy"] = Reading(accuracy, 0.0, spent)
        readings[f"{steps} steps, validation loss"] = Reading(-loss, 0.0, spent)
    return readings


# Predictors, on candidates that they have not seen.


@dataclass(frozen=True)
class Labels:
    """What a predictor learns from.

    Attributes:
        name: in words.
        values: of the candidates, shape (candidates,).
        most: candidates that it may learn from.
        each_s: CPU-seconds of each label.
        extra: whether the further candidates' short trainings are learnt as well.
    """

    name: str
    values: Floats
    most: int
    each_s: float
    extra: bool = False


def logit(share: Floats) -> Floats:
    inner = np.clip(share, 1e-3, 1 - 1e-3)
    return np.log(inner / (1 - inner))


class Features(NamedTuple):
    """What a predictor sees.

    Attributes:
        rows: shape (candidates, columns).
        each_s: CPU-seconds of each row.
        readings: last columns that are readings of the candidate itself.
    """

    rows: Floats
    each_s: float
    readings: int = 0


def feature_sets(found: Measured, readings: Mapping[str, Reading]) -> dict[str, Features]:
    """Returns, by name, features of the candidates."""
    start = time.process_time()
    code = np.stack([encode(workload(model), model) for model in found.models])
    code_s = (time.process_time() - start) / len(code)
    counted = np.stack([found.scores[name][0] for name in COUNTED], axis=1)
    probed = np.stack([found.scores[name][0] for name in PROBED], axis=1)
    probes_s = sum(found.scores[name][1] for name in PROBED)
    both = np.concatenate([code, counted, probed], axis=1)
    sets = {
        "encoding": Features(code, code_s),
        "encoding, counted scores": Features(np.concatenate([code, counted], axis=1), code_s),
        "encoding, all scores": Features(both, code_s + probes_s),
    }
    for steps, (accuracy, loss, spent) in found.short.items():
        own = np.stack([logit(accuracy), -loss], axis=1)
        sets[f"encoding, own {steps} steps"] = Features(np.concatenate([code, own], axis=1), code_s + spent, 2)
        every = np.concatenate([both, own], axis=1)
        sets[f"encoding, all scores, own {steps} steps"] = Features(every, code_s + probes_s + spent, 2)
    for name, _ in SUPERNETS:
        reading = readings[name]
        cost = code_s + reading.each_s + reading.once_s / SPREAD_OVER
        sets[f"encoding, {name}"] = Features(np.concatenate([code, logit(reading.values)[:, None]], axis=1), cost, 1)
    return sets


def label_sets(plan: Plan, found: Measured) -> list[Labels]:
    every, steps = len(found.models), label_steps(plan)
    accuracy, _, spent = found.short[steps]
    return [
        Labels(name="12 full trainings", values=found.full[0], most=12, each_s=found.full_s),
        Labels(name="24 full trainings", values=found.full[0], most=24, each_s=found.full_s),
        Labels(name="all other full trainings", values=found.full[0], most=every, each_s=found.full_s),
        Labels(name=f"all other trainings of {steps} steps", values=accuracy, most=every, each_s=spent),
        Labels(name=f"these and {len(found.extra[0])} more", values=accuracy, most=every, each_s=spent, extra=True),
    ]


def cross_validated(
    kind: str, features: Features, labels: Labels, found: Measured, repeats: int
) -> tuple[Floats, int, float]:
    """Returns predictions of unseen candidates, shape (repeats, candidates), the labels used, and CPU-seconds."""
    folds, rows, used = 5, features.rows, 0
    count = len(rows)
    said = np.zeros((repeats, count))
    start = time.process_time()
    further = encode_models(found.extra[0]) if labels.extra else rows[:0]
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(count)
        for fold in range(folds):
            held = order[fold::folds]
            learnt = np.setdiff1d(order, held, assume_unique=True)[: labels.most]
            x, y = rows[learnt], labels.values[learnt]
            if labels.extra:
                x, y = np.concatenate([x, further]), np.concatenate([y, found.extra[1]])
            predictor = make_predictor(kind, link="logit", seed=repeat, readings=features.readings)
            predictor.fit(x, y)
            said[repeat, held] = predictor.predict(rows[held]).mean
            used = len(y)
    return said, used, (time.process_time() - start) / (repeats * folds)


class Line(NamedTuple):
    """A row of the table."""

    name: str
    tau: float
    each_s: float


def predictor_lines(plan: Plan, found: Measured, readings: Mapping[str, Reading]) -> list[Line]:
    lines = []
    sets = feature_sets(found, readings)
    few = {
        "encoding",
        "encoding, all scores",
        f"encoding, own {plan.short[0]} steps",
        *(f"encoding, {n}" for n, _ in SUPERNETS),
    }
    for kind in PREDICTORS:
        for labels in label_sets(plan, found):
            for name, features in sets.items():
                if labels.extra and name != "encoding":  # more candidates have labels alone
                    continue
                if kind != "gaussian_process" and name not in few:  # they take seconds a fit
                    continue
                repeats = plan.repeats if kind == "gaussian_process" else 1
                said, used, fit_s = cross_validated(kind, features, labels, found, repeats)
                value = float(np.mean([tau(row, found.truth) for row in said]))
                cost = features.each_s + (used * labels.each_s + fit_s) / SPREAD_OVER
                lines.append(Line(f"{kind.replace('_', ' ')} on {name}; learns {labels.name}", value, cost))
                print(f"{lines[-1].name}: {value:.3f}", flush=True)
    return lines


# The page.


def page(plan: Plan, found: Measured, lines: Sequence[Line], longer: tuple[float, float], command: str) -> str:
    pairs, others = ceilings(found.full)
    goal = 0.9 * others
    truth = found.truth
    budget = found.full_s / 20
    text = [
        "# Ranking candidates without training them fully",
        "",
        f"Made by `{command}`. {len(found.models)} random models of a wide space (every token method, mixer and number "
        f"format that specs know) on `digit-pairs` 16, {plan.seeds} trainings of {plan.full} steps each: accuracies of "
        f"{truth.min():.3f} to {truth.max():.3f}, seeds' deviation {found.full.std(axis=0, ddof=1).mean():.4f}, "
        f"{found.full_s:.1f} CPU-seconds a training. {plan.candidates - len(found.models)} candidates failed and are "
        "left out.",
        "",
        f"Ceiling: Kendall's tau between two seeds {pairs:.3f}; between one seed and the mean of the others "
        f"{others:.3f}. Twice the steps, {plan.longer} candidates: tau {longer[0]:.3f} with the mean of "
        f"{plan.full} steps, where one seed of these has {longer[1]:.3f} with the mean of the others.",
        "",
        f"Tau is with the mean of the {plan.seeds} trainings; costs are CPU-seconds a candidate, what is paid once "
        f"shared by {SPREAD_OVER} candidates. Goal: tau of at least {goal:.3f} (0.9 of {others:.3f}) at {budget:.2f} s "
        "(a twentieth of a full training). Predictors see candidates that they have not learnt "
        f"(5 folds; {plan.repeats} repeats for the Gaussian process, 1 for others); the best of "
        "many is a little flattered by the choice.",
        "",
        "| proxy | tau | of the ceiling | CPU-s a candidate | of a full training | goal |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for line in sorted(lines, key=lambda line: -line.tau):
        met = "yes" if line.tau >= goal and line.each_s <= budget else ""
        text.append(
            f"| {line.name} | {line.tau:.3f} | {line.tau / others:.2f} | {line.each_s:.3f} "
            f"| {line.each_s / found.full_s:.3f} | {met} |"
        )
    return "\n".join(text) + "\n"


def longer_agrees(plan: Plan, cache: Cache, found: Measured) -> tuple[float, float]:
    """Returns tau of trainings twice as long with the full ones, and of one full one with the mean of the others."""
    places = [place for place, number in enumerate(found.numbers) if number < plan.longer]
    rows = [cache.rows[("training", found.numbers[place], 2 * plan.full, 20)] for place in places]
    values = np.array([float(row["accuracy"]) for row in rows])
    return tau(values, found.truth[places]), ceilings(found.full[:, places])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished trainings")
    parser.add_argument("--quick", action="store_true", help="a smoke run of few candidates and steps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", type=int, help=f"{FULL.candidates} if left out")
    parser.add_argument("--extra", type=int, help=f"further candidates trained shortly, {FULL.extra} if left out")
    args = parser.parse_args()
    plan = QUICK if args.quick else FULL
    given = {name: value for name in ("candidates", "extra") if (value := getattr(args, name)) is not None}
    plan = plan._replace(**given)
    task = load_task(TASK)
    models = [random_candidate(task.shape, number) for number in range(plan.candidates + plan.extra)]
    cache = Cache(args.cache, {number: model.id for number, model in enumerate(models)})
    train_all(plan, cache, args.workers)
    found = measured(plan, cache, models)
    readings = simple_proxies(found)
    for name, supernet in SUPERNETS:
        readings[name] = supernet(task, found.models)
    lines = [
        Line(name, tau(reading.values, found.truth), reading.each_s + reading.once_s / SPREAD_OVER)
        for name, reading in readings.items()
    ]
    lines += predictor_lines(plan, found, readings)
    command = "python bench/accuracy/ranking.py --cache CACHE" + (" --quick" if args.quick else "")
    command += "".join(f" --{name} {value}" for name, value in given.items())
    text = page(plan, found, lines, longer_agrees(plan, cache, found), command)
    print(text)
    if not args.quick:
        (HERE / "ranking.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
