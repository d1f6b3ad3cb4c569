"""The one loop: ask, check what is cheap, train what is left, tell in order.

What is told, and when, follows from the run file alone: the loop tells the oldest outstanding point (and those behind
it that wait for nothing else) before it asks again, however fast the workers are. So the same seed gives the same
front for any number of workers. A resumed run walks the same path from the start and finds its trainings in the store.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cosearch.errors import EvaluationError, SpecError, UserError
from cosearch.evaluator import BatchEvaluator, BriefEvaluator, Context, Evaluator, LimitingEvaluator
from cosearch.front import FrontBuilder, Member, Objective
from cosearch.plugins import PluginRef
from cosearch.pool import Job, Pool
from cosearch.runfile import Limit
from cosearch.samplers import Brief, Sampler
from cosearch.spec import Candidate, Point, Result, Status, Violation, to_json
from cosearch.store import Evaluation, Store

if TYPE_CHECKING:
    from cosearch.space import Space

__all__ = ["Counts", "Leg", "Listener", "Problem", "cost_batch", "training_seed"]

HOPELESS = 20_000
"""Points in a row that break a limit before the search gives up on them."""

AHEAD = 10_000
"""Points outstanding at most: a sampler that proposes only infeasible points is told so before it proposes more."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, apart from how.

    Attributes:
        space: where candidates come from.
        objectives: what is traded off.
        limits: what must hold.
        cheap: evaluators that run here, before anything is trained.
        costly: evaluators that run on the pool, by the name that the run file gives them.
        task: the run file's ``task`` section.
        seed: the run's seed.
    """

    space: Space
    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...]
    cheap: tuple[Evaluator, ...]
    costly: Mapping[str, PluginRef]
    task: Mapping[str, Any]
    seed: int


@dataclass(kw_only=True)
class Counts:
    """How far a search has come.

    Attributes:
        asked: points proposed.
        told: points whose result the sampler knows.
        costed: points whose hardware cost was estimated.
        trained: models evaluated on the pool (in this session or an earlier one of the same run).
        briefed: models of which the pool gave a cheap guess, likewise.
        spent: full evaluations that both cost together.
        reused: evaluations that the store already had.
        infeasible: points that broke a limit or constraint.
        failed: trainings that failed, and points that could not be costed.
    """

    asked: int = 0
    told: int = 0
    costed: int = 0
    trained: int = 0
    briefed: int = 0
    spent: float = 0.0
    reused: int = 0
    infeasible: int = 0
    failed: int = 0


class Listener(Protocol):
    """Hears how a search goes."""

    def told(self, leg: Leg) -> None:
        """Called after results were told."""
        ...

    def waiting(self, leg: Leg) -> None:
        """Called a few times a second while workers work."""
        ...


@dataclass(slots=True)
class _Asked:
    """A point between asking and telling."""

    index: int
    point: Point
    candidate: Candidate | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    failed: str = ""
    share: float = 1.0  # of the full cost of the costly evaluations
    subject: str = ""  # what has to be trained for it: a model's id, or a pair's; empty where nothing has
    keys: tuple[str, ...] = ()  # what that is stored under, one for each costly evaluator


def training_seed(run_seed: int, model_id: str) -> int:
    """Returns the seed of a model's training: the same in every search with this run seed."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{model_id}".encode()).digest()[:7], "big")


Costing = dict[str, float] | tuple[Violation, ...] | str
"""What the cheap evaluators say of a candidate: metrics, which limits of theirs it breaks, or why it failed."""


def cost_batch(problem: Problem, candidates: Sequence[Candidate]) -> list[Costing]:
    """Returns what the cheap evaluators give for candidates that share a model."""
    costs: list[Costing] = [{} for _ in candidates]
    for evaluator in problem.cheap:
        if isinstance(evaluator, LimitingEvaluator):
            for i, candidate in enumerate(candidates):
                if isinstance(costs[i], dict) and (broken := tuple(_violations(evaluator, candidate))):
                    costs[i] = broken
        left = [i for i, cost in enumerate(costs) if isinstance(cost, dict)]
        columns = _columns(evaluator, [candidates[i] for i in left]) if left else {}
        for place, i in enumerate(left):
            known = costs[i]
            assert isinstance(known, dict)
            if columns is not None:
                known.update({name: column[place] for name, column in columns.items()})
                continue
            try:
                known.update(evaluator.evaluate(candidates[i], Context(seed=problem.seed, task=problem.task)))
            except (EvaluationError, SpecError) as error:
                costs[i] = str(error)
    return costs


def _violations(evaluator: LimitingEvaluator, candidate: Candidate) -> Sequence[Violation]:
    try:
        return evaluator.violations(candidate)
    except (EvaluationError, SpecError):
        return ()  # evaluating it gives the reason


