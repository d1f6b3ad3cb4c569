"""Picking one member of a front by a rule that a person can type."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.front._dominance import Front, Member
from cosearch.front._volume import MARGIN, Scale

__all__ = ["pick"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
    "==": operator.eq,
}
_RULE = re.compile(r"(?:(?P<knee>knee)|(?P<way>min|max)\s+(?P<metric>[\w.]+))(?:\s+where\s+(?P<where>.+))?")
_CONDITION = re.compile(r"([\w.]+)\s*(<=|>=|==|<|>|=)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)")
_ID = re.compile(r"[0-9a-f]{1,12}")
_HOW = "write 'knee', 'min METRIC', 'max METRIC', one of them with 'where METRIC >= NUMBER and ...', or an id"


@dataclass(frozen=True, slots=True)
class _Condition:
    metric: str
    sign: str
    bound: float

    def holds(self, member: Member) -> bool:
        return _COMPARE[self.sign](member.metrics[self.metric], self.bound)

    def miss(self, member: Member) -> float:
        """By how much, relative to the bound, ``member`` misses it."""
        gap = abs(member.metrics[self.metric] - self.bound)
        return 0.0 if self.holds(member) else gap / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"


def pick(front: Front, rule: str) -> Member:
    """Returns the member that ``rule`` asks for; of several that fit equally well, the first.

    Args:
        front: the front to pick from.
        rule: ``knee``; ``min METRIC`` or ``max METRIC`` over any measured metric; each of these also with
            ``where METRIC <= NUMBER and ...`` (signs: <=, <, >=, >, =); or a candidate's id, or its beginning.

    Raises:
        NotFoundError: the front is empty, a metric is unknown, no member qualifies, or no id begins so.
        UserError: the rule cannot be read, or an id's beginning fits several members.
    """
    text = rule.strip()
    if not front.members:
        raise NotFoundError("the front is empty, so there is nothing to pick; search longer or widen the limits")
    parsed = _RULE.fullmatch(text)
    if parsed is None:
        if not _ID.fullmatch(text):
            raise UserError(f"pick rule {rule!r} cannot be read; {_HOW}")
        return _by_id(front, text)
    members = _qualified(front, _conditions(front, rule, parsed["where"]) if parsed["where"] else ())
    if parsed["knee"]:
        return _knee(front, members)
    metric, sign = _known(front, parsed["metric"]), 1 if parsed["way"] == "min" else -1
    return min(members, key=lambda member: sign * member.metrics[metric])


def _known(front: Front, metric: str) -> str:
    names = set.intersection(*(set(member.metrics) for member in front.members))
    if metric not in names:
        raise NotFoundError(f"no metric {metric!r} was measured; {did_you_mean(metric, names)}")
    return metric


def _by_id(front: Front, prefix: str) -> Member:
    found = [member for member in front.members if member.candidate.id.startswith(prefix)]
    if not found:
        raise NotFoundError(
            f"no member's id begins with {prefix!r}; list the {len(front)} members with: cosearch front"
        )
    if len(found) > 1:
        ids = ", ".join(member.candidate.id for member in found)
        raise UserError(
            f"{prefix!r} begins the ids of {len(found)} members: {ids}; write more of the one that you want"
        )
    return found[0]


def _conditions(front: Front, rule: str, where: str) -> tuple[_Condition, ...]:
    conditions = []
    for part in re.split(r"\s+and\s+", where.strip()):
        match = _CONDITION.fullmatch(part)
        try:
            bound = float(match[3]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or math.isnan(bound):
            raise UserError(f"pick rule {rule!r}: condition {part!r} cannot be read; write it like 'accuracy >= 0.9'")
        conditions.append(_Condition(_known(front, match[1]), match[2], bound))
    return tuple(conditions)


def _qualified(front: Front, conditions: Sequence[_Condition]) -> list[Member]:
    members = [member for member in front.members if all(c.holds(member) for c in conditions)]
    if not members:
        nearest = min(front.members, key=lambda member: sum(c.miss(member) for c in conditions))
        values = ", ".join(
            f"{name} {nearest.metrics[name]:.4g}" for name in dict.fromkeys(c.metric for c in conditions)
        )
        raise NotFoundError(
            f"none of the {len(front)} members has {' and '.join(map(str, conditions))}; "
            f"the nearest is {nearest.candidate.id} with {values}; loosen the condition or search longer"
        )
    return members


def _knee(front: Front, members: Sequence[Member]) -> Member:
    """Returns the member farthest below the hyperplane through the front's extremes, in the front's own unit box.

    The knee of Das 1999 ("On characterizing the 'knee' of the Pareto curve based on normal-boundary intersection",
    Structural Optimization 18), with costs on their decimal logarithm. Where the extremes do not span a plane with
    positive intercepts, the plane through the unit points takes its place, as in NSGA-III (Deb & Jain 2014, IV.C).
    """
    points = front.points()
    unit = Scale.of_fronts(front.objectives, points).unit(points) * (1 + MARGIN)  # undoes the margin: the nadir is at 1
    extremes = unit[unit.argmin(axis=0)]
    normal = np.ones(unit.shape[1])
    if np.linalg.matrix_rank(extremes) == unit.shape[1]:
        solved = np.linalg.solve(extremes, normal)
        normal = solved if (solved > 0).all() else normal
    below = np.round((1.0 - unit @ normal) / np.linalg.norm(normal), 12)
    rank = {id(member): below[i] for i, member in enumerate(front.members)}
    return max(members, key=lambda member: rank[id(member)])
