"""Model-based search: predictors of every objective say which new points promise the most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.front import non_dominated
from cosearch.predictors import GaussianProcess, Predictor, encode_models, make_predictor
from cosearch.samplers.base import Brief
from cosearch.samplers.fresh import Fresh, key
from cosearch.samplers.space import SearchParameter, SearchSpace
from cosearch.spec import ModelSpec, Point, Result, Scalar, Status

__all__ = ["ACQUISITIONS", "PredictedSampler"]

Floats = NDArray[np.float64]

ACQUISITIONS = ("improvement", "scalarised")

_PLACES = 256
"""Random places of the objectives' box by which volume is measured."""

_DRAWS = 32
"""Draws from a candidate's prediction."""

_OPTIMISM = 1.0
"""Standard deviations that scalarised candidates are thought better than predicted."""

_MOST = 250
"""Results that predictors learn from: the front's and the latest; more cost time and tell little."""

_REFERENCE = 1.1
"""Where volume ends, for objectives between 0 and 1 (Ishibuchi et al. 2018)."""


class PredictedSampler:
    """Fits a predictor to each objective, and asks for what should enlarge the front most.

    After a start of points spread over the space, each ask draws a pool of new points: random ones, and mutations and
    crossings of those on the front. Of these the one with the best acquisition is asked, then the next:

    - ``improvement``: expected hypervolume improvement (Emmerich et al. 2006, "Single- and multiobjective evolutionary
      optimization assisted by Gaussian random field metamodels"), by draws from the predictions;
    - ``scalarised``: the augmented Chebyshev sum of optimistic predictions with random weights (ParEGO: Knowles 2006).

    Points that are asked and not told, and those chosen before in the same ask, count as if they were as predicted
    (the "Kriging believer" of Ginsbourger et al. 2010). Infeasible and failed points teach a predictor of feasibility,
    by whose probability the acquisition is multiplied.

    A model is seen as `cosearch.predictors.encode` has it where the space can make its spec (``space.spec(point)``, as
    a model side has it, or ``space.model(point)``); every other parameter by its place in its domain.

    With ``briefs`` every point is asked briefly first (`Brief`), and only one of so many is then asked in full: the one
    of those that were told with the best acquisition, where predictors begin from what the brief evaluation said of
    each objective (`cosearch.predictors.Trended`). Until enough full results are there to learn from, the best by a
    random Chebyshev sum of what was said.

    Args:
        space: where points come from.
        objectives: number of objectives.
        seed: the same seed gives the same points.
        start: points before the first prediction; with ``briefs``, full ones.
        pool: candidates for each point asked.
        predictor: a name in `cosearch.predictors.PREDICTORS`.
        acquisition: ``improvement`` or ``scalarised``; ``bench/samplers/predicted.md`` compares them.
        briefs: points that are asked briefly for each that is asked in full; 0 for none.

    Raises:
        NotFoundError: there is no such predictor or acquisition.
        UserError: start, pool or briefs are too small.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        *,
        start: int = 10,
        pool: int = 256,
        predictor: str = "gaussian_process",
        acquisition: str = "improvement",
        briefs: int = 0,
    ) -> None:
        if acquisition not in ACQUISITIONS:
            raise NotFoundError(f"there is no acquisition {acquisition!r}; {did_you_mean(acquisition, ACQUISITIONS)}")
        if start < 5 or pool < 2:
            raise UserError(f"start is {start} and pool is {pool}; write at least 5 and 2")
        if briefs < 0 or briefs == 1:
            raise UserError(f"briefs is {briefs}; write 2 or more to choose among, or 0 for none")
        make_predictor(predictor)  # so that an unknown name is told now
        self._space, self._objectives, self._seed = space, objectives, seed
        self._start, self._pool, self._predictor = start, pool, predictor
        self._choose = {"improvement": self._improvement, "scalarised": self._scalarised}[acquisition]
        self._rng = np.random.default_rng([seed, 5])
        self._fresh = Fresh(space, np.random.default_rng([seed, 6]))
        self._features = _Features(space)
        self._told: list[Result] = []
        self._open: dict[str, Point] = {}
        self._learnt: _Learnt | None = None
        self._screen = _Screen(briefs)

    def ask(self, n: int) -> Sequence[Point]:
        """Returns up to ``n`` new points; fewer, and in the end none, when the space is exhausted."""
        points: list[Point] = []
        screen = self._screen
        screen.widest = max(screen.widest, n)
        while len(points) < n:
            if screen.briefs and screen.ready():
                chosen = self._screened()
                self._open[key(chosen)] = chosen
                points.append(chosen)
                continue
            if screen.briefs and not screen.wants_more():
                break
            point = self._fresh.spread() if self._good < self._start else self._promising()
            if point is None:
                if screen.exhausted():
                    continue
                break
            if screen.briefs:
                screen.open[key(point)] = point
                screen.asked += 1
                points.append(Brief(point))
            else:
                self._open[key(point)] = point
                points.append(point)
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Takes results to learn from at the next ask."""
        for result in results:
            name = key(result.point)
            if name in self._screen.open:
                self._screen.tell(name, result)
                if result.status is Status.OK:
                    continue  # what it said is a reading; only full results are learnt
            else:
                self._open.pop(name)
            self._told.append(result)
            self._learnt = None

    @property
    def _good(self) -> int:
        return sum(result.status is Status.OK for result in self._told)

    def _screened(self) -> Point:
        """Returns the most promising point of those that were told briefly."""
        screen, learnt = self._screen, None
        names = list(screen.told)
        if self._good >= self._start:
            learnt = _Learnt.of(self._told, self._features, self._predictor, self._seed, screen.readings)
        if learnt is None:
            values = _scaled(np.array([screen.told[name].objectives for name in names]))
            weights = self._rng.dirichlet(np.ones(values.shape[1]))
            chosen = names[int(np.argmin((values * weights).max(axis=1) + 0.05 * (values * weights).sum(axis=1)))]
        else:
            believed = learnt.front
            if self._open:
                believed = np.concatenate([believed, learnt.predict(list(self._open.values()))[0]])
            mean, std, feasible = learnt.predict([screen.told[name].point for name in names])
            chosen = names[int(np.argmax(self._choose(mean, std, feasible, believed)))]
        return screen.choose(chosen)

    def _promising(self) -> Point | None:
        """Claims and returns the best point of a new pool."""
        if self._learnt is None:
            self._learnt = _Learnt.of(self._told, self._features, self._predictor, self._seed)
        pool = self._candidates(self._learnt)
        if not pool:
            return self._fresh.sample()
        believed = self._learnt.front
        if self._open:
            waiting = self._learnt.predict(list(self._open.values()))[0]
            believed = np.concatenate([believed, waiting])
        mean, std, feasible = self._learnt.predict(pool)
        best = pool[int(np.argmax(self._choose(mean, std, feasible, believed)))]
        self._fresh.claim(best)
        return best

    def _improvement(self, mean: Floats, std: Floats, feasible: Floats, front: Floats) -> Floats:
        """Returns the expected gain in volume of each candidate, as a share of the free places of the box."""
        low = np.minimum(np.minimum(mean - std, 0.0).min(axis=0), front.min(axis=0, initial=0.0))
        places = self._rng.uniform(low, _REFERENCE, (8 * _PLACES, mean.shape[1]))
        covered = np.any(np.all(front[None, :, :] <= places[:, None, :], axis=2), axis=1)
        free = places[~covered][:_PLACES]
        draws = self._rng.standard_normal((_DRAWS, mean.shape[1]))
        gain = np.zeros(len(mean))
        for draw in draws:
            value = mean + std * draw
            gain += (value[:, None, :] <= free[None, :, :]).all(axis=2).sum(axis=1)
        # where nothing gains, what is predicted best in sum
        return np.asarray(gain * feasible - 1e-9 * (mean.sum(axis=1) - 10.0 * feasible))

    def _scalarised(self, mean: Floats, std: Floats, feasible: Floats, front: Floats) -> Floats:  # noqa: ARG002
        """Returns minus the augmented Chebyshev sum of each candidate under random weights."""
        weights = self._rng.dirichlet(np.ones(mean.shape[1]))
        value = (mean - _OPTIMISM * std) * weights
        return np.asarray(-(value.max(axis=1) + 0.05 * value.sum(axis=1)) - 10.0 * (1.0 - feasible))

    def _candidates(self, learnt: _Learnt) -> list[Point]:
        """Returns different new points: half random, half near the front."""
        found: dict[str, Point] = {}
        parents = learnt.parents
        for attempt in range(2 * self._pool):
            if len(found) >= self._pool:
                break
            near = attempt % 2 and parents
            point = self._child(parents) if near else self._space.canonical(self._space.sample(self._rng))
            if point is not None and self._fresh.is_new(point):
                found.setdefault(key(point), point)
        return list(found.values())

    def _child(self, parents: Sequence[Point]) -> Point | None:
        """Returns a mutation of one parent, or of a crossing of two; None where it is not valid."""
        rng, parameters = self._rng, self._space.parameters
        first, second = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        crossed = rng.random() < 0.3
        point: dict[str, Scalar] = {}
        rate = 1.5 / len(parameters)
        for parameter in parameters:
            name = parameter.name
            source = second if crossed and rng.random() < 0.5 else first
            if name not in source or rng.random() < rate:
                point[name] = _moved(parameter, source.get(name), rng)
            else:
                point[name] = source[name]
        return None if self._space.violations(point) else self._space.canonical(point)


