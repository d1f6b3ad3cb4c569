"""Vision transformers in torch: build one from a `ModelSpec`, calibrate its number formats."""

from __future__ import annotations

from cosearch.model.linear import Linear, LowRank
from cosearch.model.stem import PatchStem
from cosearch.model.transformer import Block, VisionTransformer, build_model, calibrate

__all__ = ["Block", "Linear", "LowRank", "PatchStem", "VisionTransformer", "build_model", "calibrate"]
