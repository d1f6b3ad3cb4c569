"""Where costly evaluations run: a Ray cluster, or this very process.

Workers are handed names, configuration and a candidate as plain data; they never see a sampler, a network or an open
handle. What happens on a worker, a crash included, comes back as an `Evaluation`: metrics or a reason.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cosearch.errors import EvaluationError, PoolError
from cosearch.evaluator import Context
from cosearch.plugins import PluginRef
from cosearch.spec import Candidate
from cosearch.store import Evaluation

__all__ = ["InlinePool", "Job", "Pool", "RayPool", "make_pool", "run_job"]

RETRIES = 2
"""How often a job is tried again when its worker dies (a lost machine, the out-of-memory killer)."""


CONNECT_S = 5.0
"""Seconds to wait for a cluster to take a connection."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One costly evaluation.

    Attributes:
        key: what it is stored under, ``evaluator/id``.
        evaluator: how to make the evaluator.
        candidate: what to score.
        seed: derives from the run's seed and the model's id.
        task: the run file's ``task`` section.
        brief: whether the evaluator is to give its cheap guess.
    """

    key: str
    evaluator: PluginRef
    candidate: Candidate
    seed: int
    task: Mapping[str, Any]
    brief: bool = False


class Pool(Protocol):
    """Runs jobs; results come back in any order."""

    size: int

    def submit(self, job: Job) -> None:
        """Queues a job."""
        ...

    def ready(self, timeout_s: float) -> list[tuple[str, Evaluation]]:
        """Returns what has finished, waiting up to ``timeout_s`` for the first; empty if nothing has."""
        ...

    def close(self) -> None:
        """Cancels what has not finished and lets the workers go."""
        ...


def run_job(job: Job) -> Evaluation:
    """Runs one job here and returns what came of it; never raises on a candidate's account."""
    started = time.perf_counter()
    context = Context(seed=job.seed, task=job.task, brief=job.brief)
    try:
        metrics = {name: float(v) for name, v in job.evaluator.evaluator().evaluate(job.candidate, context).items()}
        wrong = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        failed = f"{wrong[0]} is {metrics[wrong[0]]}" if wrong else ""
    except EvaluationError as error:
        metrics, failed = {}, str(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        metrics, failed = {}, f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
    seconds = time.perf_counter() - started
    if failed:
        return Evaluation(failed=failed, seconds=seconds)
    return Evaluation(metrics=metrics, seconds=seconds, artifacts=context.artifacts)


class InlinePool:
    """Runs jobs in this process, one at a time: for debugging, and where Ray is not worth its start-up."""

    size = 1

    def __init__(self) -> None:
        self._queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queues a job."""
        self._queue.append(job)

    def ready(self, timeout_s: float) -> list[tuple[str, Evaluation]]:  # noqa: ARG002 - nothing to wait for
        """Runs the next job and returns its result."""
        if not self._queue:
            return []
        job = self._queue.popleft()
        return [(job.key, run_job(job))]

    def close(self) -> None:
        """Forgets what is queued."""
        self._queue.clear()


class RayPool:
    """Runs jobs as Ray tasks, one CPU each.

    Args:
        address: ``local`` starts a cluster on this machine and ends it with the pool; anything else is a cluster to
            join, such as ``auto`` or ``ray://host:10001``.
        workers: CPUs of a local cluster; tasks at a time on a joined one (0: as many as the cluster has CPUs).

    Raises:
        PoolError: there is no cluster at the address.
    """

    def __init__(self, address: str, workers: int) -> None:
        local = address == "local"
        if local:
            _own_token()  # before Ray is imported, which is when it reads how to authenticate
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        cpus = workers or os.cpu_count() or 1
        try:
            _knock(address)
            ray.init(
                address=address,
                include_dashboard=False if local else None,
                num_cpus=cpus if local else None,
                object_store_memory=100 * 2**20 if local else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                configure_logging=True,
                namespace="cosearch",
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[1:])}}
                if local
                else {"env_vars": {"OMP_NUM_THREADS": "1"}},
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            remedy = (
                "check free memory and /dev/shm, or set pool.workers to 0 to run without Ray"
                if local
                else "start one with 'ray start --head', check pool.address (or --address), name its token's file in "
                "RAY_AUTH_TOKEN_PATH if it has one, or use 'local'"
            )
            raise PoolError(f"no Ray cluster at {address!r} ({reason}); {remedy}") from error
        self.size = cpus if local or workers else max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Queues a job; Ray starts it when a CPU is free."""
        self._running[self._remote.remote(job)] = job

    def ready(self, timeout_s: float) -> list[tuple[str, Evaluation]]:
        """Returns what has finished, waiting up to ``timeout_s`` for the first.

        Raises:
            PoolError: the cluster is gone.
        """
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        return [self._take(future) for future in done]

    def _take(self, future: Any) -> tuple[str, Evaluation]:
        errors = self._ray.exceptions
        job = self._running.pop(future)
        try:
            return job.key, self._ray.get(future)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            kind = type(error).__name__
            return job.key, Evaluation(failed=f"its worker died {RETRIES + 1} times ({kind}); it may need more memory")
        except errors.RayTaskError as error:
            return job.key, Evaluation(failed=f"worker: {error.cause}")
        except errors.RayError as error:
            raise PoolError(
                f"the Ray cluster is gone ({type(error).__name__}); start it, then go on with --resume"
            ) from error

    def close(self) -> None:
        """Cancels what runs, and ends the cluster if it was started here."""
        for future in self._running:
            self._ray.cancel(future, force=True)
        self._running.clear()
        self._ray.shutdown()


def _own_token() -> None:
    """Gives a cluster of our own a token of its own; Ray would otherwise write one into the user's home."""
    if any(name.startswith("RAY_AUTH_") for name in os.environ):
        return
    place = Path(tempfile.mkdtemp(prefix="cosearch-ray-")) / "token"
    place.write_text(secrets.token_hex(32), encoding="ascii")
    atexit.register(shutil.rmtree, place.parent, ignore_errors=True)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place)}


def _knock(address: str) -> None:
    """Raises at once where nothing listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def make_pool(address: str, workers: int | None) -> Pool:
    """Returns the pool that a run file asks for.

    Args:
        address: see `RayPool`.
        workers: 0 runs in this process; ``None`` takes every CPU.
    """
    if workers == 0:
        return InlinePool()
    return RayPool(address, workers or 0)
