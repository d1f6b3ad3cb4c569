"""Measures every token method at several budgets on `digit-search`: accuracy, multiply-accumulates, cost.

Run ``python bench/accuracy/tokens.py`` (many minutes; two processes, one thread each): prints the tables and writes
them to tokens.md beside this file. ``--quick`` trains a few steps of one seed and writes nothing; ``--cache FOLDER``
keeps finished trainings, so that a second run goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from _trainings import Found, Job, mean_and_spread, trainings

from cosearch.data import load_task
from cosearch.hardware import build, estimate, technology
from cosearch.spec import TOKEN_METHODS, AcceleratorSpec, BlockSpec, ModelSpec, Scalar, TaskShape, TokenMethod
from cosearch.train import Recipe
from cosearch.workload import workload

HERE = Path(__file__).parent
TASK: tuple[tuple[str, str | int], ...] = (("name", "digit-search"),)
FIRST_SEED = 400
PATCH, DIM, DEPTH, HEADS, MLP = 4, 32, 3, 2, 64
RECIPE = Recipe(steps=300)
"""Twice the default's steps, so that the model with all tokens has learnt."""

ALL = 1.0
KEEPS = (0.9, 0.7, 0.5, 0.3)
"""Shares of its image tokens that each block before the last leaves."""

CORES = (0.5, 0.25, 0.1)
"""Core tokens as shares of the image's."""

ARRAY: Mapping[str, Scalar] = {
    **{"rows": 8, "cols": 8, "dataflow": "ws", "pe_bits": 8, "clock_hz": 400_000_000, "dram_bytes_per_s": 1e9},
    **{"ifmap_kib": 16, "filter_kib": 16, "ofmap_kib": 16, "vector_lanes": 8},
}

NOISE = 0.02
"""Difference of accuracies that says nothing."""

Row = tuple[str, float]


