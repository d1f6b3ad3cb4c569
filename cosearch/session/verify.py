"""Trains the models of a run's front again, with several seeds, and says which of its points stand.

prepared = reopen(find_run(Path("runs"), "quickstart"))
found = verify(prepared, Plan(seeds=5), Unheard())
found.verification.count("survives")
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cosearch.errors import NotFoundError, StoreError, UserError
from cosearch.evaluator import Metric
from cosearch.front import Front, pick
from cosearch.plots import verified_page
from cosearch.plugins import EVALUATORS, PluginRef
from cosearch.pool import Job, Pool, make_pool
from cosearch.search import Problem, training_seed
from cosearch.session.prepare import Prepared
from cosearch.session.results import read_front
from cosearch.spec import Candidate
from cosearch.store import Evaluation, Store
from cosearch.track import locate, log_verification
from cosearch.verification import ModelFigures, Verification, estimate, judge, verification_text

if TYPE_CHECKING:
    from cosearch.train import Recipe
    from cosearch.verification.repeats import Training

__all__ = ["LONGER", "SEEDS", "Plan", "Unheard", "Verified", "VerifyListener", "verify"]

SEEDS = 5
LONGER = 4.0
"""Times as many steps as in the search: there trainings are kept short so that there can be many."""

LOG, RESULT, PAGE = "verify", "verified.json", "verified.html"
WHOLE_BATCHES = 16
"""A batch that is a multiple of it gives a stack's models the same weights whatever shares the stack
(`cosearch.train.train_stack`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to verify.

    Attributes:
        seeds: trainings of each model, 2 at least. None has the seed that the search trained with: being on the front
            is partly luck, and that seed's luck is known.
        steps: optimiser steps of each training.
        longer: instead of ``steps``, how many times the search's; `LONGER` where neither is given.
        models: ``all`` of the front, the ``knee`` alone, or how many, spread over the front with both ends among them.

    Raises:
        UserError: a value makes no sense.
    """

    seeds: int = SEEDS
    steps: int | None = None
    longer: float | None = None
    models: str = "all"

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UserError(f"--seeds is {self.seeds}; an interval takes at least 2 trainings of a model")
        if self.steps is not None and self.longer is not None:
            raise UserError("--steps and --longer both say how long to train; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"--steps is {self.steps}; write at least 1")
        if self.longer is not None and not (math.isfinite(self.longer) and self.longer > 0):
            raise UserError(f"--longer is {self.longer:g}; write a number above 0, such as {LONGER:g}")
        if self.models not in ("all", "knee") and not (self.models.isdecimal() and int(self.models) >= 1):
            raise UserError(f"--models is {self.models!r}; write 'all', 'knee', or how many, such as 5")

    def steps_from(self, searched: int) -> int:
        """Returns the steps of a training that had ``searched`` in the search."""
        return self.steps or max(1, round(searched * (self.longer or LONGER)))


class VerifyListener(Protocol):
    """Hears how a verification goes."""

    def progress(self, done: int, total: int) -> None:
        """Called when trainings have ended, and a few times a second while workers work."""
        ...


class Unheard:
    """A listener that says nothing."""

    def progress(self, done: int, total: int) -> None:
        """Says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification came to.

    Attributes:
        folder: the run's.
        front: as the search found it.
        verification: what was found.
        text: of ``verified.json``.
        trained: trainings of this session.
        reused: trainings that earlier sessions had made.
        seconds: wall time of this session.
        warnings: what went wrong without stopping it.
    """

    folder: Path
    front: Front
    verification: Verification
    text: str
    trained: int
    reused: int
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One model to evaluate again by one evaluator.

    Attributes:
        name: the evaluator's.
        model_id: of the front's model.
        evaluator: with the recipe to train by.
        candidate: to evaluate; its model may name other steps than the front's.
        steps: of each training; None where the evaluator has no recipe.
        recipe: to train by in a stack; None where seeds are trained one by one.
        seeds: by what they are stored under.
    """

    name: str
    model_id: str
    evaluator: PluginRef
    candidate: Candidate
    steps: int | None
    recipe: Recipe | None
    seeds: Mapping[str, int]


def verify(prepared: Prepared, plan: Plan, listener: VerifyListener) -> Verified:
    """Evaluates the models of a run's front again, and writes ``verified.json`` and a page into the run's folder.

    Every finished training is on disk (``verify.jsonl``) before the next is waited for; one that is there is not made
    again. The result is the same for any number of workers, and after any interruption.

    Raises:
        UserError: nothing in the run is trained, or the plan does not fit its evaluators.
        StoreError: the run has no front yet, is in use, or cannot be written.
        PoolError: the workers are gone.
        KeyboardInterrupt: the user stopped it; finished trainings are kept.
    """
    started = time.monotonic()
    front = read_front(prepared.folder)
    works = _works(prepared, front, plan)
    with ExitStack() as stack:
        store = Store.open(prepared.folder)
        stack.callback(store.close)
        book = _Book(store)
        missing = sum(key not in book.trainings for work in works for key in work.seeds)
        asked = sum(len(work.seeds) for work in works)
        if missing:
            section = prepared.loaded.file.pool
            pool = make_pool(section.address, section.workers)
            stack.callback(pool.close)
            _train(works, book, pool, prepared.problem, listener)
        metrics = _metrics(prepared.problem)
        figures = _figures(works, book.trainings, front, metrics)
        objectives = [o.metric for o in front.objectives if o.metric in metrics]
        names = list(dict.fromkeys([*objectives, *metrics]))
        verification = judge(front, figures, names, prepared.problem.limits)
        text = verification_text(verification, dataclasses.asdict(plan))
        files = [store.write(RESULT, text)]
        files.append(store.write(PAGE, verified_page(front, verification, run=prepared.folder.name)))
        warning = _track(prepared, store, verification, files)
    return Verified(
        folder=prepared.folder,
        front=front,
        verification=verification,
        text=text,
        trained=missing,
        reused=asked - missing,
        seconds=time.monotonic() - started,
        warnings=(warning,) if warning else (),
    )


class _Book:
    """The finished trainings of a run's verifications: ``verify.jsonl``, a line each."""

    def __init__(self, store: Store) -> None:
        from cosearch.verification.repeats import Training

        self._store = store
        store.tell(LOG, 0, ())  # cuts off a torn last line, and refuses a file that is none
        path = store.folder / f"{LOG}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._lines = len(lines)
        self.trainings: dict[str, Training] = {}
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                self.trainings[key] = Training(**entry)
            except (AttributeError, KeyError, TypeError) as error:
                raise StoreError(f"{path}: line {number} is no training; remove it, and verify again") from error

    def add(self, found: Mapping[str, Training]) -> None:
        """Makes trainings durable."""
        lines = [json.dumps({"key": key, **dataclasses.asdict(one)}, sort_keys=True) for key, one in found.items()]
        self._store.tell(LOG, self._lines, lines)
        self._lines += len(lines)
        self.trainings.update(found)


def _works(prepared: Prepared, front: Front, plan: Plan) -> list[_Work]:
    """Returns what has to be there in the end, some of which may be there already."""
    problem = prepared.problem
    evaluators = {name: ref for name, ref in problem.costly.items() if ref.evaluator().scope == "model"}
    if not evaluators:
        raise UserError(
            f"{prepared.folder}: nothing in this run is trained, so there is nothing to verify; "
            "search with an evaluator that trains, such as 'use: trained'"
        )
    if (plan.steps or plan.longer) and all(_recipe(ref) is None for ref in evaluators.values()):
        option, names = "steps" if plan.steps else "longer", ", ".join(repr(ref.use) for ref in evaluators.values())
        raise UserError(
            f"--{option} changes a recipe, which {names} does not have; leave it out to evaluate with other seeds alone"
        )
    candidates = _chosen(front, plan.models)
    return [_work(problem, name, ref, candidate, plan) for candidate in candidates for name, ref in evaluators.items()]


def _chosen(front: Front, models: str) -> list[Candidate]:
    """Returns one candidate for each model to verify, in the order of the front."""
    if not front.members:
        raise NotFoundError("the front is empty, so there is nothing to verify; search longer or widen the limits")
    own: dict[str, Candidate] = {}
    for member in front.members:
        own.setdefault(member.candidate.model.id, member.candidate)
    if models == "knee":
        return [own[pick(front, "knee").candidate.model.id]]
    found = list(own.values())
    most = len(found) if models == "all" else int(models)
    if most >= len(found):
        return found
    if most == 1:
        return found[:1]
    return [found[round(index * (len(found) - 1) / (most - 1))] for index in range(most)]


def _work(problem: Problem, name: str, ref: PluginRef, candidate: Candidate, plan: Plan) -> _Work:
    model, recipe = candidate.model, _recipe(ref)
    steps, stacked = None, None
    if recipe is not None:
        steps = plan.steps_from(recipe.overridden(model.training).steps)
        ref = dataclasses.replace(ref, options={**ref.options, "recipe": _with_steps(ref, steps)})
        training = tuple((field, steps if field == "steps" else value) for field, value in model.training)
        candidate = dataclasses.replace(candidate, model=dataclasses.replace(model, training=training))
        changed = dataclasses.replace(recipe, steps=steps)
        stacked = changed if ref.use == "trained" and _stacks(candidate, changed) else None
    prefix = f"{name}/{model.id}/{'as searched' if steps is None else steps}"
    seeds = {
        f"{prefix}/{number}": training_seed(problem.seed, f"{model.id}/{LOG}/{number}") for number in range(plan.seeds)
    }
    return _Work(
        name=name,
        model_id=model.id,
        evaluator=ref,
        candidate=candidate,
        steps=steps,
        recipe=stacked,
        seeds=seeds,
    )


def _recipe(ref: PluginRef) -> Recipe | None:
    """Returns what an evaluator trains by, if it is made with a recipe of ours."""
    from cosearch.train import Recipe

    recipe = getattr(ref.evaluator(), "recipe", None)
    made_with = inspect.signature(ref.load()).parameters
    return recipe if isinstance(recipe, Recipe) and "recipe" in made_with else None


def _with_steps(ref: PluginRef, steps: int) -> dict[str, object]:
    return {**(ref.options.get("recipe") or {}), "steps": steps}


def _stacks(candidate: Candidate, recipe: Recipe) -> bool:
    """Returns whether a model's seeds are trained in a stack; hangs on nothing but model and recipe."""
    from cosearch.train import stackable

    own = recipe.overridden(candidate.model.training)
    return own.stackable and own.batch % WHOLE_BATCHES == 0 and stackable(candidate.model, candidate.model)


def _train(works: Sequence[_Work], book: _Book, pool: Pool, problem: Problem, listener: VerifyListener) -> None:
    """Makes the trainings that are missing."""
    todo = {key for work in works for key in work.seeds if key not in book.trainings}
    total, done = len(todo), 0
    stacks = sum(work.recipe is not None and not todo.isdisjoint(work.seeds) for work in works)
    pieces = max(1, pool.size // max(1, stacks))  # stacks are cut where workers would have none
    waiting: dict[str, tuple[str, ...]] = {}
    for work in works:
        keys = [key for key in work.seeds if key in todo]
        size = 1 if work.recipe is None else max(1, math.ceil(len(keys) / pieces))
        for start in range(0, len(keys), size):
            own = tuple(keys[start : start + size])
            waiting[own[0]] = own
            pool.submit(_job(work, own, problem))
    while done < total:
        for key, evaluation in pool.ready(timeout_s=0.25):
            own = waiting.pop(key)
            book.add(_outcomes(own, evaluation, works))
            done += len(own)
        listener.progress(done, total)


def _job(work: _Work, keys: Sequence[str], problem: Problem) -> Job:
    seeds = [work.seeds[key] for key in keys]
    if work.recipe is None:
        use, options = "Repeat", {"evaluator": work.evaluator, "seed": seeds[0]}
    else:
        use, options = "RepeatStacked", {"recipe": dataclasses.asdict(work.recipe), "seeds": seeds}
    ref = PluginRef(group=EVALUATORS, use=f"cosearch.verification.repeats:{use}", options=options)
    return Job(key=keys[0], evaluator=ref, candidate=work.candidate, seed=seeds[0], task=problem.task)


def _outcomes(keys: Sequence[str], evaluation: Evaluation, works: Sequence[_Work]) -> dict[str, Training]:
    from cosearch.verification.repeats import Training, trainings_of

    if not evaluation.failed:
        return dict(zip(keys, trainings_of(evaluation.artifacts), strict=True))
    seeds = {key: seed for work in works for key, seed in work.seeds.items()}
    share = evaluation.seconds / len(keys)
    return {key: Training(seed=seeds[key], failed=evaluation.failed, seconds=share) for key in keys}


def _metrics(problem: Problem) -> dict[str, Metric]:
    """Returns what is verified."""
    made = [ref.evaluator() for ref in problem.costly.values()]
    return {metric.name: metric for one in made if one.scope == "model" for metric in one.metrics}


def _figures(
    works: Sequence[_Work], trainings: Mapping[str, Training], front: Front, metrics: Mapping[str, Metric]
) -> dict[str, ModelFigures]:
    """Returns what the trainings gave, by model."""
    searched = {member.candidate.model.id: member.metrics for member in front.members}
    figures: dict[str, ModelFigures] = {}
    for model in dict.fromkeys(work.model_id for work in works):
        own = [work for work in works if work.model_id == model]
        good = {work.name: [one for key in work.seeds if not (one := trainings[key]).failed] for work in own}
        failed = [trainings[key].failed for work in own for key in work.seeds if trainings[key].failed]
        enough = all(len(found) >= 2 for found in good.values())
        every = [one for found in good.values() for one in found]
        values = {name: tuple(one.metrics[name] for one in every if name in one.metrics) for name in metrics}
        tested = {name: [one.test[name] for one in every if name in one.test] for name in _tested(every)}
        figures[model] = ModelFigures(
            model_id=model,
            steps=next((work.steps for work in own if work.steps is not None), None),
            search={name: searched[model][name] for name in metrics},
            values=values,
            estimates={name: estimate(values[name], metrics[name].bounds) for name in metrics} if enough else {},
            test={name: estimate(found, _share(name)) for name, found in tested.items()} if enough else {},
            failed=tuple(failed),
        )
    return figures


def _tested(trainings: Sequence[Training]) -> list[str]:
    counts = Counter(name for one in trainings for name in one.test)
    return [name for name, count in counts.items() if count >= 2]


def _share(name: str) -> tuple[float, float] | None:
    return None if name == "loss" else (0.0, 1.0)


def _track(prepared: Prepared, store: Store, verification: Verification, files: Sequence[Path]) -> str | None:
    """Adds the result to the run's page in MLflow; returns a warning if that fails."""
    section, run_id = prepared.loaded.file.mlflow, store.state.get("mlflow_run")
    if not section.enabled or run_id is None:
        return None
    location = locate(prepared.folder.parent, section.tracking_uri)
    return log_verification(location, str(run_id), verification, files)
