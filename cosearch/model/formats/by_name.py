"""A quantiser for every number format, by name."""

from __future__ import annotations

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat, number_format
from cosearch.model.formats.base import Quantizer
from cosearch.model.formats.calibration import Calibration
from cosearch.model.formats.cast import CastQuantizer
from cosearch.model.formats.integer import IntegerQuantizer
from cosearch.model.formats.mx import MXQuantizer
from cosearch.model.formats.scaled import ScaledQuantizer

__all__ = ["quantizer"]


def quantizer(
    format: NumberFormat | str,
    *,
    channels: int | None = None,
    learned: bool = True,
    calibration: Calibration = "mse",
    values: int = 1,
    axis: int = -1,
) -> Quantizer:
    """Returns a quantiser of ``format``.

    Args:
        format: a number format or its name (`cosearch.formats`).
        channels: scales, one for each index of the input's first dimension; one for the whole tensor if left out.
        learned: whether scales are parameters; otherwise they stay where calibration puts them.
        calibration: how samples set the scales.
        values: values that share a scale (of one image, for activations); sets the scale of the scales' gradient.
        axis: dimension along which MX blocks run; the reduction dimension of the product that follows.

    Raises:
        NotFoundError: no format has this name.
        SpecError: the calibration is not one for this format, or there are no channels.
    """
    found = number_format(format) if isinstance(format, str) else format
    count = 1 if channels is None else channels
    if count < 1:
        raise SpecError("channels", f"is {channels}", "write at least 1, or leave it out for one scale")
    if found.family == "mx":
        return MXQuantizer(found, axis=axis)
    if found.family == "integer":
        return IntegerQuantizer(
            found.bits, signed=found.signed, channels=count, values=values, learned=learned, calibration=calibration
        )
    if found.family == "float" and found.bits > 8:
        return CastQuantizer(found)
    return ScaledQuantizer(found, channels=count, learned=learned, calibration=calibration, values=values)
