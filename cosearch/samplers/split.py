"""The product's own sampler: an inner sampler searches models, and every model is seen on many accelerators.

Accuracy depends on the model alone and takes a training; cost depends on the pair and takes microseconds. So for each
model that is trained, a few hundred accelerators are free looks, and only the search over models has to be frugal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.front import non_dominated
from cosearch.samplers.base import Brief, Sampler
from cosearch.samplers.fresh import Fresh, key
from cosearch.samplers.optuna import OptunaSampler
from cosearch.samplers.predicted import PredictedSampler
from cosearch.samplers.pymoo import PymooSampler
from cosearch.samplers.random import RandomSampler
from cosearch.samplers.space import SplitSpace
from cosearch.spec import Point, Result, Status, Violation

__all__ = ["SplitSampler"]

INNER: dict[str, Callable[..., Sampler]] = {
    "optuna": OptunaSampler,
    "predicted": PredictedSampler,
    "pymoo": PymooSampler,
    "random": RandomSampler,
}
DEFAULTS: dict[str, dict[str, Any]] = {"optuna": {"sampler": "TPESampler"}, "predicted": {"start": 8}}
"""What an inner sampler is made with unless told otherwise; chosen by ``bench/samplers/toy.md``."""

BRIEF_LOOKS = 8
"""A model that is asked briefly is paired with the looks of a model over this: it only has to be placed."""

TRIES = 4
"""Steps from good accelerators that may lead to known ones, for each look wanted, before random ones fill up."""


def _compromise(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Returns the row with the smallest sum of objectives, each scaled to [0, 1] over all rows."""
    logs = values.copy()
    positive = (values > 0).all(axis=0)
    logs[:, positive] = np.log10(values[:, positive])
    span = np.ptp(logs, axis=0)
    scaled = (logs - logs.min(axis=0)) / np.where(span > 0, span, 1.0)
    return tuple(values[int(scaled.sum(axis=1).argmin())].tolist())


