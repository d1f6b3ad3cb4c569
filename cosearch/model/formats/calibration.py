"""Scales from samples, without training.

- ``minmax``: the smallest scale that clips nothing. A power-of-two scale follows INQ (Zhou et al. 2017, section 2.1,
  https://arxiv.org/abs/1702.03044): 2**floor(log2(4 s / 3)) with s the largest magnitude.
- ``percentile``: the same for the `PERCENTILE` of the magnitudes (Wu et al., "Integer Quantization for Deep Learning
  Inference: Principles and Empirical Evaluation", 2020, https://arxiv.org/abs/2004.09602).
- ``mse``: the scale of least mean squared error, of those that clip more and more (Choukroun et al., "Low-bit
  Quantization of Neural Networks for Efficient Inference", 2019, section 3, https://arxiv.org/abs/1902.06822). For
  ternary values this solves by search what TWN (Li & Liu 2016, section 2.2, https://arxiv.org/abs/1605.04711) solves
  by an approximate threshold: given the scale, the best threshold is half of it, which is rounding to the nearest.
- ``absmean``: the mean magnitude, of ternary values alone (BitNet b1.58: Ma et al., "The Era of 1-bit LLMs", 2024,
  section 2, https://arxiv.org/abs/2402.17764).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from cosearch.errors import SpecError
from cosearch.model.formats.grids import Grid, power_below

__all__ = ["CALIBRATIONS", "PERCENTILE", "Calibration", "calibrated_scale", "check_calibration"]

Calibration = Literal["mse", "minmax", "percentile", "absmean"]

CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)

PERCENTILE = 99.9
"""Per cent of the magnitudes that are not clipped (assumption: the lower end of what is customary, since small models
and few images give too few values for a higher one to clip any)."""

_LEAST_REACH = 1e-6
"""Magnitude that all-zero samples are taken to have; that of `cosearch.model.formats.integer`."""

FIT_VALUES = 16384
"""Values that the search looks at for one scale, spread evenly over a larger tensor."""

FIT_STEPS = 48
"""Scales that it tries, evenly spaced up to the one that clips nothing."""

_FIT_POWERS = range(-8, 2)
"""Powers of two that it tries where the scale must be one, relative to that of ``minmax``."""

_QUANTILE_VALUES = 1 << 20
"""Values whose percentile is taken; `torch.quantile` accepts no more than 2**24."""


def check_calibration(method: str, *, ternary: bool) -> None:
    """Raises SpecError if ``method`` is no calibration, or not one for this format."""
    if method not in CALIBRATIONS:
        raise SpecError("calibration", f"is {method!r}", f"write one of {', '.join(CALIBRATIONS)}")
    if method == "absmean" and not ternary:
        raise SpecError("calibration", "is 'absmean', which is for ternary formats", "write 'mse'")


def calibrated_scale(samples: Tensor, grid: Grid, method: Calibration, *, channels: int = 1) -> Tensor:
    """Returns scales, shape (channels,).

    Args:
        samples: values, shape (channels, ...) if there are several channels.
        grid: the values to round to.
        method: as in the module's docstring.
        channels: scales to find.
    """
    with torch.no_grad():
        rows = samples.detach().reshape(channels, -1)
        if method == "absmean":
            return rows.abs().mean(1).clamp_min(_LEAST_REACH)
        scale = _clipping_nothing(_percentile(rows) if method == "percentile" else rows, grid)
        return _least_squares(rows, scale, grid) if method == "mse" else scale


def _clipping_nothing(rows: Tensor, grid: Grid) -> Tensor:
    """Returns the smallest scales that clip nothing, shape (channels,)."""
    reach = (rows.amax(1) / grid.high).clamp_min(_LEAST_REACH)
    if grid.low < 0:
        reach = torch.maximum(reach, rows.amin(1) / grid.low)
    return power_below(reach * (4 / 3)) if grid.power_scales else reach


def _percentile(rows: Tensor) -> Tensor:
    """Returns the rows with their magnitudes clipped at the percentile of these."""
    seen = thinned(rows.abs(), _QUANTILE_VALUES)
    most = torch.quantile(seen, PERCENTILE / 100, dim=1, keepdim=True)
    return torch.maximum(torch.minimum(rows, most), -most)


def _least_squares(rows: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    rows, widest = thinned(rows, FIT_VALUES), scale.unsqueeze(1)
    factors = [2.0**power for power in _FIT_POWERS] if grid.power_scales else _even()
    best, least = widest.clone(), torch.full_like(widest, math.inf)
    for factor in factors:
        steps = widest * factor
        error = grid.nearest(rows / steps).mul_(steps).sub_(rows).square_().sum(1, keepdim=True)
        better = error < least
        best, least = torch.where(better, steps, best), torch.where(better, error, least)
    return best.squeeze(1)


def _even() -> list[float]:
    return [index / FIT_STEPS for index in range(1, FIT_STEPS + 1)]


def thinned(rows: Tensor, most: int) -> Tensor:
    """Returns ``rows``, of shape (rows, values), or values spread evenly over each, of about ``most`` or fewer.

    Every so many-th value is taken, by a prime: a step that shares a factor with a tensor's width would see the same
    few columns over and over (8-bit scales fitted so left a model that reads 0.92 of the labels with 0.43).
    """
    step = rows.shape[1] // most
    return rows if step < _LEAST_STEP / 2 else rows[:, :: _prime_from(max(step, _LEAST_STEP))].contiguous()


_LEAST_STEP = 7
"""Smaller primes divide most widths."""


def _prime_from(least: int) -> int:
    number = least
    while any(number % factor == 0 for factor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
