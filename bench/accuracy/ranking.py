"""How well do cheap proxies rank candidates as full trainings do, and what do they cost? Writes ranking.md.

    python bench/accuracy/ranking.py --cache CACHE      two to three hours of CPU, two processes
    python bench/accuracy/ranking.py --cache CACHE --quick   a smoke run, which writes nothing beside this file

Candidates are random models of the wide space of ``_candidates.py`` on ``digit-pairs`` 16. Truth is the mean accuracy
of three full trainings; every proxy is held against it by Kendall's tau. Finished trainings and readings are kept in
``CACHE/ranking.jsonl`` (``_ranking.py``), supernets beside it, so that a run which was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _candidates import random_candidate
from _ranking import TASK, Brief, Cache, Job, Plan, Row, jobs, scored, train_all
from numpy.typing import NDArray
from scipy.stats import kendalltau
from supernet import readings as supernet_readings

from cosearch.data import Task, load_task
from cosearch.predictors import PREDICTORS, encode, encode_models, make_predictor
from cosearch.predictors.scores import COUNTED, PROBED, SCORES
from cosearch.spec import ModelSpec
from cosearch.supernet import Choices, SupernetRecipe
from cosearch.workload import workload

HERE = Path(__file__).parent
SPREAD_OVER = 500
"""Candidates that costs paid once are shared by."""

Floats = NDArray[np.float64]

FLOAT_FIRST = Brief(64, 20, calibration=32, read=192, quantise_from=0.9)
BRIEFS = (
    Brief(20, 64),
    Brief(40, 32, quantise_from=0.75),
    Brief(70, 16, quantise_from=0.75),
    Brief(60, 32, quantise_from=0.75),
    Brief(120, 32, quantise_from=0.75),
    FLOAT_FIRST,
)
FULL = Plan(candidates=60, extra=100, seeds=3, full=400, briefs=BRIEFS, label=FLOAT_FIRST, longer=0, repeats=3)
QUICK = Plan(
    candidates=12,
    extra=4,
    seeds=2,
    full=4,
    briefs=(Brief(1, 16), Brief(2, 16)),
    label=Brief(2, 16),
    longer=3,
    repeats=1,
)
SUPERNET_STEPS = (1200,)


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

    @property
    def cost_s(self) -> float:
        return self.each_s + self.once_s / SPREAD_OVER


class Short(NamedTuple):
    """What short trainings of one kind gave; arrays of shape (candidates,).

    Attributes:
        accuracy: of the images that were read.
        loss: likewise.
        learning: mean training loss of the last quarter.
        each_s: CPU-seconds of one.
    """

    accuracy: Floats
    loss: Floats
    learning: Floats
    each_s: float

    @property
    def columns(self) -> Floats:
        return np.stack([logit(self.accuracy), -self.loss, -self.learning], axis=1)


@dataclass(frozen=True)
class Measured:
    """All trainings as arrays, candidates without a failure only.

    Attributes:
        numbers: of the candidates.
        models: their specs.
        full: accuracies, shape (seeds, candidates).
        full_s: mean CPU-seconds of a full training.
        short: by what is short of them.
        scores: by name: values, and mean CPU-seconds.
        extra: specs of further candidates, and what the short training of the plan's label gave them.
    """

    numbers: list[int]
    models: list[ModelSpec]
    full: Floats
    full_s: float
    short: dict[Brief, Short]
    scores: dict[str, tuple[Floats, float]]
    extra: tuple[list[ModelSpec], Short]

    @property
    def truth(self) -> Floats:
        return np.asarray(self.full.mean(axis=0))


def column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def measured(plan: Plan, cache: Cache, models: Sequence[ModelSpec]) -> Measured:
    """Returns what the cache holds; scores that it lacks are made."""
    places: dict[tuple[int, Brief | None], list[Job]] = {}
    for job in jobs(plan):
        if job.steps != 2 * plan.full:
            places.setdefault((job.seed, job.brief), []).append(job)
    failed = {row["candidate"] for row in cache.rows.values() if "failed" in row}

    def rows(seed: int, brief: Brief | None, extra: bool = False) -> list[Row]:
        chosen = [job for job in places[seed, brief] if (job.candidate >= plan.candidates) is extra]
        return [cache.rows[job.key] for job in chosen if job.candidate not in failed]

    def short(found: Sequence[Row]) -> Short:
        learning = np.array([np.mean(row["curve"][3 * len(row["curve"]) // 4 :]) for row in found])
        return Short(column(found, "accuracy"), column(found, "loss"), learning, float(column(found, "cpu_s").mean()))

    numbers = [number for number in range(plan.candidates) if number not in failed]
    scores = {}
    for name in SCORES:
        for number in numbers:
            if ("score", number, name) not in cache.rows:
                cache.add(scored(number, name))
        kept = [cache.rows["score", number, name] for number in numbers]
        scores[name] = column(kept, "value"), float(column(kept, "cpu_s").mean())
    full = [rows(seed, None) for seed in range(1, plan.seeds + 1)]
    labels = rows(10 + plan.briefs.index(plan.label), plan.label, extra=True)
    return Measured(
        numbers=numbers,
        models=[models[number] for number in numbers],
        full=np.stack([column(one, "accuracy") for one in full]),
        full_s=float(np.mean([column(one, "cpu_s").mean() for one in full])),
        short={brief: short(rows(10 + place, brief)) for place, brief in enumerate(plan.briefs)},
        scores=scores,
        extra=([models[row["candidate"]] for row in labels], short(labels)),
    )


def tau(one: Floats, other: Floats) -> float:
    return float(kendalltau(one, other).statistic)


def logit(share: Floats) -> Floats:
    inner = np.clip(share, 1e-3, 1 - 1e-3)
    return np.log(inner / (1 - inner))


def ceilings(full: Floats) -> tuple[float, float]:
    """Returns tau between two seeds, and between one and the mean of the others."""
    pairs = [tau(full[a], full[b]) for a, b in combinations(range(len(full)), 2)]
    others = [tau(full[a], np.delete(full, a, axis=0).mean(axis=0)) for a in range(len(full))]
    return float(np.mean(pairs)), float(np.mean(others))


# What is held against the truth.


def simple_proxies(found: Measured) -> dict[str, Reading]:
    """Returns readings that learn nothing from other candidates."""
    readings = {f"score {name}": Reading(values, 0.0, spent) for name, (values, spent) in found.scores.items()}
    for brief, short in found.short.items():
        readings[f"{brief.name}, accuracy"] = Reading(short.accuracy, 0.0, short.each_s)
        readings[f"{brief.name}, validation loss"] = Reading(-short.loss, 0.0, short.each_s)
        readings[f"{brief.name}, training loss at the end"] = Reading(-short.learning, 0.0, short.each_s)
    return readings


def supernets(task: Task, found: Measured, lengths: Sequence[int], folder: Path) -> dict[str, Reading]:
    """Returns what weight-sharing networks of all these candidates' likes say."""
    choices = Choices.of_draws("candidates", lambda rng: random_candidate(task.shape, int(rng.integers(2**31))))
    readings = {}
    for steps in lengths:
        recipe = SupernetRecipe.from_config({"steps": steps})
        for own in (0, 10):
            said = supernet_readings(
                found.models, choices, task, recipe=recipe, finetune_steps=own, seed=0, cache=folder
            )
            name = f"supernet of {steps} steps" + (f", {own} steps of the candidate's own" if own else "")
            values = -np.array(said.losses)
            readings[name] = Reading(values, said.training_cpu_s, said.reading_cpu_s)
    return readings


