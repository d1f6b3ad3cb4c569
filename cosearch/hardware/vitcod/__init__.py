"""The template with denser and sparser engines, and its cost model.

- `engines`: the template.
- `attention`: what an attention with a fixed sparse mask computes and moves.
- `model`: all operators, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.vitcod.engines import ALLOCATIONS, ENCODERS, ENGINES, ViTCoD
from cosearch.hardware.vitcod.model import vitcod_ledger

__all__ = ["ALLOCATIONS", "ENCODERS", "ENGINES", "ViTCoD", "vitcod_ledger"]
