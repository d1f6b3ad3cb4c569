"""Writes a chosen pair as a bundle, and checks a bundle again."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load, save

from cosearch import __version__
from cosearch.data import Split, Task, load_task
from cosearch.errors import FileError, SpecError, UserError
from cosearch.export._agreement import FollowedAgreement, MismatchError, compare, follow, logits, session
from cosearch.export._card import Origin, Reading, card, wilson_interval
from cosearch.export._files import as_json, check_place, read_files, write_files
from cosearch.export._graph import SMALLEST_SCALE, PixelModel, onnx_graph
from cosearch.hardware import Accelerator, Cost, SystolicArray, build, estimate, scalesim_config, scalesim_topology
from cosearch.hardware import technology as find_technology
from cosearch.model import VisionTransformer, build_model
from cosearch.spec import AcceleratorSpec, Candidate, ModelSpec, from_json, to_json
from cosearch.train import normalised, predictions, weights_from_bytes
from cosearch.words import quantity, unit_of
from cosearch.workload import workload

__all__ = ["Bundle", "CheckReport", "check_bundle", "export_bundle"]

FOLLOWED_IMAGES = 128
"""Validation images on which torch follows every decision of the ONNX graph."""

CHECKED_IMAGES = 33
"""Random images of `check_bundle`: two full batches, and one image alone."""

ACCURACY_GAP = 0.01
"""Accuracy that torch and onnxruntime may differ by; borders between codes leave less (see `metrics.json`)."""

_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")
_UNITS = {"rows": "PEs", "cols": "PEs", "vector_lanes": "operations a cycle", "pe_bits": "bit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: its folder.
        candidate_id: id of the pair.
        test_accuracy: share of the test split's labels that onnxruntime reads right.
        validation_accuracy: likewise of the validation split's.
        cost: as estimated.
        findings: what was measured and checked, a line each, for people.
    """

    path: Path
    candidate_id: str
    test_accuracy: float
    validation_accuracy: float
    cost: Cost
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """A bundle that passed its check.

    Attributes:
        path: its folder.
        candidate_id: id of the pair.
        agreement: how torch and onnxruntime agree on random images.
        findings: what was checked, a line each, for people.
    """

    path: Path
    candidate_id: str
    agreement: FollowedAgreement
    findings: tuple[str, ...]


def export_bundle(
    candidate: Candidate,
    weights: bytes,
    task_config: Mapping[str, Any],
    metrics: Mapping[str, float],
    out: Path,
    *,
    run: str,
    seed: int,
    recipe: Mapping[str, Any] | None = None,
    technology: str = "horowitz_45nm",
    force: bool = False,
) -> Bundle:
    """Writes a pair as a folder: model, accelerator, costs and a card, checked against each other.

    Takes some seconds: the ONNX graph is made, compared with torch decision by decision on the first
    `FOLLOWED_IMAGES` validation images, and both read the whole validation and test splits.

    Args:
        candidate: the pair.
        weights: as `cosearch.train.weights_to_bytes` gives them.
        task_config: the run file's ``task`` section, its path absolute.
        metrics: what the search recorded of the pair.
        out: the folder to make.
        run: name of the search.
        seed: of the search.
        recipe: how the model was trained, as the run file gives it.
        technology: table of energy and area, one of `cosearch.hardware.TECHNOLOGIES`.
        force: replace the bundle that is at ``out``.

    Raises:
        UserError: ``out`` is taken, the weights are another model's, or the accelerator cannot run the model.
        StoreError: ``out`` cannot be written.
        MismatchError: torch and onnxruntime do not compute the same.
    """
    out = Path(out)
    check_place(out, force=force)
    task = load_task(task_config)
    if candidate.model.task != task.shape:
        raise UserError(
            f"the pair was made for {candidate.model.task}, but the task has {task.shape}; name its own task"
        )
    array, prices = build(candidate.accelerator), find_technology(technology)
    cost = estimate(workload(candidate.model), array, prices)
    weights = _settled(candidate.model, weights)
    model = _load(candidate.model, weights)
    graph = onnx_graph(model, task.mean, task.std, _facts(candidate, task))
    pixel_model = PixelModel(model, task.mean, task.std)
    followed = follow(pixel_model, graph, task.validation.images[:FOLLOWED_IMAGES])
    readings = {name: _read(model, graph, task, name) for name in ("validation", "test")}
    origin = Origin(
        run=run,
        seed=seed,
        recipe=None if recipe is None else dict(recipe),
        task=dict(task_config),
        technology=technology,
        mean=task.mean,
        std=task.std,
        classes=task.class_names,
        versions={"cosearch": __version__, "Python": platform.python_version(), **{n: version(n) for n in _PACKAGES}},
    )
    text = card(candidate, workload(candidate.model), array, cost, prices, origin, readings, followed, metrics)
    files = {
        "README.md": text.encode(),
        "metrics.json": as_json(_metrics(metrics, readings, followed)),
        "model.onnx": graph,
        "origin.json": as_json(dataclasses.asdict(origin)),
        "weights.safetensors": weights,
        **_derived(candidate, array, cost),
    }
    write_files(out, files, {"pair": candidate.id, "model": candidate.model.id}, force=force)
    return Bundle(
        path=out,
        candidate_id=candidate.id,
        test_accuracy=readings["test"].onnx,
        validation_accuracy=readings["validation"].onnx,
        cost=cost,
        findings=_findings(readings, followed, cost, metrics),
    )