@dataclass(frozen=True)
class Fit:
    """A predictor and what it learns from.

    Attributes:
        name: in words.
        kind: of predictor.
        rows: features of the candidates, shape (candidates, columns).
        each_s: CPU-seconds of a candidate's features.
        readings: last columns that are readings of the candidate itself.
        most: full trainings of other candidates that it learns from, at most.
        briefs: short trainings that it learns from, those of the candidates it ranks among them, as a lower fidelity.
    """

    name: str
    kind: str
    rows: Floats
    each_s: float
    readings: int = 0
    most: int = 0
    briefs: Brief | None = None


FEW, MOST = 20, 48
"""Full trainings to learn from: 25 of 500 are a twentieth of the cost."""


def fits(label: Brief, found: Measured, readings: Mapping[str, Reading]) -> list[Fit]:
    """Returns all predictors that are compared."""
    start = time.process_time()
    code = np.stack([encode(workload(model), model) for model in found.models])
    code_s = (time.process_time() - start) / len(code)
    counted = np.stack([found.scores[name][0] for name in COUNTED], axis=1)
    probed = np.stack([found.scores[name][0] for name in PROBED], axis=1)
    scores = np.concatenate([code, counted, probed], axis=1)
    scores_s = code_s + sum(found.scores[name][1] for name in PROBED)
    out, gp, spent = [], "gaussian_process", {brief: code_s + short.each_s for brief, short in found.short.items()}
    for most in (FEW, MOST):
        learnt = f"learns {most} full trainings"
        for kind in PREDICTORS:
            out.append(Fit(f"{_words(kind)} on encodings; {learnt}", kind, code, code_s, most=most))
        out.append(Fit(f"{_words(gp)} on encodings and scores; {learnt}", gp, scores, scores_s, most=most))
    learnt = f"learns {FEW} full trainings"
    for brief, short in found.short.items():
        rows, columns = np.concatenate([code, short.columns], axis=1), short.columns.shape[1]
        name = f"{_words(gp)} on encodings and own {brief.name}; {learnt}"
        out.append(Fit(name, gp, rows, spent[brief], readings=columns, most=FEW))
        name = f"{_words(gp)} on encodings; learns {brief.name} of all, itself too"
        out.append(Fit(name, gp, code, spent[brief], briefs=brief))
    name = f"{_words(gp)} on encodings; {learnt}, and {label.name} of all as a lower fidelity"
    out.append(Fit(name, gp, code, spent[label], most=FEW, briefs=label))
    for name, reading in readings.items():
        if name.startswith("supernet"):
            rows = np.concatenate([code, reading.values[:, None]], axis=1)
            title = f"{_words(gp)} on encodings and {name}; {learnt}"
            out.append(Fit(title, gp, rows, code_s + reading.cost_s, readings=1, most=FEW))
    return out


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def said(fit: Fit, plan: Plan, found: Measured) -> tuple[Floats, float]:
    """Returns what a predictor says of candidates whose full trainings it has not seen, and CPU-seconds of a fit.

    Shape (repeats, candidates); five folds.
    """
    count = len(found.models)
    repeats = plan.repeats if fit.most and fit.kind == "gaussian_process" else 1
    out, made, start = np.zeros((repeats, count)), 0, time.process_time()
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(count)
        for fold in range(5 if fit.most else 1):
            held = order[fold::5] if fit.most else order
            learnt = np.setdiff1d(order, held, assume_unique=True)[: fit.most]
            predictor = make_predictor(fit.kind, link="logit", seed=repeat, readings=fit.readings)
            predictor.fit(*_lesson(fit, plan, found, learnt))
            out[repeat, held] = predictor.predict(fit.rows[held]).mean
            made += 1
    return out, (time.process_time() - start) / made