def _best(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Returns the smallest value of each column."""
    return tuple(values.min(axis=0).tolist())


SUMMARIES: dict[str, Callable[[NDArray[np.float64]], tuple[float, ...]]] = {"compromise": _compromise, "best": _best}


@dataclass(slots=True)
class _Model:
    """A model between asking and the last of its tellings."""

    point: Point
    looks: int
    share: float = 1.0
    results: list[Result] = field(default_factory=list)


class SplitSampler:
    """Searches models with an inner sampler and pairs each with many accelerators.

    A model's accelerators are, in equal parts as far as there are any: those that stand on the front so far, steps
    from those, and random ones; the first half of the looks is local, the rest is random. The inner sampler is told
    once for each model, when all its looks are known:

    - some are ``ok``: by ``summary``, either the model's *compromise*, the look that is nearest to the best of each
      objective on the scales between the model's own best and worst (costs by their logarithm), or the ``best`` of
      each objective on its own. A compromise is a real pair; the best of each flatters a model that is good at one
      thing at a time, on as many accelerators.
    - none is ``ok``, some are infeasible: infeasible, by the smallest excess.
    - all failed: failed.

    A model that the inner sampler asks briefly is told the same way; the front, and so the accelerators that are near
    it, knows nothing of such models.

    Args:
        space: where points come from; has a ``model`` and an ``accelerator`` side.
        objectives: number of objectives.
        seed: the same seed gives the same points.
        inner: sampler of the models: ``optuna``, ``predicted``, ``pymoo`` or ``random``.
        inner_options: what the inner sampler is made with; left out, Optuna's is its TPESampler (Ozaki et al. 2020,
            "Multiobjective tree-structured Parzen estimator").
        looks: accelerators for each model.
        summary: ``compromise`` or ``best``.

    Raises:
        NotFoundError: there is no such inner sampler or summary, or the inner sampler knows no such option.
        UserError: there are no looks.
    """

    def __init__(
        self,
        space: SplitSpace,
        objectives: int,
        seed: int,
        *,
        inner: str = "optuna",
        inner_options: Mapping[str, Any] | None = None,
        looks: int = 256,
        summary: str = "compromise",
    ) -> None:
        if summary not in SUMMARIES:
            raise NotFoundError(f"there is no summary {summary!r}; {did_you_mean(summary, SUMMARIES)}")
        if looks < 1:
            raise UserError(f"looks is {looks}, but a model needs an accelerator to run on; write 1 or more")
        self._space, self._accelerators, self._looks = space, space.side("accelerator"), looks
        self._summary = SUMMARIES[summary]
        self._rng = np.random.default_rng([seed, 2])
        inner_seed = int(np.random.default_rng([seed, 3]).integers(2**31))
        self._inner = _make_inner(inner, inner_options, space, objectives, inner_seed)
        self._models: dict[str, _Model] = {}
        self._pairs: dict[str, tuple[str, Point]] = {}  # outstanding pairs: key of the model, and the accelerator
        self._front: list[tuple[tuple[float, ...], Point]] = []  # objectives and accelerator
        self._near: dict[str, list[Point]] = {}

    def ask(self, n: int) -> Sequence[Point]:
        """Returns the looks of up to ``n`` new models, the looks of one model in a row."""
        points: list[Point] = []
        while not points:
            models = self._inner.ask(n)
            if not models:
                break
            for model in models:
                if isinstance(model, Brief):
                    looks = max(1, self._looks // BRIEF_LOOKS)
                    points.extend(Brief(pair) for pair in self._paired(dict(model), looks, brief=True))
                else:
                    points.extend(self._paired(model, self._looks))
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Learns which accelerators are good, and tells the inner sampler of each model that is complete."""
        good, complete = [], []
        for result in results:
            name, accelerator = self._pairs.pop(key(result.point))
            model = self._models[name]
            model.results.append(result)
            model.share = min(model.share, result.share)
            if result.status is Status.OK and result.share == 1:
                good.append((result.objectives, accelerator))
            if len(model.results) == model.looks:
                complete.append(self._summarised(self._models.pop(name)))
        if good:
            known = self._front + good
            names = [key(accelerator) for _, accelerator in known]
            self._front = [known[i] for i in non_dominated([objectives for objectives, _ in known], names)]
        if complete:
            self._inner.tell(complete)

    def _paired(self, model: Point, looks: int, *, brief: bool = False) -> list[Point]:
        """Returns the looks of ``model``; tells the inner sampler at once where no accelerator suits it."""
        name, pairs = ("brief " if brief else "") + key(model), []
        for accelerator in self._chosen(model, looks):
            pair = self._space.join(model, accelerator)
            self._pairs[key(pair)] = (name, accelerator)
            pairs.append(pair)
        if pairs:
            self._models[name] = _Model(model, len(pairs))
        else:
            reason = Violation(limit="a constraint between model and accelerator", excess=1.0)
            self._inner.tell([Result(index=0, point=model, status=Status.INFEASIBLE, violations=(reason,))])
        return pairs

    def _chosen(self, model: Point, looks: int) -> list[Point]:
        """Returns different accelerators that may run ``model``: up to a half local to the front, the others random."""
        fresh = Fresh(self._accelerators, self._rng)
        chosen: list[Point] = []

        def take(accelerator: Point) -> None:
            if not self._space.violations(self._space.join(model, accelerator)):
                chosen.append(accelerator)

        best = list({key(accelerator): accelerator for _, accelerator in self._front}.values())
        for index in self._rng.permutation(len(best))[: looks // 4].tolist():
            fresh.claim(best[index])
            take(best[index])
        local = len(chosen) + looks // 4
        for _ in range(TRIES * (looks // 4) if best else 0):
            if len(chosen) >= local:
                break
            step = self._step(best[int(self._rng.integers(len(best)))])
            if fresh.claim(step):
                take(step)
        for _ in range(TRIES * looks):
            stranger = fresh.sample() if len(chosen) < looks else None
            if stranger is None:
                break
            take(stranger)
        return chosen

    def _summarised(self, model: _Model) -> Result:
        """Returns what the inner sampler is told of a model."""
        good = [result for result in model.results if result.status is Status.OK]
        if good:
            values = np.array([result.objectives for result in good])
            found = self._summary(values)
            return Result(index=0, point=model.point, status=Status.OK, objectives=found, share=model.share)
        broken = [result.violations for result in model.results if result.status is Status.INFEASIBLE]
        if broken:
            least = min(broken, key=lambda violations: sum(v.excess for v in violations))
            return Result(index=0, point=model.point, status=Status.INFEASIBLE, violations=least, share=model.share)
        reason = model.results[0].reason
        return Result(index=0, point=model.point, status=Status.FAILED, reason=reason, share=model.share)

    def _step(self, accelerator: Point) -> Point:
        """Returns an accelerator one or two steps away."""
        for _ in range(1 + int(self._rng.integers(2))):
            name = key(accelerator)
            if name not in self._near:
                near = self._accelerators.neighbours(accelerator)
                self._near[name] = [self._accelerators.canonical(point) for point in near]
            if self._near[name]:
                accelerator = self._near[name][int(self._rng.integers(len(self._near[name])))]
        return accelerator


def _make_inner(
    inner: str, options: Mapping[str, Any] | None, space: SplitSpace, objectives: int, seed: int
) -> Sampler:
    if inner not in INNER:
        raise NotFoundError(f"there is no inner sampler {inner!r}; {did_you_mean(inner, INNER)}")
    given = dict(DEFAULTS.get(inner, {}) if options is None else options)
    known = [name for name in inspect.signature(INNER[inner]).parameters if name not in ("space", "objectives", "seed")]
    for option in given:
        if option not in known:
            raise NotFoundError(f"inner sampler {inner!r} has no option {option!r}; {did_you_mean(option, known)}")
    return INNER[inner](space.side("model"), objectives, seed, **given)
