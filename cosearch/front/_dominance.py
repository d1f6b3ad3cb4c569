"""Objectives, members, and which of them no other dominates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.errors import UserError
from cosearch.spec import Candidate

__all__ = ["Front", "Member", "Objective", "Points", "minimised_points", "non_dominated"]

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric that the search pushes one way.

    Attributes:
        metric: the metric's name, such as ``latency_s``.
        direction: ``min`` or ``max``.
        unit: unit for people, such as ``s``.
    """

    metric: str
    direction: Literal["min", "max"]
    unit: str = ""

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise UserError(f"objective {self.metric}: direction is {self.direction!r}; write 'min' or 'max'")

    def minimised(self, value: float) -> float:
        """Returns ``value`` so that less is better; applied twice, it gives ``value`` back."""
        return value if self.direction == "min" else -value


@dataclass(frozen=True, slots=True)
class Member:
    """A candidate and what was measured of it, each metric in its own unit and direction."""

    candidate: Candidate
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Front:
    """Members of which none dominates another, best in the first objective first; made by `Front.of`.

    Attributes:
        objectives: what is traded off.
        members: ordered by their minimised objective values, then by id.
    """

    objectives: tuple[Objective, ...]
    members: tuple[Member, ...]

    @classmethod
    def of(cls, objectives: Sequence[Objective], members: Iterable[Member]) -> Front:
        """Returns the front of ``members``, the same for any order of them.

        Of members with equal objective values, the one with the smallest id stays.

        Raises:
            UserError: a member lacks an objective's metric, or it is not a finite number.
        """
        given = tuple(members)
        points = minimised_points(objectives, given)
        ids = [member.candidate.id for member in given]
        return cls(tuple(objectives), tuple(given[i] for i in non_dominated(points, ids)))

    def points(self) -> Points:
        """Returns the minimised objective values, shape (members, objectives)."""
        return minimised_points(self.objectives, self.members)

    def __len__(self) -> int:
        return len(self.members)


def minimised_points(objectives: Sequence[Objective], members: Sequence[Member]) -> Points:
    """Returns the minimised objective values of ``members``, shape (members, objectives).

    Raises:
        UserError: a member lacks an objective's metric, or it is not a finite number.
    """
    points = np.empty((len(members), len(objectives)))
    for row, member in enumerate(members):
        for column, objective in enumerate(objectives):
            value = member.metrics.get(objective.metric, math.nan)
            if not math.isfinite(value):
                raise UserError(
                    f"candidate {member.candidate.id}: {objective.metric} is "
                    f"{value if objective.metric in member.metrics else 'missing'}; "
                    "only candidates with a finite value of each objective can stand on a front"
                )
            points[row, column] = objective.minimised(value)
    return points


def non_dominated(points: ArrayLike, ids: Sequence[str]) -> list[int]:
    """Returns the rows that no other dominates, ordered by values and then id, one row for each distinct vector.

    Args:
        points: minimised and finite, shape (points, objectives).
        ids: a name for each row; of equal rows, the one with the smallest stays.
    """
    rows = np.asarray(points, dtype=np.float64)
    if not len(rows):
        return []
    order = np.lexsort((np.asarray(ids), *rows.T[::-1]))
    # of equal rows the first is kept, which after sorting is the one with the smallest id
    return [int(i) for i in order[moocore.is_nondominated(rows[order], keep_weakly=False)]]