def _lesson(
    fit: Fit, plan: Plan, found: Measured, learnt: NDArray[np.int64]
) -> tuple[Floats, Floats, None, Floats | None]:
    """Returns rows, values, noise and fidelity to learn."""
    rows, values = fit.rows[learnt], found.full[0][learnt]
    if fit.briefs is None:
        return rows, values, None, None
    short, share = found.short[fit.briefs], fit.briefs.steps * fit.briefs.batch / (plan.full * 64)
    others, labels = encode_models(found.extra[0]), found.extra[1].accuracy
    if fit.briefs != plan.label:
        others, labels = others[:0], labels[:0]
    if not fit.most:  # of one kind, so all of them are of full fidelity
        return np.concatenate([fit.rows, others]), np.concatenate([short.accuracy, labels]), None, None
    x = np.concatenate([rows, fit.rows, others])
    y = np.concatenate([values, short.accuracy, labels])
    return x, y, None, np.concatenate([np.ones(len(rows)), np.full(len(x) - len(rows), share)])


class Line(NamedTuple):
    """A row of the table."""

    name: str
    tau: float
    each_s: float


def lines(plan: Plan, found: Measured, readings: Mapping[str, Reading]) -> list[Line]:
    """Returns every row of the table."""
    out = [Line(name, tau(reading.values, found.truth), reading.cost_s) for name, reading in readings.items()]
    for fit in fits(plan.label, found, readings):
        ranked, fit_s = said(fit, plan, found)
        cost = fit.each_s + (min(fit.most, len(found.models)) * found.full_s + fit_s) / SPREAD_OVER
        out.append(Line(fit.name, float(np.mean([tau(row, found.truth) for row in ranked])), cost))
        print(f"{out[-1].name}: {out[-1].tau:.3f} at {cost:.2f} s", flush=True)
    return out


