"""What should the position embedding and the class token begin with? Writes start.md beside this file.

Run ``python bench/train/start.py`` (ten minutes of two processes; ``--quick`` for a smoke run that writes nothing).
Random models of the wide space of ``bench/accuracy/_candidates.py``, the cheap ones with patches of 4, are trained on
``digit-pairs`` 16: which digit is left and which right can only be told by where tokens lie.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from cosearch.data import load_task
from cosearch.model import VisionTransformer, build_model
from cosearch.model.linear import normal
from cosearch.spec import ModelSpec
from cosearch.train import Recipe, train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "accuracy"))
from _candidates import random_candidate  # noqa: E402

TASK = {"name": "digit-pairs", "size": 16}
MOST_MACS = 2_000_000
"""Of the models that are trained, so that the table takes minutes."""


def drawn(std: float, token: float) -> Callable[[VisionTransformer], None]:
    """Returns what makes a model begin with a position embedding and a class token of these deviations."""

    def begin(model: VisionTransformer) -> None:
        model.position.copy_(normal(std, *model.position.shape))
        model.class_token.copy_(normal(token, *model.class_token.shape))

    return begin


def as_it_is(model: VisionTransformer) -> None:
    """Leaves a model as it is."""


STARTS: dict[str, Callable[[VisionTransformer], None]] = {
    "normal, deviation 0.02; class token too (ViT)": drawn(0.02, 0.02),
    "normal, deviation 0.5; class token 0.02": drawn(0.5, 0.02),
    "normal, deviation 1; class token too": drawn(1.0, 1.0),
    "waves of deviation 1; class token 1 (what models have)": as_it_is,
}


class Job(NamedTuple):
    start: str
    candidate: int
    seed: int
    steps: int


def accuracy(job: Job) -> float:
    """Returns the accuracy of a training."""
    torch.set_num_threads(1)

    def build(spec: ModelSpec, seed: int = 0) -> VisionTransformer:
        model = build_model(spec, seed)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            STARTS[job.start](model)
        return model

    task = load_task(TASK)
    with patch("cosearch.train.loop.build_model", build):
        recipe = Recipe(steps=job.steps, quantise_from=0.5)
        return train(random_candidate(task.shape, job.candidate), task, recipe, job.seed).score.accuracy


def cheap() -> Iterator[int]:
    """Yields the numbers of candidates that are trained."""
    from cosearch.workload import workload

    task = load_task(TASK)
    for number in count():
        spec = random_candidate(task.shape, number)
        if spec.patch == 4 and workload(spec).macs <= MOST_MACS:
            yield number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a smoke run, which writes no file")
    options = parser.parse_args()
    models, seeds, lengths = (2, 1, [2]) if options.quick else (options.models, options.seeds, options.steps)
    numbers = list(islice(cheap(), models))
    lines = [
        "# What the position embedding begins with",
        "",
        f"Made by `python bench/train/start.py`. {models} random models of everything (candidates {numbers[0]} to "
        f"{numbers[-1]} of `bench/accuracy/_candidates.py` with patches of 4 and at most {MOST_MACS:,} "
        f"multiply-accumulates) on `digit-pairs` 16, {seeds} seeds, batch 64, numbers quantised from half of the steps "
        "on: share of labels read right. Reading both digits without telling left from right gives 0.55.",
        "",
        "| begins with | " + " | ".join(f"{steps} steps: mean | least, median model" for steps in lengths) + " |",
        "|---|" + "---:|---:|" * len(lengths),
    ]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for start in STARTS:
            cells = []
            for steps in lengths:
                jobs = [Job(start, number, seed, steps) for number in numbers for seed in range(seeds)]
                found = list(pool.map(accuracy, jobs))
                means = [statistics.fmean(found[at : at + seeds]) for at in range(0, len(found), seeds)]
                cells += [f"{statistics.fmean(means):.3f}", f"{min(means):.3f}, {statistics.median(means):.3f}"]
            lines.append(f"| {start} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    if not options.quick:
        (HERE / "start.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
