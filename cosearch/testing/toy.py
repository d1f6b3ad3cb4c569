"""A small co-design problem, so that a sampler can be tried in milliseconds.

`ToySpace` speaks as much of `cosearch.space.Space` as samplers need. `codesign_space` and `score` are a sketch of the
real thing: accuracy that saturates with size and suffers from few bits and few tokens, with the noise of a training;
latency, energy and area of a systolic array with a memory behind it. The constants are plausible, not calibrated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosearch.front import Objective
from cosearch.samplers import Brief
from cosearch.space.domains import Choice, Domain, Float, Integer
from cosearch.spec import Point, Result, Scalar, Status, Violation, canonical_json

__all__ = ["AREA_LIMIT_MM2", "OBJECTIVES", "ToyParameter", "ToySpace", "codesign_space", "score"]

OBJECTIVES = (
    Objective("accuracy", "max"),
    Objective("latency_s", "min", "s"),
    Objective("energy_j", "min", "J"),
    Objective("area_mm2", "min", "mm²"),
)
AREA_LIMIT_MM2 = 4.0
"""Accelerators above this are infeasible."""

Test = Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True, slots=True)
class ToyParameter:
    """A parameter; with ``when``, it exists only in points that pass."""

    name: str
    domain: Domain
    when: Test | None = None


@dataclass(frozen=True, slots=True)
class ToySpace:
    """A space in Python instead of YAML.

    Attributes:
        parameters: in an order in which a condition only looks back.
        constraints: (names that it reads, what must hold).
    """

    parameters: tuple[ToyParameter, ...]
    constraints: tuple[tuple[tuple[str, ...], Test], ...] = ()

    def canonical(self, point: Mapping[str, Scalar]) -> Point:
        """Returns ``point`` without the parameters that do not exist in it."""
        kept: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.when is None or parameter.when(kept):
                kept[parameter.name] = point[parameter.name]
        return kept

    def violations(self, point: Mapping[str, Scalar]) -> tuple[Violation, ...]:
        """Returns the constraints that ``point`` breaks."""
        names = self.canonical(point)
        return tuple(
            Violation(limit=", ".join(reads), excess=1.0)
            for reads, holds in self.constraints
            if all(name in names for name in reads) and not holds(point)
        )

    def sample(self, rng: np.random.Generator) -> Point:
        """Returns a random valid point."""
        while True:
            point = self.canonical({p.name: p.domain.sample(rng) for p in self.parameters})
            if not self.violations(point):
                return point

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Yields the valid points that differ in one parameter (and in those that this brings into being)."""
        full = {p.name: point.get(p.name, p.domain.from_unit(0.5)) for p in self.parameters}
        for parameter in self.parameters:
            if parameter.name in point:
                for value in parameter.domain.neighbours(point[parameter.name]):
                    near = self.canonical({**full, parameter.name: value})
                    if not self.violations(near):
                        yield near

    def side(self, name: str) -> ToySpace:
        """Returns the space of the parameters whose names begin with ``name``."""
        own = tuple(p for p in self.parameters if p.name.startswith(f"{name}."))
        names = {p.name for p in own}
        return ToySpace(own, tuple((reads, holds) for reads, holds in self.constraints if names.issuperset(reads)))

    def join(self, model_point: Point, accelerator_point: Point) -> Point:
        """Returns the point that pairs the two."""
        return self.canonical({**model_point, **accelerator_point})


STAGES = 4


def codesign_space() -> ToySpace:
    """Returns a space of 15 model and 6 accelerator parameters, with a condition and a constraint."""

    def prunes(point: Mapping[str, Scalar]) -> bool:
        return point["model.method"] == "prune"

    stages = range(STAGES)
    parameters = (
        ToyParameter("model.dim", Integer(32, 160, 16)),
        ToyParameter("model.heads", Choice((2, 3, 4, 5))),
        ToyParameter("model.depth", Integer(2, 8)),
        ToyParameter("model.mlp_ratio", Choice((1, 2, 3, 4))),
        ToyParameter("model.patch", Choice((4, 8))),
        ToyParameter("model.method", Choice(("none", "prune"))),
        ToyParameter("model.keep", Float(0.4, 0.9, 0.1), prunes),
        *(ToyParameter(f"model.weight_bits[{i}]", Integer(2, 8)) for i in stages),
        *(ToyParameter(f"model.activation_bits[{i}]", Integer(2, 8)) for i in stages),
        ToyParameter("accelerator.rows", Integer(4, 64, 2, log=True)),
        ToyParameter("accelerator.columns", Integer(4, 64, 2, log=True)),
        ToyParameter("accelerator.dataflow", Choice(("ws", "os", "is"))),
        ToyParameter("accelerator.buffer_kib", Integer(8, 512, 2, log=True)),
        ToyParameter("accelerator.bandwidth", Float(0.5e9, 16e9, log=True)),
        ToyParameter("accelerator.clock_hz", Float(1e8, 1e9, log=True)),
    )
    reads = ("model.dim", "model.heads")
    return ToySpace(parameters, ((reads, lambda p: int(p["model.dim"]) % int(p["model.heads"]) == 0),))


