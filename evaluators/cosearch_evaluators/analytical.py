"""Hardware cost by the analytical model of the accelerator's template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import EvaluationError, SpecError
from cosearch.evaluator import Context, Metric
from cosearch.hardware import build, estimate_batch, fits
from cosearch.hardware import technology as find_technology
from cosearch.spec import AcceleratorSpec, Candidate, ModelSpec, Violation
from cosearch.workload import workload

__all__ = ["Analytical"]


class Analytical:
    """Latency, energy, area and traffic of one image on an accelerator of any template.

    `cosearch.hardware.trust` says what each template's figures were held against.

    Args:
        technology: prices of energy and area, one of `cosearch.hardware.TECHNOLOGIES`.

    Raises:
        NotFoundError: the technology is unknown.
    """

    metrics: tuple[Metric, ...] = (
        Metric(name="latency_s", unit="s", direction="min", description="time for one image, stalls included"),
        Metric(
            name="energy_j", unit="J", direction="min", description="energy for one image, DRAM and leakage included"
        ),
        Metric(
            name="area_mm2", unit="mm2", direction="min", description="area of logic and memories; 0 of a bought device"
        ),
        Metric(name="power_w", unit="W", direction="min", description="energy over latency"),
        Metric(name="dram_bytes", unit="B", direction="min", description="bytes to and from DRAM for one image"),
        Metric(name="peak_onchip_bytes", unit="B", direction="min", description="most bytes on the chip at once"),
        Metric(name="utilisation", unit="", direction="max", description="share of multiplier-cycles that do work"),
        Metric(name="edp_js", unit="J s", direction="min", description="energy times latency"),
    )
    scope: Literal["model", "pair"] = "pair"
    cheap: bool = True

    def __init__(self, technology: str = "horowitz_45nm") -> None:
        self._technology = find_technology(technology)

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:  # noqa: ARG002 the cost needs none
        """Returns the metrics of one candidate.

        Raises:
            EvaluationError: the accelerator cannot exist, or cannot run the model (floating-point operands, say, or
                a device that is too small).
        """
        values = self.evaluate_batch(candidate.model, [candidate.accelerator])
        return {name: float(column[0]) for name, column in values.items()}

    def violations(self, candidate: Candidate) -> Sequence[Violation]:
        """Returns which resources of a device the pair needs more of than there are.

        Raises:
            SpecError: the accelerator cannot exist, or cannot run the model.
        """
        return fits(workload(candidate.model), build(candidate.accelerator))

    def evaluate_batch(
        self, model: ModelSpec, accelerators: Sequence[AcceleratorSpec]
    ) -> Mapping[str, NDArray[np.float64]]:
        """Returns, for each metric, an array of shape (accelerators,).

        Raises:
            EvaluationError: as `evaluate`, for any of the accelerators.
        """
        try:
            cost = estimate_batch(workload(model), [build(spec) for spec in accelerators], self._technology)
        except SpecError as error:
            raise EvaluationError(str(error)) from error
        values = {metric.name: getattr(cost, metric.name) for metric in self.metrics if metric.name != "edp_js"}
        return values | {"edp_js": cost.energy_j * cost.latency_s}
