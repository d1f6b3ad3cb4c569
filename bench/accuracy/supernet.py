"""Measures how well a supernet ranks models, and for how many CPU-seconds.

Run ``python bench/accuracy/supernet.py``: trains random models of supernet.yaml one by one (the truth), a supernet for
each budget, and reads every model from it, at once and after a few steps; prints the tables and writes them to
supernet.md beside this file. Finished trainings are kept under ``--cache`` and not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from cosearch.data import Task, load_task
from cosearch.space import Space, load_space
from cosearch.spec import ModelSpec
from cosearch.supernet import (
    Choices,
    Supernet,
    SupernetRecipe,
    SupernetTraining,
    load_supernet,
    read,
    save_training,
)
from cosearch.train import Recipe, train

__all__ = ["Readings", "readings", "trained_supernet"]

HERE = Path(__file__).parent
PROTOTYPES = {85: 0.50, 169: 0.58, 330: 0.61, 512: 0.64, 675: 0.68}
"""Kendall's tau of the prototype after so many CPU-seconds of training: issue 4. It read a model in 0.3 s."""

VARIANTS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "sandwich": {"strategy": "sandwich", "random": 2},
    "largest first": {"largest_first": 0.15},
    "shrinking": {"shrink_until": 0.5},
}
FIRST_STEPS = 40
"""Steps that tell what a step costs; the first ones, which set scales, are dearer than later ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What a supernet says of models.

    Attributes:
        accuracies: one for each model.
        losses: likewise; they separate models that read as many labels right.
        training_cpu_s: of the supernet, all in all.
        reading_cpu_s: mean of a model.
    """

    accuracies: list[float]
    losses: list[float]
    training_cpu_s: float
    reading_cpu_s: float


def readings(
    specs: Sequence[ModelSpec],
    choices: Choices,
    task: Task,
    *,
    recipe: SupernetRecipe,
    finetune_steps: int,
    seed: int,
    cache: Path,
) -> Readings:
    """Returns what a supernet for ``choices`` says of ``specs``; it is trained, or taken from ``cache``."""
    supernet, cpu_s = trained_supernet(choices, task, recipe, seed, cache)
    return _read_all(supernet, specs, task, finetune_steps, cpu_s)


def trained_supernet(
    choices: Choices, task: Task, recipe: SupernetRecipe, seed: int, cache: Path
) -> tuple[Supernet, float]:
    """Returns a supernet and the CPU-seconds that its training took."""
    fields = {name: value for name, value in recipe.as_config().items() if value != SupernetRecipe().as_config()[name]}
    words = "-".join(f"{name}={value}" for name, value in sorted(fields.items())).replace("/", "_")
    path = cache / f"supernet-{choices.name}-{task.name}-{words}-{seed}.safetensors"
    note = path.with_suffix(".json")
    if not note.is_file():
        start = time.process_time()
        training = SupernetTraining(choices, task, recipe, seed)
        while not training.done:
            training.advance()
        spent = time.process_time() - start
        save_training(training, path)
        note.write_text(json.dumps(spent), encoding="utf-8")
    return load_supernet(path), float(json.loads(note.read_text(encoding="utf-8")))


def _read_all(
    supernet: Supernet, specs: Sequence[ModelSpec], task: Task, finetune_steps: int, cpu_s: float
) -> Readings:
    start = time.process_time()
    found = [read(supernet, spec, task, finetune_steps=finetune_steps).score for spec in specs]
    return Readings(
        accuracies=[score.accuracy for score in found],
        losses=[score.loss for score in found],
        training_cpu_s=cpu_s,
        reading_cpu_s=(time.process_time() - start) / len(specs),
    )


