"""Measures what parts of a recipe bring small models in low bits on `digit-pairs`: teachers, stages, mixing, starts.

Run ``python bench/accuracy/recipes.py`` (minutes; two processes, one thread each); prints the table and writes it to
recipes.md beside this file. ``--quick`` trains a few steps and writes nothing; ``--cache FOLDER`` keeps finished
trainings, so that a second run goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from cosearch.data import Task, load_task
from cosearch.errors import EvaluationError
from cosearch.spec import BlockSpec, ModelSpec, Scalar
from cosearch.train import Recipe, train

HERE = Path(__file__).parent
TASK = {"name": "digit-pairs", "size": 16}
BITS = ((8, 8), (4, 4), (2, 4))
FIRST_SEED = 200
RECIPES: Mapping[str, Mapping[str, Scalar]] = {
    "as it is": {},
    "as it is, 300 steps": {"steps": 300},
    "cosine": {"schedule": "cosine"},
    "soft, teacher `self`, weight 0.5": {"distill": 0.5},
    "soft, teacher `large`, weight 0.5": {"distill": 0.5, "teacher": "large"},
    "hard, teacher `large`, weight 0.5": {"distill": 0.5, "teacher": "large", "temperature": 0.0},
    "`quantise_from` 0.5": {"quantise_from": 0.5},
    "`quantise_from` 1": {"quantise_from": 1.0},
    "`warm_start` self": {"warm_start": "self"},
    "`mixup` 0.5": {"mixup": 0.5},
    "`cutmix` 0.5": {"cutmix": 0.5},
    "`erase` 0.25": {"erase": 0.25},
    "`shift` 1": {"shift": 1},
    "`patience` 20 of 300 steps": {"steps": 300, "patience": 20},
}
"""What is changed in the quickstart's recipe."""

BASE = {"steps": 180}


def spec_of(task: Task, bits: tuple[int, int]) -> ModelSpec:
    block = BlockSpec(heads=2, mlp_hidden=64, weight_bits=bits[0], activation_bits=bits[1])
    return ModelSpec(task=task.shape, patch=8, dim=32, overlap=2, stem_hidden=64, edge_bits=8, blocks=(block,) * 2)


def trained(job: tuple[str, tuple[int, int], int, bool]) -> tuple[float | None, int, float]:
    """Returns accuracy (None where it diverged), steps made, and CPU seconds, a twin's training among them."""
    name, bits, seed, quick = job
    torch.set_num_threads(1)
    task, changes = load_task(TASK), {**BASE, **RECIPES[name]}
    recipe = Recipe.from_config({**changes, "steps": 6} if quick else changes)
    if recipe.distill and recipe.teacher == "large":  # once for all candidates: not in the candidate's time
        from cosearch.train import teachers

        if quick:
            teachers.LARGE_RECIPE = Recipe(steps=6)
        teachers.large_teacher(task)
    start = time.process_time()
    try:
        found = train(spec_of(task, bits), task, recipe, seed)
    except EvaluationError:
        return None, 0, time.process_time() - start
    return found.score.accuracy, found.steps, time.process_time() - start


def cached(job: tuple[str, tuple[int, int], int, bool], folder: Path | None) -> tuple[float | None, int, float]:
    if folder is None:
        return trained(job)
    name, bits, seed, quick = job
    recipe = dataclasses.asdict(Recipe.from_config({**BASE, **RECIPES[name]}))
    key = hashlib.sha256(json.dumps([recipe, bits, seed, quick, torch.__version__]).encode()).hexdigest()[:20]
    path = folder / f"recipes-{key}.json"
    if not path.exists():
        path.write_text(json.dumps(trained(job)), encoding="utf-8")
    accuracy, steps, seconds = json.loads(path.read_text(encoding="utf-8"))
    return accuracy, steps, seconds


def table(seeds: int, quick: bool, folder: Path | None, workers: int) -> list[str]:
    names = list(RECIPES)
    jobs = [(name, bits, FIRST_SEED + seed, quick) for name in names for bits in BITS for seed in range(seeds)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(cached, job, folder) for job in jobs]
        found = {job: future.result() for job, future in zip(jobs, futures, strict=True)}
    shown = " | ".join(f"W{weights}A{activations}" for weights, activations in BITS)
    lines = [f"| recipe | {shown} | steps | CPU s |", "|---|" + "---:|" * (len(BITS) + 2)]
    for name in names:
        cells = []
        for bits in BITS:
            rows = [found[name, bits, FIRST_SEED + seed, quick][0] for seed in range(seeds)]
            right = [accuracy for accuracy in rows if accuracy is not None]
            spread = f" ± {statistics.stdev(right):.3f}" if len(right) > 1 else ""
            failed = f" ({len(rows) - len(right)} diverged)" if len(right) < len(rows) else ""
            cells.append(f"{statistics.fmean(right):.3f}{spread}{failed}" if right else "diverged")
        own = [result for job, result in found.items() if job[0] == name]
        steps, cost = (statistics.fmean(result[index] for result in own) for index in (1, 2))
        lines.append(f"| {name} | {' | '.join(cells)} | {steps:.0f} | {cost:.1f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="a few steps of one seed, no file written")
    options = parser.parse_args()
    if options.cache is not None:
        options.cache.mkdir(parents=True, exist_ok=True)
    seeds = 1 if options.quick else options.seeds
    lines = [
        "# Recipes",
        "",
        "`digit-pairs`, 16 x 16; dim 32, 2 blocks, MLP 64, patch 8 with overlap, edges in 8 bits;",
        f"{BASE['steps']} steps of batch {Recipe().batch}, all else at `Recipe`'s defaults but for what a row names.",
        f"Share of labels read right on the 1,024 validation images: mean ± standard deviation of {seeds} seeds. CPU",
        "seconds are a training's mean, that of a twin included, that of the large teacher (trained once for all) not.",
        "",
        *table(seeds, options.quick, options.cache, options.workers),
    ]
    if not options.quick:
        (HERE / "recipes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
