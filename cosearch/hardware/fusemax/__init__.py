"""The fused-attention template and its cost model.

- `array`: the template.
- `attention`: cycles and traffic of an attention in its fused forms.
- `model`: all operators, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.fusemax.array import ATTENTIONS, FuseMax
from cosearch.hardware.fusemax.model import fusemax_ledger

__all__ = ["ATTENTIONS", "FuseMax", "fusemax_ledger"]
