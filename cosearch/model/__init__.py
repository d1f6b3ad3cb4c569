"""Vision transformers in torch: build one from a `ModelSpec`, calibrate its number formats."""

from __future__ import annotations

from cosearch.model.transformer import Block, Linear, PatchStem, VisionTransformer, build_model, calibrate

__all__ = ["Block", "Linear", "PatchStem", "VisionTransformer", "build_model", "calibrate"]
