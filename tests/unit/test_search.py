"""The loop alone: a toy space, a pool that finishes in any order, a sampler that remembers what it was told."""

import json
import random
from types import SimpleNamespace

import pytest

from cosearch.errors import UserError
from cosearch.evaluator import Metric
from cosearch.front import FrontBuilder, Objective
from cosearch.plugins import EVALUATORS, PluginRef
from cosearch.pool import run_job
from cosearch.runfile import parse_limit
from cosearch.samplers import Brief
from cosearch.search import Leg, Problem, training_seed
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, Status, TaskShape, Violation
from cosearch.store import Store

TASK = TaskShape(image=(8, 8), channels=1, classes=10)
SOURCE = """
from cosearch.errors import EvaluationError
from cosearch.evaluator import Metric

class Score:
    metrics = (Metric(name="accuracy", unit="", direction="max", description="toy"),)
    scope = "model"
    cheap = False
    brief_share = 0.25
    def evaluate(self, candidate, context):
        if context.brief:
            return {"accuracy": 1 - 1 / candidate.model.dim - 0.1}
        if candidate.model.dim == 13:
            raise EvaluationError("diverged at step 3")
        context.artifacts["w"] = str(context.seed).encode()
        return {"accuracy": 1 - 1 / candidate.model.dim}
"""


class Cost:
    metrics = (Metric(name="latency_s", unit="s", direction="min", description="toy"),)
    scope, cheap = "pair", True

    def evaluate(self, candidate, context):
        return {"latency_s": candidate.model.dim / candidate.accelerator.as_dict()["rows"]}


class ToySpace:
    def decode(self, point):
        model = ModelSpec(task=TASK, patch=4, dim=point["dim"], blocks=(BlockSpec(heads=1, mlp_hidden=4),))
        return Candidate(model=model, accelerator=AcceleratorSpec.of("toy", {"rows": point["rows"]}))

    def violations(self, point):
        return (Violation(limit="dim != 7", excess=1.0),) if point["dim"] == 7 else ()


class Listed:
    """Proposes given points in order, as many models as it is asked for; remembers every exchange."""

    def __init__(self, points):
        self.points, self.log = list(points), []

    def ask(self, n):
        models, out = set(), []
        while self.points and len(models | {self.points[0]["dim"]}) <= n:
            models.add(self.points[0]["dim"])
            out.append(self.points.pop(0))
        self.log.append(("ask", n, len(out)))
        return out

    def tell(self, results):
        self.log.append(("tell", [(r.index, r.status, r.objectives) for r in results]))

    @property
    def told(self):
        return [r for kind, *rest in self.log if kind == "tell" for r in rest[0]]


class AnyOrderPool:
    """Finishes jobs in an order drawn from a seed, one or several at a time."""

    size = 2

    def __init__(self, seed):
        self.rng, self.jobs, self.ran, self.most = random.Random(seed), [], [], 0

    def submit(self, job):
        self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))

    def ready(self, timeout_s):
        if self.rng.random() < 0.3:
            return []
        self.rng.shuffle(self.jobs)
        done, self.jobs = self.jobs[: (k := self.rng.randint(1, 2))], self.jobs[k:]
        self.ran += [job.key for job in done]
        return [(job.key, run_job(job)) for job in done]


QUIET = SimpleNamespace(told=lambda leg: None, waiting=lambda leg: None)
OBJECTIVES = (Objective("accuracy", "max"), Objective("latency_s", "min", "s"))


def problem(limits=(), costly=True, cheap=None, source=SOURCE):
    score = PluginRef(group=EVALUATORS, use="score.py:Score", source=source)
    return Problem(
        space=ToySpace(),
        objectives=OBJECTIVES if costly else OBJECTIVES[1:],
        limits=tuple(parse_limit(text) for text in limits),
        cheap=(cheap or Cost(),),
        costly={"accuracy": score} if costly else {},
        task={},
        seed=5,
    )


def search(folder, points, *, pool=None, trainings=100, window=4, store=None, points_at_most=None, **kw):
    store = store or Store.create(folder, {}, {})
    what = problem(**kw)
    sampler, pool = Listed(points), pool or AnyOrderPool(0)
    leg = Leg(
        "search",
        what,
        sampler,
        trainings=trainings,
        window=window,
        points=points_at_most,
        store=store,
        pool=pool,
        listener=QUIET,
        front=FrontBuilder(what.objectives),
    )
    try:
        leg.run()
    finally:
        store.close()
    return leg, sampler, pool


def grid(dims, rows=(1, 2, 4)):
    return [{"dim": d, "rows": r} for d in dims for r in rows]


