"""Predictors that begin from readings of the candidate itself: a short training, a supernet, another predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.predictors.base import Link, Prediction, Predictor, Target, checked, predictive, unfitted

__all__ = ["Trended"]

Floats = NDArray[np.float64]

_RIDGE = 1.0
"""Penalty on standardised slopes, in units of one row's squared error."""


class Trended:
    """A straight line through the readings first, then a predictor of what it leaves.

    One or two readings that say much are lost among hundreds of columns that say little: as more columns of a Gaussian
    process the accuracy after 30 steps ranked 35 unseen candidates with tau 0.43, through a line 0.55
    (``bench/accuracy/ranking.md`` measures more).

    Args:
        inner: predicts the residuals; its link is ``identity``.
        readings: last columns of the encodings that are readings.
        link: how values are seen.
    """

    kind = "trended"

    def __init__(self, inner: Predictor, readings: int, link: Link = "identity") -> None:
        self.inner, self.readings, self.link = inner, readings, link
        self._target: Target | None = None

    def fit(
        self,
        encodings: ArrayLike,
        values: ArrayLike,
        noise: ArrayLike | None = None,
        fidelity: ArrayLike | None = None,
    ) -> None:
        """Learns from rows; see `cosearch.predictors.Predictor`."""
        x, y, known = checked(encodings, values, noise, fidelity)
        rows, own = self._split(x[:, :-1])
        target = Target.of(y, self.link)
        wanted = target.forward(y)
        self._mean, deviation = own.mean(axis=0), own.std(axis=0)
        self._scale = np.where(deviation > 1e-9, deviation, 1.0)
        table = (own - self._mean) / self._scale
        self._slopes = np.linalg.solve(table.T @ table + _RIDGE * np.eye(self.readings), table.T @ wanted)
        self._target = target
        self.inner.fit(rows, wanted - table @ self._slopes, target.noise(y, known), fidelity)

    def predict(self, encodings: ArrayLike, fidelity: ArrayLike | None = None) -> Prediction:
        """Returns what is expected of each row; inside are those whose other columns are."""
        if self._target is None:
            raise unfitted()
        rows, own = self._split(np.asarray(encodings, dtype=np.float64))
        left = self.inner.predict(rows, fidelity)
        mean = (own - self._mean) / self._scale @ self._slopes + left.mean
        return predictive(mean, left.std, self._target, left.inside)

    def _split(self, x: Floats) -> tuple[Floats, Floats]:
        return x[:, : -self.readings], x[:, -self.readings :]

    def state(self) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
        """Returns all that was learnt."""
        if self._target is None:
            raise unfitted()
        arrays, meta = self.inner.state()
        own = {"trend.mean": self._mean, "trend.scale": self._scale, "trend.slopes": self._slopes}
        head = {
            "link": self.link,
            "readings": self.readings,
            "centre": self._target.centre,
            "spread": self._target.spread,
            "inner": {"kind": self.inner.kind, **meta},
        }
        return {**arrays, **own}, head

    @classmethod
    def from_state(cls, inner: Predictor, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Trended:
        """Returns what `state` gave, ``inner`` read already."""
        found = cls(inner, meta["readings"], meta["link"])
        found._target = Target(link=meta["link"], centre=meta["centre"], spread=meta["spread"])
        found._mean, found._scale, found._slopes = (arrays[f"trend.{name}"] for name in ("mean", "scale", "slopes"))
        return found
