"""The evolutionary algorithms of pymoo (Blank & Deb 2020, "pymoo: Multi-Objective Optimization in Python")."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.algorithms.moo.spea2 import SPEA2
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.config import Config
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mixed import MixedVariableMating
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.core.variable import Choice, Integer, Real, Variable
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.mutation.rm import ChoiceRandomMutation
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.problems.static import StaticProblem
from pymoo.util.ref_dirs import get_reference_directions

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.samplers.axes import Axes, Axis
from cosearch.samplers.fresh import Fresh, key
from cosearch.samplers.space import SearchSpace
from cosearch.spec import Point, Result, Status

__all__ = ["PymooSampler"]

ALGORITHMS: dict[str, Any] = {"NSGA2": NSGA2, "NSGA3": NSGA3, "UNSGA3": UNSGA3, "SPEA2": SPEA2, "SMSEMOA": SMSEMOA}
"""Algorithms of pymoo that take constraints and another mating (AGE-MOEA would need numba as well)."""


class PymooSampler:
    """Evolves a population over all parameters of the space, one generation at a time.

    Children are repaired until they are valid, and what was asked before is bred away. A generation is told as a
    whole: while some of it is outstanding, `ask` returns what is left of it and then nothing. Infeasible points count
    by the sum of their excesses; failed ones are treated as worse than any infeasible one.

    Args:
        space: where points come from.
        objectives: number of objectives.
        seed: the same seed gives the same points.
        algorithm: one of NSGA2, NSGA3, UNSGA3, SPEA2, SMSEMOA.
        population: members of the population, and children of a generation; at least 4.

    Raises:
        NotFoundError: there is no such algorithm.
        UserError: the population is too small.
    """

    def __init__(
        self, space: SearchSpace, objectives: int, seed: int, *, algorithm: str = "NSGA2", population: int = 16
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise NotFoundError(
                f"there is no pymoo algorithm {algorithm!r} here; {did_you_mean(algorithm, ALGORITHMS)}"
            )
        if population < 4:
            raise UserError(f"population is {population}, but evolution needs parents; write 4 or more")
        Config.warnings["not_compiled"] = False  # else pymoo prints advice on compiling at its first step
        self._objectives, self._population = objectives, population
        self._axes = Axes(space)
        self._fresh = Fresh(space, np.random.default_rng([seed, 0]))
        self._problem = _problem(self._axes, objectives)
        self._algorithm = _algorithm(algorithm, self._axes, self._fresh, objectives, population)
        evolution_seed = int(np.random.default_rng([seed, 1]).integers(2**31))
        self._algorithm.setup(self._problem, termination=NoTermination(), seed=evolution_seed)
        self._generation: list[Point] = []
        self._individuals: Any = None
        self._queue: deque[Point] = deque()
        self._told: dict[str, Result] = {}
        self._worst = np.zeros(objectives)
        self._worst_excess = 0.0

    def ask(self, n: int) -> Sequence[Point]:
        """Returns up to ``n`` points of the current generation, breeding the next one when this one was told."""
        if not self._queue and not self._generation:
            self._breed()
        return [self._queue.popleft() for _ in range(min(n, len(self._queue)))]

    def tell(self, results: Sequence[Result]) -> None:
        """Takes results in; the population moves on when its whole generation is known."""
        for result in results:
            self._told[key(result.point)] = result
        if self._generation and len(self._told) == len(self._generation):
            told = [self._told[key(point)] for point in self._generation]
            objectives, excess = self._scored(told)
            if self._axes.axes:
                Evaluator().eval(StaticProblem(self._problem, F=objectives, G=excess), self._individuals)
                self._algorithm.tell(infills=self._individuals)
            self._generation, self._told = [], {}

    def _breed(self) -> None:
        individuals = self._algorithm.ask() if self._axes.axes else None
        if individuals is None or not len(individuals):
            # no child is new: strangers join instead, until the space is exhausted
            codes: list[dict[str, int | float]] = []
            while len(codes) < self._population and (stranger := self._fresh.sample()) is not None:
                codes.append(self._axes.encode(stranger, self._axes.middle()))
                self._generation.append(stranger)
            individuals = Population.new(X=np.array(codes, dtype=object))
        else:
            self._generation = [self._point(one.X) for one in individuals]
            for point in self._generation:
                self._fresh.claim(point)
        self._individuals = individuals
        self._queue.extend(self._generation)

    def _point(self, codes: Any) -> Point:
        return self._fresh.space.canonical(self._axes.decode(codes))

    def _scored(self, told: Sequence[Result]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns minimised objectives, shape (points, objectives), and excess over constraints, shape (points, 1)."""
        ok = [result.objectives for result in told if result.status is Status.OK]
        if ok:
            self._worst = np.maximum(self._worst, np.max(ok, axis=0))
        sums = [sum(v.excess for v in result.violations) for result in told]
        self._worst_excess = max(self._worst_excess, *sums)
        objectives = np.tile(self._worst, (len(told), 1))
        excess = np.zeros((len(told), 1))
        for row, (result, over) in enumerate(zip(told, sums, strict=True)):
            if result.status is Status.OK:
                objectives[row] = result.objectives
            else:
                excess[row] = max(over, 1e-6) if result.status is Status.INFEASIBLE else self._worst_excess + 1.0
        return objectives, excess


