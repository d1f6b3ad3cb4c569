"""How much a number format disturbs what is written in it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosearch.formats import NumberFormat

__all__ = ["relative_error"]

Floats = NDArray[np.float64]

_SAMPLES = 2048
"""Values of the distribution that the error is taken over, at evenly spaced quantiles."""

_SCALES = 2.0 ** np.linspace(-6.0, 2.0, 65)
"""Scales tried, as multiples of the largest value's."""


@lru_cache(maxsize=256)
def relative_error(form: NumberFormat) -> float:
    """Returns the root mean square error of a standard normal value in ``form``, at the best scale; 0 to 1.

    It is what calibration by least squares (`cosearch.model.calibrate`) reaches on normally distributed values, the
    problem of Max 1960, "Quantizing for minimum distortion". An unsigned format sees the values' magnitude. Formats of
    more than 8 bits with an exponent are not listed value by value: theirs is the error of rounding a mantissa that is
    uniform over a unit in the last place, relative to a mantissa of 1.5 (assumption; it is below 0.002).
    """
    quantiles = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    values = _normal_quantiles(quantiles)
    values = np.abs(values) if not form.signed else values
    grid = _grid(form)
    if grid is None:
        return float(2.0**-form.mantissa_bits / np.sqrt(12.0) / 1.5)
    top = float(np.abs(grid).max())
    best = np.inf
    for factor in _SCALES:
        scale = factor * float(np.abs(values).max()) / top
        if form.family in ("float", "mx"):
            scale = 2.0 ** np.round(np.log2(scale))  # exponents move by whole steps
        best = min(best, float(np.mean((_nearest(values / scale, grid) * scale - values) ** 2)))
    return float(min(1.0, np.sqrt(best / np.mean(values**2))))


def _grid(form: NumberFormat) -> Floats | None:
    """Returns all values of a format in ascending order; None where there are too many to matter."""
    if form.family in ("integer",) or (form.family == "mx" and not form.exponent_bits):
        low = -(2 ** (form.bits - 1)) if form.signed else 0
        return np.arange(low, low + 2**form.bits, dtype=np.float64)
    if form.family == "ternary":
        return np.array([-1.0, 0.0, 1.0])
    if form.family == "power_of_two":
        powers = 2.0 ** -np.arange(form.max_shift + 1, dtype=np.float64)
        return np.unique(np.concatenate([-powers, [0.0], powers]))
    if form.bits > 8:
        return None
    bias = 2 ** (form.exponent_bits - 1) - 1
    exponents, fractions = np.arange(2**form.exponent_bits), np.arange(2**form.mantissa_bits) * 2.0**-form.mantissa_bits
    normal = (1.0 + fractions)[None, :] * 2.0 ** (exponents[1:] - bias)[:, None]
    below = fractions * 2.0 ** (1 - bias)
    every = np.concatenate([below, normal.ravel()])
    every = every[every <= form.max_value]
    return np.unique(np.concatenate([-every, every]))


def _nearest(values: Floats, grid: Floats) -> Floats:
    place = np.clip(np.searchsorted(grid, values), 1, len(grid) - 1)
    below, above = grid[place - 1], grid[place]
    return np.where(values - below <= above - values, below, above)


def _normal_quantiles(shares: Floats) -> Floats:
    from scipy.special import ndtri

    return np.asarray(ndtri(shares), dtype=np.float64)
