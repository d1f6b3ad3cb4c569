from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cosearch_evaluators.references import AccelForge, ScaleSim, ZigZag

from cosearch.errors import EnvironmentProblem, EvaluationError, NotFoundError
from cosearch.evaluator import Context, Evaluator
from cosearch.references import REFERENCES, Reference, catalogue, matrix_products
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.testing import EvaluatorContract
from cosearch.workload import workload

MODEL = ModelSpec(
    task=TaskShape(image=(32, 32), channels=3, classes=10),
    patch=8,
    dim=32,
    blocks=(BlockSpec(heads=2, mlp_hidden=64, weight_bits=4, activation_bits=8),) * 2,
    edge_bits=8,
)
FIELDS = {"rows": 8, "cols": 8, "ifmap_kib": 32, "filter_kib": 32, "ofmap_kib": 32}

# a driver that says of each product: one cycle a row of it, two of waiting, one joule
STAND_IN = """
import json, sys
given = json.load(sys.stdin)
rows = [job["sizes"]["B"] for job in given["jobs"]] if "jobs" in given else [
    int(line.split(",")[1]) for line in given["topology"].splitlines()[1:]
]
answer = {"sram_bytes": 1, "dram_bytes": 1, "stall_cycles": 2}
if "jobs" in given:
    answer["energy_j"] = 1.0
json.dump([{**answer, "compute_cycles": m} for m in rows], sys.stdout)
"""


def candidate(dataflow: str = "ws", **changes) -> Candidate:
    parameters = {**FIELDS, "dataflow": dataflow, "dram_bytes_per_s": 4e9, "clock_hz": 5e8, **changes}
    return Candidate(model=MODEL, accelerator=AcceleratorSpec.of("systolic", parameters))


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(STAND_IN)
    changed = {}
    for name, tool in REFERENCES.items():
        fields = {"driver": driver, "requirements": (), "python": (3, 11), "quantities": tool.quantities}
        changed[name] = Reference(name=name, version="0", title="a stand-in", blind="all", **fields)
        monkeypatch.setenv(tool.variable, sys.executable)
    monkeypatch.setattr(catalogue, "REFERENCES", changed)


class TestScaleSim(EvaluatorContract):
    def make(self) -> Evaluator:
        return ScaleSim()

    def candidates(self) -> Sequence[Candidate]:
        return [candidate(), candidate("os")]


class TestZigZag(EvaluatorContract):
    def make(self) -> Evaluator:
        return ZigZag()

    def candidates(self) -> Sequence[Candidate]:
        return [candidate(), candidate("os")]


@pytest.mark.parametrize(("kind", "energy"), [(ScaleSim, False), (ZigZag, True)])
def test_latency_is_all_cycles_of_all_products_over_the_clock(kind, energy: bool) -> None:
    products = matrix_products(workload(MODEL))
    values = kind().evaluate(candidate(), Context(seed=1))
    cycles = sum((product.m + 2) * product.count for product in products)
    assert values["latency_s"] == pytest.approx(cycles / 5e8)
    assert values.get("energy_j") == (sum(product.count for product in products) if energy else None)


@pytest.mark.parametrize("kind", [ScaleSim, ZigZag, AccelForge])
def test_it_says_that_it_is_slow_and_sees_matrix_products_only(kind) -> None:
    assert kind.scope == "pair"
    assert kind.cheap is False
    assert all("matrix products only" in metric.description for metric in kind.metrics)


@pytest.mark.parametrize(("kind", "name"), [(ScaleSim, "scalesim"), (ZigZag, "zigzag"), (AccelForge, "accelforge")])
def test_a_missing_tool_is_said_before_the_search_begins(kind, name: str, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv(REFERENCES[name].variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=rf"^{name} is not installed; run: cosearch reference install {name} "):
        kind()


def test_an_unknown_technology_leads_nowhere() -> None:
    with pytest.raises(NotFoundError, match="horowitz"):
        ZigZag(technology="horowitz_45")


def test_an_accelerator_that_cannot_exist_fails_the_candidate_alone() -> None:
    with pytest.raises(EvaluationError, match="rows is 0"):
        ZigZag().evaluate(candidate(rows=0), Context(seed=1))


def test_an_accelerator_of_another_kind_fails_the_candidate_alone() -> None:
    roofline = AcceleratorSpec.of("roofline", {"device": "raspberry_pi_5"})
    with pytest.raises(EvaluationError, match=r"^zigzag knows the 'systolic' template, not 'roofline'$"):
        ZigZag().evaluate(Candidate(model=MODEL, accelerator=roofline), Context(seed=1))


def test_a_model_of_floats_fails_the_candidate_alone() -> None:
    floats = replace(MODEL, blocks=(BlockSpec(heads=2, mlp_hidden=64),))
    with pytest.raises(EvaluationError, match="floating-point operands, but a systolic array multiplies integers"):
        ZigZag().evaluate(Candidate(model=floats, accelerator=candidate().accelerator), Context(seed=1))


def test_a_tool_that_takes_too_long_fails_the_candidate_alone(tmp_path) -> None:
    (tmp_path / "driver.py").write_text("import time\ntime.sleep(60)")
    with pytest.raises(EvaluationError, match="zigzag took longer than 1 s"):
        ZigZag(limit_s=1).evaluate(candidate(), Context(seed=1))
