"""Points that are valid, canonical and never handed out twice: what every sampler here stands on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cosearch.samplers.space import SearchSpace
from cosearch.spec import Point, Scalar

__all__ = ["Fresh", "key"]

DRAWS = 64
"""Random draws that may all be known before the search for a new point turns to the neighbours of known ones."""

SPREAD = 8
"""Draws of which `Fresh.spread` keeps the one farthest from the points before it."""


def key(point: Mapping[str, Scalar]) -> str:
    """Returns a text that only an equal point has."""
    return repr(sorted(point.items()))


class Fresh:
    """Keeps account of the points of a space that were handed out, and finds others.

    Args:
        space: where points come from.
        rng: the only source of randomness.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        self.space, self.rng = space, rng
        self._seen: set[str] = set()
        self._walk: deque[Point] = deque()  # points that may still have new neighbours
        self._units: list[NDArray[np.float64]] = []

    def is_new(self, point: Point) -> bool:
        """Returns whether the canonical ``point`` was not claimed before."""
        return key(point) not in self._seen

    def claim(self, point: Point) -> bool:
        """Marks the valid, canonical ``point`` as handed out; returns False where it already was."""
        name = key(point)
        if name in self._seen:
            return False
        self._seen.add(name)
        self._walk.append(point)
        return True

    def sample(self) -> Point | None:
        """Claims and returns a random new point, or ``None`` when neither draws nor neighbours lead to one."""
        for _ in range(DRAWS):
            point = self.space.canonical(self.space.sample(self.rng))
            if self.claim(point):
                return point
        while self._walk:
            near = [self.space.canonical(other) for other in self.space.neighbours(self._walk[0])]
            for index in self.rng.permutation(len(near)):
                other: Point = near[index]
                if not self.space.violations(other) and self.claim(other):
                    return other
            self._walk.popleft()
        return None

    def spread(self) -> Point | None:
        """Claims and returns a new point far from those that this method gave before (Mitchell 1991, best candidate).

        Distances are taken in the unit cube of all parameters. Unlike a Latin hypercube this keeps the space's
        constraints and needs no number of points in advance.
        """
        best: tuple[float, Point, NDArray[np.float64]] | None = None
        for _ in range(SPREAD):
            point = self.space.canonical(self.space.sample(self.rng))
            unit = self._unit(point)
            away = min((float(np.abs(unit - other).sum()) for other in self._units), default=1.0)
            if self.is_new(point) and (best is None or away > best[0]):
                best = (away, point, unit)
        if best is None:
            return self.sample()
        self.claim(best[1])
        self._units.append(best[2])
        return best[1]

    def _unit(self, point: Point) -> NDArray[np.float64]:
        # a parameter that does not exist in this point stands in the middle of its scale
        return np.array([p.domain.to_unit(point[p.name]) if p.name in point else 0.5 for p in self.space.parameters])

    def repaired(self, point: Mapping[str, Scalar]) -> Point:
        """Returns a valid canonical point that keeps as much of ``point`` as a random valid one can take over.

        Starting from a random valid point, each parameter's value is carried over, in random order, unless that would
        break a constraint.

        Args:
            point: a value for every parameter, whether it exists under the others' conditions or not.
        """
        if not self.space.violations(point):
            return self.space.canonical(point)
        valid = {**point, **self.space.sample(self.rng)}
        names = list(point)
        for index in self.rng.permutation(len(names)):
            tried = {**valid, names[index]: point[names[index]]}
            if not self.space.violations(tried):
                valid = tried
        return self.space.canonical(valid)
