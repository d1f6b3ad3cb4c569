"""The systolic template and its cost model.

- `array`: the template, for one array or many.
- `elements`: what processing elements take for a multiply-accumulate, by number format.
- `prices`: what memories and area cost.
- `folding`: how matrix products fall on the array, and how many cycles that takes.
- `traffic`: what is moved between memory, scratchpads and array.
- `tiling`: the tiles and loop order that fetch the least.
- `attention`: scores, softmax and context in a single pass.
- `mapping`: folds and tiles together.
- `residency`: what stays on the chip between operators and between images.
- `model`: all of it, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.systolic.array import (
    ATTENTIONS,
    DATAFLOWS,
    MAPPINGS,
    OVERLAPS,
    SPARSITIES,
    SystolicArray,
    SystolicArrays,
)

__all__ = ["ATTENTIONS", "DATAFLOWS", "MAPPINGS", "OVERLAPS", "SPARSITIES", "SystolicArray", "SystolicArrays"]
