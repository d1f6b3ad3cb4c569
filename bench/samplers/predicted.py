"""Which acquisition and which start suit `PredictedSampler`? Writes predicted.md beside this file.

    python bench/samplers/predicted.py --seeds 12

The problem and the loop are those of ``toy.py``: 40 models, at most 8 outstanding, every model on many accelerators.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from toy import MODELS, SPACE, search

from cosearch.samplers import Sampler
from cosearch.samplers.split import SplitSampler
from cosearch.testing import OBJECTIVES

HERE = Path(__file__).parent
VARIANTS: dict[str, tuple[str, dict[str, object] | None, str]] = {
    "split: optuna TPESampler": ("optuna", None, "compromise"),
    "split: predicted, improvement": ("predicted", {"start": 8}, "compromise"),
    "split: predicted, improvement, summary best": ("predicted", {"start": 8}, "best"),
    "split: predicted, improvement, start 14": ("predicted", {"start": 14}, "compromise"),
    "split: predicted, scalarised": ("predicted", {"start": 8, "acquisition": "scalarised"}, "compromise"),
    "split: predicted, boosted trees": ("predicted", {"start": 8, "predictor": "boosted_trees"}, "compromise"),
}


def sampler(name: str, seed: int) -> Sampler:
    inner, options, summary = VARIANTS[name]
    return SplitSampler(SPACE, len(OBJECTIVES), seed, inner=inner, inner_options=options, summary=summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    args = parser.parse_args()
    lines = [
        f"# Search by predictions at {MODELS} trained models",
        "",
        f"Made by `bench/samplers/predicted.py --seeds {args.seeds}`; box and problem as in `toy.md`. Hypervolume, "
        "mean ± standard error; best accuracy on the front; CPU-seconds of a whole search, "
        "costs of the toy problem included.",
        "",
        "| sampler | hypervolume | best accuracy | CPU-seconds |",
        "|---|---:|---:|---:|",
    ]
    for name in VARIANTS:
        start = time.process_time()
        rows = np.array([search(sampler(name, seed)) for seed in range(args.seeds)])
        spent = (time.process_time() - start) / args.seeds
        error = rows[:, 0].std(ddof=1) / len(rows) ** 0.5
        lines.append(f"| {name} | {rows[:, 0].mean():.3f} ± {error:.3f} | {rows[:, 1].mean():.3f} | {spent:.1f} |")
        print(lines[-1], flush=True)
    (HERE / "predicted.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
