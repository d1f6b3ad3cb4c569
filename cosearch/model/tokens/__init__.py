"""Token reduction: functions on tensors, and the modules that blocks hold."""

from __future__ import annotations

from cosearch.model.tokens._methods import cluster, contributions, detailed, hired, match, merge, prune
from cosearch.model.tokens._modules import Reduction, make_reduction
from cosearch.model.tokens._rows import Stream, best_first, class_scores, rows

__all__ = [
    "Reduction",
    "Stream",
    "best_first",
    "class_scores",
    "cluster",
    "contributions",
    "detailed",
    "hired",
    "make_reduction",
    "match",
    "merge",
    "prune",
    "rows",
]
