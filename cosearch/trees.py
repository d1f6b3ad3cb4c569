"""scikit-learn's boosted trees as arrays of numbers: saved without pickle, and read the same under any version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trees", "trees_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trees:
    """Gradient-boosted regression trees (Friedman 2001).

    Attributes:
        feature: column that each node looks at, shape (trees, nodes); leaves look at column 0.
        threshold: left where the column is at most this, likewise; infinite at leaves.
        left: node to go to, likewise; leaves lead to themselves.
        right: likewise.
        value: what a leaf adds, likewise.
        base: what all start from, shape (1,).
        depth: steps from root to leaf, shape (1,).
        relevance: share of the fit that each column has, shape (columns,).
    """

    feature: NDArray[np.int32]
    threshold: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: Floats
    base: Floats
    depth: NDArray[np.int32]
    relevance: Floats

    def predict(self, x: Floats) -> Floats:
        """Returns predictions of rows ``x``, shape (rows,)."""
        narrow = x.astype(np.float32)  # the trees were grown on these
        trees, rows = np.arange(len(self.feature))[None, :], np.arange(len(x))[:, None]
        node = np.zeros((len(x), len(self.feature)), dtype=np.int32)
        for _ in range(int(self.depth[0])):
            goes_left = narrow[rows, self.feature[trees, node]] <= self.threshold[trees, node]
            node = np.where(goes_left, self.left[trees, node], self.right[trees, node])
        return np.asarray(self.base[0] + self.value[trees, node].sum(axis=1))

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Returns its attributes by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def trees_of(model: Any, nodes: int = 0) -> Trees:
    """Returns the trees of a fitted ``GradientBoostingRegressor`` that starts from a constant.

    Args:
        model: fitted.
        nodes: room for nodes in each tree; 0 for as much as the largest needs. Those that a tree lacks are never
            reached.
    """
    grown = [tree.tree_ for tree in model.estimators_[:, 0]]
    shape = (len(grown), nodes or max(tree.node_count for tree in grown))
    feature, left, right = (np.zeros(shape, dtype=np.int32) for _ in range(3))
    threshold, value = np.full(shape, np.inf), np.zeros(shape)
    for row, tree in enumerate(grown):
        count, own = tree.node_count, np.arange(tree.node_count)
        leaf = tree.children_left < 0
        feature[row, :count] = np.where(leaf, 0, tree.feature)
        threshold[row, :count] = np.where(leaf, np.inf, tree.threshold)
        left[row, :count] = np.where(leaf, own, tree.children_left)
        right[row, :count] = np.where(leaf, own, tree.children_right)
        value[row, :count] = np.where(leaf, model.learning_rate * tree.value[:, 0, 0], 0.0)
    return Trees(
        feature=feature,
        threshold=threshold,
        left=left,
        right=right,
        value=value,
        base=np.array([float(np.ravel(model.init_.constant_)[0])]),
        depth=np.array([max(tree.max_depth for tree in grown)], dtype=np.int32),
        relevance=np.asarray(model.feature_importances_, dtype=np.float64),
    )