def _problem(axes: Axes, objectives: int) -> Any:
    return Problem(vars={axis.name: _variable(axis) for axis in axes.axes}, n_obj=objectives, n_ieq_constr=1)


def _variable(axis: Axis) -> Variable:
    if axis.values is None:
        return Real(bounds=(0.0, 1.0))
    return Integer(bounds=(0, axis.last)) if axis.ordered else Choice(options=list(range(axis.last + 1)))


def _algorithm(name: str, axes: Axes, fresh: Fresh, objectives: int, population: int) -> Any:
    directions = {}
    if name in ("NSGA3", "UNSGA3"):
        parts = 1
        while math.comb(parts + objectives, objectives - 1) <= population and objectives > 1:
            parts += 1
        directions = {"ref_dirs": get_reference_directions("das-dennis", objectives, n_partitions=parts)}
        population = max(population, len(directions["ref_dirs"]))
    repair, unseen = _Repaired(axes, fresh), _Unseen(axes, fresh)
    algorithm = ALGORITHMS[name](
        pop_size=population, sampling=_Start(axes, fresh), repair=repair, eliminate_duplicates=unseen, **directions
    )
    # pymoo's default survival is one object for all instances, and SPEA2's remembers what it saw
    algorithm.survival = copy.deepcopy(algorithm.survival)
    share = 1.0 / max(len(axes.axes), 1)  # one mutation a child on average, over the variables of all kinds together
    algorithm.mating = MixedVariableMating(
        selection=algorithm.mating.selection,
        crossover={Real: SBX(), Integer: SBX(vtype=float, repair=RoundingRepair()), Choice: UX()},
        mutation={
            Real: PM(prob=1.0, prob_var=share),
            Integer: PM(prob=1.0, prob_var=share, vtype=float, repair=RoundingRepair()),
            Choice: ChoiceRandomMutation(prob=1.0, prob_var=share),
        },
        repair=repair,
        eliminate_duplicates=unseen,
        n_max_iterations=20,
    )
    return algorithm


class _Start(Sampling):  # type: ignore[misc]
    """The first generation: valid points that lie far apart."""

    def __init__(self, axes: Axes, fresh: Fresh) -> None:
        super().__init__()
        self._axes, self._fresh = axes, fresh

    def _do(self, _: Any, n_samples: int, **__: Any) -> list[dict[str, int | float]]:
        # drawn from a space of its own bookkeeping: what is claimed here would count as seen before it was asked
        spread = Fresh(self._fresh.space, self._fresh.rng)
        points = [point for _ in range(n_samples) if (point := spread.spread()) is not None]
        return [self._axes.encode(point, self._axes.middle()) for point in points]


class _Repaired(Repair):  # type: ignore[misc]
    """Makes children valid and canonical; parameters that do not exist in a child keep their silent codes."""

    def __init__(self, axes: Axes, fresh: Fresh) -> None:
        super().__init__()
        self._axes, self._fresh = axes, fresh

    def _do(self, _: Any, X: Any, **__: Any) -> Any:
        for row, codes in enumerate(X):
            point = self._fresh.repaired(self._axes.decode(codes))
            X[row] = self._axes.encode(point, codes)
        return X


class _Unseen(DuplicateElimination):  # type: ignore[misc]
    """Drops children that mean a point which was asked before, or that another child means."""

    def __init__(self, axes: Axes, fresh: Fresh) -> None:
        super().__init__()
        self._axes, self._fresh = axes, fresh

    def do(self, pop: Any, *others: Any, **_: Any) -> Any:
        # the population was asked, so only siblings that wait to be asked are left to compare with
        taken = {self._key(one) for other in others for one in other}
        keep = []
        for index, one in enumerate(pop):
            name = self._key(one)
            if name not in taken and self._fresh.is_new(self._fresh.space.canonical(self._axes.decode(one.X))):
                keep.append(index)
            taken.add(name)
        return pop[keep]

    def _key(self, one: Any) -> str:
        return key(self._fresh.space.canonical(self._axes.decode(one.X)))
