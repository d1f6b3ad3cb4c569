"""Which members of a front stand when accuracy is the mean over seeds, and how sure that is; pure.

Costs are the same for every training, so only the verified metrics are uncertain. A member falls if, by those, another
member dominates it or a limit is broken. How sure that is comes from draws of what each model's means may be
(`cosearch.verification.estimates.posterior_means`), with one fixed seed: the share of draws in which it falls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.front import Front, Member, Objective
from cosearch.runfile import Limit
from cosearch.verification.estimates import LEVEL, Estimate, kendall_tau, posterior_means

__all__ = ["DRAWS", "MemberVerdict", "ModelFigures", "Rival", "Verdict", "Verification", "judge", "verification_text"]

FORMAT = "verified/1"

DRAWS = 20_000
"""A probability's standard error is 0.0035 at most."""

DRAW_SEED = 1908
"""Of the draws, so that the same trainings give the same probabilities."""

Verdict = Literal["survives", "falls", "open", "failed"]
Draws = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """What repeated trainings of a model gave.

    Attributes:
        model_id: whose.
        steps: optimiser steps of each training; None where the run's evaluators have none.
        search: the verified metrics as the search recorded them, from one training.
        values: by metric, one for each seed that succeeded.
        estimates: by metric; empty where fewer than two seeds succeeded.
        test: by metric of the test split; empty where the evaluator leaves no weights.
        failed: reasons of the seeds that failed. They count nowhere else: means are over those that succeeded.
    """

    model_id: str
    steps: int | None
    search: Mapping[str, float]
    values: Mapping[str, tuple[float, ...]]
    estimates: Mapping[str, Estimate]
    test: Mapping[str, Estimate]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A member that may dominate another.

    Attributes:
        id: of the candidate.
        probability: that it does.
    """

    id: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberVerdict:
    """What became of a member of the front.

    Attributes:
        id: of the candidate.
        model_id: of its model.
        verdict: ``survives`` if it falls with a probability of at most 5 %, ``falls`` if of at least 95 %, else
            ``open``: more seeds would tell. ``failed`` where its model has no two trainings.
        on_front: whether the means alone leave it on the front.
        falls: probability that another member dominates it, or that it breaks a limit.
        dominated_by: ids of the members that dominate it by the means.
        rivals: members that dominate it with a probability above 5 %, the likeliest first.
        broken: limits that the means break.
    """

    id: str
    model_id: str
    verdict: Verdict
    on_front: bool
    falls: float
    dominated_by: tuple[str, ...] = ()
    rivals: tuple[Rival, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A front, verified.

    Attributes:
        objectives: of the run.
        metrics: that were verified; the objectives first.
        models: in the order of the front.
        members: those whose models were verified, in the order of the front.
        front_size: members of the run's front, verified or not.
        tau: by verified metric, Kendall's rank correlation between what the search recorded and the means, over models.
    """

    objectives: tuple[Objective, ...]
    metrics: tuple[str, ...]
    models: tuple[ModelFigures, ...]
    members: tuple[MemberVerdict, ...]
    front_size: int
    tau: Mapping[str, float | None]

    def count(self, verdict: Verdict) -> int:
        """Returns how many members have a verdict."""
        return sum(member.verdict == verdict for member in self.members)


def judge(
    front: Front,
    figures: Mapping[str, ModelFigures],
    metrics: Sequence[str],
    limits: Sequence[Limit] = (),
) -> Verification:
    """Returns what the trainings say of a front.

    Verified metrics of one model are drawn independently of each other (an assumption; it matters only if several of
    them are objectives). No correction is made for the number of members.

    Args:
        front: as the search found it.
        figures: by model id; members of other models are left out.
        metrics: that were verified.
        limits: of the run.
    """
    members = [member for member in front.members if member.candidate.model.id in figures]
    alive = [member for member in members if figures[member.candidate.model.id].estimates]
    standing = {member.candidate.model.id for member in alive}
    table = _Table(front.objectives, figures, metrics, limits, standing)
    verdicts = [_verdict(m, alive, table) if m.candidate.model.id in standing else _failed(m) for m in members]
    own = list(dict.fromkeys(member.candidate.model.id for member in members))
    known = [figures[model] for model in own if figures[model].estimates]
    tau = {
        name: kendall_tau([one.search[name] for one in known], [one.estimates[name].mean for one in known])
        for name in metrics
    }
    return Verification(
        objectives=front.objectives,
        metrics=tuple(metrics),
        models=tuple(figures[model] for model in own),
        members=tuple(verdicts),
        front_size=len(front),
        tau=tau,
    )


