"""Measures the quickstart as a newcomer meets it, and what its parts are worth.

    python bench/search/quickstart.py            runs it for two seeds, writes bench/search/quickstart.md
    python bench/search/quickstart.py --check RUN   only checks a run that exists against what is promised

For each seed: wall time and peak memory of all processes together (proportional set size, sampled each second), the
front, and hypervolumes in one common box: of the search, of the random sampler, and of a search whose models are drawn
at random but get the same free looks at accelerators, each with as many trained models.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from cosearch.front import Front, Scale, front_from_json

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1)
PROMISED = {"models trained": 40, "pairs costed": 10_000, "front": 8, "best accuracy": 0.9}


def load(folder: Path, name: str) -> Front:
    return front_from_json(json.loads((folder / name).read_text(encoding="utf-8")))


def facts(folder: Path) -> dict[str, float]:
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["search"]
    front = load(folder, "front.json")
    return {
        "models trained": comparison["trained"],
        "pairs costed": comparison["costed"],
        "front": len(front),
        "best accuracy": max(member.metrics["accuracy"] for member in front.members),
    }


def check(folder: Path) -> None:
    found = facts(folder)
    for name, least in PROMISED.items():
        assert found[name] >= least, f"{name}: {found[name]}, but {least} were promised"
    volumes = [
        json.loads((folder / name).read_text(encoding="utf-8"))["hypervolume"]
        for name in ("front.json", "baseline-front.json")
    ]
    assert volumes[0] > volumes[1], f"hypervolume {volumes[0]}, the random sampler's {volumes[1]}"
    print(f"{folder}: {found}, hypervolume {volumes[0]:.4f} against {volumes[1]:.4f}")


def memory_of(process: psutil.Process) -> int:
    """Bytes of a process and all that it started; memory that they share counts once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def run(file: Path, runs: Path) -> tuple[float, float]:
    """Returns wall seconds and peak GiB of one search."""
    started = time.monotonic()
    command = [sys.executable, "-c", "from cosearch.cli import main; main()", "run", str(file), "--runs", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peak, watched = 0, psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, memory_of(watched))
            time.sleep(1)
        assert process.returncode == 0
    return time.monotonic() - started, peak / 2**30


def measure(seed: int, runs: Path) -> list[str]:
    shipped = yaml.safe_load((ROOT / "runs" / "quickstart.yaml").read_text(encoding="utf-8"))
    shipped |= {"seed": seed, "name": f"seed{seed}"}
    other = {**shipped, "name": f"seed{seed}-models", "mlflow": {"enabled": False}}
    other["search"] = {**shipped["search"], "options": {**shipped["search"]["options"], "inner": "random"}}
    del other["baseline"]
    files = []
    for content in (shipped, other):
        files.append(runs / f"{content['name']}.yaml")
        files[-1].write_text(yaml.safe_dump(content), encoding="utf-8")
    wall, peak = run(files[0], runs)
    run(files[1], runs)
    folder = runs / shipped["name"]
    check(folder)
    fronts = [
        load(folder, "front.json"),
        load(runs / other["name"], "front.json"),
        load(folder, "baseline-front.json"),
    ]
    scale = Scale.of_fronts(fronts[0].objectives, *(front.points() for front in fronts))
    found = facts(folder)
    return [
        str(seed),
        f"{wall:.0f}",
        f"{peak:.2f}",
        f"{found['models trained']}",
        f"{found['pairs costed']:,}",
        f"{found['front']}",
        f"{found['best accuracy']:.3f}",
        *(f"{scale.hypervolume(front.points()):.3f}" for front in fronts),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--check"]:
        check(Path(sys.argv[2]))
        return
    head = ["seed", "wall s", "peak GiB", "models trained", "pairs costed", "front", "best accuracy"]
    head += ["hypervolume", "... of random models, same looks", "... of the random sampler"]
    with tempfile.TemporaryDirectory() as place:
        rows = [measure(seed, Path(place)) for seed in SEEDS]
    lines = [
        "# The quickstart search",
        "",
        "`python bench/search/quickstart.py`, on "
        f"{psutil.cpu_count()} cores ({platform.machine()}), {psutil.virtual_memory().total / 2**30:.0f} GiB.",
        "Wall time and memory are of `cosearch run quickstart` as shipped, baseline included. Hypervolumes of a row",
        "are in one common box. The random sampler looks at one accelerator for each model; the column before it says",
        "how much of the gain is the free looks, and how much is the choice of models.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---:|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
