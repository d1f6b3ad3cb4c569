"""Measures how many (model, accelerator) pairs a second the cost model takes, in one process.

Run ``OMP_NUM_THREADS=1 python bench/hardware/speed.py``: prints the table and writes it to speed.md beside this file.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path

import numpy as np

from cosearch.hardware import PE_BITS, SystolicArray, SystolicArrays, estimate, estimate_batch, technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

TASK = TaskShape(image=(224, 224), channels=3, classes=1000)


def deit_tiny(*, mixed: bool) -> Workload:
    """DeiT-Tiny; ``mixed`` gives each block its own widths, so that no two blocks share an operator."""
    blocks = tuple(
        BlockSpec(heads=3, mlp_hidden=768, weight_bits=2 + i if mixed else 8, activation_bits=3 + i if mixed else 8)
        for i in range(12)
    )
    return workload(ModelSpec(task=TASK, patch=16, dim=192, blocks=blocks, edge_bits=8))


def accelerators(count: int) -> SystolicArrays:
    rng = np.random.default_rng(0)
    return SystolicArrays(
        rows=rng.choice([8, 16, 32, 64], count),
        cols=rng.choice([8, 16, 32, 64], count),
        dataflow=rng.integers(0, 3, count),
        ifmap_kib=rng.choice([32, 64, 128, 256], count),
        filter_kib=rng.choice([32, 64, 128, 256], count),
        ofmap_kib=rng.choice([32, 64, 128, 256], count),
        dram_bytes_per_s=rng.uniform(1e9, 1e11, count),
        clock_hz=rng.uniform(1e8, 1e9, count),
        pe_bits=rng.choice(PE_BITS, count),
        vector_lanes=rng.choice([8, 16, 32], count),
        overlap=rng.integers(0, 2, count),
    )


def best_of(runs: int, load: Workload, arrays: SystolicArrays | list[SystolicArray]) -> float:
    tech, times = technology("horowitz_45nm"), []
    for _ in range(runs):
        start = time.perf_counter()
        estimate_batch(load, arrays, tech)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    one = SystolicArray(
        rows=16,
        cols=16,
        dataflow="ws",
        ifmap_kib=64,
        filter_kib=64,
        ofmap_kib=64,
        dram_bytes_per_s=8e9,
        clock_hz=5e8,
    )
    same, mixed = deit_tiny(mixed=False), deit_tiny(mixed=True)
    lines = ["| what | pairs | seconds | pairs/s |", "|---|---:|---:|---:|"]
    for label, load, arrays, runs in (
        ("same bits in all blocks, arrays of fields", same, accelerators(100_000), 3),
        ("same bits in all blocks, a million", same, accelerators(1_000_000), 1),
        ("different bits in each block, arrays of fields", mixed, accelerators(100_000), 1),
        ("same bits in all blocks, 10,000 objects", same, [one] * 10_000, 3),
    ):
        seconds = best_of(runs, load, arrays)
        lines.append(f"| {label} | {len(arrays):,} | {seconds:.3f} | {len(arrays) / seconds:,.0f} |")
    start = time.perf_counter()
    for _ in range(100):
        estimate(same, one, technology("horowitz_45nm"))
    single = (time.perf_counter() - start) / 100
    lines.append(f"| one by one, with the breakdown per operator | 100 | {100 * single:.3f} | {1 / single:,.0f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = "\n".join(
        [
            "# Speed of the cost model",
            "",
            f"DeiT-Tiny (224 x 224, 12 blocks) on systolic arrays, one process. {os.cpu_count()} cores"
            f" ({platform.machine()}), Python {platform.python_version()}, numpy {np.__version__}."
            f" Peak memory of the process: {peak:.0f} MiB.",
            "Made by `bench/hardware/speed.py`.",
            "",
            *lines,
            "",
        ]
    )
    print(text)
    (Path(__file__).parent / "speed.md").write_text(text)


if __name__ == "__main__":
    main()
