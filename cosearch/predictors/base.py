"""What all predictors share: the protocol, targets, columns that are comparable, and the range that was learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.errors import UserError

__all__ = ["Columns", "Link", "Prediction", "Predictor", "Target", "checked"]

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]
Link = Literal["identity", "logit", "log"]

LEAST = 5
"""Rows below which nothing is fitted."""

REACH = 1.5
"""How many times farther from what was learnt a row may lie than learnt rows lie from each other (assumption)."""

_EDGE = 1e-3
"""Accuracies are kept this far from 0 and 1 before the logit: about half an image in the smallest embedded split."""


class Prediction(NamedTuple):
    """What a predictor says; arrays of shape (rows,).

    Attributes:
        mean: in the target's unit.
        std: standard deviation of what a new training of the model would give, likewise.
        inside: whether the row lies inside the range that was learnt. Outside, mean and std are not to be trusted.
    """

    mean: Floats
    std: Floats
    inside: NDArray[np.bool_]


class Predictor(Protocol):
    """Learns from encodings and values; deterministic for its seed.

    A short training is a row as well: ``fidelity`` is the share of the full steps that it made, which becomes a column
    (log2), so that short trainings inform predictions at 1. Left out, all are 1.

    Attributes:
        kind: its name in files.
    """

    kind: str

    def fit(
        self,
        encodings: ArrayLike,
        values: ArrayLike,
        noise: ArrayLike | None = None,
        fidelity: ArrayLike | None = None,
    ) -> None:
        """Learns from rows.

        Args:
            encodings: shape (rows, columns); those of `cosearch.predictors.encode`, or any other features.
            values: shape (rows,).
            noise: standard deviation of each value, where it is known; shape (rows,).
            fidelity: share of the full training, above 0; shape (rows,).

        Raises:
            UserError: there are too few rows, or shapes do not fit, or a number is not finite.
        """
        ...

    def predict(self, encodings: ArrayLike, fidelity: ArrayLike | None = None) -> Prediction:
        """Returns what is expected of each row."""
        ...

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns all that was learnt: arrays, and what fits in JSON."""
        ...


