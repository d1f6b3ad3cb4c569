"""Measures candidates an hour, stacked against one by one; what data, bfloat16 and compiling cost a step.

Run ``python bench/accuracy/throughput.py`` (minutes, one thread; ``--quick`` for a smoke run that writes nothing);
prints the tables and writes them to throughput.md beside this file. Whole trainings are timed here, from spec to score:
for each size, blocks of one stack and of single trainings take turns, so that other work on the machine disturbs both
alike. What a step alone costs by the number of models is in ``bench/train/stack.md``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cosearch.data import Split, Task, load_task, make_task
from cosearch.model import build_model, calibrate
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec
from cosearch.train import STACK, Recipe, stackable, train, train_stack
from cosearch.train.batches import Batches, drawn
from cosearch.train.loop import Training

HERE = Path(__file__).parent
RECIPE = Recipe(steps=180)
"""The quickstart's."""

BITS = (4, 8, 3, 6)
SIZES = ((8, 16, 2), (8, 32, 2), (8, 48, 3), (4, 16, 2), (4, 32, 2))
"""Patch, dim, blocks."""


def spec_of(task: Task, patch: int, dim: int, depth: int, bits: int = FLOAT_BITS, heads: int = 2) -> ModelSpec:
    block = BlockSpec(heads=heads, mlp_hidden=2 * dim, weight_bits=bits, activation_bits=bits)
    edge = 8 if bits < FLOAT_BITS else FLOAT_BITS
    return ModelSpec(
        task=task.shape,
        patch=patch,
        dim=dim,
        overlap=patch // 4,
        stem_hidden=64,
        edge_bits=edge,
        blocks=(block,) * depth,
    )


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def throughput(task: Task, rounds: int, recipe: Recipe) -> list[str]:
    lines = [
        f"| model | alone, s | {STACK} in a stack, s each | alone, an hour | stacked, an hour | gain "
        "| least and most |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for patch, dim, depth in SIZES:
        specs = [spec_of(task, patch, dim, depth, BITS[index % len(BITS)]) for index in range(STACK)]
        assert stackable(specs[0], specs[1])
        own, together = [], []
        for turn in range(rounds):
            seeds = range(turn * STACK, (turn + 1) * STACK)
            few = list(zip(specs[: len(BITS)], seeds, strict=False))
            own.append(statistics.fmean(seconds(lambda s=s, n=n: train(s, task, recipe, n)) for s, n in few))
            together.append(seconds(lambda n=seeds, s=specs: train_stack(s, task, recipe, n)) / STACK)
        gains = [one / other for one, other in zip(own, together, strict=True)]
        one, other = min(own), min(together)
        lines.append(
            f"| dim {dim}, {depth} blocks, patch {patch} | {one:.2f} | {other:.2f} | {3600 / one:.0f} "
            f"| {3600 / other:.0f} | {statistics.median(gains):.2f}x | {min(gains):.2f}x to {max(gains):.2f}x |"
        )
        print(lines[-1], flush=True)
    return lines


def mapped(folder: Path) -> Task:
    """Returns a task of CIFAR's shape whose training images are a memory-mapped file of 154 MB."""
    rng, path = np.random.default_rng(0), folder / "images.npy"
    np.save(path, rng.integers(0, 256, (50_000, 32, 32, 3), np.uint8))
    labels = rng.integers(0, 10, (50_000, 1))
    small = Split(images=rng.integers(0, 256, (100, 32, 32, 3), np.uint8), labels=labels[:100])
    return make_task(
        "mapped", tuple("0123456789"), Split(images=np.load(path, mmap_mode="r"), labels=labels), small, small
    )


def data_share(tasks: list[tuple[str, Task]], rounds: int) -> list[str]:
    lines = ["| task | model | a step, ms | data, ms | share |", "|---|---|---:|---:|---:|"]
    recipes = {"": Recipe(), ", shifted and mirrored": Recipe(shift=2, flip=True)}
    for name, task in tasks:
        patch = 8 if task.shape.image[0] == 16 else 4
        for title, recipe in recipes.items():
            spec, batches = spec_of(task, patch, 32, 2, 8), Batches(task.train, task)
            model, generator = build_model(spec, 0), torch.Generator().manual_seed(0)
            calibrate(model, batches.images(torch.arange(256)))
            training = Training(model, batches, recipe, generator)
            step, data = [], []
            for _ in range(rounds):
                step.append(seconds(training.advance))
                data.append(seconds(lambda b=batches, r=recipe, g=generator: drawn(b, r, g)))
            one, other = statistics.median(step), statistics.median(data)
            what = f"dim 32, 2 blocks, patch {patch}, W8A8{title}"
            lines.append(f"| {name} | {what} | {one * 1e3:.2f} | {other * 1e3:.2f} | {other / one:.1%} |")
            print(lines[-1], flush=True)
    return lines


def precision(task: Task, rounds: int) -> list[str]:
    lines = [
        "| model | float32, ms a step | bfloat16 | compiled | compiling, s | steps that pay for it |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for dim, depth, bits in ((16, 2, FLOAT_BITS), (64, 4, FLOAT_BITS), (64, 4, 8), (192, 4, FLOAT_BITS)):
        spec, batches = spec_of(task, 4, dim, depth, bits, heads=4), Batches(task.train, task)
        runs: dict[str, Training] = {}
        first = 0.0
        for name, recipe in {
            "float32": Recipe(),
            "bfloat16": Recipe(dtype="bfloat16"),
            "compile": Recipe(compile=True),
        }.items():
            model = build_model(spec, 0)
            calibrate(model, batches.images(torch.arange(256)))
            runs[name] = Training(model, batches, recipe, torch.Generator().manual_seed(0))
            first = seconds(runs[name].advance)
            runs[name].advance()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, training in runs.items():
                times[name].append(seconds(training.advance))
        plain, half, compiled = (statistics.median(times[name]) for name in ("float32", "bfloat16", "compile"))
        pays = f"{first / (plain - compiled):.0f}" if compiled < 0.98 * plain else "never"
        shown = "float" if bits == FLOAT_BITS else f"W{bits}A{bits}"
        lines.append(
            f"| dim {dim}, {depth} blocks, patch 4, {shown} | {plain * 1e3:.1f} "
            f"| {half * 1e3:.1f} ({plain / half:.2f}x) "
            f"| {compiled * 1e3:.1f} ({plain / compiled:.2f}x) | {first:.0f} | {pays} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps, no file written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = load_task({"name": "digit-pairs", "size": 16})
    recipe = Recipe(steps=4) if options.quick else RECIPE
    rounds, steps = (1, 3) if options.quick else (options.rounds, 40)
    with tempfile.TemporaryDirectory() as folder:
        tasks = [("digit-pairs 16", pairs), ("digit-search", load_task({"name": "digit-search"}))]
        tasks.append(("50,000 memory-mapped images of 32 x 32 x 3", mapped(Path(folder))))
        lines = [
            "# Throughput of training",
            "",
            f"One thread of a shared {platform.machine()} machine, torch {torch.__version__}, batch {recipe.batch}.",
            "",
            "## Stacked against one by one",
            "",
            f"Whole trainings of {recipe.steps} steps on `digit-pairs`, building, calibrating and scoring included.",
            f"Models differ in their bits ({', '.join(map(str, BITS))} in turn). Seconds are the least of",
            f"{rounds} rounds, the gain is the median over rounds of both in turn. Larger models `train_stack`",
            "trains one by one (`cosearch.train.stack.LARGEST`).",
            "",
            *throughput(pairs, rounds, recipe),
            "",
            "## Data",
            "",
            "What drawing a batch, normalising and changing it takes of a step of one model. A stack draws for each",
            "model, so its share grows with its gain.",
            "",
            *data_share(tasks, steps),
            "",
            "## bfloat16 and `torch.compile`",
            "",
            "Medians of steps in turn. Both are off by default: what is searched here is small.",
            "",
            *precision(pairs, steps // 2),
        ]
    if not options.quick:
        (HERE / "throughput.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