def check_bundle(path: Path, *, seed: int | None = None) -> CheckReport:
    """Checks a bundle again: hashes, ONNX graph against weights on random images, costs estimated anew.

    Args:
        path: a folder that `export_bundle` wrote.
        seed: of the random images; fresh ones each time if left out.

    Raises:
        FileError: it is no bundle, a file was changed, or a cost comes out otherwise than written.
        MismatchError: ONNX graph and weights do not compute the same.
    """
    path = Path(path)
    manifest, files = read_files(path)
    missing = sorted(
        {"model.json", "accelerator.json", "weights.safetensors", "model.onnx", "origin.json"} - set(files)
    )
    if missing:
        raise FileError(str(path / "manifest.json"), "sha256", f"does not name {missing[0]}", "export the pair again")
    try:
        spec = from_json(ModelSpec, json.loads(files["model.json"]))
        accelerator = from_json(AcceleratorSpec, json.loads(files["accelerator.json"])["spec"])
        origin = json.loads(files["origin.json"])
        array, prices = build(accelerator), find_technology(origin["technology"])
    except (KeyError, ValueError, SpecError) as error:
        raise FileError(
            str(path), "", f"holds a file that makes no sense ({error})", "export the pair again"
        ) from error
    candidate = Candidate(model=spec, accelerator=accelerator)
    cost = estimate(workload(spec), array, prices)
    for name, content in _derived(candidate, array, cost).items():
        if files.get(name) != content:
            raise FileError(
                str(path / name),
                "",
                f"comes out otherwise with cosearch {__version__} (written by {manifest.get('cosearch')})",
                "export the pair again, or check it with the version that wrote it",
            )
    model = PixelModel(_load(spec, files["weights.safetensors"]), origin["mean"], origin["std"])
    shape = (CHECKED_IMAGES, *spec.task.image, spec.task.channels)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    agreement = follow(model, files["model.onnx"], images)
    findings = (
        f"{len(files)} files are as they were written (sha256)",
        _followed_in_words(agreement, "random images"),
        f"costs come out as written: {_cost_in_words(cost)}",
    )
    return CheckReport(path=path, candidate_id=candidate.id, agreement=agreement, findings=findings)


def _load(spec: ModelSpec, weights: bytes) -> VisionTransformer:
    model = build_model(spec)
    weights_from_bytes(model, weights)
    return model.eval()


def _settled(spec: ModelSpec, weights: bytes) -> bytes:
    """Returns weights whose scales are all positive, so that they load as what they act as.

    A scale that training drove to zero or below acts as the smallest one, but a model takes it for one not set yet.

    Raises:
        UserError: they are another model's, or scales were never set.
    """
    weights_from_bytes(build_model(spec), weights)
    tensors = load(weights)
    for name, tensor in tensors.items():
        if name.endswith("quantizer.scale"):
            if not tensor.any():
                raise UserError(f"{name} is not set in these weights; train or calibrate the model before exporting it")
            tensors[name] = tensor.clamp_min(SMALLEST_SCALE)
    return save(tensors)


def _facts(candidate: Candidate, task: Task) -> dict[str, str]:
    """Returns the metadata of the ONNX file."""
    return {
        "classes": json.dumps(task.class_names, ensure_ascii=False),
        "cosearch": __version__,
        "input": "image: uint8 pixels, 0 to 255 (batch, height, width, channels); normalisation is inside",
        "model": candidate.model.id,
        "output": "logits: float32 (batch, labels, classes)",
        "pair": candidate.id,
        "task": task.name,
    }


