"""The Gemmini template and its cost model.

- `array`: the template, for one accelerator or many.
- `tiling`: how a product is cut into tiles.
- `timing`: what a product takes in given tiles.
- `cycles`: both together, for many products on many accelerators.
- `compare`: predictions for measured products.
- `model`: a workload's costs, as the rows of a ledger.
"""

from __future__ import annotations

from cosearch.hardware.gemmini.array import GEMMINI_DATAFLOWS, GemminiArray, GemminiArrays
from cosearch.hardware.gemmini.compare import GemminiPrediction, predict_rows
from cosearch.hardware.gemmini.cycles import GEMMINI_MAPPINGS, GEMMINI_OPERATIONS, gemmini_cycles, gemmini_tiles

__all__ = [
    "GEMMINI_DATAFLOWS",
    "GEMMINI_MAPPINGS",
    "GEMMINI_OPERATIONS",
    "GemminiArray",
    "GemminiArrays",
    "GemminiPrediction",
    "gemmini_cycles",
    "gemmini_tiles",
    "predict_rows",
]