def _moved(parameter: SearchParameter, value: Scalar | None, rng: np.random.Generator) -> Scalar:
    """Returns a value near ``value`` on an ordered domain; any value where it has no order or there is none."""
    domain = parameter.domain
    if value is None or not domain.ordered:
        return domain.from_unit(float(rng.random()))
    unit = domain.to_unit(value)
    size = domain.size()
    step = max(0.15, 1.0 / max(float(size) - 1.0, 1.0))
    return domain.from_unit(float(np.clip(unit + step * rng.standard_normal(), 0.0, 1.0)))


class _Screen:
    """What was asked briefly, and what came of it.

    Args:
        briefs: points asked briefly for each that is asked in full; 0 for none.

    Attributes:
        open: asked and not told.
        asked: how many were, without those that turned out infeasible or failed.
        told: by the point's key, those that may still be chosen.
        readings: by the point's key, what was said of its objectives; costs by their logarithm.
        widest: points that were asked for at a time.
    """

    def __init__(self, briefs: int) -> None:
        self.briefs, self.widest, self.asked = briefs, 1, 0
        self.open: dict[str, Point] = {}
        self.told: dict[str, Result] = {}
        self.readings: dict[str, Floats] = {}
        self._settled = self._chosen = 0
        self._last = False

    def tell(self, name: str, result: Result) -> None:
        del self.open[name]
        if result.status is Status.OK:
            self._settled += 1
            self.told[name] = result
            self.readings[name] = np.array([math.log10(v) if v > 0 else v for v in result.objectives])
        else:
            self.asked -= 1  # another takes its place

    def ready(self) -> bool:
        """Returns whether enough were told to choose one."""
        enough = self._settled >= self.briefs * (self._chosen + 1) or (self._last and not self.open)
        return bool(self.told) and enough

    def wants_more(self) -> bool:
        """Returns whether to ask more, so that there is something to choose from when workers are free."""
        return not self._last and self.asked < self.briefs * (self._chosen + self.widest)

    def exhausted(self) -> bool:
        """Notes that there are no more points to ask; returns whether some of those told can be chosen."""
        self._last = True
        return self.ready()

    def choose(self, name: str) -> Point:
        self._chosen += 1
        return dict(self.told.pop(name).point)


