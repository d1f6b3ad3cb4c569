"""Boosted trees over bootstraps: the predictor for many rows, and for columns that act by thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.predictors.base import Columns, Link, Prediction, Target, checked, predictive, unfitted, with_fidelity
from cosearch.trees import Trees, trees_of

__all__ = ["BoostedTrees"]

Floats = NDArray[np.float64]

_TREES, _DEPTH, _RATE = 100, 3, 0.08


class BoostedTrees:
    """Gradient-boosted regression trees (Friedman 2001), an ensemble over bootstraps.

    Each member learns from rows drawn with replacement. The mean is the members'; the variance is theirs (what is not
    known) plus that of the rows that a member did not see around its prediction (what a training draws): Breiman 1996,
    "Out-of-bag estimation". Rows with a known noise weigh less.

    scikit-learn grows the trees; what is kept are arrays, so nothing is pickled.

    Args:
        link: how values are seen; ``logit`` for accuracies.
        seed: of bootstraps and trees.
        members: ensembles.
    """

    kind = "boosted_trees"

    def __init__(self, link: Link = "identity", seed: int = 0, members: int = 8) -> None:
        self.link, self.seed, self.members = link, seed, members
        self._target: Target | None = None
        self._columns: Columns | None = None
        self._trees: list[Trees] = []
        self._left_over = 0.0

    def fit(
        self,
        encodings: ArrayLike,
        values: ArrayLike,
        noise: ArrayLike | None = None,
        fidelity: ArrayLike | None = None,
    ) -> None:
        """Learns from rows; see `cosearch.predictors.Predictor`."""
        from sklearn.ensemble import GradientBoostingRegressor

        x, y, known = checked(encodings, values, noise, fidelity)
        target, columns = Target.of(y, self.link), Columns.of(x)
        wanted, rows = target.forward(y), columns.rows
        weights = 1.0 / (1.0 + target.noise(y, known) ** 2)
        rng = np.random.default_rng(self.seed)
        grown, unseen = [], []
        for _ in range(self.members):
            drawn = rng.integers(len(rows), size=len(rows))
            model = GradientBoostingRegressor(
                n_estimators=_TREES,
                max_depth=_DEPTH,
                learning_rate=_RATE,
                subsample=0.8,
                max_features=0.3,
                random_state=int(rng.integers(2**31)),
            ).fit(rows[drawn], wanted[drawn], sample_weight=weights[drawn])
            trees = trees_of(model, nodes=2 ** (_DEPTH + 1) - 1)
            left_out = np.setdiff1d(np.arange(len(rows)), drawn)
            unseen.append((trees.predict(rows[left_out]) - wanted[left_out]) ** 2)
            grown.append(trees)
        self._target, self._columns, self._trees = target, columns, grown
        spread = self._each(rows).var(axis=0).mean()
        every = np.concatenate(unseen)
        # of a single member; the ensemble's own spread is no part of what a training draws
        self._left_over = float(np.sqrt(max(every.mean() - spread, 1e-4))) if len(every) else 1.0

    def predict(self, encodings: ArrayLike, fidelity: ArrayLike | None = None) -> Prediction:
        """Returns what is expected of each row."""
        if self._target is None or self._columns is None:
            raise unfitted()
        x = with_fidelity(encodings, fidelity)
        each = self._each(self._columns.standardised(x))
        std = np.sqrt(each.var(axis=0) + self._left_over**2)
        return predictive(each.mean(axis=0), std, self._target, self._columns.inside(x))

    def _each(self, rows: Floats) -> Floats:
        """Returns every member's prediction, shape (members, rows)."""
        return np.stack([trees.predict(rows) for trees in self._trees])

    def state(self) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
        """Returns all that was learnt."""
        if self._target is None or self._columns is None:
            raise unfitted()
        meta = {
            "link": self.link,
            "seed": self.seed,
            "members": self.members,
            "centre": self._target.centre,
            "spread": self._target.spread,
            "left_over": self._left_over,
        }
        each = [trees.arrays() for trees in self._trees]
        stacked = {f"trees.{name}": np.stack([arrays[name] for arrays in each]) for name in each[0]}
        return {**stacked, **self._columns.state()}, meta

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> BoostedTrees:
        """Returns what `state` gave."""
        found = cls(link=meta["link"], seed=meta["seed"], members=meta["members"])
        found._target = Target(link=meta["link"], centre=meta["centre"], spread=meta["spread"])
        found._columns, found._left_over = Columns.from_state(arrays), meta["left_over"]
        stacked = {name[6:]: array for name, array in arrays.items() if name.startswith("trees.")}
        found._trees = [
            Trees(**{name: array[member] for name, array in stacked.items()}) for member in range(found.members)
        ]
        return found
