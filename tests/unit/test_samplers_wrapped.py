"""What the samplers that wrap other libraries do beyond the contract."""

import numpy as np
import optuna
import pytest

from cosearch.errors import NotFoundError, UserError
from cosearch.samplers.axes import Axes
from cosearch.samplers.fresh import Fresh
from cosearch.samplers.optuna import OptunaSampler
from cosearch.samplers.pymoo import PymooSampler
from cosearch.samplers.random import RandomSampler
from cosearch.space.domains import Choice, Float, Integer
from cosearch.spec import Result, Status, Violation
from cosearch.testing import ToyParameter, ToySpace, codesign_space, score

GRID = ToySpace(
    (
        ToyParameter("model.x", Integer(0, 60)),
        ToyParameter("model.y", Integer(0, 60)),
        ToyParameter("accelerator.z", Float(0.0, 1.0)),
    )
)


def hill(points):
    """Two objectives that agree at x = y = 30, z = 0.5: a good sampler goes there."""
    results = []
    for i, p in enumerate(points):
        away = abs(p["model.x"] - 30) / 60 + abs(p["model.y"] - 30) / 60 + abs(p["accelerator.z"] - 0.5)
        results.append(Result(index=i, point=p, status=Status.OK, objectives=(away, away + 0.01 * p["model.x"] / 60)))
    return results


def best_found(sampler, turns=12, each=8):
    best = np.inf
    for _ in range(turns):
        results = hill(sampler.ask(each))
        sampler.tell(results)
        best = min([best, *(r.objectives[0] for r in results)])
    return best


@pytest.mark.parametrize(
    "make",
    [
        lambda s: PymooSampler(GRID, 2, s, population=8),
        lambda s: PymooSampler(GRID, 2, s, algorithm="SPEA2", population=8),
        lambda s: OptunaSampler(GRID, 2, s, sampler_options={"population_size": 8}),
        lambda s: OptunaSampler(GRID, 2, s, sampler="TPESampler"),
    ],
    ids=["NSGA2", "SPEA2", "optuna NSGA-II", "TPE"],
)
def test_it_learns(make):
    learnt = np.mean([best_found(make(seed)) for seed in range(3)])
    chance = np.mean([best_found(RandomSampler(GRID, 2, seed)) for seed in range(3)])
    assert learnt < chance


def test_infeasible_points_push_towards_the_feasible():
    """Only x <= 6 is feasible, a tenth of the space; by the excess the way there can be seen."""

    def limited(points):
        results = []
        for r in hill(points):
            over = r.point["model.x"] / 60 - 0.1
            broken = (Violation(limit="x", excess=over),) if over > 0 else ()
            status = Status.INFEASIBLE if broken else Status.OK
            results.append(
                Result(
                    index=0, point=r.point, status=status, objectives=() if broken else r.objectives, violations=broken
                )
            )
        return results

    for sampler in (
        PymooSampler(GRID, 2, 0, population=8),
        OptunaSampler(GRID, 2, 0, sampler_options={"population_size": 8}),
        OptunaSampler(GRID, 2, 0, sampler="TPESampler"),
    ):
        shares = []
        for _ in range(20):
            results = limited(sampler.ask(8))
            sampler.tell(results)
            shares.append(np.mean([r.status is Status.OK for r in results]))
        assert np.mean(shares[-8:]) > 0.3


def test_a_generation_waits_for_all_of_its_results():
    sampler = PymooSampler(codesign_space(), 4, 0, population=6)
    first = sampler.ask(4)
    rest = sampler.ask(4)
    assert (len(first), len(rest)) == (4, 2)
    assert sampler.ask(1) == []
    sampler.tell(score(rest))
    sampler.tell(score(first[:3]))
    assert sampler.ask(1) == []
    sampler.tell(score(first[3:]))
    assert len(sampler.ask(10)) == 6


def test_a_failure_counts_as_worse_than_everything():
    sampler = PymooSampler(codesign_space(), 2, 0, population=4)
    points = sampler.ask(4)
    results = [
        Result(index=0, point=points[0], status=Status.OK, objectives=(5.0, 1.0)),
        Result(index=1, point=points[1], status=Status.FAILED, reason="crashed"),
        Result(index=2, point=points[2], status=Status.INFEASIBLE, violations=(Violation(limit="a", excess=3.0),)),
        Result(index=3, point=points[3], status=Status.OK, objectives=(1.0, 5.0)),
    ]
    objectives, excess = sampler._scored(results)
    assert objectives.tolist() == [[5.0, 1.0], [5.0, 5.0], [5.0, 5.0], [1.0, 5.0]]
    assert excess.ravel().tolist() == [0.0, 4.0, 3.0, 0.0]