class _Features:
    """What predictors see of points.

    Args:
        space: makes specs of points, or does not.
    """

    def __init__(self, space: SearchSpace) -> None:
        maker = getattr(space, "spec", None) or getattr(space, "model", None)
        self._maker: Callable[[Point], ModelSpec] | None = maker if callable(maker) else None
        self._parameters = [
            parameter
            for parameter in space.parameters
            if self._maker is None or not parameter.name.startswith("model.")
        ]

    def of(self, points: Sequence[Point]) -> Floats:
        """Returns shape (points, columns)."""
        columns = [column for parameter in self._parameters for column in self._columns(parameter, points)]
        units = np.array(columns, dtype=np.float64).reshape(len(columns), len(points)).T
        if self._maker is None:
            return units
        found = [self._maker(point) for point in points]
        # an accelerator's side makes specs too, but of no model
        if not all(isinstance(spec, ModelSpec) for spec in found):
            self._maker = None
            return units
        return np.concatenate([encode_models(found), units], axis=1)

    def _columns(self, parameter: SearchParameter, points: Sequence[Point]) -> list[list[float]]:
        """Returns a parameter's place in its domain, or which of its values it has; and whether it exists at all."""
        domain, name = parameter.domain, parameter.name
        there = [float(name in point) for point in points]
        if domain.ordered or domain.size() > 16:
            return [there, [domain.to_unit(point[name]) if name in point else 0.5 for point in points]]
        return [there, *([float(name in point and point[name] == v) for point in points] for v in domain.values())]


