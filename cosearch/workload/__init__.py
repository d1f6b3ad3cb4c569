"""What a model asks of hardware: every operator that runs, with shapes and operand widths.

`workload` is a pure function of the `ModelSpec`; nothing on the hardware side knows more of a model than what it
returns. Multiply-accumulates agree with ``torch.utils.flop_counter`` on the built module (``tests/property``).
"""

from __future__ import annotations

from cosearch.workload._data import RESIDUAL_BITS, Operator, OperatorKind, Tensor, Workload, format_of, stored_bits
from cosearch.workload._formats import with_formats
from cosearch.workload._model import workload

__all__ = [
    "RESIDUAL_BITS",
    "Operator",
    "OperatorKind",
    "Tensor",
    "Workload",
    "format_of",
    "stored_bits",
    "with_formats",
    "workload",
]
