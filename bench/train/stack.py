"""Measures training in a stack against training one by one, on one core: candidates an hour, agreement, share of data.

Run ``python bench/train/stack.py`` (minutes, one thread); prints the tables and writes them to stack.md beside this
file. Step times are the lower quartile of rounds in which one model alone and stacks of 2 to 16 take turns, so that
other work on the machine disturbs all alike. A training's time is that of its steps, extrapolated from the step, and of
what stays one by one: building, calibrating and scoring.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cosearch.data import Task, load_task
from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec
from cosearch.train import Recipe, score, stackable, train, train_stack
from cosearch.train.batches import Batches
from cosearch.train.loop import steps as steps_alone
from cosearch.train.stack import drawn_for_all
from cosearch.train.stack import steps as steps_stacked
from cosearch.train.stacked import StackedTransformer

HERE = Path(__file__).parent
RECIPE = Recipe(steps=180, batch=64)
"""The quickstart's."""

STACKS = (2, 4, 8, 16)
BITS = (4, 8, 3, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model but for its bits; ``keep`` prunes in the first block."""

    dim: int
    depth: int
    patch: int
    mlp: int = 2
    heads: int = 2
    keep: int | None = None

    def spec(self, task: Task, bits: int) -> ModelSpec:
        block = BlockSpec(heads=self.heads, mlp_hidden=self.mlp * self.dim, weight_bits=bits, activation_bits=bits)
        first = BlockSpec(
            heads=self.heads,
            mlp_hidden=self.mlp * self.dim,
            keep_tokens=self.keep,
            weight_bits=bits,
            activation_bits=bits,
        )
        return ModelSpec(
            task=task.shape,
            patch=self.patch,
            dim=self.dim,
            overlap=2,
            stem_hidden=64,
            edge_bits=8 if bits < FLOAT_BITS else FLOAT_BITS,
            blocks=(first, *[block] * (self.depth - 1)),
            token_method="none" if self.keep is None else "prune",
        )

    def __str__(self) -> str:
        pruned = f", prune to {self.keep}" if self.keep else ""
        blocks = f"{self.depth} block{'s' * (self.depth > 1)}"
        return f"dim {self.dim}, {blocks}, MLP {self.mlp * self.dim}, patch {self.patch}{pruned}"


SIZES = (
    Size(dim=16, depth=2, patch=8),
    Size(dim=32, depth=2, patch=8),
    Size(dim=48, depth=3, patch=8, mlp=1),
    Size(dim=64, depth=4, patch=8, heads=4),
    Size(dim=16, depth=2, patch=4),
    Size(dim=32, depth=2, patch=4),
    Size(dim=32, depth=4, patch=4, keep=8),
    Size(dim=48, depth=3, patch=4, heads=4),
    Size(dim=64, depth=4, patch=4, heads=4, mlp=4),
)
"""Of `vit_digits_systolic`, small to large, 5 tokens (patch 8) and 17 (patch 4)."""


def prepared(specs: Sequence[ModelSpec], batches: Batches) -> list[VisionTransformer]:
    models = [build_model(spec, seed) for seed, spec in enumerate(specs)]
    for model in models:
        calibrate(model, batches.images(torch.arange(RECIPE.calibration)))
    return models


def alone(spec: ModelSpec, batches: Batches) -> Callable[[], object]:
    (model,) = prepared([spec], batches)
    run = steps_alone(model, batches, RECIPE, torch.Generator().manual_seed(0))
    return lambda: next(run)


def stacked(size: Size, count: int, task: Task, batches: Batches) -> Callable[[], object]:
    specs = [size.spec(task, BITS[index % len(BITS)]) for index in range(count)]
    generators = [torch.Generator().manual_seed(index) for index in range(count)]
    run = steps_stacked(StackedTransformer(prepared(specs, batches)), batches, RECIPE, generators)
    return lambda: next(run)


def quartile(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 4]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one_by_one(spec: ModelSpec, task: Task, batches: Batches) -> float:
    """Returns the seconds of a training that are not steps."""

    def fixed() -> None:
        (model,) = prepared([spec], batches)
        score(model, task.validation, task)

    return min(seconds(fixed) for _ in range(5))


def throughput(task: Task, rounds: int) -> list[str]:
    batches = Batches(task.train, task)
    lines = [
        f"| model | not steps, s | alone, ms a step | {' | '.join(f'{n} together' for n in STACKS)} | alone, an hour "
        f"| {STACKS[-1]} together, an hour | gain | data, share of a step | stacked by `train_stack` |",
        "|---|---:|---:|" + "---:|" * len(STACKS) + "---:|---:|---:|---:|---|",
    ]
    for size in SIZES:
        spec = size.spec(task, BITS[0])
        runs = {1: alone(spec, batches)} | {n: stacked(size, n, task, batches) for n in STACKS}
        times: dict[int, list[float]] = {count: [] for count in runs}
        for _ in range(rounds):
            for count, run in runs.items():
                times[count].append(seconds(run) / count)
        step = {count: quartile(values) for count, values in times.items()}
        rest, best = one_by_one(spec, task, batches), STACKS[-1]
        hour = {count: 3600 / (rest + RECIPE.steps * value) for count, value in step.items()}
        generators = [torch.Generator().manual_seed(index) for index in range(best)]
        data = quartile([seconds(lambda g=generators: drawn_for_all(batches, RECIPE, g)) / best for _ in range(rounds)])
        gains = " | ".join(f"{step[n] * 1e3:.2f} ({step[1] / step[n]:.2f}x)" for n in STACKS)
        lines.append(
            f"| {size} | {rest:.2f} | {step[1] * 1e3:.2f} | {gains} | {hour[1]:.0f} | {hour[best]:.0f} "
            f"| {hour[best] / hour[1]:.2f}x | {data / step[best]:.1%} | {'yes' if stackable(spec, spec) else 'no'} |"
        )
        print(lines[-1], flush=True)
    return lines


def agreement(task: Task, seeds: int) -> list[str]:
    lines = [
        "| model | steps | greatest relative difference of validation loss | of accuracy |",
        "|---|---:|---:|---:|",
    ]
    for bits in (FLOAT_BITS, 4):
        spec = Size(dim=32, depth=2, patch=8).spec(task, bits)
        for steps in (1, 4, 16, 64):
            recipe = Recipe(steps=steps)
            pairs = [
                (train(spec, task, recipe, seed).score, found.score)
                for seed, found in enumerate(train_stack([spec] * 3, task, recipe, range(3)))
            ]
            loss = max(abs(one.loss - other.loss) / one.loss for one, other in pairs)
            right = max(abs(one.accuracy - other.accuracy) for one, other in pairs)
            name = "floating point" if bits == FLOAT_BITS else f"W{bits}A{bits}"
            lines.append(f"| dim 32, patch 8, {name} | {steps} | {loss:.1e} | {right:.4f} |")
            print(lines[-1], flush=True)
    spec = Size(dim=32, depth=2, patch=8).spec(task, 4)
    own = [train(spec, task, RECIPE, seed).score.accuracy for seed in range(seeds)]
    stack = [found.score.accuracy for found in train_stack([spec] * seeds, task, RECIPE, range(seeds))]
    apart = [one - other for one, other in zip(own, stack, strict=True)]
    lines += [
        "",
        f"dim 32, patch 8, W4A4, {RECIPE.steps} steps, {seeds} seeds: accuracy alone {statistics.fmean(own):.4f} "
        f"(standard deviation of seeds {statistics.stdev(own):.4f}), in a stack {statistics.fmean(stack):.4f} "
        f"({statistics.stdev(stack):.4f}); mean difference {statistics.fmean(apart):+.4f}, standard error "
        f"{statistics.stdev(apart) / seeds**0.5:.4f}.",
    ]
    print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=84)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task({"name": "digit-pairs", "size": 16})
    lines = [
        "# Training in a stack",
        "",
        f"`digit-pairs`, 16 x 16, batch {RECIPE.batch}, one thread of a shared {platform.machine()} machine, torch",
        f"{torch.__version__}. Models of a stack differ in their bits ({', '.join(map(str, BITS))} in turn). Times are",
        f"for each model: lower quartile of {options.rounds} rounds in which all columns take turns.",
        "",
        "## Candidates an hour",
        "",
        f"A training is {RECIPE.steps} steps, extrapolated from the step's time, and what is not steps: building,",
        "calibrating and scoring, which a stack does one by one.",
        "",
        *throughput(task, options.rounds),
        "",
        "## Agreement with training alone",
        "",
        "The same seeds, three models. What differs is rounding; in low bits a value between two codes falls to either",
        "side, and the trainings part.",
        "",
        *agreement(task, options.seeds),
    ]
    (HERE / "stack.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
