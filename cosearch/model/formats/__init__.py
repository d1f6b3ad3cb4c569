"""Number formats: how a real value becomes one that hardware can hold."""

from __future__ import annotations

from cosearch.model.formats.integer import IntegerQuantizer, code_range, codes, fake_quantize, fit_scale

__all__ = ["IntegerQuantizer", "code_range", "codes", "fake_quantize", "fit_scale"]
