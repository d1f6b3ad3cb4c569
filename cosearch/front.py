"""The Pareto front: dominance, hypervolume, picking one member, and ``front.json``.

Inside, every objective is minimised: a metric to be maximised changes its sign once, in `Objective.minimised`. A point
dominates another when it is nowhere worse and somewhere better.

Two hypervolumes compare only when both are measured in the same box. There are two boxes, both a `Scale`:

- **While a search runs**, `Scale.of_points` fixes a box once, from bounds in the run file where there are any and from
  the first costed points elsewhere. It never moves, so the step metric can only rise. A search that finds better than
  the box's ideal may pass 1.
- **At the end**, `Scale.of_fronts` lays one box around the front of the *union* of all runs to be compared, such as a
  search and its random baseline, so that neither of them chose the ruler.

Both measure costs by their decimal logarithm (halving a latency of 1 ms counts as much as halving one of 1 s) and
everything else linearly.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.spec import Candidate, from_json, to_json

__all__ = [
    "Front",
    "FrontBuilder",
    "Member",
    "Objective",
    "Scale",
    "front_from_json",
    "front_text",
    "front_to_json",
    "hypervolume",
    "pick",
]

FORMAT = "front/1"
MARGIN = 0.1
"""By how much of the box's side the reference lies beyond the worst point, so that the extremes count as well
(Ishibuchi et al. 2018, "How to specify a reference point in hypervolume calculation", section 3)."""

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
        points = _minimised(objectives, given)
        ids = [member.candidate.id for member in given]
        return cls(tuple(objectives), tuple(given[i] for i in _non_dominated(points, ids)))

    def points(self) -> Points:
        """Returns the minimised objective values, shape (members, objectives)."""
        return _minimised(self.objectives, self.members)

    def __len__(self) -> int:
        return len(self.members)


def _minimised(objectives: Sequence[Objective], members: Sequence[Member]) -> Points:
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


def _non_dominated(points: Points, ids: Sequence[str]) -> list[int]:
    """Returns the rows that no other dominates, ordered by values and then id, one row for each distinct vector."""
    if not len(points):
        return []
    order = np.lexsort((np.asarray(ids), *points.T[::-1]))
    # of equal rows the first is kept, which after sorting is the one with the smallest id
    return [int(i) for i in order[moocore.is_nondominated(points[order], keep_weakly=False)]]


class FrontBuilder:
    """A front that grows batch by batch and keeps only the points on it.

    Adding 11,000 points in batches of 256 takes a few milliseconds a batch, the hypervolume included. The result does
    not depend on how the points were split into batches.

    Args:
        objectives: number of objectives.
    """

    def __init__(self, objectives: int) -> None:
        self._points: Points = np.empty((0, objectives))
        self._ids: tuple[str, ...] = ()

    def add(self, points: ArrayLike, ids: Sequence[str]) -> int:
        """Takes minimised points of shape (points, objectives) with their candidates' ids.

        Returns:
            How many of them are on the front now.

        Raises:
            ValueError: a value is not finite, or the shapes do not fit.
        """
        batch = np.asarray(points, dtype=np.float64).reshape(len(ids), self._points.shape[1])
        if not np.isfinite(batch).all():
            raise ValueError("a point on a front needs finite values; tell failures as failed, not as inf")
        merged, names = np.concatenate([self._points, batch]), self._ids + tuple(ids)
        old = len(self._ids)
        keep = _non_dominated(merged, names)
        self._points, self._ids = merged[keep], tuple(names[i] for i in keep)
        return sum(i >= old for i in keep)

    @property
    def points(self) -> Points:
        """The minimised points on the front, shape (members, objectives), in canonical order."""
        return self._points

    @property
    def ids(self) -> tuple[str, ...]:
        """Their candidates' ids, in the same order."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)


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


# --- picking one member -----------------------------------------------------------------------------------------------

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


# --- front.json -------------------------------------------------------------------------------------------------------


def front_to_json(front: Front, *, hypervolume: float | None = None, scale: Scale | None = None) -> dict[str, Any]:
    """Returns ``front`` as JSON types.

    Args:
        front: the front.
        hypervolume: written beside it, where known.
        scale: the box that the hypervolume was measured in.
    """
    out: dict[str, Any] = {
        "cosearch": FORMAT,
        "objectives": [{"metric": o.metric, "direction": o.direction, "unit": o.unit} for o in front.objectives],
        "members": [
            {
                "id": member.candidate.id,
                "model_id": member.candidate.model.id,
                "metrics": {name: float(value) for name, value in member.metrics.items()},
                "candidate": to_json(member.candidate),
            }
            for member in front.members
        ],
    }
    if hypervolume is not None:
        out["hypervolume"] = float(hypervolume)
    if scale is not None:
        out["box"] = {"ideal": list(scale.ideal), "reference": list(scale.reference), "log": list(scale.log)}
    return out


def front_text(front: Front, *, hypervolume: float | None = None, scale: Scale | None = None) -> str:
    """Returns the one text of ``front.json``: keys sorted, floats in the fewest digits that read back the same."""
    data = front_to_json(front, hypervolume=hypervolume, scale=scale)
    return json.dumps(data, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def front_from_json(data: Any) -> Front:
    """Returns the front that `front_to_json` turned into ``data``.

    Raises:
        UserError: it is not a front of this version, a part is missing, or a candidate makes no sense.
    """
    version = data.get("cosearch") if isinstance(data, Mapping) else None
    if version != FORMAT:
        raise UserError(
            f"this is no front: 'cosearch' is {version!r}, not {FORMAT!r}; give a front.json of this version"
        )
    try:
        objectives = tuple(Objective(o["metric"], o["direction"], o.get("unit", "")) for o in data["objectives"])
        members = [
            Member(from_json(Candidate, m["candidate"]), {str(k): float(v) for k, v in m["metrics"].items()})
            for m in data["members"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"this front cannot be read ({error!r}); write it again with: cosearch front") from error
    return Front.of(objectives, members)
