"""The product's own sampler: search models, and look at many accelerators for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from cosearch.front import non_dominated
from cosearch.samplers.base import Sampler
from cosearch.samplers.fresh import Fresh, key
from cosearch.samplers.space import SearchSpace, SplitSpace
from cosearch.spec import Point, Result, Status

__all__ = ["SplitSampler"]

INNER = {"optuna": "OptunaSampler", "pymoo": "PymooSampler", "random": "RandomSampler"}


@dataclass(slots=True)
class _Model:
    point: Point
    waiting: set[str]
    results: list[Result] = field(default_factory=list)


@dataclass(slots=True)
class _Stand:
    objectives: tuple[float, ...]
    model: Point
    accelerator: Point
    name: str


class SplitSampler:
    def __init__(
        self,
        space: SplitSpace,
        objectives: int,
        seed: int,
        *,
        inner: str = "pymoo",
        inner_options: Mapping[str, Any] | None = None,
        looks: int = 256,
        summary: str = "minima",
        shares: tuple[float, float] = (0.25, 0.25),
        refine: float = 0.0,
        ref: float | None = None,
    ) -> None:
        self._space = space
        self._accelerators: SearchSpace = space.side("accelerator")
        self._rng = np.random.default_rng([seed, 0])
        self._looks = looks
        inner_seed = int(np.random.default_rng([seed, 1]).integers(2**31))
        factory = getattr(import_module(f"cosearch.samplers.{inner}"), INNER[inner])
        self._inner: Sampler = factory(
            space.side("model"),
            {"own": 1, "ownacc": 2, "contrib": 1}.get(summary, objectives),
            inner_seed,
            **dict(inner_options or {}),
        )
        self._models: dict[str, _Model] = {}
        self._pairs: dict[str, tuple[str, Point]] = {}
        self._front: list[_Stand] = []
        self._summary = summary
        self._shares = shares
        self._refine = refine
        self._ref = ref
        self._box = None
        self._spare = 0.0
        self._asked: set[str] = set()
        self._told = 0
        self._known: dict[str, Point] = {}

    def ask(self, n: int) -> Sequence[Point]:
        points: list[Point] = []
        if self._refine and self._spare >= 1 and self._front:
            points.extend(self._refinement(int(self._spare)))
        for model in self._inner.ask(n):
            pairs = self._pair(model)
            name = key(model)
            self._models[name] = _Model(model, {key(pair) for pair in pairs})
            points.extend(pairs)
        return points

    def _refinement(self, budget: int) -> list[Point]:
        out = []
        tries = 0
        while len(out) < budget and tries < 10 * budget:
            tries += 1
            stand = self._front[int(self._rng.integers(len(self._front)))]
            acc = self._mutate(stand.accelerator)
            pair = self._space.join(stand.model, acc)
            k = key(pair)
            if k in self._asked or self._space.violations(pair):
                continue
            self._asked.add(k)
            self._pairs[k] = ("", acc)
            self._known[k] = stand.model
            out.append(pair)
        self._spare -= len(out)
        return out

    def _mutate(self, acc: Point) -> Point:
        steps = 1 + int(self._rng.random() < 0.5)
        for _ in range(steps):
            near = list(self._accelerators.neighbours(acc))
            if near:
                acc = near[int(self._rng.integers(len(near)))]
        return acc

    def _pair(self, model: Point) -> list[Point]:
        own = Fresh(self._accelerators, self._rng)
        looks = int(self._looks * (1 - self._refine))
        self._spare += self._looks - looks
        stands, near = (int(looks * s) for s in self._shares)
        pairs: list[Point] = []

        def add(acc: Point) -> None:
            pair = self._space.join(model, acc)
            if not self._space.violations(pair):
                pairs.append(pair)
                self._asked.add(key(pair))
                self._pairs[key(pair)] = (key(model), acc)

        best = list({key(s.accelerator): s.accelerator for s in self._front}.values())
        for i in self._rng.permutation(len(best))[:stands].tolist():
            if own.claim(best[i]):
                add(best[i])
        if best:
            for _ in range(4 * near):
                if len(pairs) >= stands + near:
                    break
                acc = self._accelerators.canonical(self._mutate(best[int(self._rng.integers(len(best)))]))
                if own.claim(acc):
                    add(acc)
        while len(pairs) < looks:
            acc = own.sample()
            if acc is None:
                break
            add(acc)
        return pairs

    def tell(self, results: Sequence[Result]) -> None:
        done: list[str] = []
        stands = []
        for result in results:
            k = key(result.point)
            name, acc = self._pairs.pop(k)
            if result.status is Status.OK:
                model = self._models[name].point if name else self._known[k]
                stands.append(_Stand(result.objectives, model, acc, k))
            if not name:
                continue
            m = self._models[name]
            m.results.append(result)
            m.waiting.discard(k)
            if not m.waiting:
                done.append(name)
        self._before = self._front
        allst = self._front + stands
        if allst:
            self._front = [allst[i] for i in non_dominated([s.objectives for s in allst], [s.name for s in allst])]
        out = []
        for name in done:
            m = self._models.pop(name)
            out.append(self._summarise(m))
        if out:
            self._inner.tell(out)

    def _summarise(self, m: _Model) -> Result:
        ok = [r.objectives for r in m.results if r.status is Status.OK]
        self._told += 1
        if not ok:
            bad = [r for r in m.results if r.status is Status.INFEASIBLE]
            if bad:
                b = min(bad, key=lambda r: sum(v.excess for v in r.violations))
                return Result(index=self._told, point=m.point, status=Status.INFEASIBLE, violations=b.violations)
            return Result(index=self._told, point=m.point, status=Status.FAILED, reason=m.results[0].reason)
        arr = np.array(ok)
        if self._summary in ("own", "contrib", "ownacc"):
            from cosearch.front import hypervolume
            from cosearch.testing.toy import BOX

            box = BOX
            if self._ref is not None:
                if self._box is None:
                    from cosearch.front import Objective, Scale

                    sc = Scale.of_points([Objective(str(i), "min") for i in range(4)], arr)
                    self._box = Scale(
                        sc.ideal, tuple(r * 10**self._ref if l else r for r, l in zip(sc.reference, sc.log)), sc.log
                    )
                box = self._box
            u = box.unit(arr)
            if self._summary == "own":
                v = [-hypervolume(u, np.ones(4))]
            elif self._summary == "ownacc":
                v = [-hypervolume(u, np.ones(4)), arr[0, 0]]
            else:
                rest = box.unit([s.objectives for s in self._before]) if self._before else np.empty((0, 4))
                v = [-(hypervolume(np.concatenate([rest, u]), np.ones(4)) - hypervolume(rest, np.ones(4)))]
        elif self._summary == "minima":
            v = arr.min(axis=0)
        elif self._summary == "median":
            v = np.median(arr, axis=0)
        elif self._summary == "logmean":
            v = arr[[int(i) for i in non_dominated(arr, [str(i) for i in range(len(arr))])]].mean(axis=0)
        elif self._summary == "knee":
            l = np.log10(np.abs(arr) + 1e-300) * np.sign(arr + 1e-300)
            l = np.where(arr <= 0, arr, np.log10(np.maximum(arr, 1e-300)))
            span = np.ptp(l, axis=0)
            span[span == 0] = 1
            v = arr[int(((l - l.min(axis=0)) / span).sum(axis=1).argmin())]
        elif self._summary == "share":
            # members of the current front, negative, as every objective but accuracy? use: minima + front share
            v = arr.min(axis=0)
            mine = sum(1 for s in self._front if key(s.model) == key(m.point))
            v = v.copy()
            v[-1] = -mine
        return Result(index=self._told, point=m.point, status=Status.OK, objectives=tuple(float(x) for x in v))