def test_every_point_is_told_once_in_the_order_of_asking(tmp_path):
    leg, sampler, pool = search(tmp_path / "r", grid(range(1, 31)))
    assert [index for index, *_ in sampler.told] == list(range(90))
    assert leg.counts.told == leg.counts.asked == 90
    assert sorted(pool.ran) == sorted(set(pool.ran)), "a model was trained twice"
    assert leg.counts.trained == 29  # not 7, which breaks the constraint; 13 failed but was tried
    assert leg.counts.infeasible == 3
    assert leg.counts.failed == 1
    assert list(leg.failures.values()) == ["diverged at step 3"]


def test_the_exchange_does_not_depend_on_the_order_in_which_workers_finish(tmp_path):
    logs, texts = [], []
    for seed in range(6):
        _, sampler, _ = search(tmp_path / str(seed), grid(range(1, 20)), pool=AnyOrderPool(seed))
        logs.append(sampler.log)
        texts.append((tmp_path / str(seed) / "search.jsonl").read_text())
    assert all(log == logs[0] for log in logs)
    assert len(set(texts)) == 1


def test_no_more_trainings_are_outstanding_than_the_window_allows(tmp_path):
    _, sampler, pool = search(tmp_path / "r", grid(range(1, 31)), window=3)
    assert pool.most <= 3
    assert max(n for kind, n, *_ in sampler.log if kind == "ask") <= 3


def test_the_budget_of_trainings_is_kept(tmp_path):
    leg, _, pool = search(tmp_path / "r", grid(range(20, 60)), trainings=9)
    assert leg.counts.trained == len(pool.ran) == 9


def test_what_breaks_a_cost_limit_is_not_trained(tmp_path):
    _, sampler, pool = search(tmp_path / "r", grid([10, 20], rows=(1, 2)), limits=["latency_s <= 9"])
    assert [status for _, status, _ in sampler.told] == [
        Status.INFEASIBLE,
        Status.OK,
        Status.INFEASIBLE,
        Status.INFEASIBLE,
    ]
    assert len(pool.ran) == 1
    first = json.loads((tmp_path / "r" / "search.jsonl").read_text().splitlines()[0])
    assert first["violations"] == [{"limit": "latency_s <= 9", "excess": pytest.approx(1 / 9)}]


def test_a_limit_on_accuracy_is_checked_after_training(tmp_path):
    _, sampler, _ = search(tmp_path / "r", grid([2, 20], rows=(1,)), limits=["accuracy >= 0.9"])
    assert [status for _, status, _ in sampler.told] == [Status.INFEASIBLE, Status.OK]


def test_objectives_are_minimised_and_metrics_are_not(tmp_path):
    _, sampler, _ = search(tmp_path / "r", grid([10], rows=(2,)))
    assert sampler.told[0][2] == (-0.9, 5.0)
    line = json.loads((tmp_path / "r" / "search.jsonl").read_text())
    assert line["metrics"] == {"accuracy": 0.9, "latency_s": 5.0}


class Killed(BaseException):
    pass


class DyingPool(AnyOrderPool):
    def __init__(self, seed, after):
        super().__init__(seed)
        self.after = after

    def ready(self, timeout_s):
        if len(self.ran) >= self.after:
            raise Killed
        return super().ready(timeout_s)


@pytest.mark.parametrize("after", [0, 1, 5, 11, 18])
def test_a_killed_search_goes_on_and_ends_the_same(tmp_path, after):
    points = grid(range(1, 22))
    search(tmp_path / "whole", points)
    dying = DyingPool(3, after)
    with pytest.raises(Killed):
        search(tmp_path / "cut", points, pool=dying)
    _, _, second = search(tmp_path / "cut", points, store=Store.open(tmp_path / "cut"), pool=AnyOrderPool(9))
    assert (tmp_path / "cut" / "search.jsonl").read_bytes() == (tmp_path / "whole" / "search.jsonl").read_bytes()
    stored = [json.loads(line)["key"] for line in (tmp_path / "cut" / "evaluations.jsonl").read_text().splitlines()]
    assert len(stored) == len(set(stored))
    assert not set(second.ran) & set(stored[: len(stored) - len(second.ran)]), "a stored model was trained again"


def test_a_search_of_costs_alone_trains_nothing(tmp_path):
    leg, _, pool = search(tmp_path / "r", grid(range(20, 40)), costly=False, points_at_most=30)
    assert not pool.ran
    assert leg.counts.costed >= 30
    assert len(leg.front) == 1


def test_hopeless_limits_end_the_search_with_the_nearest_one_named(tmp_path, monkeypatch):
    monkeypatch.setattr("cosearch.search.HOPELESS", 20)
    with pytest.raises(UserError, match=r"in a row broke a limit \(the nearest broke 'latency_s <= 0\.001'"):
        search(tmp_path / "r", grid(range(20, 60)), limits=["latency_s <= 0.001"])


