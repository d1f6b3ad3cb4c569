"""Regressions that a surrogate is made of: boosted trees and a kernel method, as arrays that predict by themselves.

scikit-learn fits the trees; what is kept of them, and of the kernel method, is arrays of numbers. So a surrogate is
saved without pickle, reads the same under any version, and a prediction does not depend on what else is in the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.trees import Trees, trees_of

__all__ = ["Kernel", "KernelShape", "best_shape", "fit_kernel", "fit_trees", "nearest"]

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]

_CHUNK = 1 << 22
"""Differences of features worked on at once."""

_LEAST_RELEVANCE = 0.02
"""Importance, relative to the largest, that a feature is given at least in the kernel."""


def fit_trees(x: Floats, y: Floats, seed: int) -> Trees:
    """Returns trees fitted to rows ``x`` and targets ``y`` of about unit variance."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=300, max_depth=4, learning_rate=0.08, subsample=0.7, max_features=0.4, random_state=seed
    )
    return trees_of(model.fit(x, y))


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShape:
    """What a kernel looks like.

    Attributes:
        length: distance over which values are alike.
        slope: weight of the linear part.
        noise: variance that is not explained.
    """

    length: float
    slope: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernel:
    """Gaussian-process regression with a Matern kernel (nu = 5/2) and a linear one (Rasmussen & Williams 2006).

    Attributes:
        x: learnt rows, columns scaled by relevance, shape (learnt, columns).
        scale: factor of each column, shape (columns,).
        weights: of the learnt rows, shape (learnt,).
        slopes: of the columns, shape (columns,).
        length: of the Matern kernel, shape (1,).
    """

    x: Floats
    scale: Floats
    weights: Floats
    slopes: Floats
    length: Floats

    def predict(self, x: Floats) -> Floats:
        """Returns predictions of rows ``x``, shape (rows,)."""
        scaled = x * self.scale
        out = np.empty(len(x))
        step = max(1, _CHUNK // self.x.size)
        for start in range(0, len(x), step):
            part = scaled[start : start + step]
            similar = _matern(_squares(part, self.x), self.length[0])
            out[start : start + step] = (similar * self.weights).sum(axis=1) + (part * self.slopes).sum(axis=1)
        return out


def _squares(a: Floats, b: Floats) -> Floats:
    """Returns squared distances, shape (rows of a, rows of b); each the same whatever the other rows are."""
    return np.asarray(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))


def _matern(squares: Floats, length: float) -> Floats:
    reach = np.sqrt(5.0 * squares) / length
    return np.asarray((1.0 + reach + reach * reach / 3.0) * np.exp(-reach))


def _relevant(relevance: Floats) -> Floats:
    """Returns factors of columns whose squares are on average 1."""
    factor = np.sqrt(relevance / max(float(relevance.max()), 1e-300) + _LEAST_RELEVANCE)
    return np.asarray(factor / np.sqrt(np.mean(factor**2)))


def _gram(x: Floats, length: float, slope: float) -> Floats:
    inner = x @ x.T
    diagonal = np.diag(inner)
    squares = np.maximum(diagonal[:, None] + diagonal[None, :] - 2.0 * inner, 0.0)
    return np.asarray(_matern(squares, length) + slope * inner)


def best_shape(x: Floats, y: Floats, relevance: Floats) -> KernelShape:
    """Returns the shape with the least squared error when each row is predicted from all others.

    In closed form, by Rasmussen & Williams 2006, equation 5.12, for each shape of a grid.
    """
    scaled = x * _relevant(relevance)
    best, least = KernelShape(length=4.0, slope=0.1, noise=0.1), np.inf
    for length, slope in itertools.product((2.0, 4.0, 8.0, 16.0, 32.0), (0.01, 0.1)):
        values, vectors = np.linalg.eigh(_gram(scaled, length, slope))
        turned, squared = vectors.T @ y, vectors**2
        for noise in (1e-4, 1e-3, 1e-2, 1e-1):
            inverse = 1.0 / (np.maximum(values, 0.0) + noise)
            error = float(np.mean(((vectors @ (inverse * turned)) / (squared @ inverse)) ** 2))
            if error < least:
                best, least = KernelShape(length=length, slope=slope, noise=noise), error
    return best


def fit_kernel(x: Floats, y: Floats, relevance: Floats, shape: KernelShape) -> Kernel:
    """Returns the kernel method fitted to rows ``x`` and targets ``y`` of zero mean."""
    scale = _relevant(relevance)
    scaled = x * scale
    gram = _gram(scaled, shape.length, shape.slope) + shape.noise * np.eye(len(x))
    weights: Floats = np.asarray(np.linalg.solve(gram, y), dtype=np.float64)
    return Kernel(
        x=scaled,
        scale=scale,
        weights=weights,
        slopes=shape.slope * (weights @ scaled),
        length=np.array([shape.length]),
    )


def nearest(x: Floats, learnt: Floats, *, without_self: bool = False) -> Floats:
    """Returns the distance of each row to the nearest learnt one, shape (rows,).

    Args:
        x: rows.
        learnt: rows.
        without_self: whether ``x`` is ``learnt``, and a row's distance to itself does not count.
    """
    out = np.empty(len(x))
    step = max(1, _CHUNK // learnt.size)
    for start in range(0, len(x), step):
        squares = _squares(x[start : start + step], learnt)
        if without_self:
            rows = np.arange(len(squares))
            squares[rows, start + rows] = np.inf
        out[start : start + step] = np.sqrt(squares.min(axis=1))
    return out
