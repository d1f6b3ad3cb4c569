"""The bundle's ``README.md``: what the pair is, what it does and costs, how that was found and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosearch.export._agreement import Agreement, FollowedAgreement
from cosearch.hardware import Accelerator, Cost, SystolicArray, Technology, trust
from cosearch.spec import Candidate
from cosearch.words import describe_accelerator, describe_model, label, quantity, unit_of
from cosearch.workload import Workload

__all__ = ["Origin", "Reading", "card", "wilson_interval"]

_TOP = 10
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a pair comes from.

    Attributes:
        run: name of the search.
        seed: of the search.
        recipe: how the model was trained, as the run file gives it; None where that is not known.
        task: the run file's ``task`` section.
        technology: name of the table of energy and area.
        mean: of each channel, of pixels scaled to 0..1; the model's inputs are normalised by it.
        std: likewise, the standard deviation.
        classes: names of the classes, in the order of the logits.
        versions: of the packages that made and checked the bundle.
    """

    run: str
    seed: int
    recipe: Mapping[str, Any] | None
    task: Mapping[str, Any]
    technology: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How well the model reads a split, in torch and in onnxruntime.

    Attributes:
        images: images in the split.
        torch: share of labels that torch reads right.
        onnx: share of labels that onnxruntime reads right.
        interval: 95 % Wilson interval of the latter, images counted as independent.
        agreement: how far the two lie apart.
    """

    images: int
    torch: float
    onnx: float
    interval: tuple[float, float]
    agreement: Agreement


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share seen in ``n`` independent trials.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927), 209-212.
    """
    if n < 1:
        return 0.0, 1.0
    z2 = _Z95 * _Z95 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z95 / (1 + z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def card(
    candidate: Candidate,
    workload: Workload,
    accelerator: Accelerator,
    cost: Cost,
    technology: Technology,
    origin: Origin,
    readings: Mapping[str, Reading],
    followed: FollowedAgreement,
    metrics: Mapping[str, float],
) -> str:
    """Returns the text of ``README.md``."""
    parts = (
        _pair(candidate, workload),
        _accuracy(candidate, readings),
        _use(candidate),
        _cost(cost, workload),
        _operators(cost),
        _checks(readings, followed, origin),
        _search(candidate, origin, metrics),
        _estimate(technology, accelerator),
        _files(accelerator),
    )
    return "\n".join(parts)


def _pair(candidate: Candidate, workload: Workload) -> str:
    model, task = candidate.model, candidate.model.task
    read = "1 label" if task.labels == 1 else f"{task.labels} labels"
    channels = "1 channel" if task.channels == 1 else f"{task.channels} channels"
    lines = [
        f"# Pair {candidate.id}",
        "",
        "A vision transformer and the accelerator that is to run it.",
        "",
        f"- **Model** `{model.id}`: {describe_model(model)}. "
        f"{quantity(float(workload.macs), 'MAC')} an image, {workload.weight_count:,} weights in "
        f"{quantity(float(workload.weight_bytes), 'B')}.",
        f"- **Accelerator** `{candidate.accelerator.id}`: {describe_accelerator(candidate.accelerator)}.",
        f"- **Task**: {read} of {task.classes} classes from an image of {task.image[0]} x {task.image[1]} pixels, "
        f"{channels}.",
        "",
    ]
    return "\n".join(lines)


def _accuracy(candidate: Candidate, readings: Mapping[str, Reading]) -> str:
    lines = ["## Accuracy", "", "| split | images | torch | onnxruntime | 95 % interval |", "|---|---:|---:|---:|---|"]
    for name, reading in readings.items():
        low, high = reading.interval
        lines.append(
            f"| {name} | {reading.images} | {reading.torch:.2%} | {reading.onnx:.2%} | {low:.2%} to {high:.2%} |"
        )
    share = "images" if candidate.model.task.labels == 1 else "labels"
    lines += [
        "",
        f"Share of {share} read right. The search chose by the validation split; it never saw the test split. The "
        "interval is Wilson's, with images counted as independent: it says nothing of other data, nor of training "
        "with another seed.",
        "",
    ]
    return "\n".join(lines)


def _use(candidate: Candidate) -> str:
    task = candidate.model.task
    shape = f"{task.image[0]}, {task.image[1]}, {task.channels}"
    return f"""## Use

`model.onnx` takes raw pixels (normalisation is inside) and gives logits. In this folder:

```python
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])

images = np.zeros((1, {shape}), dtype=np.uint8)  # yours: (batch, height, width, channels), 0 to 255
logits = session.run(["logits"], {{"image": images}})[0]  # (batch, {task.labels}, {task.classes})
print([[classes[best] for best in row] for row in logits.argmax(axis=2)])
```

In torch, from the weights:

```python
import json
from pathlib import Path

from cosearch.model import build_model
from cosearch.spec import ModelSpec, from_json
from cosearch.train import weights_from_bytes

model = build_model(from_json(ModelSpec, json.loads(Path("model.json").read_text())))
weights_from_bytes(model, Path("weights.safetensors").read_bytes())
model.eval()  # takes (batch, channels, height, width), normalised with mean and std of origin.json
```
"""


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)]


