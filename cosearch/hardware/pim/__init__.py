"""The processing-in-memory template: crossbars for weights, and an engine or crossbars for attention.

- `macro`: the template.
- `isaac`: what the parts of a crossbar tile cost.
- `mapping`: which weights stay, and what products take.
- `model`: all operators, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.pim.macro import ATTENTIONS, PIM, adc_bits_needed
from cosearch.hardware.pim.model import pim_ledger

__all__ = ["ATTENTIONS", "PIM", "adc_bits_needed", "pim_ledger"]
