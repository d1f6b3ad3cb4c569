"""Learns the systolic cost model from few pairs, and says how far a surrogate lies from it on pairs it has not seen.

The teacher is fast, which real ones are not: it gives as many fresh pairs as one wants. The measured evaluator, which
takes seconds, is learnt beside it. Run ``OMP_NUM_THREADS=1 python bench/hardware/surrogate.py``: prints the tables and
writes them to surrogate.md beside this file.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path

import numpy as np
from cosearch_evaluators.analytical import Analytical
from cosearch_evaluators.measured import Measured
from scipy.stats import spearmanr

from cosearch.evaluator import Context, Evaluator
from cosearch.space import load_space
from cosearch.spec import Candidate, TaskShape
from cosearch.surrogate import COVERAGE, Pairs, Surrogate, fit_surrogate

HERE = Path(__file__).parent
SPACES = {
    "vit_digits_systolic": TaskShape(image=(16, 16), channels=1, classes=10, labels=2),
    "deit_tiny_edge": TaskShape(image=(224, 224), channels=3, classes=1000),
}
METRICS = ("latency_s", "energy_j", "area_mm2")
SIZES = (50, 200, 1000)
FRESH = 1000
MEASURED = 48
"""Models that are timed; a quarter of them is kept to judge by."""
HEAD = (
    "| pairs | metric | by | median error | 90 % | 95 % | worst | in the interval | Spearman | inside |\n"
    "|---:|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def pairs(space: str, count: int, seed: int) -> list[Candidate]:
    found, rng = load_space(space, SPACES[space]), np.random.default_rng(seed)
    return [found.decode(found.sample(rng)) for _ in range(count)]


def scored(found: list[Candidate], teacher: Evaluator, metrics: tuple[str, ...]) -> Pairs:
    values = [teacher.evaluate(candidate, Context(seed=0)) for candidate in found]
    columns = {name: [row[name] for row in values] for name in metrics}
    return Pairs(candidates=found, metrics=columns, pair=teacher.scope == "pair")


def first(many: Pairs, count: int) -> Pairs:
    columns = {name: values[:count] for name, values in many.metrics.items()}
    return Pairs(candidates=many.candidates[:count], metrics=columns, pair=many.pair)


def rows(learnt: int, surrogate: Surrogate, fresh: Pairs) -> list[str]:
    said, out = surrogate.predict(fresh.candidates), []
    for name, target in surrogate.targets.items():
        truth = np.array(fresh.metrics[name])[said.inside]
        guess, low, high = (part[name][said.inside] for part in (said.values, said.low, said.high))
        errors = np.quantile(np.abs(guess / truth - 1), (0.5, 0.9, 0.95, 1.0))
        covered = np.mean((low <= truth) & (truth <= high))
        cells = " | ".join(f"{100 * error:.1f} %" for error in errors)
        rho = spearmanr(guess, truth).statistic
        out.append(
            f"| {learnt} | {name} | {target.kind} | {cells} | {100 * covered:.0f} % | {rho:.3f} | "
            f"{100 * said.inside.mean():.0f} % |"
        )
        print(out[-1], flush=True)
    return out


def systolic(space: str) -> list[str]:
    teacher, out = Analytical(), [HEAD]
    known, fresh = (scored(pairs(space, n, seed), teacher, METRICS) for n, seed in ((max(SIZES), 0), (FRESH, 1)))
    times = fresh.metrics["latency_s"]
    out[:0] = [f"Latencies lie between {1e3 * min(times):.3g} and {1e3 * max(times):.3g} ms.", ""]
    for size in SIZES:
        surrogate = fit_surrogate(first(known, size), seed=0)
        out += rows(size, surrogate, fresh)
    return out


def speed(surrogate: Surrogate, found: list[Candidate]) -> tuple[float, float]:
    """Returns seconds for each of many candidates at once, and for one alone."""
    surrogate.predict(found)  # the workloads are made once, whatever costs them
    start = time.perf_counter()
    surrogate.predict(found)
    many = (time.perf_counter() - start) / len(found)
    some = found[:30]
    start = time.perf_counter()
    for candidate in some:
        surrogate.predict([candidate])
    return many, (time.perf_counter() - start) / len(some)


def timed() -> list[str]:
    teacher, name = Measured(arithmetic="float", runs=31), "latency_s"
    found = list({c.model: c for c in pairs("vit_digits_systolic", MEASURED, 2)}.values())
    start = time.perf_counter()
    known = scored(found, teacher, (name,))
    each = (time.perf_counter() - start) / len(found)
    keep = len(found) * 3 // 4
    held = Pairs(candidates=found[keep:], metrics={name: known.metrics[name][keep:]}, pair=False)
    surrogate = fit_surrogate(first(known, keep), seed=0)
    many, one = speed(surrogate, found[keep:])
    return [
        HEAD,
        *rows(keep, surrogate, held),
        "",
        f"A measurement takes {each:.1f} s, export included; a prediction {1e3 * one:.2f} ms alone and "
        f"{1e3 * many:.2f} ms among {len(found) - keep}: {each / one:,.0f} and {each / many:,.0f} times less.",
    ]


def main() -> None:
    fitted = fit_surrogate(scored(pairs("vit_digits_systolic", 200, 0), Analytical(), METRICS), seed=0)
    many, one = speed(fitted, pairs("vit_digits_systolic", FRESH, 1))
    text = "\n".join(
        [
            "# Surrogates",
            "",
            f"Made by `bench/hardware/surrogate.py` ({platform.machine()}, one thread). Errors are relative, on "
            f"{FRESH} fresh pairs, those inside the learnt range; pairs are drawn at random from the space, models "
            f"and accelerators together. Intervals are meant to hold {100 * COVERAGE:.0f} % of the truth.",
            "",
            *(line for space in SPACES for line in (f"## Cycle model on `{space}`", "", *systolic(space), "")),
            "The cost model has steps (folds, operands that do not fit, stalls) that few pairs do not show: ranks are "
            "learnt long before values are. Judge by the report of the surrogate at hand.",
            "",
            "## `measured` on `vit_digits_systolic`",
            "",
            *timed(),
            "",
            f"For scale: learnt from 200 pairs, three metrics of a pair take {1e3 * one:.2f} ms alone and "
            f"{1e3 * many:.2f} ms among {FRESH}.",
            "",
        ]
    )
    print(text)
    (HERE / "surrogate.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