# The page.


def page(plan: Plan, found: Measured, table: Sequence[Line], longer: tuple[float, float] | None, command: str) -> str:
    pairs, others = ceilings(found.full)
    goal, truth, budget = 0.9 * others, found.truth, found.full_s / 20
    text = [
        "# Ranking candidates without training them fully",
        "",
        f"Made by `{command}`. {len(found.models)} random models of a wide space (every token method, mixer and number "
        f"format that specs know) on `digit-pairs` 16, {plan.seeds} trainings of {plan.full} steps of 64 images each: "
        f"accuracies of {truth.min():.3f} to {truth.max():.3f}, seeds' deviation "
        f"{found.full.std(axis=0, ddof=1).mean():.4f}, {found.full_s:.1f} CPU-seconds a training. "
        f"{plan.candidates - len(found.models)} candidates failed and are left out.",
        "",
        f"Ceiling: Kendall's tau between two seeds {pairs:.3f}; between one seed and the mean of the others "
        f"{others:.3f}." + (
            f" Twice the steps, {plan.longer} candidates: tau {longer[0]:.3f} with the mean of {plan.full} steps, "
            f"where one seed of these has {longer[1]:.3f} with the mean of the others." if longer else ""
        ),
        "",
        f"Tau is with the mean of the {plan.seeds} trainings; costs are CPU-seconds a candidate, what is paid once "
        f"shared by {SPREAD_OVER} candidates. Goal: tau of at least {goal:.3f} (0.9 of {others:.3f}) at {budget:.2f} s "
        "(a twentieth of a full training). Short trainings set scales by 64 images and read 256 of the validation "
        f"split, those of {FLOAT_FIRST.name} by {FLOAT_FIRST.calibration} and {FLOAT_FIRST.read}. Predictors see "
        "candidates whose full trainings they have not learnt (5 folds; "
        f"{plan.repeats} repeats for the Gaussian process, 1 for others); the best of many is a little flattered by "
        f"the choice. {len(found.extra[0])} further candidates have {plan.label.name} alone.",
        "",
        "| proxy | tau | of the ceiling | CPU-s a candidate | of a full training | goal |",
        "|---|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for line in sorted(table, key=lambda line: -line.tau):
        met = "yes" if line.tau >= goal and line.each_s <= budget else ""
        text.append(
            f"| {line.name} | {line.tau:.3f} | {line.tau / others:.2f} | {line.each_s:.3f} "
            f"| {line.each_s / found.full_s:.3f} | {met} |"
        )
    return "\n".join(text) + "\n"


def longer_agrees(plan: Plan, cache: Cache, found: Measured) -> tuple[float, float] | None:
    """Returns tau of trainings twice as long with the full ones, and of one full one with the mean of the others."""
    places = [place for place, number in enumerate(found.numbers) if number < plan.longer]
    if len(places) < 2:
        return None
    rows = [cache.rows[Job(found.numbers[place], 2 * plan.full, 90).key] for place in places]
    return tau(column(rows, "accuracy"), found.truth[places]), ceilings(found.full[:, places])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-ranking"), help="folder for finished trainings")
    parser.add_argument("--quick", action="store_true", help="a smoke run of few candidates and steps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", type=int, help=f"{FULL.candidates} if left out")
    parser.add_argument("--extra", type=int, help=f"further candidates trained shortly, {FULL.extra} if left out")
    parser.add_argument("--longer", type=int, help=f"candidates trained twice as long too, {FULL.longer} if left out")
    args = parser.parse_args()
    plan = QUICK if args.quick else FULL
    names = ("candidates", "extra", "longer")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    plan = plan._replace(**given)
    task = load_task(TASK)
    models = [random_candidate(task.shape, number) for number in range(plan.candidates + plan.extra)]
    cache = Cache(args.cache, {number: model.id for number, model in enumerate(models)})
    train_all(plan, cache, args.workers)
    found = measured(plan, cache, models)
    readings = simple_proxies(found) | supernets(task, found, (4,) if args.quick else SUPERNET_STEPS, args.cache)
    command = "python bench/accuracy/ranking.py --cache CACHE" + (" --quick" if args.quick else "")
    command += "".join(f" --{name} {value}" for name, value in given.items())
    text = page(plan, found, lines(plan, found, readings), longer_agrees(plan, cache, found), command)
    print(text)
    if not args.quick:
        (HERE / "ranking.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