def _columns(evaluator: Evaluator, candidates: Sequence[Candidate]) -> dict[str, list[float]] | None:
    """Returns the metrics of candidates that share a model in one call, or ``None`` where that does not work."""
    if not isinstance(evaluator, BatchEvaluator):
        return None
    try:
        batch = evaluator.evaluate_batch(candidates[0].model, [c.accelerator for c in candidates])
    except (EvaluationError, SpecError):
        return None  # one by one, to learn whose fault it is
    return {name: np.asarray(values, dtype=float).tolist() for name, values in batch.items()}


class Leg:
    """One sampler's search: the search proper, or the baseline that it is compared with.

    Args:
        name: ``search`` or ``baseline``; names the file of told points.
        problem: what is searched.
        sampler: proposes points.
        trainings: models to train in all (pairs, where a costly evaluator depends on the pair); what is asked briefly
            counts as its share of one.
        window: trainings outstanding at most.
        points: points to ask at most; ``None`` for no bound.
        store: where results become durable.
        pool: where costly evaluations run.
        listener: hears how it goes.
        front: what the found pairs go to.
    """

    def __init__(
        self,
        name: str,
        problem: Problem,
        sampler: Sampler,
        *,
        trainings: int,
        window: int,
        points: int | None = None,
        store: Store,
        pool: Pool,
        listener: Listener,
        front: FrontBuilder,
    ) -> None:
        self.name, self.problem, self.sampler = name, problem, sampler
        self.trainings, self.window, self.points = trainings, window, points
        self.store, self.pool, self.listener = store, pool, listener
        self.counts = Counts()
        self.front = front
        self.failures: dict[str, str] = {}  # reason by what failed
        self.history: list[tuple[float, float]] = []  # trainings spent, hypervolume
        self.started = time.monotonic()
        self._queue: deque[_Asked] = deque()
        evaluators = {name: ref.evaluator() for name, ref in problem.costly.items()}
        self._scopes = {name: evaluator.scope for name, evaluator in evaluators.items()}
        self._brief = {n: e.brief_share if isinstance(e, BriefEvaluator) else None for n, e in evaluators.items()}
        self._wanted: dict[str, float] = {}  # subjects that some asked point needs, and their shares
        self._settled: set[str] = set()  # subjects whose results were told
        self._submitted: set[str] = set()  # keys
        self._hopeless = 0

    def run(self) -> None:
        """Searches until the trainings are spent or the space is exhausted.

        Raises:
            UserError: no candidate keeps the limits.
            StoreError: results cannot be written.
            PoolError: the workers are gone.
        """
        self.started = time.monotonic()
        while self._ask():
            self._tell(self._wait_for_oldest())

    def _ask(self) -> bool:
        """Asks until the window is full; returns whether anything is outstanding."""
        while (room := self._room()) > 0 and len(self._queue) < AHEAD:
            points = self.sampler.ask(room)
            if not points:
                break
            for asked in self._evaluate_cheaply(points):
                self._want(asked)
                self._queue.append(asked)
            if not self._queue[0].subject:
                break  # it broke a limit, which the sampler should know before it asks again
        return bool(self._queue)

    def _room(self) -> int:
        """Returns how many trainings may be asked for now."""
        if self.points is not None and self.counts.asked >= self.points:
            return 0
        outstanding = len(self._wanted) - len(self._settled)
        return min(self.window - outstanding, int(self.trainings - self._spent() + 1e-9))

    def _spent(self) -> float:
        return math.fsum(self._wanted.values())

    def _share(self) -> float:
        """Returns what a cheap guess of all that is costly costs, as a share of evaluating it in full.

        Raises:
            UserError: there is an evaluator that cannot guess.
        """
        for name, share in self._brief.items():
            if share is None:
                raise UserError(
                    f"the sampler asks for brief evaluations, which evaluator {name!r} does not have; leave the "
                    "sampler's option briefs out, or evaluate by 'trained'"
                )
        return max((share for share in self._brief.values() if share is not None), default=1.0)

    def _evaluate_cheaply(self, points: Sequence[Point]) -> Iterator[_Asked]:
        """Decodes, costs and checks points; one batch for each run of points with the same model."""
        asked = [
            _Asked(self.counts.asked + i, point, share=self._share() if isinstance(point, Brief) else 1.0)
            for i, point in enumerate(points)
        ]
        self.counts.asked += len(asked)
        for one in asked:
            one.violations = self.problem.space.violations(one.point)
            if not one.violations:
                one.candidate = self.problem.space.decode(one.point)
        for _, group in itertools.groupby(asked, key=lambda a: a.candidate and a.candidate.model):
            batch = [one for one in group if one.candidate is not None]
            if batch:
                self._cost(batch)
        for one in asked:
            one.violations += tuple(self._broken(one.metrics))
        return iter(asked)

    def _cost(self, batch: Sequence[_Asked]) -> None:
        candidates = [one.candidate for one in batch if one.candidate is not None]
        for one, cost in zip(batch, cost_batch(self.problem, candidates), strict=True):
            if isinstance(cost, str):
                one.failed = cost
            elif isinstance(cost, tuple):
                one.violations += cost
            else:
                one.metrics.update(cost)
        self.counts.costed += len(batch)

    def _broken(self, metrics: Mapping[str, float]) -> Iterator[Violation]:
        for limit in self.problem.limits:
            if limit.metric in metrics and (excess := limit.excess(metrics[limit.metric])) > 0:
                yield Violation(limit=str(limit), excess=excess)

    def _want(self, asked: _Asked) -> None:
        """Submits the costly evaluations that a point still needs."""
        if asked.candidate is None or asked.violations or asked.failed or not self._scopes:
            return
        candidate = asked.candidate
        ids = {"model": candidate.model.id, "pair": candidate.id}
        brief = asked.share < 1
        subject = ("brief " if brief else "") + ids["pair" if "pair" in self._scopes.values() else "model"]
        if subject not in self._wanted and self._spent() + asked.share > self.trainings + 1e-9:
            asked.failed = "not evaluated: the trainings of this run are spent"
            return
        self._wanted[subject] = asked.share
        asked.subject = subject
        asked.keys = tuple(f"{name}{'/brief' if brief else ''}/{ids[scope]}" for name, scope in self._scopes.items())
        for name, key in zip(self._scopes, asked.keys, strict=True):
            if key in self._submitted:
                continue
            self._submitted.add(key)
            if key in self.store.evaluations:
                self.counts.reused += 1
                continue
            seed = training_seed(self.problem.seed, candidate.model.id)
            evaluator = self.problem.costly[name]
            task = self.problem.task
            self.pool.submit(Job(key=key, evaluator=evaluator, candidate=candidate, seed=seed, task=task, brief=brief))

    def _wait_for_oldest(self) -> list[_Asked]:
        """Returns the oldest point, once its evaluations are in, and those behind it that need none but these."""
        oldest = self._queue[0]
        while any(key not in self.store.evaluations for key in oldest.keys):
            for key, evaluation in self.pool.ready(timeout_s=0.25):
                self.store.record(key, evaluation)
            self.listener.waiting(self)
        if oldest.subject:
            self._settled.add(oldest.subject)
        self.counts.briefed = sum(self._wanted[subject] < 1 for subject in self._settled)
        self.counts.trained = len(self._settled) - self.counts.briefed
        self.counts.spent = math.fsum(self._wanted[subject] for subject in self._settled)
        done = []
        while self._queue and (not self._queue[0].subject or self._queue[0].subject in self._settled):
            done.append(self._queue.popleft())
        return done

    def _tell(self, done: Sequence[_Asked]) -> None:
        results = [self._result(one) for one in done]
        self.store.tell(self.name, done[0].index, [json.dumps(to_json(r), sort_keys=True) for r in results])
        self.sampler.tell(results)
        members = []
        for one, result in zip(done, results, strict=True):
            self.counts.told += 1
            self.counts.infeasible += result.status is Status.INFEASIBLE
            if result.status is Status.FAILED:
                self.failures.setdefault(one.subject or f"point {one.index}", result.reason)
            if result.status is Status.OK and one.candidate is not None and one.share == 1:
                members.append(Member(candidate=one.candidate, metrics=result.metrics))
        self.counts.failed = len(self.failures)
        self.front.add(members)
        if self.counts.trained and (not self.history or self.history[-1][0] < self.counts.spent):
            self.history.append((self.counts.spent, self.front.hypervolume))
        self._give_up_if_hopeless(results)
        self.listener.told(self)

    def _result(self, one: _Asked) -> Result:
        ids = {"candidate_id": one.candidate.id, "model_id": one.candidate.model.id} if one.candidate else {}
        metrics, failed = dict(one.metrics), one.failed
        for key in one.keys:
            evaluation: Evaluation = self.store.evaluations[key]
            metrics.update(evaluation.metrics)
            failed = failed or evaluation.failed
        base: dict[str, Any] = {"index": one.index, "point": dict(one.point), "metrics": metrics, **ids}
        base["share"] = one.share
        violations = one.violations or tuple(self._broken(metrics))
        if failed:
            return Result(status=Status.FAILED, reason=failed, **base)
        if violations:
            return Result(status=Status.INFEASIBLE, violations=violations, **base)
        values = tuple(o.minimised(metrics[o.metric]) for o in self.problem.objectives)
        return Result(status=Status.OK, objectives=values, **base)

    def _give_up_if_hopeless(self, results: Sequence[Result]) -> None:
        if any(r.status is not Status.INFEASIBLE for r in results):
            self._hopeless = 0
            return
        self._hopeless += len(results)
        if self._hopeless >= HOPELESS:
            nearest = min((v for r in results for v in r.violations), key=lambda v: v.excess)
            raise UserError(
                f"{self._hopeless} candidates in a row broke a limit (the nearest broke {nearest.limit!r} by "
                f"{nearest.excess:.0%}); loosen the run file's limits, or widen the space"
            )
