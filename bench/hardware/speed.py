"""Measures how many (model, accelerator) pairs a second the cost model takes, in one process.

Run ``OMP_NUM_THREADS=1 python bench/hardware/speed.py``: prints the table and writes it to speed.md beside this file.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np

from cosearch.hardware import (
    PE_BITS,
    SystolicArray,
    SystolicArrays,
    estimate,
    estimate_batch,
    estimate_grid,
    technology,
)
from cosearch.space import load_space
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


MODES: tuple[tuple[str, dict[str, float]], ...] = (
    ("without tile search", {}),
    ("with tile search (`mapping: search`)", {"mapping": 1}),
    ("fused attention", {"attention": 1}),
    ("a memory of 256 KiB for activations", {"activation_kib": 256}),
    ("all three", {"mapping": 1, "attention": 1, "activation_kib": 256}),
)


def changed(arrays: SystolicArrays, fields: dict[str, float]) -> SystolicArrays:
    columns = {item.name: getattr(arrays, item.name) for item in dataclasses.fields(arrays)}
    return SystolicArrays(**(columns | {name: np.full(len(arrays), value) for name, value in fields.items()}))


def best_of(runs: int, load: Workload, arrays: SystolicArrays | list[SystolicArray]) -> float:
    """Seconds of the fastest of some runs, after one that makes what is kept for a workload."""
    tech, times = technology("horowitz_45nm"), []
    few = arrays[:4] if isinstance(arrays, list) else arrays.pick(np.arange(4))
    estimate_batch(load, few, tech)
    for _ in range(runs):
        start = time.perf_counter()
        estimate_batch(load, arrays, tech)
        times.append(time.perf_counter() - start)
    return min(times)


def row(label: str, pairs: int, seconds: float) -> str:
    return f"| {label} | {pairs:,} | {seconds:.3f} | {pairs / seconds:,.0f} |"


def main() -> None:
    tech = technology("horowitz_45nm")
    same, mixed = deit_tiny(mixed=False), deit_tiny(mixed=True)
    lines = ["| what | pairs | seconds | pairs/s |", "|---|---:|---:|---:|"]
    for bits, load in (("same bits in all blocks", same), ("different bits in each block", mixed)):
        for mode, fields in MODES:
            for count, runs in ((100_000 if not fields and "same" in bits else 20_000, 2), (256, 5)):
                seconds = best_of(runs, load, changed(accelerators(count), fields))
                lines.append(row(f"{bits}, {mode}", count, seconds))
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
    lines.append(
        row("same bits, 10,000 objects in place of arrays of fields", 10_000, best_of(3, same, [one] * 10_000))
    )
    start = time.perf_counter()
    for _ in range(100):
        estimate(same, one, tech)
    lines.append(row("one by one, with the breakdown per operator", 100, time.perf_counter() - start))
    space = load_space("deit_tiny_edge", TASK)
    rng = np.random.default_rng(0)
    models = [workload(space.decode(space.sample(rng)).model) for _ in range(100)]
    start = time.perf_counter()
    estimate_grid(models, accelerators(100), tech)
    lines.append(row("`estimate_grid`: 100 models of deit_tiny_edge x 100 arrays", 10_000, time.perf_counter() - start))
    seconds = best_of(1, same, accelerators(1_000_000))
    lines.append(row("same bits, a million in one call", 1_000_000, seconds))
    million = best_of(1, same, changed(accelerators(1_000_000), {"mapping": 1}))
    lines.append(row("same bits, with tile search, a million in one call", 1_000_000, million))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = "\n".join(
        [
            "# Speed of the cost model",
            "",
            f"DeiT-Tiny (224 x 224, 12 blocks) on random systolic arrays, one process, one thread. {os.cpu_count()}"
            f" cores ({platform.machine()}), Python {platform.python_version()}, numpy {np.__version__}."
            f" Peak memory of the process, the million in chunks included: {peak:.0f} MiB.",
            "Made by `bench/hardware/speed.py`; other tools beside it: `bench/hardware/references.md`.",
            "",
            *lines,
            "",
        ]
    )
    print(text)
    (Path(__file__).parent / "speed.md").write_text(text)


if __name__ == "__main__":
    main()