def _read(model: VisionTransformer, graph: bytes, task: Task, name: str) -> Reading:
    """Returns how well torch and onnxruntime read a split.

    Raises:
        MismatchError: one reads it visibly better than the other.
    """
    split: Split = task.validation if name == "validation" else task.test
    from_torch = predictions(model, normalised(split.images, task)).numpy()
    from_onnx = logits(session(graph), split.images)
    agreement = compare(from_torch, from_onnx, f"the {name} split")
    accuracies = [_share_right(found, split.labels) for found in (from_torch, from_onnx)]
    if abs(accuracies[0] - accuracies[1]) > ACCURACY_GAP + 1 / split.labels.size:
        raise MismatchError(
            f"torch reads {accuracies[0]:.2%} of the {name} split right, onnxruntime {accuracies[1]:.2%}; "
            "the ONNX file is not the model that was trained, please report this with the model's id"
        )
    return Reading(
        images=len(split),
        torch=accuracies[0],
        onnx=accuracies[1],
        interval=wilson_interval(accuracies[1], len(split)),
        agreement=agreement,
    )


def _share_right(found: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(np.mean(found.argmax(axis=2) == labels))


def _derived(candidate: Candidate, accelerator: Accelerator, cost: Cost) -> dict[str, bytes]:
    """Returns the files that follow from the pair alone; SCALE-Sim's are for systolic arrays."""
    parameters = {
        item.name: {"value": getattr(accelerator, item.name), "unit": _unit(item.name)}
        for item in dataclasses.fields(accelerator)
    }
    described = {
        "id": candidate.accelerator.id,
        "spec": to_json(candidate.accelerator),
        "parameters": parameters,
    }
    files = {
        "accelerator.json": as_json(described),
        "cost.json": as_json(dataclasses.asdict(cost)),
        "model.json": as_json(to_json(candidate.model)),
    }
    if isinstance(accelerator, SystolicArray):
        files["scalesim.cfg"] = scalesim_config(accelerator).encode()
        files["topology.csv"] = scalesim_topology(workload(candidate.model)).encode()
    return files


def _unit(parameter: str) -> str:
    return "KiB" if parameter.endswith("_kib") else _UNITS.get(parameter) or unit_of(parameter)


def _metrics(
    metrics: Mapping[str, float], readings: Mapping[str, Reading], followed: FollowedAgreement
) -> dict[str, Any]:
    """Returns the content of ``metrics.json``."""
    return {
        "search": dict(metrics),
        "followed": dataclasses.asdict(followed),
        **{name: dataclasses.asdict(reading) for name, reading in readings.items()},
    }


def _findings(
    readings: Mapping[str, Reading], followed: FollowedAgreement, cost: Cost, metrics: Mapping[str, float]
) -> tuple[str, ...]:
    test, validation = readings["test"], readings["validation"]
    low, high = test.interval
    lines = [
        f"test accuracy {test.onnx:.2%} on {test.images} images that the search never saw "
        f"(95 % interval {low:.2%} to {high:.2%}); torch {test.torch:.2%}",
        f"validation accuracy {validation.onnx:.2%} on {validation.images} images",
        _followed_in_words(followed, "validation images"),
        f"torch and onnxruntime, each on its own, read {test.agreement.equal_predictions:.2%} of test labels the same",
        _cost_in_words(cost),
    ]
    return (*lines, *_surprises(validation, cost, metrics))


def _surprises(validation: Reading, cost: Cost, metrics: Mapping[str, float]) -> Sequence[str]:
    """Returns where the search recorded something else: another evaluator may have measured it, so no error."""
    found = {"accuracy": validation.torch} | {n: getattr(cost, n) for n in ("latency_s", "energy_j", "area_mm2")}
    lines = []
    for name, value in found.items():
        recorded = metrics.get(name, value)
        near = ACCURACY_GAP if name == "accuracy" else 1e-6 * abs(value)
        if not abs(recorded - value) <= near:
            unit = unit_of(name)
            lines.append(
                f"note: the search recorded {name} {quantity(recorded, unit)}, here it is {quantity(value, unit)}"
            )
    return lines


def _followed_in_words(followed: FollowedAgreement, images: str) -> str:
    return (
        f"torch allows each of {followed.decisions:,} decisions of the ONNX graph on {followed.images} {images} "
        f"({followed.borders:,} on a border); logits then differ by at most {followed.logit_difference:.2g}"
    )


def _cost_in_words(cost: Cost) -> str:
    return (
        f"{quantity(cost.latency_s, 's')}, {quantity(cost.energy_j, 'J')} an image, {quantity(cost.area_mm2, 'mm2')} "
        f"({cost.technology})"
    )
