"""The split sampler: many looks a model, what the inner sampler hears, and whether it pays."""

from dataclasses import replace

import numpy as np
import pytest

from cosearch.errors import NotFoundError, UserError
from cosearch.front import Scale
from cosearch.samplers.random import RandomSampler
from cosearch.samplers.split import INNER, SplitSampler
from cosearch.space.domains import Choice, Integer
from cosearch.spec import Result, Status, Violation, canonical_json
from cosearch.testing import OBJECTIVES, ToyParameter, ToySpace, codesign_space, score

SPACE = codesign_space()


def side(point, name):
    return {key: value for key, value in point.items() if key.startswith(f"{name}.")}


def ok(point, *objectives):
    return Result(index=0, point=point, status=Status.OK, objectives=objectives)


class Spy:
    """An inner sampler that proposes at random and writes down what it is told."""

    def __init__(self, space, objectives, seed):
        self.random, self.heard = RandomSampler(space, objectives, seed), []

    def ask(self, n):
        return self.random.ask(n)

    def tell(self, results):
        self.heard.extend(results)


@pytest.fixture
def spied(monkeypatch):
    monkeypatch.setitem(INNER, "spy", Spy)

    def make(space=SPACE, objectives=4, **options):
        sampler = SplitSampler(space, objectives, 0, inner="spy", **options)
        return sampler, sampler._inner

    return make


def test_every_model_comes_with_its_looks_in_a_row(spied):
    sampler, _ = spied(looks=32)
    points = sampler.ask(3)
    assert len(points) == 3 * 32
    models = [canonical_json(side(point, "model")) for point in points]
    assert [models[0], models[32], models[64]] == list(dict.fromkeys(models))
    assert len({canonical_json(point) for point in points}) == len(points)


def test_good_accelerators_are_tried_on_the_next_model(spied):
    sampler, _ = spied(looks=40)
    first = sampler.ask(1)
    winner = first[17]
    sampler.tell([ok(p, *([0.1] * 4 if p is winner else [1.0] * 4)) for p in first])
    best = side(winner, "accelerator")
    accelerators = SPACE.side("accelerator")
    near = list(accelerators.neighbours(best))
    near = {canonical_json(p) for one in near for p in (one, *accelerators.neighbours(one))}
    second = [side(p, "accelerator") for p in sampler.ask(1)]
    assert second[0] == best
    assert sum(canonical_json(p) in near for p in second) >= 11  # itself, and a quarter of the looks
    assert len(second) == 40


def test_the_inner_sampler_hears_of_a_model_once_all_its_looks_are_told(spied):
    sampler, inner = spied(looks=4)
    points = sampler.ask(2)
    for result in score(points)[:3]:
        sampler.tell([result])
        assert inner.heard == []
    sampler.tell(score(points)[3:6])
    assert [dict(r.point) for r in inner.heard] == [side(points[0], "model")]
    sampler.tell(score(points)[6:])
    assert len(inner.heard) == 2


@pytest.mark.parametrize(("summary", "heard"), [("compromise", (-0.9, 1e-4, 1e-4)), ("best", (-0.9, 1e-6, 1e-5))])
def test_what_the_inner_sampler_hears_of_a_good_model(spied, summary, heard):
    sampler, inner = spied(objectives=3, looks=4, summary=summary)
    points = sampler.ask(1)
    values = [(-0.9, 1e-6, 1e-1), (-0.9, 1e-4, 1e-4), (-0.9, 1e-2, 1e-5)]
    failed = Result(index=3, point=points[3], status=Status.FAILED, reason="crashed")
    sampler.tell([*(ok(p, *v) for p, v in zip(points, values, strict=False)), failed])
    (told,) = inner.heard
    assert told.status is Status.OK
    assert told.objectives == heard


def test_a_model_without_a_good_look_is_as_bad_as_its_least_violation(spied):
    sampler, inner = spied(looks=3)
    points = sampler.ask(1)
    results = [
        Result(index=i, point=p, status=Status.INFEASIBLE, violations=(Violation(limit="area", excess=x),))
        for i, (p, x) in enumerate(zip(points, (0.5, 0.2, 0.9), strict=True))
    ]
    sampler.tell([*results[:2], Result(index=2, point=points[2], status=Status.FAILED, reason="crashed")])
    (told,) = inner.heard
    assert told.status is Status.INFEASIBLE
    assert told.violations[0].excess == 0.2


def test_a_model_that_fails_everywhere_failed(spied):
    sampler, inner = spied(looks=3)
    sampler.tell([replace(r, status=Status.FAILED, reason="diverged") for r in score(sampler.ask(1))])
    assert inner.heard[0].status is Status.FAILED
    assert inner.heard[0].reason == "diverged"


def test_a_model_that_no_accelerator_suits_is_passed_over(spied):
    space = ToySpace(
        (ToyParameter("model.a", Integer(1, 4)), ToyParameter("accelerator.b", Integer(1, 3))),
        ((("model.a", "accelerator.b"), lambda p: p["model.a"] <= p["accelerator.b"]),),
    )
    sampler, inner = spied(space, 2, looks=8)
    asked = []
    while points := sampler.ask(1):
        asked.extend(points)
        sampler.tell([ok(p, 1.0, 2.0) for p in points])
    assert sorted((p["model.a"], p["accelerator.b"]) for p in asked) == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)]
    assert [r.status for r in inner.heard if r.point["model.a"] == 4] == [Status.INFEASIBLE]


def test_a_small_accelerator_side_is_looked_at_whole(spied):
    space = ToySpace((ToyParameter("model.a", Integer(1, 4)), ToyParameter("accelerator.b", Choice(("x", "y")))))
    sampler, _ = spied(space, 2)
    assert len(sampler.ask(2)) == 4


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"inner": "pymo"}, NotFoundError, "there is no inner sampler 'pymo'; did you mean 'pymoo'"),
        ({"inner": "pymoo", "inner_options": {"popsize": 3}}, NotFoundError, "'pymoo' has no option 'popsize'"),
        ({"looks": 0}, UserError, "looks is 0, but a model needs an accelerator"),
        ({"summary": "bst"}, NotFoundError, "there is no summary 'bst'; did you mean 'best'"),
    ],
)
def test_options_that_make_no_sense(options, kind, text):
    with pytest.raises(kind, match=text):
        SplitSampler(SPACE, 4, 0, **options)


def found(sampler, models):
    """Returns the ok objectives when models are told two at a time."""
    good, seen = [], set()
    while len(seen) < models:
        results = score(sampler.ask(2))
        sampler.tell(results)
        good.extend(r.objectives for r in results if r.status is Status.OK)
        seen |= {r.model_id for r in results}
    return np.array(good)


def test_looks_are_worth_more_than_random_pairs_at_the_same_number_of_models():
    wins = 0
    for seed in range(3):
        split = found(SplitSampler(SPACE, len(OBJECTIVES), seed, inner="random", looks=32), 12)
        pairs = found(RandomSampler(SPACE, len(OBJECTIVES), seed), 12)
        box = Scale.of_fronts(OBJECTIVES, split, pairs)
        wins += box.hypervolume(split) > box.hypervolume(pairs)
    assert wins == 3
