"""Jobs on the in-process pool and on a real local Ray cluster: metrics, failures, crashes, artifacts."""

import os

import pytest

from cosearch.errors import PoolError
from cosearch.plugins import EVALUATORS, PluginRef
from cosearch.pool import InlinePool, Job, RayPool, make_pool, run_job
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape

SOURCE = """
import os, time
from cosearch.errors import EvaluationError
from cosearch.evaluator import Metric

class Probe:
    metrics = (Metric(name="x", unit="", direction="max", description="probe"),)
    scope = "model"
    cheap = False
    def __init__(self, do="score"):
        self.do = do
    def evaluate(self, candidate, context):
        if self.do == "diverge":
            raise EvaluationError("diverged at step 3")
        if self.do == "bug":
            return {"x": 1 / 0}
        if self.do == "nan":
            return {"x": float("nan")}
        if self.do == "die":
            os._exit(1)
        context.artifacts["who"] = str(os.getpid()).encode()
        return {"x": candidate.model.dim + context.seed}
"""


def job(do="score", key="probe/1"):
    task = TaskShape(image=(8, 8), channels=1, classes=10)
    model = ModelSpec(task=task, patch=4, dim=8, blocks=(BlockSpec(heads=2, mlp_hidden=8),))
    ref = PluginRef(group=EVALUATORS, use="probe.py:Probe", options={"do": do}, source=SOURCE)
    accelerator = AcceleratorSpec.of("toy", {})
    return Job(
        key=key, evaluator=ref, candidate=Candidate(model=model, accelerator=accelerator), seed=5, task={"name": "t"}
    )


def drain(pool, jobs):
    for one in jobs:
        pool.submit(one)
    found = {}
    while len(found) < len(jobs):
        found.update(pool.ready(timeout_s=1.0))
    return found


@pytest.fixture(scope="module")
def ray_pool():
    pool = RayPool("local", 2)
    yield pool
    pool.close()


@pytest.fixture(params=["inline", "ray"])
def pool(request):
    return InlinePool() if request.param == "inline" else request.getfixturevalue("ray_pool")


def test_metrics_and_artifacts_come_back(pool):
    done = drain(pool, [job(key=f"probe/{n}") for n in range(4)])
    assert {key: e.metrics for key, e in done.items()} == {f"probe/{n}": {"x": 13.0} for n in range(4)}
    assert all(e.artifacts["who"] and e.seconds > 0 for e in done.values())


@pytest.mark.parametrize(
    ("do", "reason"),
    [("diverge", "diverged at step 3"), ("bug", "ZeroDivisionError: division by zero (probe.py:"), ("nan", "x is nan")],
)
def test_a_failure_is_a_value_with_a_reason(pool, do, reason):
    (evaluation,) = drain(pool, [job(do)]).values()
    assert not evaluation.metrics
    assert reason in evaluation.failed


def test_nothing_to_wait_for_is_no_wait(pool):
    assert pool.ready(timeout_s=0.0) == []


def test_ray_runs_jobs_in_other_processes(ray_pool):
    done = drain(ray_pool, [job(key=f"probe/{n}") for n in range(4)])
    assert str(os.getpid()).encode() not in {e.artifacts["who"] for e in done.values()}


@pytest.mark.slow
def test_a_worker_that_dies_is_tried_again_and_then_said_to_have_died(ray_pool):
    done = drain(ray_pool, [job("die", "probe/dead"), job(key="probe/alive")])
    assert "worker died 3 times" in done["probe/dead"].failed
    assert done["probe/alive"].metrics == {"x": 13.0}


def test_no_workers_means_this_process():
    assert isinstance(make_pool("local", 0), InlinePool)
    assert run_job(job()).artifacts["who"] == str(os.getpid()).encode()


def test_a_cluster_that_is_not_there_is_named_at_once():
    with pytest.raises(PoolError, match=r"no Ray cluster at '127\.0\.0\.1:9'.*ray start --head"):
        RayPool("127.0.0.1:9", 0)
