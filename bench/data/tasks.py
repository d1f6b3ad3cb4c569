"""Measures how long the embedded tasks take to make, and what memory training needs beside its images.

Run ``python bench/data/tasks.py`` (about a minute, one thread, Linux); prints the tables and writes them to tasks.md
beside this file. Each figure comes from a process of its own.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cosearch.data import Split, Task, load_task, make_task
from cosearch.spec import BlockSpec, ModelSpec
from cosearch.train import Recipe, normalised, train

HERE = Path(__file__).parent
TASKS = (
    {"name": "digits"},
    {"name": "digit-pairs", "size": 16},
    {"name": "digit-pairs", "size": 24},
    {"name": "digit-search"},
)
IMAGES = 50_000
"""As many as CIFAR's training split."""


def status_bytes(field: str) -> int:
    """Returns a figure of this process: ``VmRSS``, what it holds, or ``VmHWM``, the most since it was last reset."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} on this system; run it on Linux")


def made(index: int) -> str:
    """Returns seconds to make a task, the import of scikit-learn in them, and seconds to ask for it again."""
    start = time.perf_counter()
    import sklearn.datasets  # noqa: F401

    imported = time.perf_counter()
    task = load_task(TASKS[index])
    ready = time.perf_counter()
    load_task(TASKS[index])
    again = time.perf_counter() - ready
    size = sum(split.images.nbytes for split in (task.train, task.validation, task.test))
    title = " ".join(str(value) for value in TASKS[index].values())
    return f"| {title} | {imported - start:.2f} | {ready - imported:.3f} | {again * 1e6:.0f} | {size / 1e6:.1f} |"


def coloured() -> Task:
    rng = np.random.default_rng(0)
    splits = [
        Split(images=rng.integers(0, 256, (count, 32, 32, 3), np.uint8), labels=rng.integers(0, 10, (count, 1)))
        for count in (IMAGES, 1000, 1000)
    ]
    return make_task("coloured", tuple("0123456789"), *splits)


def memory(whole: bool) -> str:
    """Returns the megabytes that a training holds at its peak beside the images.

    Args:
        whole: whether the training split is normalised as one first, as training used to.
    """
    task, recipe = coloured(), Recipe(steps=5, batch=64)
    block = BlockSpec(heads=2, mlp_hidden=64)
    spec = ModelSpec(task=task.shape, patch=4, dim=32, blocks=(block,) * 2)
    small = Split(images=task.train.images[:64], labels=task.train.labels[:64])
    train(spec, make_task("small", task.class_names, task.train, small, small), recipe, 0)  # what torch itself needs
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM: proc(5)
    before = status_bytes("VmRSS")
    held = normalised(task.train.images, task) if whole else None
    train(spec, task, recipe, 0)
    del held
    return f"{(status_bytes('VmHWM') - before) / 1e6:.0f}"


def apart(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        what, value = sys.argv[1:]
        print(made(int(value)) if what == "made" else memory(value == "whole"))
        return
    whole, batches = (float(apart("memory", how)) for how in ("whole", "batches"))
    lines = [
        "# Data",
        "",
        f"One thread of a shared {platform.machine()} machine, torch {torch.__version__}.",
        "",
        "## Making the embedded tasks",
        "",
        "Each in a fresh process.",
        "",
        "| task | importing scikit-learn, s | making, s | asking again, us | images, MB |",
        "|---|---:|---:|---:|---:|",
        *(apart("made", str(index)) for index in range(len(TASKS))),
        "",
        "## Memory of training",
        "",
        f"{IMAGES:,} training images of 32 x 32 x 3 ({IMAGES * 3072 / 1e6:.0f} MB), a small model, 5 steps: what",
        "a training holds at its peak beside them.",
        "",
        "| training images | MB |",
        "|---|---:|",
        f"| all normalised at once, as before | {whole:.0f} |",
        f"| normalised a batch at a time | {batches:.0f} |",
    ]
    print("\n".join(lines))
    (HERE / "tasks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
