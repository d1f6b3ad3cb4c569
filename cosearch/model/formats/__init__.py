"""Number formats: how a real value becomes one that hardware can hold.

`quantizer` makes a module for every format of `cosearch.formats`: it rounds to the nearest value that the format has
(``forward``), and says what a memory holds in its place (``codes``, ``decode``). `adaround` learns how to round a
layer's weights from a few images; `lmul_matmul` emulates products whose mantissas are added.
"""

from __future__ import annotations

from cosearch.model.formats.addition import lmul, lmul_matmul, lmul_offset
from cosearch.model.formats.base import Quantizer
from cosearch.model.formats.by_name import quantizer
from cosearch.model.formats.calibration import CALIBRATIONS, Calibration, calibrated_scale
from cosearch.model.formats.cast import CastQuantizer
from cosearch.model.formats.grids import code_range, power_below
from cosearch.model.formats.integer import IntegerQuantizer, codes, fake_quantize, fit_scale
from cosearch.model.formats.mx import MXQuantizer
from cosearch.model.formats.rounding import Rounded, adaround
from cosearch.model.formats.scaled import ScaledQuantizer
from cosearch.model.formats.ternary import pack_ternary, unpack_ternary

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "CastQuantizer",
    "IntegerQuantizer",
    "MXQuantizer",
    "Quantizer",
    "Rounded",
    "ScaledQuantizer",
    "adaround",
    "calibrated_scale",
    "code_range",
    "codes",
    "fake_quantize",
    "fit_scale",
    "lmul",
    "lmul_matmul",
    "lmul_offset",
    "pack_ternary",
    "power_below",
    "quantizer",
    "unpack_ternary",
]
