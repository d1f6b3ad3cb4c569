"""Compares this project's cost model with the tools that run here: how fast, and what each says of DeiT-Tiny.

Run ``OMP_NUM_THREADS=1 python bench/hardware/references.py`` after ``cosearch reference install NAME`` for each tool:
prints the tables and writes them to references.md beside this file.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cosearch.errors import EnvironmentProblem
from cosearch.hardware import SystolicArray, estimate, estimate_batch, technology
from cosearch.references import REFERENCES, interpreter, matrix_products, run
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, Workload, workload

PAIRS = 20_000
LIMIT_S = 1200.0
PRICES = technology("horowitz_45nm")
ARRAY = SystolicArray(
    rows=16,
    cols=16,
    dataflow="ws",
    ifmap_kib=128,
    filter_kib=128,
    ofmap_kib=128,
    dram_bytes_per_s=8e9,
    clock_hz=5e8,
    overlap="double_buffered",
)


SEARCHING = replace(ARRAY, mapping="search")
FIGURES = ("compute_cycles", "stall_cycles", "dram_bytes")
Total = tuple[float, float, float, float | None]


def deit_tiny() -> Workload:
    blocks = tuple(BlockSpec(heads=3, mlp_hidden=768, weight_bits=8, activation_bits=8) for _ in range(12))
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    return workload(ModelSpec(task=task, patch=16, dim=192, blocks=blocks, edge_bits=8))


def ours(load: Workload, array: SystolicArray, pairs: int) -> float:
    """Returns seconds that one pair of model and accelerator takes, of many that all differ."""
    rng = np.random.default_rng(0)
    arrays = [
        replace(
            array,
            rows=int(rng.integers(8, 33)),
            cols=int(rng.integers(8, 33)),
            ifmap_kib=int(rng.integers(32, 257)),
            filter_kib=int(rng.integers(32, 257)),
            ofmap_kib=int(rng.integers(32, 257)),
            dram_bytes_per_s=float(rng.uniform(1e9, 1e11)),
        )
        for _ in range(pairs)
    ]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        estimate_batch(load, arrays, PRICES)
        times.append(time.perf_counter() - start)
    return min(times) / pairs


def total(load: Workload, array: SystolicArray) -> Total:
    """Returns what the cost model says of the matrix products together."""
    names = {op.name for op in matrix_products(load)}
    ops = [op for op in estimate(load, array, PRICES).operators if op.name in names]
    cycles, stalls, moved = (sum(getattr(op, name) for op in ops) for name in FIGURES)
    return cycles, stalls, moved, sum(op.energy_j for op in ops)


def theirs(name: str, products: tuple[Operator, ...]) -> tuple[float, float, list[dict[str, float]]]:
    """Returns seconds to start the tool (with the smallest of products), seconds beyond that, and what it says."""
    tiny = replace(products[0], m=1, k=1, n=2, count=1)
    if name == "zigzag":
        tiny = replace(tiny, m=2)  # it fails where no loop is left in time
    starts = []
    for _ in range(3):  # the first fills the tool's caches
        start = time.perf_counter()
        run(name, [tiny], ARRAY, PRICES)
        starts.append(time.perf_counter() - start)
    start = time.perf_counter()
    figures = run(name, products, ARRAY, PRICES, limit_s=LIMIT_S)
    return min(starts), time.perf_counter() - start - min(starts), figures


def main() -> None:
    load = deit_tiny()
    products = matrix_products(load)
    shapes = len({(op.m, op.k, op.n, op.a_bits, op.b_bits, op.out_bits) for op in products})
    pair_s, searching_s = ours(load, ARRAY, PAIRS), ours(load, SEARCHING, PAIRS)
    speed = [
        f"| cosearch, `estimate_batch` of {PAIRS:,} | | {pair_s:.3g} | 1 |",
        f"| cosearch, the same with `mapping: search` | | {searching_s:.3g} | {searching_s / pair_s:.1f} |",
    ]
    totals: dict[str, Total] = {"cosearch": total(load, ARRAY), "cosearch, mapping: search": total(load, SEARCHING)}
    absent = []
    for name, tool in REFERENCES.items():
        try:
            interpreter(name)
        except EnvironmentProblem as error:
            absent.append(f"Not run: {error}.")
            continue
        start_s, seconds, found = theirs(name, products)
        speed.append(f"| {name} {tool.version} | {start_s:.1f} | {seconds:.3g} | {seconds / pair_s:,.0f} |")
        cycles, stalls, moved = (sum(f[key] for f in found) for key in FIGURES)
        totals[name] = (cycles, stalls, moved, sum(f["energy_j"] for f in found) if "energy_j" in found[0] else None)
    text = "\n".join(
        [
            "# Against the tools themselves",
            "",
            f"DeiT-Tiny (224 x 224, 12 blocks): {len(products)} matrix products of {shapes} shapes. A 16 x 16",
            "weight-stationary array with 128 KiB for each operand, 16 bytes of DRAM a cycle, folds overlapping.",
            f"{os.cpu_count()} cores ({platform.machine()}), one thread, Python {platform.python_version()}, numpy "
            f"{np.__version__}.",
            "Made by `bench/hardware/references.py`.",
            "",
            "## Speed: seconds for one pair of model and accelerator",
            "",
            "A tool is given each shape once, and its start is not counted against it. The 20,000 arrays all differ.",
            "",
            "| what | seconds to start | seconds a pair | times as long |",
            "|---|---:|---:|---:|",
            *speed,
            *absent,
            "",
            "## What each says of the matrix products together",
            "",
            "| | array cycles | stalls | DRAM bytes | energy, J |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {name} | {c:,.0f} | {s:,.0f} | {d:,.0f} | {'' if e is None else f'{e:.3g}'} |"
                for name, (c, s, d, e) in totals.items()
            ),
            "",
            *(f"- `{name}` does not see: {tool.blind}." for name, tool in REFERENCES.items() if name in totals),
            "- `cosearch` counts leakage; SCALE-Sim lets no folds overlap, nor its stalls be bounded by its traffic.",
            "- ZigZag and AccelForge search the loop order of each product; `cosearch` keeps SCALE-Sim's order, unless",
            "  it is told to search.",
            "- AccelForge spreads a loop evenly over its folds: 197 rows on 16 take 197 / 16 of a fold, not 13.",
            "",
        ]
    )
    print(text)
    (Path(__file__).parent / "references.md").write_text(text)


if __name__ == "__main__":
    main()
