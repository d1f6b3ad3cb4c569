"""Uniform random points: the baseline that every other sampler has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosearch.samplers.fresh import Fresh
from cosearch.samplers.space import SearchSpace
from cosearch.spec import Point, Result

__all__ = ["RandomSampler"]


class RandomSampler:
    """Draws points at random, none of them twice, and learns nothing.

    Args:
        space: where points come from.
        objectives: number of objectives, which does not matter here.
        seed: the same seed gives the same points.
    """

    def __init__(self, space: SearchSpace, objectives: int, seed: int) -> None:  # noqa: ARG002 - the factory's signature
        self._fresh = Fresh(space, np.random.default_rng(seed))

    def ask(self, n: int) -> Sequence[Point]:
        """Returns up to ``n`` new points; fewer, and in the end none, when the space is exhausted."""
        points = (self._fresh.sample() for _ in range(n))
        return [point for point in points if point is not None]

    def tell(self, results: Sequence[Result]) -> None:
        """Takes note of nothing."""
