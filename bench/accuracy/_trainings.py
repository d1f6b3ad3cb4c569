"""Trainings that benchmarks share: each is made once, in a process of its own, and kept in a file of JSON lines.

A training is found again by its task, its model, its recipe, its seed and torch's version; what changes the outcome
beside these (the library's own code) the file does not know of: after such a change begin with an empty folder.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from cosearch.data import Task, load_task
from cosearch.errors import EvaluationError
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.spec import ModelSpec, to_json
from cosearch.train import Recipe, accuracy, train
from cosearch.train.batches import Batches
from cosearch.train.loop import Training

__all__ = ["Found", "Job", "mean_and_spread", "trainings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        task: as `load_task` takes it, as sorted pairs.
        spec: the model.
        recipe: how it is trained.
        seed: of everything drawn.
        read_as: models that are read with the weights of this one.
        in_turns: whether each step trains the model or one of ``read_as``, drawn at random, with the same weights.
    """

    task: tuple[tuple[str, str | int], ...]
    spec: ModelSpec
    recipe: Recipe
    seed: int
    read_as: tuple[ModelSpec, ...] = ()
    in_turns: bool = False

    @property
    def key(self) -> str:
        """Returns what stands for the training in the file."""
        parts = [self.task, to_json(self.spec), asdict(self.recipe), self.seed, torch.__version__]
        parts += [[to_json(spec) for spec in self.read_as], self.in_turns]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of it.

    Attributes:
        accuracy: share of the validation split's labels read right; None where the training diverged.
        read_as: the same of each of the job's ``read_as``.
        seconds: of the processor, building, training and reading.
    """

    accuracy: float | None
    read_as: tuple[float, ...]
    seconds: float


def trainings(name: str, jobs: Sequence[Job], folder: Path | None, workers: int) -> dict[Job, Found]:
    """Returns what comes of every job; trains what ``folder`` does not hold, and tells of each as it ends.

    Args:
        name: of the file in ``folder``.
        jobs: begun in their order.
        folder: keeps finished trainings, made if need be; None keeps none.
        workers: processes, each with one thread.
    """
    path = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.jsonl"
    kept = _kept(path)
    found = {job: kept[job.key] for job in jobs if job.key in kept}
    missing = list(dict.fromkeys(job for job in jobs if job not in found))
    print(f"{name}: {len(found)} of {len(jobs)} trainings kept from before", flush=True)
    if not missing:
        return found
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_run, job): job for job in missing}
        for count, future in enumerate(as_completed(futures), start=1):
            job, result = futures[future], future.result()
            found[job] = result
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": job.key, **asdict(result)}) + "\n")
            print(
                f"{name}: {count} of {len(missing)}: {job.spec.id} seed {job.seed} {job.spec.token_method} "
                f"{job.spec.blocks[0].weights_in}/{job.spec.blocks[0].activations_in} accuracy {result.accuracy} "
                f"{result.seconds:.1f} s",
                flush=True,
            )
    return found


def mean_and_spread(found: Sequence[float | None]) -> str:
    """Returns mean and standard deviation, and how many diverged, for a table."""
    right = [value for value in found if value is not None]
    if not right:
        return "diverged"
    spread = f" ± {statistics.stdev(right):.3f}" if len(right) > 1 else ""
    failed = f" ({len(found) - len(right)} diverged)" if len(right) < len(found) else ""
    return f"{statistics.fmean(right):.3f}{spread}{failed}"


def _kept(path: Path | None) -> Mapping[str, Found]:
    if path is None or not path.exists():
        return {}
    kept = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue  # a run was stopped while it wrote this line; the training is made again
        kept[row["key"]] = Found(accuracy=row["accuracy"], read_as=tuple(row["read_as"]), seconds=row["seconds"])
    return kept


def _run(job: Job) -> Found:
    torch.set_num_threads(1)
    task = load_task(dict(job.task))
    start = time.process_time()
    try:
        model = _in_turns(job, task) if job.in_turns else train(job.spec, task, job.recipe, job.seed).model
        own = accuracy(model, task.validation, task)
        others = tuple(accuracy(_as(model, spec, job.seed), task.validation, task) for spec in job.read_as)
    except EvaluationError:
        return Found(accuracy=None, read_as=(), seconds=time.process_time() - start)
    return Found(accuracy=own, read_as=others, seconds=time.process_time() - start)


def _as(model: VisionTransformer, spec: ModelSpec, seed: int) -> VisionTransformer:
    """Returns the model that ``spec`` describes with the very weights of ``model``.

    Raises:
        RuntimeError: a weight lacks, is too many or has another shape.
    """
    other = build_model(spec, seed)
    other.load_state_dict(model.state_dict())
    return other.eval()


def _in_turns(job: Job, task: Task) -> VisionTransformer:
    """Returns the model, trained by steps each of which it takes as one of the job's models."""
    batches = Batches(task.train, task)
    generator = torch.Generator().manual_seed(job.seed)
    model = build_model(job.spec, job.seed)
    images = batches.images(torch.randperm(len(batches), generator=generator)[: job.recipe.calibration])
    calibrate(model, images)
    training, turns = Training(model, batches, job.recipe, generator), random.Random(job.seed)
    while training.step < training.total:
        training.become(turns.choice((job.spec, *job.read_as)), images[:8], job.seed)
        training.advance()
    return _as(training.model, job.spec, job.seed)