def score(points: Sequence[Point], first: int = 0, noise: float = 0.006) -> list[Result]:
    """Returns the results of points of `codesign_space`, in their order.

    Args:
        points: what was asked.
        first: index of the first of them.
        noise: standard deviation of a model's accuracy; a model always gets the same draw. A `Brief` point's accuracy
            is lower and has ten times as much, and a share of 0.05.
    """
    groups: dict[str, list[int]] = {}
    for index, point in enumerate(points):
        model = {name: value for name, value in point.items() if name.startswith("model.")}
        groups.setdefault(canonical_json(model), []).append(index)
    results: dict[int, Result] = {}
    for name, rows in groups.items():
        model_id = hashlib.sha256(name.encode()).hexdigest()[:12]
        brief = isinstance(points[rows[0]], Brief)
        accuracy = _accuracy(points[rows[0]], model_id, noise)
        if brief:
            accuracy = max(0.0, _accuracy(points[rows[0]], f"{model_id}b", 10 * noise) - 0.3)
        costs = _costs(points[rows[0]], [points[row] for row in rows])
        for place, row in enumerate(rows):
            metrics = {"accuracy": accuracy, **{cost: float(values[place]) for cost, values in costs.items()}}
            found = _result(first + row, points[row], model_id, metrics)
            results[row] = replace(found, share=0.05) if brief else found
    return [results[row] for row in range(len(points))]


def _result(index: int, point: Point, model_id: str, metrics: dict[str, float]) -> Result:
    excess = metrics["area_mm2"] / AREA_LIMIT_MM2 - 1
    if excess > 0:
        broken = (Violation(limit=f"area_mm2 <= {AREA_LIMIT_MM2:g}", excess=excess),)
        return Result(
            index=index, point=point, status=Status.INFEASIBLE, model_id=model_id, metrics=metrics, violations=broken
        )
    values = tuple(o.minimised(metrics[o.metric]) for o in OBJECTIVES)
    return Result(index=index, point=point, status=Status.OK, model_id=model_id, metrics=metrics, objectives=values)


def _number(point: Point, name: str) -> float:
    return float(point[name])


def _accuracy(point: Point, model_id: str, noise: float) -> float:
    dim, depth = _number(point, "model.dim"), _number(point, "model.depth")
    keep = float(point.get("model.keep", 1.0))
    size = dim * dim * depth * (2 + _number(point, "model.mlp_ratio"))
    loss = 0.04 + 4.0 * size**-0.35 + 0.02 * depth / dim**0.5  # saturates; deep and narrow trains badly
    loss += 0.03 * (_number(point, "model.patch") == 8) + 0.12 * (1 - keep) ** 2
    # later stages bear fewer bits
    for stage in range(STAGES):
        weight = 0.25 - 0.04 * stage
        loss += weight * 2.0 ** (-_number(point, f"model.weight_bits[{stage}]"))
        loss += 1.5 * weight * 2.0 ** (-_number(point, f"model.activation_bits[{stage}]"))
    draw = np.random.default_rng(int(model_id, 16)).normal(0.0, noise)
    return float(min(max(1.0 - loss + draw, 0.1), 1.0))


def _costs(model: Point, points: Sequence[Point]) -> dict[str, NDArray[np.float64]]:
    def column(name: str) -> NDArray[np.float64]:
        return np.array([_number(point, f"accelerator.{name}") for point in points])

    rows, columns, buffer = column("rows"), column("columns"), column("buffer_kib") * 1024
    bandwidth, clock = column("bandwidth"), column("clock_hz")
    flow = np.array([("ws", "os", "is").index(str(point["accelerator.dataflow"])) for point in points])
    latency, energy = np.zeros(len(points)), np.zeros(len(points))
    widest = 2.0
    for m, k, n, weight_bits, activation_bits in _products(model):
        folds = np.choose(
            flow,
            [
                np.ceil(k / rows) * np.ceil(n / columns) * (2 * rows + columns + m - 2),
                np.ceil(m / rows) * np.ceil(n / columns) * (2 * rows + columns + k - 2),
                np.ceil(k / rows) * np.ceil(m / columns) * (2 * rows + columns + n - 2),
            ],
        )
        once = (m * k * activation_bits + k * n * weight_bits + m * n * activation_bits) / 8
        traffic = once * np.maximum(1.0, np.sqrt(once / buffer))
        latency += np.maximum(folds / clock, traffic / bandwidth)
        energy += m * k * n * weight_bits * activation_bits * 4e-15 + traffic * 20e-12
        widest = max(widest, weight_bits, activation_bits)
    area = rows * columns * widest**2 * 12e-6 + buffer * 1.5e-6 + bandwidth * 4e-11 + 0.1
    energy += area * 0.02 * latency * (1 + clock / 1e9)
    return {"latency_s": latency, "energy_j": energy, "area_mm2": area}


def _products(model: Point) -> Iterator[tuple[float, float, float, float, float]]:
    """Yields rows, depth, columns, weight bits and activation bits of each matrix product."""
    dim, depth = _number(model, "model.dim"), int(_number(model, "model.depth"))
    tokens = (32 / _number(model, "model.patch")) ** 2 + 1
    hidden = dim * _number(model, "model.mlp_ratio")
    for block in range(depth):
        stage = block * STAGES // depth
        bits = _number(model, f"model.weight_bits[{stage}]"), _number(model, f"model.activation_bits[{stage}]")
        yield (tokens, dim, 4 * dim, *bits)
        yield (tokens, dim, 2 * tokens, bits[1], bits[1])
        if block == depth // 3:
            tokens = np.ceil(tokens * float(model.get("model.keep", 1.0)))
        yield (tokens, dim, 2 * hidden, *bits)