class _Table:
    """Means and draws of every model, for the objectives and limits that are uncertain."""

    def __init__(
        self,
        objectives: Sequence[Objective],
        figures: Mapping[str, ModelFigures],
        metrics: Sequence[str],
        limits: Sequence[Limit],
        models: set[str],
    ) -> None:
        self.exact = [o for o in objectives if o.metric not in metrics]
        self.uncertain = [o for o in objectives if o.metric in metrics]
        self._limits = [limit for limit in limits if limit.metric in metrics]
        rng = np.random.default_rng(DRAW_SEED)
        self._means: dict[str, dict[str, Draws]] = {}
        self._draws: dict[str, dict[str, Draws]] = {}
        for model in sorted(models):  # so that draws do not hang on the order of the front
            found = figures[model].estimates
            self._means[model] = {name: np.array([found[name].mean]) for name in metrics}
            self._draws[model] = {name: posterior_means(found[name], DRAWS, rng) for name in metrics}

    def can_dominate(self, a: Member, b: Member) -> bool:
        """Returns whether ``a`` is nowhere worse than ``b`` in what is certain."""
        return all(o.minimised(a.metrics[o.metric]) <= o.minimised(b.metrics[o.metric]) for o in self.exact)

    def dominates(self, a: Member, b: Member, *, drawn: bool) -> Truths:
        """Returns, by means or for each draw, whether ``a`` dominates ``b`` and keeps the limits; shape (1 or draws,).

        Only for an ``a`` that `can_dominate` ``b``.
        """
        of = self._draws if drawn else self._means
        mine, yours = of[a.candidate.model.id], of[b.candidate.model.id]
        nowhere_worse = self.keeps(a, drawn=drawn)
        better = np.full_like(nowhere_worse, any(a.metrics[o.metric] != b.metrics[o.metric] for o in self.exact))
        for objective in self.uncertain:
            sign = 1.0 if objective.direction == "min" else -1.0
            own, other = sign * mine[objective.metric], sign * yours[objective.metric]
            nowhere_worse = nowhere_worse & (own <= other)
            better = better | (own < other)
        return nowhere_worse & better

    def keeps(self, member: Member, *, drawn: bool) -> Truths:
        """Returns, by means or for each draw, whether a member keeps the limits."""
        values = (self._draws if drawn else self._means)[member.candidate.model.id]
        kept = np.ones(DRAWS if drawn else 1, dtype=np.bool_)
        for limit in self._limits:
            own = values[limit.metric]
            kept = kept & (own <= limit.bound if limit.upper else own >= limit.bound)
        return kept

    def broken(self, member: Member) -> tuple[str, ...]:
        """Returns the limits that the means break."""
        means = self._means[member.candidate.model.id]
        return tuple(str(limit) for limit in self._limits if limit.excess(float(means[limit.metric][0])) > 0)


def _verdict(member: Member, members: Sequence[Member], table: _Table) -> MemberVerdict:
    falls = ~table.keeps(member, drawn=True)
    dominated_by, rivals = [], []
    for other in members:
        if other is member or not table.can_dominate(other, member):
            continue
        if table.dominates(other, member, drawn=False)[0]:
            dominated_by.append(other.candidate.id)
        wins = table.dominates(other, member, drawn=True)
        falls = falls | wins
        if (share := float(wins.mean())) > 1 - LEVEL:
            rivals.append(Rival(id=other.candidate.id, probability=share))
    share, broken = float(falls.mean()), table.broken(member)
    return MemberVerdict(
        id=member.candidate.id,
        model_id=member.candidate.model.id,
        verdict="survives" if share <= 1 - LEVEL else "falls" if share >= LEVEL else "open",
        on_front=not dominated_by and not broken,
        falls=share,
        dominated_by=tuple(dominated_by),
        rivals=tuple(sorted(rivals, key=lambda rival: (-rival.probability, rival.id))),
        broken=broken,
    )


def _failed(member: Member) -> MemberVerdict:
    return MemberVerdict(
        id=member.candidate.id, model_id=member.candidate.model.id, verdict="failed", on_front=False, falls=1.0
    )


def verification_text(verification: Verification, asked: Mapping[str, Any]) -> str:
    """Returns the one text of ``verified.json``: the same trainings give the same bytes.

    Args:
        verification: what was found.
        asked: seeds, and how long each training was.
    """
    data = {
        "cosearch": FORMAT,
        "asked": dict(asked),
        "level": LEVEL,
        "draws": {"number": DRAWS, "seed": DRAW_SEED},
        "objectives": [asdict(objective) for objective in verification.objectives],
        "metrics": list(verification.metrics),
        "front_size": verification.front_size,
        "kendall_tau": dict(verification.tau),
        "models": [asdict(model) for model in verification.models],
        "members": [asdict(member) for member in verification.members],
    }
    return json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n"
