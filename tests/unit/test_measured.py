"""The measured evaluator: what it times and reports, with a clock of our own where numbers are looked at."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from cosearch_evaluators.measured import Measured, _as_float, _graph

from cosearch.errors import EvaluationError, UserError
from cosearch.evaluator import Context
from cosearch.runfile import load_run_file
from cosearch.session import Silent, begin, reopen, run
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.testing import EvaluatorContract

MODEL = ModelSpec(
    task=TaskShape(image=(8, 8), channels=1, classes=3),
    patch=4,
    dim=8,
    blocks=(BlockSpec(heads=2, mlp_hidden=8, weight_bits=6, activation_bits=8),),
    edge_bits=8,
)
DURATIONS = (0.375, 0.125, 0.625, 0.25, 1.125)  # whole eighths: sums of them are exact


def pairs() -> list[Candidate]:
    accelerators = (AcceleratorSpec.of("systolic", {"rows": rows}) for rows in (4, 8))
    return [Candidate(model=MODEL, accelerator=accelerator) for accelerator in accelerators]


class Clock:
    """Calls take the same five durations over and over."""

    def __init__(self) -> None:
        self._durations, self._now, self._running = itertools.cycle(DURATIONS), 0.0, False

    def __call__(self) -> float:
        self._running = not self._running
        if not self._running:
            self._now += next(self._durations)
        return self._now


class Clocked(Measured):
    def __init__(self, **options: object) -> None:
        super().__init__(runs=5, warm_up=0, **options)  # type: ignore[arg-type]
        self.clock = Clock()


class TestMeasuredKeepsTheContract(EvaluatorContract):
    """But for time itself, which a clock of the test's own stands for."""

    def make(self) -> Measured:
        return Clocked()

    def candidates(self) -> Sequence[Candidate]:
        return pairs()


def test_it_gives_the_median_and_the_interquartile_range():
    values = Clocked(metric="cpu_latency_s").evaluate(pairs()[0], Context(seed=1))
    assert values == {"cpu_latency_s": 0.375, "cpu_latency_iqr_s": 0.375}


def test_a_real_clock_gives_times_above_zero():
    evaluator = Measured(runs=3, warm_up=1, batch=2, threads=2, arithmetic="float")
    assert evaluator.evaluate(pairs()[0], Context(seed=1))["latency_s"] > 0
    assert "2 images on 2 threads" in evaluator.metrics[0].description


def test_int8_multiplies_integers_and_float_does_not():
    def operators(graph: bytes) -> set[str]:
        return {node.op_type for node in onnx.load_from_string(graph).graph.node}

    assert "MatMulInteger" in operators(_graph(_as_float(MODEL), 0, int8=True))
    assert "MatMulInteger" not in operators(_graph(_as_float(MODEL), 0, int8=False))


def test_without_cuda_it_says_what_is_missing(monkeypatch):
    import onnxruntime
    import torch

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EvaluationError, match=r"no CUDA here: onnxruntime .* sees no GPU; install onnxruntime-gpu"):
        Measured(device="cuda").evaluate(pairs()[0], Context(seed=1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"device": "gpu"}, "Known: cpu, cuda"),
        ({"arithmetic": "int4"}, "did you mean 'int8'"),
        ({"device": "cuda", "arithmetic": "int8"}, "write device: cpu"),
        ({"runs": 2}, "at least 3"),
        ({"threads": 0}, "at least 1"),
        ({"batch": True}, "whole number"),
        ({"metric": "latency_ms"}, "ends in _s"),
    ],
)
def test_a_bad_option_is_refused_with_a_way_out(options, text):
    with pytest.raises(UserError, match=text):
        Measured(**options)


def test_a_run_that_goes_on_keeps_what_it_measured(tmp_path: Path):
    (tmp_path / "space.yaml").write_text(
        """
cosearch: space/1
name: one
description: Two tiny models.
model: {template: vit, patch: 4, dim: {choice: [8, 16]}, depth: 1, heads: 2, mlp_ratio: 1, weight_bits: 8,
        activation_bits: 8, edge_bits: 8}
accelerator: {template: systolic, rows: 4, cols: 4, dataflow: ws, ifmap_kib: 4, filter_kib: 4, ofmap_kib: 4,
              dram_bytes_per_s: 1e9, clock_hz: 1e8}
""",
        encoding="utf-8",
    )
    (tmp_path / "run.yaml").write_text(
        """
cosearch: run/1
name: timed
space: space.yaml
task: {name: digits}
evaluators:
  time: {use: "cosearch_evaluators.measured:Measured", options: {runs: 3, warm_up: 0, arithmetic: float}}
objectives: [latency_s]
search: {sampler: random, trainings: 2}
pool: {workers: 0}
mlflow: {enabled: false}
""",
        encoding="utf-8",
    )
    summary = run(begin(load_run_file(tmp_path / "run.yaml"), tmp_path / "runs"), Silent())
    taken = (summary.folder / "evaluations.jsonl").read_text(encoding="utf-8")
    assert {json.loads(line)["metrics"]["latency_s"] > 0 for line in taken.splitlines()} == {True}
    again = run(reopen(summary.folder), Silent())  # another time would not agree with what was told
    assert again.legs["search"].counts.reused == len(taken.splitlines()) == 2
    assert (summary.folder / "evaluations.jsonl").read_text(encoding="utf-8") == taken