def _cost(cost: Cost, workload: Workload) -> str:
    share = {name: getattr(cost, f"{name}_j") / cost.energy_j for name in ("mac", "vector", "sram", "dram", "leakage")}
    rows = [
        ("latency", quantity(cost.latency_s, "s")),
        ("images a second, one at a time", f"{1 / cost.latency_s:,.0f}"),
        ("cycles", f"{cost.cycles:,.0f}"),
        ("of these: array, vector unit, stalls", _shares(cost)),
        ("energy", quantity(cost.energy_j, "J")),
        (
            "of this: array, vector unit, scratchpads, DRAM, leakage",
            ", ".join(f"{part:.1%}" for part in share.values()),
        ),
        ("power while it runs", quantity(cost.power_w, "W")),
        ("area", quantity(cost.area_mm2, "mm2")),
        ("to and from DRAM", quantity(cost.dram_bytes, "B")),
        ("most held in the scratchpads", quantity(cost.peak_onchip_bytes, "B")),
        ("most activations alive at once", quantity(float(workload.peak_activation_bytes), "B")),
        ("PE-cycles that multiply", f"{cost.utilisation:.1%}"),
    ]
    return "\n".join(["## Cost of one image (estimated)", "", *_table(rows), ""])


def _shares(cost: Cost) -> str:
    parts = (cost.compute_cycles, cost.vector_cycles, cost.stall_cycles)
    return ", ".join(f"{part / cost.cycles:.1%}" for part in parts)


def _operators(cost: Cost) -> str:
    slowest = sorted(cost.operators, key=lambda op: (-op.cycles, op.name))[:_TOP]
    lines = [
        f"### The {len(slowest)} slowest operators",
        "",
        "| operator | kind | latency | share | stalled | energy | DRAM | utilisation |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for op in slowest:
        used = f"{op.utilisation:.1%}" if op.macs else ""
        lines.append(
            f"| {op.name} | {op.kind} | {quantity(op.cycles * cost.latency_s / cost.cycles, 's')} | "
            f"{op.cycles / cost.cycles:.1%} | "
            f"{op.stall_cycles / op.cycles if op.cycles else 0:.1%} | {quantity(op.energy_j, 'J')} | "
            f"{quantity(op.dram_bytes, 'B')} | {used} |"
        )
    return "\n".join([*lines, "", "All operators are in `cost.json`.", ""])


def _checks(readings: Mapping[str, Reading], followed: FollowedAgreement, origin: Origin) -> str:
    lines = [
        "## How it was checked",
        "",
        f"- torch followed every decision of `model.onnx` (each rounding to a code, each choice of tokens) on the "
        f"first {followed.images} validation images: {followed.decisions:,} decisions, all allowed by torch's values, "
        f"{followed.borders:,} of them on a border where either is right. Logits then differ by at most "
        f"{followed.logit_difference:.2g}.",
    ]
    for name, reading in readings.items():
        apart = reading.agreement
        lines.append(
            f"- Each on its own over the {name} split ({apart.images} images): {apart.equal_predictions:.2%} of the "
            f"labels read the same; logits differ by at most {apart.max_difference:.2g}, in the median image by "
            f"{apart.median_difference:.2g}. Differences come from values on a border between two codes."
        )
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    lines += [
        "- `cosearch check` on this folder verifies the hashes, follows the decisions again on fresh random images, "
        "and estimates the cost again.",
        f"- Versions: {versions}.",
        "",
    ]
    return "\n".join(lines)


def _search(candidate: Candidate, origin: Origin, metrics: Mapping[str, float]) -> str:
    settings = "as in its run file"
    if origin.recipe is not None:
        settings = ", ".join(f"{name} {value}" for name, value in origin.recipe.items()) or "the defaults"
    task = ", ".join(f"{name} {value}" for name, value in origin.task.items())
    rows = [(label(name), quantity(value, unit_of(name))) for name, value in metrics.items()]
    lines = [
        "## Where it comes from",
        "",
        f"Search `{origin.run}`, seed {origin.seed}, pair `{candidate.id}`. Task: {task}. Recipe: {settings}.",
        "",
    ]
    return "\n".join([*lines, "What the search recorded of it:", "", *_table(rows), ""] if rows else lines)


def _estimate(technology: Technology, accelerator: Accelerator) -> str:
    lines = [
        "## How far to trust the estimate",
        "",
        f"Energy and area are `{technology.name}`, {technology.node_nm} nm:",
        "",
        *(f"- {name}: {source}." for name, source in technology.sources.items()),
        "",
        "What its figures were held against, and what it leaves out or assumes:",
        "",
        *(f"- {line}" for line in trust(accelerator)),
        "- The vector unit's lane operations are counted by `cosearch.hardware.vector`; its control is free.",
        "- Area is logic and memories: no controller, wiring, DRAM interface or pads.",
        "- Published constants of one technology differ by factors. Trust rankings more than joules and mm2.",
        "",
    ]
    return "\n".join(lines)


def _files(accelerator: Accelerator) -> str:
    lines = _FILES.splitlines(keepends=True)
    return "".join(line for line in lines if "scalesim" not in line or isinstance(accelerator, SystolicArray))


_FILES = """## Files

| file | what |
|---|---|
| `model.json` | the model's shape, token budgets and bits (`cosearch.spec.ModelSpec`) |
| `weights.safetensors` | weights and learned scales, in floating point |
| `model.onnx` | the model with quantised weights as integer codes; pixels in, logits out |
| `accelerator.json` | the accelerator: spec, and every parameter with its unit |
| `scalesim.cfg`, `topology.csv` | the same for SCALE-Sim v3 (`-i gemm`) |
| `cost.json` | the whole estimate in SI units, per operator |
| `metrics.json` | what the search recorded, accuracy and agreement in full |
| `origin.json` | search, seed, recipe, task, normalisation, versions |
| `manifest.json` | sha256 of each file |
"""