def test_seeds_follow_the_run_and_the_model():
    assert training_seed(0, "a") == training_seed(0, "a")
    assert len({training_seed(s, m) for s in range(10) for m in "abc"}) == 30


class Board(Cost):
    """A device of 4 rows: what needs more does not fit, and has no cost."""

    def violations(self, candidate):
        rows = candidate.accelerator.as_dict()["rows"]
        return (Violation(limit="rows <= 4", excess=rows / 4 - 1),) if rows > 4 else ()

    def evaluate(self, candidate, context):
        assert candidate.accelerator.as_dict()["rows"] <= 4, "asked for the cost of what does not fit"
        return super().evaluate(candidate, context)


def test_a_pair_that_a_device_does_not_hold_is_infeasible_and_costs_no_training(tmp_path):
    points = [{"dim": 8, "rows": 6}, {"dim": 8, "rows": 4}, {"dim": 9, "rows": 8}]
    leg, sampler, pool = search(tmp_path / "run", points, cheap=Board())
    statuses = [status for _, status, _ in sampler.told]
    assert statuses == [Status.INFEASIBLE, Status.OK, Status.INFEASIBLE]
    assert len(pool.ran) == 1  # the model of 9 was never trained
    assert leg.counts.infeasible == 2
    assert leg.counts.failed == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "search.jsonl").read_text().splitlines()]
    assert lines[0]["violations"] == [{"limit": "rows <= 4", "excess": 0.5}]


def briefly(points):
    return [Brief(point) for point in points]


def test_a_point_asked_briefly_is_told_its_share_and_never_stands_on_the_front(tmp_path):
    points = briefly(grid([90], rows=(1, 2))) + grid([8], rows=(2,))  # in accuracy even the guess is better
    leg, sampler, pool = search(tmp_path / "r", points)
    lines = [json.loads(line) for line in (tmp_path / "r" / "search.jsonl").read_text().splitlines()]
    assert [line.get("share", 1.0) for line in lines] == [0.25, 0.25, 1.0]
    assert lines[0]["metrics"]["accuracy"] == pytest.approx(1 - 1 / 90 - 0.1)
    assert [objectives for *_, objectives in sampler.told][2] == (-0.875, 4.0)
    assert [member.candidate.model.dim for member in leg.front.front.members] == [8]
    assert sorted(pool.ran) == sorted({f"accuracy/brief/{leg_id(90)}", f"accuracy/{leg_id(8)}"})
    assert (leg.counts.trained, leg.counts.briefed, leg.counts.spent) == (1, 1, 1.25)


def leg_id(dim):
    return ToySpace().decode({"dim": dim, "rows": 1}).model.id


def test_a_model_can_be_asked_in_full_after_it_was_asked_briefly(tmp_path):
    leg, sampler, pool = search(tmp_path / "r", briefly(grid([9], rows=(1,))) + grid([9], rows=(1,)))
    assert [objectives[0] for *_, objectives in sampler.told] == [pytest.approx(-(1 - 1 / 9 - 0.1)), -(1 - 1 / 9)]
    assert len(pool.ran) == 2
    assert len(leg.front) == 1


def test_brief_evaluations_are_paid_from_the_same_budget(tmp_path):
    leg, _, pool = search(tmp_path / "r", briefly(grid(range(20, 26), rows=(1,))) + grid(range(30, 60)), trainings=9)
    assert leg.counts.briefed == 6
    assert leg.counts.trained == 7  # 6 quarters are 1.5, and half a training is none
    assert leg.counts.spent == 8.5
    assert len(pool.ran) == 13


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_killed_search_that_asks_briefly_ends_the_same(tmp_path, after):
    points = [p for d in range(1, 16) for p in (*briefly(grid([d])), *grid([d]))]
    search(tmp_path / "whole", points)
    with pytest.raises(Killed):
        search(tmp_path / "cut", points, pool=DyingPool(3, after))
    search(tmp_path / "cut", points, store=Store.open(tmp_path / "cut"), pool=AnyOrderPool(9))
    assert (tmp_path / "cut" / "search.jsonl").read_bytes() == (tmp_path / "whole" / "search.jsonl").read_bytes()


def test_an_evaluator_that_cannot_guess_is_named(tmp_path):
    source = SOURCE.replace("    brief_share = 0.25\n", "")
    with pytest.raises(UserError, match="evaluator 'accuracy' does not have; leave the sampler's option briefs out"):
        search(tmp_path / "r", briefly(grid([9])), source=source)
