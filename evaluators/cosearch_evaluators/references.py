"""Other people's tools as evaluators: slow, and limited to what they know of an accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from cosearch.errors import EvaluationError, SpecError
from cosearch.evaluator import Context, Metric
from cosearch.hardware import SystolicArray, build
from cosearch.hardware import technology as find_technology
from cosearch.hardware.groups import require_integers
from cosearch.references import interpreter, matrix_products, run
from cosearch.spec import Candidate
from cosearch.workload import workload

__all__ = ["AccelForge", "ScaleSim", "ZigZag"]


def _metrics(tool: str, *, energy: bool) -> tuple[Metric, ...]:
    latency = Metric(
        name="latency_s",
        unit="s",
        direction="min",
        description=f"time for one image by {tool}, matrix products only, one after another",
    )
    joules = Metric(
        name="energy_j",
        unit="J",
        direction="min",
        description=f"energy for one image by {tool}, matrix products only, without leakage",
    )
    return (latency, joules) if energy else (latency,)


class _Tool:
    """Runs a tool on the matrix products of one image; the parts that the tools share.

    Args:
        technology: prices of energy, one of `cosearch.hardware.TECHNOLOGIES`; SCALE-Sim has no use for them.
        limit_s: seconds that the tool may take for one candidate.

    Raises:
        NotFoundError: the technology is unknown.
        EnvironmentProblem: the tool is not there; says what is missing and the command that mends it.
    """

    name: ClassVar[str]
    metrics: tuple[Metric, ...]
    scope: Literal["model", "pair"] = "pair"
    cheap: bool = False

    def __init__(self, technology: str = "horowitz_45nm", limit_s: float = 600.0) -> None:
        self._technology = find_technology(technology)
        self._limit_s = limit_s
        interpreter(self.name)  # a search that cannot run it says so before it begins

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:  # noqa: ARG002 the tool needs none
        """Returns the metrics of one candidate.

        Raises:
            EvaluationError: the accelerator cannot exist, is no systolic array or cannot run the model; or the tool
                failed, or took too long.
        """
        load = workload(candidate.model)
        try:
            array = build(candidate.accelerator)
            require_integers(load, "a systolic array")
        except SpecError as error:
            raise EvaluationError(str(error)) from error
        if not isinstance(array, SystolicArray):
            raise EvaluationError(f"{self.name} knows the 'systolic' template, not {candidate.accelerator.template!r}")
        products = matrix_products(load)
        found = run(self.name, products, array, self._technology, limit_s=self._limit_s)
        cycles = sum(figures["compute_cycles"] + figures["stall_cycles"] for figures in found)
        values = {
            "latency_s": cycles / array.clock_hz,
            "energy_j": sum(figures.get("energy_j", 0.0) for figures in found),
        }
        return {metric.name: float(values[metric.name]) for metric in self.metrics}


class ScaleSim(_Tool):
    """SCALE-Sim 3.0.0, with its own stalls at the array's bandwidth."""

    name = "scalesim"
    metrics = _metrics("SCALE-Sim", energy=False)


class ZigZag(_Tool):
    """zigzag-dse 3.9.1: the fastest loop order of each product."""

    name = "zigzag"
    metrics = _metrics("ZigZag", energy=True)


class AccelForge(_Tool):
    """AccelForge: the fastest mapping of each product."""

    name = "accelforge"
    metrics = _metrics("AccelForge", energy=True)
