"""How good is each sampler when only 40 models may be trained? Writes the table in toy.md.

    python bench/samplers/toy.py --seeds 12 --out bench/samplers/toy.md

The problem is `cosearch.testing.codesign_space`: four objectives, a limit on area, noisy accuracy. The loop is the
search's own order: at most 8 models outstanding, results told in the order of asking.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from cosearch.front import Scale, non_dominated
from cosearch.samplers import Sampler
from cosearch.samplers.optuna import OptunaSampler
from cosearch.samplers.pymoo import PymooSampler
from cosearch.samplers.random import RandomSampler
from cosearch.samplers.split import SplitSampler
from cosearch.spec import Result, Status
from cosearch.testing import OBJECTIVES, codesign_space, score

MODELS, WINDOW = 40, 8
BOX = Scale.of_points(
    OBJECTIVES,
    np.empty((0, len(OBJECTIVES))),
    {"accuracy": (0.97, 0.5), "latency_s": (2e-5, 2e-2), "energy_j": (2e-7, 1e-3), "area_mm2": (0.12, 4.0)},
)
SPACE = codesign_space()


def split(seed: int, inner: str, options: dict[str, object] | None = None, summary: str = "compromise") -> Sampler:
    return SplitSampler(SPACE, len(OBJECTIVES), seed, inner=inner, inner_options=options, summary=summary)


SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "random": lambda seed: RandomSampler(SPACE, len(OBJECTIVES), seed),
    "pymoo NSGA2, population 8": lambda seed: PymooSampler(SPACE, len(OBJECTIVES), seed, population=8),
    "optuna TPESampler": lambda seed: OptunaSampler(SPACE, len(OBJECTIVES), seed, sampler="TPESampler"),
    "split: random": lambda seed: split(seed, "random"),
    "split: pymoo NSGA2, population 8": lambda seed: split(seed, "pymoo", {"population": 8}),
    "split: pymoo NSGA2, population 12": lambda seed: split(seed, "pymoo", {"population": 12}),
    "split: optuna NSGAIISampler, population 8": lambda seed: split(
        seed, "optuna", {"sampler": "NSGAIISampler", "sampler_options": {"population_size": 8}}
    ),
    "split: optuna TPESampler, summary best": lambda seed: split(seed, "optuna", summary="best"),
    "split: optuna TPESampler (the default)": lambda seed: split(seed, "optuna"),
}


def search(sampler: Sampler) -> tuple[float, float, int]:
    """Returns the hypervolume, the best accuracy and the number of pairs costed after 40 trained models."""
    front = np.empty((0, len(OBJECTIVES)))
    queue: deque[Result] = deque()
    wanted: set[str] = set()
    settled: set[str] = set()
    costed = 0
    while True:
        while (room := min(WINDOW - len(wanted - settled), MODELS - len(wanted))) > 0:
            results = score(sampler.ask(room))
            costed += len(results)
            queue.extend(results)
            wanted |= {result.model_id for result in results if result.status is Status.OK}
            if not results or queue[0].status is not Status.OK:
                break
        if not queue:
            return BOX.hypervolume(front), float(-front[:, 0].min()), costed
        if queue[0].status is Status.OK:
            settled.add(queue[0].model_id)
        told = []
        while queue and (queue[0].status is not Status.OK or queue[0].model_id in settled):
            told.append(queue.popleft())
        sampler.tell(told)
        front = np.array([*front.tolist(), *(r.objectives for r in told if r.status is Status.OK)])
        front = front.reshape(-1, len(OBJECTIVES))
        front = front[non_dominated(front, [f"{i:06d}" for i in range(len(front))])]


def measured(job: tuple[str, int]) -> tuple[float, float, int]:
    name, seed = job
    return search(SAMPLERS[name](seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [
        "# Samplers at 40 trained models",
        "",
        f"Made by `bench/samplers/toy.py --seeds {args.seeds}`. Hypervolume in a fixed box (1 is out of reach), "
        "mean ± standard error",
        f"over {args.seeds} seeds; best accuracy on the front, mean; pairs costed, mean.",
        "",
        "| sampler | hypervolume | best accuracy | pairs |",
        "|---|---|---|---|",
    ]
    with ProcessPoolExecutor(args.workers) as pool:
        for name in SAMPLERS:
            rows = np.array(list(pool.map(measured, [(name, seed) for seed in range(args.seeds)])))
            error = rows[:, 0].std(ddof=1) / len(rows) ** 0.5
            lines.append(f"| {name} | {rows[:, 0].mean():.3f} ± {error:.3f} | {rows[:, 1].mean():.3f} "
                         f"| {rows[:, 2].mean():.0f} |")  # fmt: skip
            print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