_Feasible = Callable[[Sequence[Point]], Floats]


class _Learnt:
    """Predictors of every objective, and of feasibility.

    Objectives are scaled: 0 and 1 are the least and the largest told; those that are all positive by their logarithm,
    as the front's hypervolume has costs.
    """

    def __init__(
        self, see: Callable[[Sequence[Point]], Floats], predictors: Sequence[Predictor], feasible: _Feasible | None
    ) -> None:
        self._see, self._predictors, self._feasible = see, predictors, feasible
        self.front = np.zeros((0, len(predictors)))
        self.parents: Sequence[Point] = ()

    @classmethod
    def of(
        cls,
        told: Sequence[Result],
        features: _Features,
        predictor: str,
        seed: int,
        readings: Mapping[str, Floats] | None = None,
    ) -> _Learnt:
        """Returns what results teach; with ``readings`` predictors begin from what a brief evaluation said."""

        def see(points: Sequence[Point]) -> Floats:
            rows = features.of(points)
            if readings is None:
                return rows
            return np.concatenate([rows, np.stack([readings[key(point)] for point in points])], axis=1)

        good = [result for result in told if result.status is Status.OK]
        scaled = _scaled(np.array([result.objectives for result in good]))
        best = non_dominated(scaled, [f"{place:06d}" for place in range(len(good))])
        kept = sorted({*(int(place) for place in best), *range(max(0, len(good) - _MOST), len(good))})
        x = see([good[place].point for place in kept])
        predictors = []
        for column in scaled[kept].T:
            made = make_predictor(predictor, seed=seed, readings=0 if readings is None else scaled.shape[1])
            made.fit(x, column)
            predictors.append(made)
        learnt = cls(see, predictors, _feasibility(told, features))
        learnt.front = scaled[list(best)]
        learnt.parents = [good[int(place)].point for place in best]
        return learnt

    def predict(self, points: Sequence[Point]) -> tuple[Floats, Floats, Floats]:
        """Returns means and deviations, shape (points, objectives), and probabilities of being feasible."""
        x = self._see(points)
        said = [predictor.predict(x) for predictor in self._predictors]
        mean, std = (np.stack([getattr(one, name) for one in said], axis=1) for name in ("mean", "std"))
        if self._feasible is None:
            return mean, std, np.ones(len(x))
        return mean, std, self._feasible(points)


def _scaled(values: Floats) -> Floats:
    scaled = values.astype(np.float64).copy()
    positive = (scaled > 0).all(axis=0)
    scaled[:, positive] = np.log10(scaled[:, positive])
    low, span = scaled.min(axis=0), np.ptp(scaled, axis=0)
    return np.asarray((scaled - low) / np.where(span > 0, span, 1.0))


def _feasibility(told: Sequence[Result], features: _Features) -> _Feasible | None:
    """Returns what gives the probability of a result that is ok; None where all are."""
    if all(result.status is Status.OK for result in told):
        return None
    latest = told[-_MOST:]
    found = GaussianProcess()
    labels = [float(result.status is Status.OK) for result in latest]
    found.fit(features.of([result.point for result in latest]), np.array(labels))

    def probability(points: Sequence[Point]) -> Floats:
        from scipy.special import ndtr

        sure = found.predict(features.of(points))
        return np.asarray(ndtr((sure.mean - 0.5) / sure.std))

    return probability
