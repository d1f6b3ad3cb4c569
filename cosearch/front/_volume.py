"""The volume that a front dominates, and the box that it is measured in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike

from cosearch.errors import UserError, did_you_mean
from cosearch.front._dominance import Front, Member, Objective, Points, minimised_points, non_dominated

__all__ = ["MARGIN", "FrontBuilder", "Scale", "hypervolume"]

MARGIN = 0.1
"""By how much of the box's side the reference lies beyond the worst point, so that the extremes count as well
(Ishibuchi et al. 2018, "How to specify a reference point in hypervolume calculation", section 3)."""


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Returns the volume that ``points`` dominate, up to ``reference``.

    Exact, by the algorithms of moocore: Fonseca, Paquete & López-Ibáñez 2006 (2-D, 3-D), Guerreiro & Fonseca 2018
    (4-D), recursion above that. Points that do not lie below the reference in every objective count nothing.

    Args:
        points: shape (points, objectives), all minimised; may be empty.
        reference: shape (objectives,).
    """
    corner = np.asarray(reference, dtype=np.float64)
    inside = np.asarray(points, dtype=np.float64).reshape(-1, len(corner))
    inside = inside[(inside < corner).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A box in objective space, and how to measure inside it.

    Attributes:
        ideal: the box's best corner, minimised, in the metrics' units.
        reference: its worst corner, likewise; what lies beyond counts nothing.
        log: for each objective, whether it is measured by its decimal logarithm.
    """

    ideal: tuple[float, ...]
    reference: tuple[float, ...]
    log: tuple[bool, ...]

    @classmethod
    def of_points(
        cls,
        objectives: Sequence[Objective],
        points: ArrayLike,
        bounds: Mapping[str, tuple[float, float]] | None = None,
    ) -> Scale:
        """Returns the box of a running search: around ``points``, with the known ``bounds`` taking precedence.

        Args:
            objectives: what is traded off.
            points: minimised, shape (points, objectives), at least one; costs need no training, so a few hundred
                random pairs give a good box before anything is trained.
            bounds: best and worst value of a metric, in the metric's own unit and direction, such as
                ``{"accuracy": (1.0, 0.0), "area_mm2": (0.1, 4.0)}``; a limit of the run file is a good worst value.

        Raises:
            UserError: a bound names no objective, or its best is not better than its worst.
        """
        known = dict(bounds or {})
        for name in known:
            if name not in {o.metric for o in objectives}:
                raise UserError(f"bound {name!r} is no objective; {did_you_mean(name, [o.metric for o in objectives])}")
        rows = np.asarray(points, dtype=np.float64).reshape(-1, len(objectives))
        return cls._around(objectives, rows, rows, known)

    @classmethod
    def of_fronts(cls, objectives: Sequence[Objective], *fronts: ArrayLike) -> Scale:
        """Returns the one box in which several fronts compare: around the front of their union.

        Args:
            objectives: what is traded off.
            *fronts: minimised points of each front, shape (members, objectives); one of them may be empty, not all.
        """
        union = np.concatenate([np.asarray(f, dtype=np.float64).reshape(-1, len(objectives)) for f in fronts])
        best = union[moocore.is_nondominated(union)] if len(union) else union
        return cls._around(objectives, union, best, {})

    @classmethod
    def _around(
        cls, objectives: Sequence[Objective], best: Points, worst: Points, bounds: Mapping[str, tuple[float, float]]
    ) -> Scale:
        if not len(best) and len(bounds) < len(objectives):
            raise UserError("no point was scored, so there is no box to measure in; give bounds for every objective")
        ideal, reference, log = [], [], []
        for column, objective in enumerate(objectives):
            if objective.metric in bounds:
                low, high = (objective.minimised(v) for v in bounds[objective.metric])
                if not low < high:
                    raise UserError(
                        f"bound {objective.metric}: best {bounds[objective.metric][0]} is not better than worst "
                        f"{bounds[objective.metric][1]} where {objective.direction} is wanted; swap them"
                    )
                margin = 0.0
            else:
                low, high, margin = float(best[:, column].min()), float(worst[:, column].max()), MARGIN
            logarithmic = objective.direction == "min" and low > 0
            at, to = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
            # a side without length gets one decade or one unit
            to = to + margin * (to - at) if to > at else at + 1.0
            ideal.append(low)
            reference.append(10.0**to if logarithmic else to)
            log.append(logarithmic)
        return cls(tuple(ideal), tuple(reference), tuple(log))

    def unit(self, points: ArrayLike) -> Points:
        """Returns ``points`` (minimised) with the ideal at 0 and the reference at 1, shape (points, objectives).

        A cost of zero or less, which has no logarithm, is put at the ideal.
        """
        rows = np.array(points, dtype=np.float64).reshape(-1, len(self.ideal))
        ideal, reference, log = np.array(self.ideal), np.array(self.reference), np.array(self.log)
        rows = np.where(log & (rows <= 0), ideal, rows)
        for column in np.flatnonzero(log):
            rows[:, column] = np.log10(rows[:, column])
            ideal[column], reference[column] = np.log10(ideal[column]), np.log10(reference[column])
        scaled: Points = (rows - ideal) / (reference - ideal)
        return scaled

    def hypervolume(self, points: ArrayLike) -> float:
        """Returns the hypervolume of minimised ``points`` in units of the box: 1 for a point at its ideal."""
        return hypervolume(self.unit(points), np.ones(len(self.ideal)))


class FrontBuilder:
    """A front that grows batch by batch, with its hypervolume in a box that never moves.

    Adding 11,000 members in batches of 256 takes milliseconds a batch, the hypervolume included. The front does not
    depend on how the members were split into batches.

    Args:
        objectives: what is traded off.
        bounds: known best and worst values, as in `Scale.of_points`; the first batch gives the others.
    """

    def __init__(
        self, objectives: Sequence[Objective], bounds: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.objectives = tuple(objectives)
        self._bounds = bounds
        self._scale: Scale | None = None
        self._points: Points = np.empty((0, len(self.objectives)))
        self._members: tuple[Member, ...] = ()
        self._ids: tuple[str, ...] = ()

    def add(self, members: Iterable[Member]) -> int:
        """Takes more members, dominated ones among them.

        Returns:
            How many of them are on the front now.

        Raises:
            UserError: a member lacks an objective's metric, or it is not a finite number.
        """
        batch = tuple(members)
        if not batch:
            return 0
        points = minimised_points(self.objectives, batch)
        if self._scale is None:
            self._scale = Scale.of_points(self.objectives, points, self._bounds)
        # an id costs more than a comparison, so only what is not dominated within the batch gets one
        own = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=True))
        merged = np.concatenate([self._points, points[own]])
        all_members = self._members + tuple(batch[i] for i in own)
        ids = self._ids + tuple(batch[i].candidate.id for i in own)
        keep, old = non_dominated(merged, ids), len(self._ids)
        self._points = merged[keep]
        self._members, self._ids = tuple(all_members[i] for i in keep), tuple(ids[i] for i in keep)
        return sum(i >= old for i in keep)

    @property
    def front(self) -> Front:
        """The front so far, equal to `Front.of` everything that was added."""
        return Front(self.objectives, self._members)

    @property
    def points(self) -> Points:
        """The minimised points on the front, shape (members, objectives), in the members' order."""
        return self._points

    @property
    def scale(self) -> Scale | None:
        """The box, or ``None`` before anything was added."""
        return self._scale

    @property
    def hypervolume(self) -> float:
        """The front's hypervolume in the box; 0 before anything was added."""
        return self._scale.hypervolume(self._points) if self._scale else 0.0

    def __len__(self) -> int:
        return len(self._members)