def checked(
    encodings: ArrayLike, values: ArrayLike, noise: ArrayLike | None, fidelity: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Returns rows with the column of fidelity, values, and the noise of each (0 where it is not known).

    Raises:
        UserError: as `Predictor.fit`.
    """
    x, y = with_fidelity(encodings, fidelity), np.asarray(values, dtype=np.float64)
    if y.shape != (len(x),):
        raise UserError(f"there are {len(x)} encodings, but values of shape {y.shape}; give one value a row")
    if len(x) < LEAST:
        raise UserError(f"there are {len(x)} rows to learn from, fewer than {LEAST}; evaluate more first")
    known = np.zeros(len(x)) if noise is None else np.asarray(noise, dtype=np.float64)
    if known.shape != y.shape or (known < 0).any():
        raise UserError(
            f"noise has shape {known.shape} for {len(y)} values; give one standard deviation, 0 or more, each"
        )
    for name, array in (("encodings", x), ("values", y), ("noise", known)):
        if not np.isfinite(array).all():
            raise UserError(f"{name} hold a number that is not finite; leave out failed candidates")
    return x, y, known


def with_fidelity(encodings: ArrayLike, fidelity: ArrayLike | None) -> Floats:
    """Returns encodings with a last column, log2 of the share of the full training."""
    x = np.asarray(encodings, dtype=np.float64)
    if x.ndim != 2:
        raise UserError(f"encodings have shape {x.shape}; give rows of columns")
    share = np.ones(len(x)) if fidelity is None else np.asarray(fidelity, dtype=np.float64)
    if share.shape != (len(x),) or not (share > 0).all():
        raise UserError(f"fidelity has shape {share.shape} for {len(x)} rows; give one share above 0 each")
    return np.concatenate([x, np.log2(share)[:, None]], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How values are seen by a regression: linked, of mean 0 and deviation 1.

    Attributes:
        link: ``logit`` for accuracies: differences near 1 count as much as they mean; ``log`` for costs.
        centre: mean of linked values.
        spread: their deviation.
    """

    link: Link
    centre: float
    spread: float

    @classmethod
    def of(cls, values: Floats, link: Link) -> Target:
        """Returns the target that ``values`` teach.

        Raises:
            UserError: they do not suit the link.
        """
        if link == "log" and not (values > 0).all():
            raise UserError(f"values reach {values.min():g}, but a logarithm needs them above 0; use link 'identity'")
        if link == "logit" and not ((values >= 0) & (values <= 1)).all():
            raise UserError(
                f"values reach from {values.min():g} to {values.max():g}, but a logit needs shares of 0 to 1; "
                "use link 'identity'"
            )
        linked = _linked(values, link)
        return cls(link=link, centre=float(linked.mean()), spread=max(float(linked.std()), 1e-9))

    def forward(self, values: Floats) -> Floats:
        """Returns standardised values."""
        return np.asarray((_linked(values, self.link) - self.centre) / self.spread)

    def noise(self, values: Floats, noise: Floats) -> Floats:
        """Returns standard deviations of ``values`` as the regression sees them, by the link's slope."""
        return np.asarray(noise * _slope(values, self.link) / self.spread)

    def back(self, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Returns means and standard deviations in the target's unit, by the link's slope."""
        linked = self.centre + self.spread * mean
        if self.link == "logit":
            value = 1.0 / (1.0 + np.exp(-np.clip(linked, -30, 30)))
        else:
            value = np.exp(np.clip(linked, -300, 300)) if self.link == "log" else linked
        return value, self.spread * std / _slope(value, self.link)


def _linked(values: Floats, link: Link) -> Floats:
    if link == "logit":
        inner = np.clip(values, _EDGE, 1 - _EDGE)
        return np.asarray(np.log(inner / (1 - inner)))
    return np.log(values) if link == "log" else values


def _slope(values: Floats, link: Link) -> Floats:
    if link == "logit":
        inner = np.clip(values, _EDGE, 1 - _EDGE)
        return np.asarray(1.0 / (inner * (1 - inner)))
    return 1.0 / values if link == "log" else np.ones_like(values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Columns of mean 0 and deviation 1, without those that never change, and the range that was learnt.

    A row is inside the range when its columns that never changed are as they were, and when its distance to the
    nearest learnt row is at most `REACH` times the largest distance that a learnt row has to its nearest.

    Attributes:
        moving: which columns change.
        mean: of every column.
        scale: deviation of every column, 1 where it never changes.
        rows: learnt rows, standardised, shape (rows, moving columns).
        reach: distance up to which a row is inside.
    """

    moving: NDArray[np.bool_]
    mean: Floats
    scale: Floats
    rows: Floats
    reach: float

    @classmethod
    def of(cls, x: Floats) -> Columns:
        """Returns what rows ``x``, shape (rows, columns), teach."""
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        moving = deviation > 1e-9 * np.maximum(1.0, np.abs(mean))
        scale = np.where(moving, deviation, 1.0)
        rows = np.ascontiguousarray(((x - mean) / scale)[:, moving])
        apart = np.sqrt(squares(rows, rows))
        np.fill_diagonal(apart, np.inf)
        apart[apart < 1e-9] = np.inf  # twins, such as short and full trainings of one model under one share
        nearest = apart.min(axis=1)
        reach = REACH * float(nearest[np.isfinite(nearest)].max(initial=0.0))
        return cls(moving=moving, mean=mean, scale=scale, rows=rows, reach=reach)

    def standardised(self, x: Floats) -> Floats:
        """Returns the columns that change, shape (rows, moving columns)."""
        self.check(x)
        return np.ascontiguousarray(((x - self.mean) / self.scale)[:, self.moving])

    def inside(self, x: Floats) -> NDArray[np.bool_]:
        """Returns for each row whether it lies inside the range that was learnt."""
        self.check(x)
        still = ~self.moving
        same = (np.abs(x - self.mean)[:, still] <= 1e-6 * np.maximum(1.0, np.abs(self.mean[still]))).all(axis=1)
        near = np.sqrt(squares(self.standardised(x), self.rows).min(axis=1)) <= self.reach + 1e-9
        return np.asarray(same & near)

    def check(self, x: Floats) -> None:
        """Raises `UserError` where rows have other columns than those learnt."""
        if x.shape[1] != len(self.mean):
            raise UserError(
                f"encodings have {x.shape[1] - 1} columns, but {len(self.mean) - 1} were learnt; "
                "encode with the version that the predictor was fitted with, or fit it again"
            )

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns all of it as arrays."""
        return {
            "columns.moving": self.moving,
            "columns.mean": self.mean,
            "columns.scale": self.scale,
            "columns.rows": self.rows,
            "columns.reach": np.array([self.reach]),
        }

    @classmethod
    def from_state(cls, arrays: Arrays) -> Columns:
        """Returns what `state` gave."""
        parts = {name: arrays[f"columns.{name}"] for name in ("moving", "mean", "scale", "rows")}
        return cls(reach=float(arrays["columns.reach"][0]), **parts)


def squares(a: Floats, b: Floats) -> Floats:
    """Returns squared Euclidean distances, shape (rows of a, rows of b)."""
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T, 0.0))


def predictive(mean: Floats, std: Floats, target: Target, inside: NDArray[np.bool_]) -> Prediction:
    """Returns a prediction from standardised mean and deviation."""
    value, deviation = target.back(mean, std)
    return Prediction(mean=value, std=deviation, inside=inside)


def unfitted() -> UserError:
    """Returns the error for a predictor that has learnt nothing."""
    return UserError("the predictor has learnt nothing yet; call fit first")