def spec_of(task: TaskShape, method: TokenMethod, share: float) -> ModelSpec | None:
    """Returns the model with a token method and a budget; None where the method cannot go so low."""
    block = BlockSpec(heads=HEADS, mlp_hidden=MLP)
    tokens, blocks = (task.image[0] // PATCH) * (task.image[1] // PATCH), []
    for index in range(DEPTH):
        reduces = share < ALL and (index == 0 if method.core else index < DEPTH - 1)
        if reduces:
            keep = max(round(tokens * share), 1)
            if keep < method.least(tokens):
                return None
            tokens = keep
        blocks.append(dataclasses.replace(block, keep_tokens=tokens if reduces else None))
    return ModelSpec(
        task=task,
        patch=PATCH,
        dim=DIM,
        overlap=PATCH // 2,
        stem_hidden=64,
        blocks=tuple(blocks),
        token_method=method.name if share < ALL else "none",
    )


def models(task: TaskShape) -> dict[Row, ModelSpec]:
    """Returns every model by method and share, that with all tokens first."""
    rows: Iterable[Row] = (
        (method.name, share)
        for method in TOKEN_METHODS.values()
        for share in ((ALL,) if method.name == "none" else CORES if method.core else KEEPS)
    )
    specs = {row: spec_of(task, TOKEN_METHODS[row[0]], row[1]) for row in rows}
    return {row: spec for row, spec in specs.items() if spec is not None}


def jobs_of(specs: Mapping[Row, ModelSpec], recipe: Recipe, seed: int) -> dict[Row | str, Job]:
    """Returns the trainings of one seed by method and share; ``several`` is LookupViT trained with several counts."""

    def job(spec: ModelSpec, read_as: Sequence[ModelSpec] = (), *, in_turns: bool = False) -> Job:
        return Job(task=TASK, spec=spec, recipe=recipe, seed=seed, read_as=tuple(read_as), in_turns=in_turns)

    after = [specs[row] for row in after_rows(specs)]
    lookups = [specs["lookup", share] for share in CORES]
    jobs: dict[Row | str, Job] = {("none", ALL): job(specs["none", ALL], after)}
    jobs |= {row: job(spec) for row, spec in specs.items() if row[0] not in ("none", "lookup")}
    for index, share in enumerate(CORES):
        jobs["lookup", share] = job(lookups[index], [spec for spec in lookups if spec != lookups[index]])
    jobs["several"] = job(lookups[0], lookups[1:], in_turns=True)
    return jobs


def after_rows(specs: Mapping[Row, ModelSpec]) -> list[Row]:
    """Returns methods and shares that a model trained with all tokens can be given."""
    return [row for row in specs if TOKEN_METHODS[row[0]].after_training and row[0] != "none"]


class Figures:
    """What was measured.

    Args:
        specs: by method and share.
        jobs: of each seed.
        found: of each job.
    """

    def __init__(
        self, specs: Mapping[Row, ModelSpec], jobs: Sequence[Mapping[Row | str, Job]], found: Mapping[Job, Found]
    ) -> None:
        self.specs, self._jobs, self._found = specs, jobs, found

    def trained(self, row: Row) -> list[float | None]:
        """Returns accuracies of the seeds, trained with the method in place."""
        return [self._found[jobs[row]].accuracy for jobs in self._jobs]

    def afterwards(self, row: Row) -> list[float | None]:
        """Returns accuracies of the model trained with all tokens and read with the method."""
        return self._read(("none", ALL), row)

    def lookup(self, trained: Row | str, share: float) -> list[float | None]:
        """Returns accuracies of LookupViT trained in one way, read with a share of core tokens."""
        return self._read(trained, ("lookup", share))

    def _read(self, trained: Row | str, row: Row) -> list[float | None]:
        spec, values = self.specs[row], list[float | None]()
        for jobs in self._jobs:
            job = jobs[trained]
            found = self._found[job]
            if found.accuracy is None or job.spec == spec:
                values.append(found.accuracy)
            else:
                values.append(found.read_as[job.read_as.index(spec)])
        return values

    def seconds(self) -> float:
        """Returns the mean time of a training."""
        return statistics.fmean(self._found[job].seconds for jobs in self._jobs for job in jobs.values())


def in_integers(spec: ModelSpec) -> ModelSpec:
    """Returns the model with 8-bit integers throughout."""
    blocks = tuple(dataclasses.replace(block, weight_bits=8, activation_bits=8) for block in spec.blocks)
    return dataclasses.replace(spec, blocks=blocks, edge_bits=8)


def mean(values: Sequence[float | None]) -> float:
    """Returns the mean of what did not diverge; not a number where all did."""
    right = [value for value in values if value is not None]
    return statistics.fmean(right) if right else float("nan")


def table(figures: Figures) -> list[str]:
    array = build(AcceleratorSpec.of("systolic", ARRAY))
    prices = technology("horowitz_45nm")
    after = after_rows(figures.specs)
    whole = workload(figures.specs["none", ALL]).macs
    lines = [
        "| method | keep | image tokens in each block's mixer | MACs, million | of all | trained with it "
        "| given to the model trained with all tokens | latency, us | energy, uJ |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row, spec in figures.specs.items():
        asked = workload(spec)
        cost = estimate(workload(in_integers(spec)), array, prices)
        counts = ", ".join(str(mixer - 1) for mixer, _ in spec.tokens)
        afterwards = mean_and_spread(figures.afterwards(row)) if row in after else "-"
        lines.append(
            f"| `{row[0]}` | {row[1]:g} | {counts} | {asked.macs / 1e6:.2f} | {asked.macs / whole:.2f} "
            f"| {mean_and_spread(figures.trained(row))} | {afterwards} "
            f"| {cost.latency_s * 1e6:.0f} | {cost.energy_j * 1e6:.1f} |"
        )
    return lines


def lookup_table(figures: Figures) -> list[str]:
    shown = [figures.specs["lookup", share].core_tokens for share in CORES]
    lines = [
        f"| trained with | {' | '.join(f'read with {count}' for count in shown)} |",
        "|---|" + "---:|" * len(shown),
    ]
    rows: list[tuple[str, Row | str]] = [
        *((str(count), ("lookup", share)) for count, share in zip(shown, CORES, strict=True)),
        ("one of these a step, at random", "several"),
    ]
    for name, trained in rows:
        cells = (mean_and_spread(figures.lookup(trained, share)) for share in CORES)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def directions(figures: Figures) -> list[str]:
    """Returns, in words and figures, whether what is published about the methods holds here."""
    whole = mean(figures.trained(("none", ALL)))
    lines = []

    def row(published: str, here: str, *, holds: bool) -> None:
        lines.append(f"| {published} | {here} | {'yes' if holds else 'no'} |")

    evit = {share: mean(figures.trained(("prune", share))) for share in KEEPS}
    row(
        "EViT (Liang et al. 2022, table of its repository, DeiT-S): 79.8 % at keep 0.9 as with all tokens, 79.5 at "
        "0.7, 78.5 at 0.5: no loss first, then more and more",
        f"{whole:.3f}; {', '.join(f'{value:.3f} at {share:g}' for share, value in evit.items())}",
        holds=evit[0.9] >= whole - NOISE and evit[0.9] > evit[0.5],
    )
    merges = [share for share in KEEPS if ("merge", share) in figures.specs]
    after = {share: mean(figures.afterwards(("merge", share))) for share in merges}
    trained = {share: mean(figures.trained(("merge", share))) for share in merges}
    row(
        "ToMe (Bolya et al. 2023, abstract): little is lost without any training, less where it is trained with",
        "without: "
        + ", ".join(f"{whole - value:+.3f} at {share:g}" for share, value in after.items())
        + "; with: "
        + ", ".join(f"{whole - value:+.3f} at {share:g}" for share, value in trained.items())
        + " (loss against all tokens)",
        holds=after[0.9] >= whole - NOISE and all(trained[share] >= after[share] - NOISE for share in merges),
    )
    same = [share for share in merges if ("prune", share) in figures.specs]
    pruned = {share: mean(figures.afterwards(("prune", share))) for share in same}
    row(
        "ToMe (abstract): merging is more accurate than pruning; here with EViT's, neither trained with",
        ", ".join(f"{after[share]:.3f} against {pruned[share]:.3f} at {share:g}" for share in same),
        holds=all(after[share] >= pruned[share] - NOISE for share in same),
    )
    several = {share: mean(figures.lookup("several", share)) for share in CORES}
    own = {share: mean(figures.trained(("lookup", share))) for share in CORES}
    row(
        "LookupViT (Koner et al. 2024, abstract): one trained model serves several counts of compressed tokens",
        ", ".join(
            f"{figures.specs['lookup', share].core_tokens}: {several[share]:.3f} "
            f"({own[share]:.3f} trained with this count alone)"
            for share in CORES
        ),
        holds=all(several[share] >= own[share] - NOISE for share in CORES),
    )
    given = {share: mean(figures.afterwards(("contribution", share))) for share in KEEPS}
    row(
        "Latency Adjustable Transformer (Kachuee & Sharifkhani 2022): one training gives a "
        "range of speed-ups, accuracy falling with them",
        ", ".join(f"{value:.3f} at {share:g}" for share, value in given.items()),
        holds=given[0.9] >= whole - NOISE and all(given[a] >= given[b] - NOISE for a, b in itertools.pairwise(KEEPS)),
    )
    return ["| published | here | holds |", "|---|---|---|", *lines]


def page(figures: Figures, recipe: Recipe, seeds: int) -> list[str]:
    return [
        "# Token methods and their budgets",
        "",
        f"`digit-search`, 32 x 32; patch {PATCH} with overlap (64 image tokens), dim {DIM}, {DEPTH} blocks, {HEADS}",
        f"heads, MLP {MLP}, single precision; {recipe.steps} steps of batch {recipe.batch}, all else at `Recipe`'s",
        "defaults. Share of digits read right on the 1,024 validation images: mean ± standard deviation of",
        f"{seeds} seeds; a training takes {figures.seconds():.1f} CPU seconds on average, on a shared machine.",
        f"torch {torch.__version__}.",
        "",
        "Keep: share of its image tokens that every block but the last leaves (`merge` cannot leave less than half);",
        "for `lookup` and `memory`, core tokens as a share of the image's, which take part in the exchange of every",
        "block. What a method adds is counted. Latency and energy of one image are estimates for the same models in",
        "8-bit integers on an 8 x 8 weight-stationary systolic array at 400 MHz, three buffers of 16 KiB, 1 GB/s of",
        "DRAM, prices of `horowitz_45nm`.",
        "",
        *table(figures),
        "",
        "## One LookupViT, several counts of core tokens",
        "",
        "The very same weights, read with other counts than they were trained with, or trained with all of them.",
        "",
        *lookup_table(figures),
        "",
        "## Published directions",
        "",
        f"Holds: means over seeds are ordered so; what is to be no worse may be worse by {NOISE}, twenty images.",
        "Models and data are other than published: only directions are compared.",
        "",
        *directions(figures),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, choices=(1, 2))
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="a few steps of one seed, no file written")
    options = parser.parse_args()
    specs = models(load_task(dict(TASK)).shape)
    seeds, recipe = (1, dataclasses.replace(RECIPE, steps=4)) if options.quick else (options.seeds, RECIPE)
    jobs = [jobs_of(specs, recipe, FIRST_SEED + seed) for seed in range(seeds)]
    found = trainings("tokens", [job for own in jobs for job in own.values()], options.cache, options.workers)
    lines = page(Figures(specs, jobs, found), recipe, seeds)
    print("\n".join(lines))
    if not options.quick:
        (HERE / "tokens.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
