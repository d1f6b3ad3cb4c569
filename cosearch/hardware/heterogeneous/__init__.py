"""The heterogeneous template: sub-accelerators of different dataflows, and its cost model.

- `asic`: the template.
- `dataflows`: what a matrix product costs on one sub-accelerator.
- `assignment`: the best share of each, exactly.
- `model`: all operators, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.heterogeneous.asic import ASSIGNS, DATAFLOWS, HeterogeneousASIC, Sub
from cosearch.hardware.heterogeneous.assignment import BLOCKS
from cosearch.hardware.heterogeneous.model import heterogeneous_assignment, heterogeneous_ledger

__all__ = [
    "ASSIGNS",
    "BLOCKS",
    "DATAFLOWS",
    "HeterogeneousASIC",
    "Sub",
    "heterogeneous_assignment",
    "heterogeneous_ledger",
]
