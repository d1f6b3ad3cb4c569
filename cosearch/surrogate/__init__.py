"""Fast models of slow evaluators, learnt from what a run has already evaluated.

    surrogate = fit_surrogate(Path("runs/timed"))
    print(surrogate.report.text())
    values, low, high, inside, why = surrogate.predict(candidates)

As in wa-hls4ml (Hawks et al. 2025) and ArchGym (Krishnan et al. 2023), a regression of the numbers that a slow tool
gave stands for it. It knows the range that it was taught, and does not answer outside.
"""

from __future__ import annotations

from cosearch.surrogate.fitting import LEAST_PAIRS, fit_surrogate
from cosearch.surrogate.learnt import COVERAGE, FILE, MetricReport, Prediction, Report, Surrogate
from cosearch.surrogate.pairs import Pairs, read_pairs

__all__ = [
    "COVERAGE",
    "FILE",
    "LEAST_PAIRS",
    "MetricReport",
    "Pairs",
    "Prediction",
    "Report",
    "Surrogate",
    "fit_surrogate",
    "read_pairs",
]
