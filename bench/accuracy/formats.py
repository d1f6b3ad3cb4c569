"""Measures number formats of weights and activations on `digit-pairs`, trained with the formats in place.

Run ``python bench/accuracy/formats.py`` (many minutes; two processes, one thread each): prints the table and writes
it to formats.md beside this file. ``--quick`` trains a few steps of one seed and writes nothing; ``--cache FOLDER``
keeps finished trainings, so that a second run goes on where the first stopped. ``bench/model/formats.md`` has the
formats' cost without training, and that of their calibrations.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from pathlib import Path

import torch
from _trainings import Found, Job, mean_and_spread, trainings

from cosearch.data import load_task
from cosearch.formats import number_format
from cosearch.spec import BlockSpec, ModelSpec, TaskShape, bits_and_format
from cosearch.train import Recipe
from cosearch.workload import workload

HERE = Path(__file__).parent
TASK: tuple[tuple[str, str | int], ...] = (("name", "digit-pairs"), ("size", 16))
FIRST_SEED = 300
PATCH, DIM, DEPTH, MLP = 8, 32, 2, 64
RECIPE = Recipe(steps=300)
"""Twice the default's steps: with fewer, seeds differ by more than formats do."""

Pair = tuple[str, str]
SAME = (
    *("fp32", "bf16", "int8", "int6", "int4", "int3", "int2"),
    *("fp8_e4m3", "fp8_e5m2", "fp6_e2m3", "fp4_e2m1"),
    *("mxint8", "mxfp8_e4m3", "mxfp6_e2m3", "mxfp4"),
)
"""Formats of weights and activations both."""

MIXED: tuple[Pair, ...] = (
    *(("int6", "int8"), ("int4", "int8"), ("int3", "int8"), ("int2", "int8"), ("int2", "int4"), ("int8", "int4")),
    *(("fp4_e2m1", "fp8_e4m3"), ("mxfp4", "mxfp8_e4m3")),
    *(("pow2_4", "int8"), ("ternary", "int8"), ("ternary", "int4")),
)
"""Formats of weights and of activations."""

PAIRS: tuple[Pair, ...] = (*((name, name) for name in SAME), *MIXED)


def spec_of(task: TaskShape, pair: Pair) -> ModelSpec:
    """Returns the model: blocks in the formats, edges in 8-bit integers but for single precision throughout."""
    (weight_bits, weight_format), (activation_bits, activation_format) = map(bits_and_format, pair)
    block = BlockSpec(
        heads=2,
        mlp_hidden=MLP,
        weight_bits=weight_bits,
        weight_format=weight_format,
        activation_bits=activation_bits,
        activation_format=activation_format,
    )
    edge_bits, edge_format = bits_and_format("fp32" if pair == ("fp32", "fp32") else "int8")
    return ModelSpec(
        task=task,
        patch=PATCH,
        dim=DIM,
        overlap=2,
        stem_hidden=64,
        edge_bits=edge_bits,
        edge_format=edge_format,
        blocks=(block,) * DEPTH,
    )


def table(task: TaskShape, found: dict[Job, Found], jobs: dict[Pair, list[Job]]) -> list[str]:
    lines = [
        "| weights | activations | bits a weight | bits an activation | parameters, KiB | accuracy | CPU s |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for pair, own in jobs.items():
        weights, activations = (number_format(name).storage_bits_per_value for name in pair)
        size = workload(spec_of(task, pair)).weight_bytes / 1024
        lines.append(
            f"| `{pair[0]}` | `{pair[1]}` | {weights:g} | {activations:g} | {size:.1f} "
            f"| {mean_and_spread([found[job].accuracy for job in own])} "
            f"| {statistics.fmean(found[job].seconds for job in own):.1f} |"
        )
    return lines


def remarks(found: dict[Job, Found], jobs: dict[Pair, list[Job]]) -> list[str]:
    """Returns what of the differences is more than the seeds'."""
    values = {pair: [found[job].accuracy or 0.0 for job in own] for pair, own in jobs.items()}
    if min(map(len, values.values())) < 2:
        return []
    spread = math.sqrt(statistics.fmean(statistics.variance(own) for own in values.values()))
    error = spread * math.sqrt(2 / min(map(len, values.values())))
    whole = statistics.fmean(values["fp32", "fp32"])
    apart = [f"`{w}` / `{a}`" for (w, a), own in values.items() if whole - statistics.fmean(own) > 2 * error]
    return [
        f"Standard deviation of seeds, pooled over rows: {spread:.4f}; standard error of a difference of two rows:",
        f"{error:.4f}. More than twice that below `fp32`: {', '.join(apart) or 'none'}.",
        "What lies within is not told apart by this table, whichever way round it stands.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, choices=(1, 2))
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="a few steps of one seed, no file written")
    options = parser.parse_args()
    task = load_task(dict(TASK)).shape
    seeds, recipe = (1, dataclasses.replace(RECIPE, steps=4)) if options.quick else (options.seeds, RECIPE)
    jobs = {
        pair: [Job(task=TASK, spec=spec_of(task, pair), recipe=recipe, seed=FIRST_SEED + seed) for seed in range(seeds)]
        for pair in PAIRS
    }
    in_order = [own[seed] for seed in range(seeds) for own in jobs.values()]
    found = trainings("formats", in_order, options.cache, options.workers)
    lines = [
        "# Number formats, trained with",
        "",
        f"`digit-pairs`, 16 x 16; dim {DIM}, {DEPTH} blocks, 2 heads, MLP {MLP}, patch {PATCH} with overlap;",
        f"{recipe.steps} steps of batch {recipe.batch}, all else at `Recipe`'s defaults, formats in place from the",
        "first step (learned scales for integers, small floats, ternary values and powers of two; MX scales its blocks",
        "of 32 by its own rule). Stem and head have 8-bit integers in every row but `fp32`. Share of labels read right",
        f"on the 1,024 validation images: mean ± standard deviation of {seeds} seeds. Bits are those of storage,",
        f"shared scales included. CPU seconds of a training are of a shared machine. torch {torch.__version__}.",
        "",
        *table(task, found, jobs),
        "",
        *remarks(found, jobs),
    ]
    print("\n".join(lines))
    if not options.quick:
        (HERE / "formats.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
