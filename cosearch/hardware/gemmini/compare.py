"""Predictions for measured products, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cosearch.errors import SpecError
from cosearch.hardware.gemmini.array import GemminiArray
from cosearch.hardware.gemmini.cycles import gemmini_cycles
from cosearch.hardware.gemmini.timing import FIRESIM, Timing

__all__ = ["GemminiPrediction", "predict_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GemminiPrediction:
    """Cycles of one product; names are those of the measurements' columns.

    Attributes:
        gemmini_default_cycles_median: in tiles as DOSA's mapper chooses them.
        gemmini_auto_cycles_median: in tiles as Gemmini's software chooses them.
    """

    gemmini_default_cycles_median: float
    gemmini_auto_cycles_median: float


def predict_rows(
    rows: Sequence[Mapping[str, object]], array: GemminiArray | None = None, timing: Timing = FIRESIM
) -> tuple[GemminiPrediction, ...]:
    """Returns a prediction for each row, made of nothing but its ``M``, ``K`` and ``N``.

    The data set of the measurements holds 1 x 1 convolutions on square images, and matrix products of transformers and
    of fully connected layers; a row whose M is a square number above 1 is taken for the first.

    Args:
        rows: with fields ``M``, ``K`` and ``N``, numbers or their text; other fields are not looked at.
        array: what they run on; by default that of the measurements.
        timing: of the RTL.

    Raises:
        SpecError: a field is missing or no positive whole number.
    """
    on = array if array is not None else GemminiArray()
    out = []
    for number, row in enumerate(rows):
        m, k, n = (_whole(row, name, number) for name in ("M", "K", "N"))
        operation = "convolution" if m > 1 and math.isqrt(m) ** 2 == m else "matmul"
        default, auto = (
            float(np.ravel(gemmini_cycles(m, k, n, on, mapping, operation, timing))[0])  # type: ignore[arg-type]
            for mapping in ("default", "auto")
        )
        out.append(GemminiPrediction(gemmini_default_cycles_median=default, gemmini_auto_cycles_median=auto))
    return tuple(out)


def _whole(row: Mapping[str, object], name: str, number: int) -> int:
    field = f"rows[{number}].{name}"
    if name not in row:
        raise SpecError(field, "is missing", "give every row M, K and N")
    try:
        value = float(str(row[name]))
    except ValueError:
        value = math.nan
    if not (value >= 1 and value.is_integer()):
        raise SpecError(field, f"is {row[name]!r}", "write a whole number of at least 1")
    return int(value)