def steps_for(choices: Choices, task: Task, config: dict[str, Any], budget_s: float) -> int:
    """Returns how many steps take about ``budget_s`` CPU-seconds, setting up included."""
    start = time.process_time()
    training = SupernetTraining(choices, task, SupernetRecipe.from_config({**config, "largest_first": 0.0}), 0)
    setup = time.process_time() - start
    times = []
    for _ in range(FIRST_STEPS):
        before = time.process_time()
        training.advance()
        times.append(time.process_time() - before)
    return max(1, round((budget_s - setup) / statistics.fmean(times[FIRST_STEPS // 2 :])))


def _setting() -> tuple[Task, Space, Choices]:
    torch.set_num_threads(1)
    task = load_task({"name": "digit-pairs", "size": 16})
    space = load_space(str(HERE / "supernet.yaml"), task.shape)
    return task, space, Choices.of_space(space)


def candidates(space: Space, count: int) -> list[ModelSpec]:
    """Returns random models, the same for the same count."""
    rng, side = np.random.default_rng(2), space.side("model")
    return [side.spec(side.sample(rng)) for _ in range(count)]


def truth(job: tuple[int, int, int, str]) -> tuple[float, float]:
    """Returns accuracy and CPU-seconds of one candidate trained alone.

    Args:
        job: index of the candidate, seed, steps, and the folder of finished trainings.
    """
    index, seed, steps, cache = job
    path = Path(cache) / f"alone-{index}-{seed}-{steps}.json"
    if not path.is_file():
        task, space, _ = _setting()
        spec = candidates(space, index + 1)[index]
        start = time.process_time()
        accuracy = train(spec, task, Recipe(steps=steps), 1000 * seed + index).score.accuracy
        path.write_text(json.dumps([accuracy, time.process_time() - start]), encoding="utf-8")
    accuracy, cpu_s = json.loads(path.read_text(encoding="utf-8"))
    return accuracy, cpu_s


def measured(job: tuple[str, float, int, int, str, tuple[int, ...]]) -> list[tuple[str, float, int, Readings]]:
    """Returns what a supernet of a variant and a budget says, for each number of fine-tuning steps."""
    variant, budget, count, seed, cache, tunings = job
    task, space, choices = _setting()
    config = VARIANTS[variant]
    noted = Path(cache) / f"steps-{variant.replace(' ', '_')}-{budget:g}.json"
    if not noted.is_file():
        noted.write_text(json.dumps(steps_for(choices, task, config, budget)), encoding="utf-8")
    recipe = SupernetRecipe.from_config({**config, "steps": json.loads(noted.read_text(encoding="utf-8"))})
    specs, out = candidates(space, count), []
    for tuning in tunings:
        found = readings(specs, choices, task, recipe=recipe, finetune_steps=tuning, seed=seed, cache=Path(cache))
        out.append((variant, budget, tuning, found))
        print(f"{variant}, {budget:g} s, {tuning} steps: read in {found.reading_cpu_s:.2f} s each", flush=True)
    return out


def tau(a: Sequence[float], b: Sequence[float]) -> float:
    return float(kendalltau(a, b).statistic)


def table(results: list[tuple[str, float, int, Readings]], target: Sequence[float]) -> list[str]:
    lines = [
        "| supernet | CPU-s, training | own steps | tau | tau by loss | CPU-s a reading | mean | prototype's tau |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for variant, budget, tuning, found in results:
        prototype = PROTOTYPES.get(round(budget))
        lines.append(
            f"| {variant} | {found.training_cpu_s:.0f} | {tuning} | {tau(found.accuracies, target):.2f} | "
            f"{tau([-loss for loss in found.losses], target):.2f} | {found.reading_cpu_s:.2f} | "
            f"{statistics.fmean(found.accuracies):.3f} | {'-' if prototype is None else f'{prototype:.2f}'} |"
        )
    return lines


def _mapped(workers: int, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    if workers == 1:
        return [function(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-supernet"), help="folder of finished trainings")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each candidate alone")
    parser.add_argument("--alone-steps", type=int, default=150)
    parser.add_argument("--budgets", type=float, nargs="+", default=[85, 169, 330])
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--compare", type=float, default=85, help="budget of all variants but the first")
    parser.add_argument("--tunings", type=int, nargs="+", default=[0, 20])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute, which writes nothing")
    options = parser.parse_args()
    if options.quick:
        options.candidates, options.seeds, options.alone_steps = 3, 1, 10
        options.budgets, options.variants, options.tunings = [4], ["uniform"], [0, 2]
        options.cache = options.cache / "quick"
    options.cache.mkdir(parents=True, exist_ok=True)
    cache, seeds = str(options.cache), range(options.seeds)
    jobs = [(index, seed, options.alone_steps, cache) for seed in seeds for index in range(options.candidates)]
    alone = _mapped(options.workers, truth, jobs)
    accuracies = np.array([accuracy for accuracy, _ in alone]).reshape(options.seeds, options.candidates)
    target = accuracies.mean(axis=0).tolist()
    shared = [
        (variant, budget, options.candidates, 0, cache, tuple(options.tunings))
        for index, variant in enumerate(options.variants)
        for budget in (options.compare,) * bool(index) or options.budgets
    ]
    results = [row for rows in _mapped(options.workers, measured, shared) for row in rows]
    ceiling = f"{tau(accuracies[0], accuracies[1]):.2f}" if options.seeds > 1 else "not measured (1 seed)"
    lines = [
        "# Ranking models by a supernet",
        "",
        f"`digit-pairs`, 16 x 16; {options.candidates} random models of `supernet.yaml`. The truth is the mean",
        f"accuracy (validation split) of {options.seeds} training(s) alone of {options.alone_steps} steps:",
        f"{min(target):.3f} to {max(target):.3f}, mean {statistics.fmean(target):.3f}, "
        f"{statistics.fmean(cpu for _, cpu in alone):.1f} CPU-seconds a training. Kendall's tau between two seeds:",
        f"{ceiling}. CPU-seconds of one thread (`time.process_time`), torch {torch.__version__}; other work on the",
        "machine makes them larger. The prototype's figures are issue 4's, on 48 models of a like space with a truth",
        "of its own (two trainings of 600 steps, tau between seeds 0.79); it read a model at once, in 0.3 s.",
        "",
        *table(results, target),
    ]
    print("\n".join(lines))
    if not options.quick:
        (HERE / "supernet.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