def test_optuna_sees_the_points_that_were_really_asked():
    space = codesign_space()
    sampler = OptunaSampler(space, 4, 0)
    axes = Axes(space)
    for _ in range(6):
        points = sampler.ask(4)
        sampler.tell(score(points))
    trials = [t for t in sampler._study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert len(trials) == 24
    for trial in trials:
        point = space.canonical(axes.decode(trial.params))
        assert not space.violations(point)
        assert (trial.constraints["excess"] > 0) == (score([point])[0].status is Status.INFEASIBLE)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: PymooSampler(GRID, 2, 0, algorithm="NSGA4"),
            NotFoundError,
            "no pymoo algorithm 'NSGA4' here",
        ),
        (lambda: PymooSampler(GRID, 2, 0, population=2), UserError, "population is 2, but evolution needs parents"),
        (
            lambda: OptunaSampler(GRID, 2, 0, sampler="TPESampl"),
            NotFoundError,
            "no Optuna sampler 'TPESampl' here; did you mean 'TPESampler'",
        ),
        (lambda: OptunaSampler(GRID, 2, 0, sampler="CmaEsSampler"), NotFoundError, "no Optuna sampler 'CmaEsSampler'"),
        (
            lambda: OptunaSampler(GRID, 2, 0, sampler_options={"population": 3}),
            NotFoundError,
            "NSGAIISampler has no option 'population'; did you mean 'population_size'",
        ),
        (
            lambda: OptunaSampler(GRID, 2, 0, sampler_options={"population_size": 1}),
            UserError,
            "Optuna's NSGAIISampler refuses sampler_options: `population_size` must be greater",
        ),
    ],
)
def test_options_that_make_no_sense(make, kind, text):
    with pytest.raises(kind, match=text):
        make()


def test_axes_go_both_ways():
    space = ToySpace(
        (
            ToyParameter("model.bits", Choice((8, 2, 4))),
            ToyParameter("model.flow", Choice(("ws", "os"))),
            ToyParameter("model.one", Choice((7,))),
            ToyParameter("model.rate", Float(1.0, 100.0, log=True)),
            ToyParameter("model.flag", Choice((False, True))),
        )
    )
    axes = Axes(space)
    assert [axis.name for axis in axes.axes] == ["model.bits", "model.flow", "model.rate", "model.flag"]
    assert [axis.ordered for axis in axes.axes] == [True, False, True, False]
    assert axes.axes[0].values == (2, 4, 8)
    point = {"model.bits": 4, "model.flow": "os", "model.one": 7, "model.rate": 10.0, "model.flag": True}
    codes = axes.encode(point, {})
    assert codes == {"model.bits": 1, "model.flow": 1, "model.rate": pytest.approx(0.5), "model.flag": 1}
    assert axes.decode(codes) == {**point, "model.rate": pytest.approx(10.0)}


def test_repair_keeps_what_it_can():
    space = codesign_space()
    fresh = Fresh(space, np.random.default_rng(0))
    wish = {p.name: p.domain.from_unit(0.99) for p in space.parameters} | {"model.dim": 64, "model.heads": 3}
    assert space.violations(wish)
    for _ in range(20):
        got = fresh.repaired(wish)
        assert not space.violations(got)
        assert sum(got[name] != wish[name] for name in got) == 1  # either the width or the heads gave way
    valid = {**wish, "model.heads": 4}
    assert fresh.repaired(valid) == space.canonical(valid)


def test_spread_points_lie_farther_apart_than_random_ones():
    def nearest(points):
        codes = np.array([[p[a.name] / 60 if a.values else p[a.name] for a in Axes(GRID).axes] for p in points])
        gaps = np.abs(codes[:, None] - codes[None]).sum(axis=2)
        return (gaps + 9 * np.eye(len(points))).min(axis=1).mean()

    spread, random = Fresh(GRID, np.random.default_rng(0)), Fresh(GRID, np.random.default_rng(0))
    assert nearest([spread.spread() for _ in range(12)]) > 1.2 * nearest([random.sample() for _ in range(12)])
