"""The multi-objective samplers of Optuna (Akiba et al. 2019, KDD, "Optuna: A Next-generation ...")."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.samplers.axes import Axes, Axis
from cosearch.samplers.fresh import Fresh, key
from cosearch.samplers.space import SearchSpace
from cosearch.spec import Point, Result, Status

__all__ = ["OptunaSampler"]

TRIES = 8
"""Suggestions that may mean known points before a random new point is taken instead."""

CONSTRAINT = "excess"


class OptunaSampler:
    """Asks any of Optuna's multi-objective samplers, by name, over all parameters of the space.

    Suggestions are repaired until they are valid, and what was asked before is not asked again; Optuna is shown the
    point that was really asked. Infeasible points carry the sum of their excesses as a constraint; failed ones are
    marked as failed, which every Optuna sampler leaves out.

    Args:
        space: where points come from.
        objectives: number of objectives.
        seed: the same seed gives the same points.
        sampler: class of `optuna.samplers`, such as NSGAIISampler, NSGAIIISampler, TPESampler, GPSampler, QMCSampler,
            RandomSampler.
        sampler_options: what that class is made with, such as ``{"population_size": 16}``.

    Raises:
        NotFoundError: Optuna has no such sampler, or it knows no such option.
        UserError: Optuna refuses an option's value.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        *,
        sampler: str = "NSGAIISampler",
        sampler_options: Mapping[str, Any] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else every trial writes a line
        self._axes = Axes(space)
        self._fresh = Fresh(space, np.random.default_rng([seed, 0]))
        self._distributions = {axis.name: _distribution(axis) for axis in self._axes.axes}
        self._study = optuna.create_study(
            directions=["minimize"] * objectives,
            sampler=_make(sampler, int(np.random.default_rng([seed, 1]).integers(2**31)), sampler_options or {}),
        )
        self._trials: dict[str, Trial] = {}
        self._worst = np.zeros(objectives)

    def ask(self, n: int) -> Sequence[Point]:
        """Returns up to ``n`` new points; fewer, and in the end none, when the space is exhausted."""
        points: list[Point] = []
        while len(points) < n and (point := self._next()) is not None:
            points.append(point)
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Passes results on to Optuna."""
        for result in results:
            trial = self._trials.pop(key(result.point))
            if result.status is Status.FAILED:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            values = self._worst
            if result.status is Status.OK:
                values = np.array(result.objectives)
                self._worst = np.maximum(self._worst, values)
            trial.set_constraint(CONSTRAINT, sum(max(v.excess, 1e-6) for v in result.violations))
            self._study.tell(trial, values.tolist())

    def _next(self) -> Point | None:
        """Claims and returns the next point, its trial open; ``None`` when the space is exhausted."""
        for _ in range(TRIES):
            trial = self._open()
            point = self._fresh.repaired(self._axes.decode(trial.params))
            codes = self._axes.encode(point, trial.params)
            if self._fresh.claim(point):
                return self._keep(point, codes, trial)
            self._study.tell(trial, state=TrialState.FAIL)
        stranger = self._fresh.sample()
        return (
            None if stranger is None else self._keep(stranger, self._axes.encode(stranger, self._axes.middle()), None)
        )

    def _keep(self, point: Point, codes: dict[str, int | float], trial: Trial | None) -> Point:
        """Notes the open trial of ``point``; where it has other parameters, one with the right ones takes its place."""
        if trial is None or trial.params != codes:
            if trial is not None:
                self._study.tell(trial, state=TrialState.FAIL)
            self._study.enqueue_trial(codes)
            trial = self._open()
        self._trials[key(point)] = trial
        return point

    def _open(self) -> Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's advice is for those who call it themselves
            return self._study.ask(self._distributions)


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.values is None:
        return FloatDistribution(0.0, 1.0)
    return IntDistribution(0, axis.last) if axis.ordered else CategoricalDistribution(tuple(range(axis.last + 1)))


def _make(name: str, seed: int, options: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    known = {n: c for n, c in vars(optuna.samplers).items() if n.endswith("Sampler") and "seed" in _arguments(c)}
    known.pop("CmaEsSampler", None)  # one objective only
    if name not in known:
        raise NotFoundError(f"there is no Optuna sampler {name!r} here; {did_you_mean(name, known)}")
    arguments = _arguments(known[name]) - {"seed", "constraints_func"}
    for option in options:
        if option not in arguments:
            raise NotFoundError(f"Optuna's {name} has no option {option!r}; {did_you_mean(option, arguments)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental samplers announce themselves
            made: optuna.samplers.BaseSampler = known[name](seed=seed, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"Optuna's {name} refuses sampler_options: {error}") from error
    return made


def _arguments(made: Any) -> set[str]:
    return set(inspect.signature(made).parameters)
