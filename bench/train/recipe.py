"""Measures the quickstart's training recipe: accuracy, seed noise and CPU time.

Run ``python bench/train/recipe.py`` (minutes, one thread): trains three named models with several seeds and random
models of the quickstart's space with one, prints the tables and writes them to recipe.md beside this file.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from cosearch.data import Task, load_task
from cosearch.errors import EvaluationError
from cosearch.space import load_space
from cosearch.spec import BlockSpec, ModelSpec
from cosearch.train import Recipe, train
from cosearch.words import describe_model

HERE = Path(__file__).parent
RECIPES = {
    "180 x 64": Recipe(steps=180, batch=64),
    "180 x 64, scales fixed": Recipe(steps=180, batch=64, scale_lr=0.0),
}
"""The recipes compared: steps x batch, all else at the defaults."""

FIRST_SEED = 100
"""Learning rates and momentum were chosen on seeds 0 to 2."""


def named(task: Task) -> dict[str, ModelSpec]:
    """Returns good and poor models by name."""

    def model(dim: int, depth: int, heads: int, mlp: int, bits: int) -> ModelSpec:
        block = BlockSpec(heads=heads, mlp_hidden=mlp * dim, weight_bits=bits, activation_bits=max(bits, 4))
        return ModelSpec(
            task=task.shape, patch=4, dim=dim, overlap=2, stem_hidden=64, edge_bits=8, blocks=(block,) * depth
        )

    return {
        "dim 64, 3 blocks, W8A8": model(64, 3, 4, 2, 8),
        "dim 48, 4 blocks, W6A6": model(48, 4, 4, 2, 6),
        "dim 32, 2 blocks, W2A4": model(32, 2, 2, 1, 2),
    }


def measure(spec: ModelSpec, task: Task, recipe: Recipe, seed: int) -> tuple[float | None, float]:
    """Returns accuracy (None if the training failed) and CPU seconds of one training, loading not counted."""
    start = time.process_time()
    try:
        accuracy = train(spec, task, recipe, seed).score.accuracy
    except EvaluationError:
        accuracy = None
    return accuracy, time.process_time() - start


def mean(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f}" if values else "-"


def seeds_table(task: Task, seeds: int) -> list[str]:
    lines = ["| model | recipe | mean accuracy | sd of seeds | least | CPU s |", "|---|---|---:|---:|---:|---:|"]
    for name, spec in named(task).items():
        for title, recipe in RECIPES.items():
            runs = [measure(spec, task, recipe, FIRST_SEED + seed) for seed in range(seeds)]
            right = [accuracy for accuracy, _ in runs if accuracy is not None]
            seconds = statistics.fmean(second for _, second in runs)
            spread = f"{statistics.stdev(right):.3f} | {min(right):.3f}" if len(right) > 1 else "- | -"
            lines.append(f"| {name} | {title} | {mean(right)} | {spread} | {seconds:.1f} |")
            print(lines[-1], flush=True)
    return lines


def random_table(task: Task, count: int, recipe: str) -> list[str]:
    space = load_space("vit_digits_systolic", task.shape)
    rng = np.random.default_rng(0)
    lines = ["| model | accuracy | CPU s |", "|---|---:|---:|"]
    runs = []
    for index in range(count):
        spec = space.model(space.sample(rng))
        accuracy, seconds = measure(spec, task, RECIPES[recipe], FIRST_SEED + index)
        runs.append((accuracy, seconds))
        shown = "failed" if accuracy is None else f"{accuracy:.3f}"
        lines.append(f"| {describe_model(spec)} | {shown} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    right = [accuracy for accuracy, _ in runs if accuracy is not None]
    seconds_all = [seconds for _, seconds in runs]
    lines += [
        "",
        f"Of {count}: {count - len(right)} failed; accuracy {min(right):.3f} to {max(right):.3f}, mean {mean(right)}, "
        f"standard deviation {statistics.stdev(right):.3f}; {statistics.fmean(seconds_all):.1f} CPU-seconds "
        f"on average, {max(seconds_all):.1f} at most.",
    ]
    print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="180 x 64", help="recipe of the random models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task({"name": "digit-pairs", "size": 16})
    lines = [
        "# The quickstart's training recipe",
        "",
        "`digit-pairs`, 16 x 16. Accuracy is the share of labels read right on the 1,024 validation images (297 digits",
        f"that training never sees). CPU-seconds of one thread (`time.process_time`), torch {torch.__version__}; other",
        "work on the machine makes them larger. Recipes are steps x batch, all else at `Recipe`'s defaults.",
        "",
        f"## Seeds ({options.seeds} for each row)",
        "",
        "Rates and momentum were chosen on seeds 0 to 2; this table's are 100 and up. The second recipe leaves the",
        "quantisation scales where calibration put them.",
        "",
        *seeds_table(task, options.seeds),
        "",
        f"## Random models of `vit_digits_systolic`, {options.recipe}",
        "",
        *random_table(task, options.models, options.recipe),
    ]
    (HERE / "recipe.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
