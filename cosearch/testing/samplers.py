# ruff: noqa: D102 - the name of a test says what it holds
"""The tests that every sampler passes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product

import numpy as np

from cosearch.samplers import Brief, Sampler
from cosearch.space.domains import Choice, Integer
from cosearch.spec import Point, Result, Status, Violation, canonical_json
from cosearch.testing.toy import OBJECTIVES, ToyParameter, ToySpace, codesign_space, score

__all__ = ["SamplerContract"]


class SamplerContract:
    """Subclass it under a name that begins with ``Test``, and define `make`.

    Attributes:
        models: models that the longer tests ask for; raise it for a sampler that starts learning late.
    """

    models = 24

    def make(self, space: ToySpace, objectives: int, seed: int) -> Sampler:
        """Returns a new sampler for ``space``."""
        raise NotImplementedError("define make(self, space, objectives, seed) in your subclass")

    def test_it_has_ask_and_tell(self) -> None:
        assert isinstance(self.make(codesign_space(), len(OBJECTIVES), 0), Sampler)

    def test_points_are_valid_canonical_and_plain(self) -> None:
        space = codesign_space()
        for point in self._search(self.make(space, len(OBJECTIVES), 1), self.models):
            assert not space.violations(point), f"{point} breaks a constraint"
            assert dict(space.canonical(point)) == dict(point), f"{point} is not in canonical form"
            for name, value in point.items():
                assert type(value) in (bool, int, float, str), f"{name} is a {type(value)}, not a plain Python value"

    def test_values_are_from_the_domains(self) -> None:
        space = codesign_space()
        domains = {parameter.name: parameter.domain for parameter in space.parameters}
        for point in self._search(self.make(space, len(OBJECTIVES), 2), 8):
            for name, value in point.items():
                assert domains[name].contains(value), f"{name} is {value!r}"
                assert type(value) is type(domains[name].normal(value)), f"{name} is {value!r}, of another type"

    def test_no_point_is_asked_twice(self) -> None:
        asked = [_named(p) for p in self._search(self.make(codesign_space(), len(OBJECTIVES), 3), self.models)]
        assert len(set(asked)) == len(asked)

    def test_n_counts_models(self) -> None:
        sampler = self.make(codesign_space(), len(OBJECTIVES), 4)
        for n in (1, 3, 2):
            points = sampler.ask(n)
            assert points, "nothing was asked at the start"
            assert len({_model(point) for point in points}) <= n
            sampler.tell(score(points))

    def test_same_seed_gives_same_points_whatever_the_global_generators_do(self) -> None:
        runs = []
        for disturbance in (1, 2):
            np.random.seed(disturbance)
            random.seed(disturbance)
            runs.append(self._search(self.make(codesign_space(), len(OBJECTIVES), 5), self.models))
        assert runs[0] == runs[1]

    def test_another_seed_gives_other_points(self) -> None:
        first, second = (self.make(codesign_space(), len(OBJECTIVES), seed).ask(4) for seed in (6, 7))
        assert list(first) != list(second)

    def test_it_may_be_asked_ahead_of_telling(self) -> None:
        sampler = self.make(codesign_space(), len(OBJECTIVES), 8)
        waiting: list[Sequence[Point]] = []
        seen: list[str] = []
        for _ in range(2 * self.models):
            points = sampler.ask(2)
            seen.extend(map(_named, points))
            waiting.append(points)
            assert any(waiting), "nothing is outstanding, yet nothing was asked: the search would end here"
            if len(waiting) == 4 or not points:
                oldest = waiting.pop(0)
                if oldest:
                    sampler.tell(score(oldest))
        assert len(set(seen)) == len(seen) > self.models

    def test_results_may_come_in_pieces(self) -> None:
        samplers = [self.make(codesign_space(), len(OBJECTIVES), 9) for _ in range(2)]
        for _ in range(6):
            together, apart = (sampler.ask(4) for sampler in samplers)
            assert list(together) == list(apart), "telling results one by one changed what was asked"
            results = score(together)
            samplers[0].tell(results)
            for result in results:
                samplers[1].tell([result])

    def test_telling_nothing_is_harmless(self) -> None:
        sampler = self.make(codesign_space(), len(OBJECTIVES), 10)
        sampler.tell([])
        assert sampler.ask(1)

    def test_it_goes_on_when_everything_fails(self) -> None:
        self._goes_on(Result(index=0, point={}, status=Status.FAILED, reason="the training diverged"))

    def test_it_goes_on_when_everything_is_infeasible(self) -> None:
        broken = (Violation(limit="area_mm2 <= 1", excess=0.5),)
        self._goes_on(Result(index=0, point={}, status=Status.INFEASIBLE, violations=broken))

    def test_it_goes_on_when_some_fail(self) -> None:
        sampler = self.make(codesign_space(), len(OBJECTIVES), 11)
        for turn in range(8):
            points = sampler.ask(4)
            assert points
            results = score(points)
            bad = Result(index=0, point={}, status=Status.FAILED, reason="the training diverged")
            sampler.tell([replace(bad, point=r.point) if i % 3 == turn % 3 else r for i, r in enumerate(results)])

    def test_a_tiny_space_is_asked_whole_and_then_nothing(self) -> None:
        space = _tiny()
        names = [parameter.name for parameter in space.parameters]
        values = [parameter.domain.values() for parameter in space.parameters]
        all_points = [dict(zip(names, chosen, strict=True)) for chosen in product(*values)]
        valid = {canonical_json(space.canonical(p)) for p in all_points if not space.violations(p)}
        sampler = self.make(space, 2, 12)
        asked: list[str] = []
        for _ in range(4 * len(valid) + 2):
            points = sampler.ask(2)
            if not points:
                break
            asked.extend(canonical_json(point) for point in points if not isinstance(point, Brief))
            sampler.tell([_tiny_result(point, i) for i, point in enumerate(points)])
        assert not sampler.ask(2), "an exhausted space still gives points"
        assert sorted(asked) == sorted(valid)

    def test_a_space_of_one_point_is_asked_once(self) -> None:
        one = ToySpace((ToyParameter("model.a", Choice((1,))), ToyParameter("accelerator.b", Integer(4, 4))))
        sampler = self.make(one, 2, 13)
        points = sampler.ask(3)
        if any(isinstance(point, Brief) for point in points):
            sampler.tell([_tiny_result(points[0], 0)])
            points = sampler.ask(3)
        assert [dict(point) for point in points] == [{"model.a": 1, "accelerator.b": 4}]
        sampler.tell([_tiny_result(points[0], 0)])
        assert not sampler.ask(1)

    def _search(self, sampler: Sampler, models: int) -> list[Point]:
        """Returns what is asked while models are told two at a time."""
        points: list[Point] = []
        seen: set[str] = set()
        for _ in range(4 * models):
            asked = sampler.ask(2)
            assert asked, f"nothing left after {len(points)} points of a space that has millions"
            sampler.tell(score(asked, first=len(points)))
            points.extend(asked)
            seen.update(map(_model, asked))
            if len(seen) >= models:
                return points
        raise AssertionError(f"only {len(seen)} different models were asked in {4 * models} turns")

    def _goes_on(self, result: Result) -> None:
        space = codesign_space()
        sampler = self.make(space, len(OBJECTIVES), 14)
        for _ in range(self.models // 2):
            points = sampler.ask(2)
            assert points, "it gave up"
            assert not any(space.violations(point) for point in islice(points, 4))
            sampler.tell([replace(result, index=i, point=point) for i, point in enumerate(points)])


def _named(point: Point) -> str:
    return f"{'brief ' if isinstance(point, Brief) else ''}{canonical_json(point)}"


def _model(point: Point) -> str:
    return canonical_json({name: value for name, value in point.items() if name.startswith("model.")})


def _tiny() -> ToySpace:
    """A space of 14 points, with a condition and a constraint within each side."""
    return ToySpace(
        (
            ToyParameter("model.a", Choice((1, 2, 3))),
            ToyParameter("model.b", Choice(("x", "y")), lambda p: p["model.a"] != 3),
            ToyParameter("accelerator.c", Choice((True, False))),
            ToyParameter("accelerator.d", Integer(1, 2)),
        ),
        (
            (("model.a", "model.b"), lambda p: (p["model.a"], p["model.b"]) != (1, "y")),
            (("accelerator.c", "accelerator.d"), lambda p: bool(p["accelerator.c"]) or p["accelerator.d"] == 1),
        ),
    )


def _tiny_result(point: Point, index: int) -> Result:
    size = float(point["model.a"])
    return Result(index=index, point=point, status=Status.OK, objectives=(-size, size * (1.0 + 1.0 * len(point))))
