"""One side of a space, model or accelerator: its fields, and what a point of it means.

A side takes points that give its parameters (others may be there too), *complete* ones that give every parameter or
*canonical* ones that give only those that matter. `Side.resolve` goes through the fields so that each comes after those
it depends on, decides which exist, and picks among values that mean the same. Everything else builds on that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError, UserError, did_you_mean
from cosearch.space.counting import Factor, total
from cosearch.space.expression import UncomputableError
from cosearch.space.field import Constraint, Draft, Field, Parameter, Resolved, ordered_fields
from cosearch.spec import Point, Scalar, Violation

__all__ = ["ATTEMPTS", "Side", "rejected"]

ATTEMPTS = 2000
"""Points drawn before sampling gives up."""
_MOST_CACHED = 4096

Spec = TypeVar("Spec")


def rejected(counts: Counter[str]) -> UserError:
    """Returns the error for sampling that found nothing, given how often each limit was broken."""
    worst, times = counts.most_common(1)[0]
    return UserError(
        f"no valid point among {ATTEMPTS} random ones; {worst!r} alone rejects {times} of them: "
        "loosen it, or narrow the domains it mentions"
    )


class Side(ABC, Generic[Spec]):
    """The sub-space of the parameters of one side.

    Attributes:
        name: ``model`` or ``accelerator``.
        fields: its fields by name.
        parameters: all its parameters, in order.
        constraints: the constraints that mention this side alone.
    """

    countable: frozenset[str] = frozenset()
    """Fields with finitely many meanings even where their domain is continuous."""

    def __init__(
        self, name: str, fields: Sequence[Field], constraints: Sequence[Constraint], defaults: Mapping[str, Scalar]
    ) -> None:
        self.name = name
        self.fields = {item.name: item for item in fields}
        self.parameters = tuple(Parameter(name=n, domain=item.domain) for item in fields for n in item.names)
        self.constraints = tuple(constraints)
        fixed = {item.name: item.domain.values()[0] for item in fields if item.fixed and item.repeats is None}
        others = {other: value for other, value in defaults.items() if other not in self.fields}
        self._constants: dict[str, Any] = {**others, **fixed}
        self._names = tuple(parameter.name for parameter in self.parameters)
        self._known = frozenset(self._names)
        self._owner = {n: item for item in fields for n in item.names}
        self._depends = {name: self.depends(item) for name, item in self.fields.items()}
        self._order = ordered_fields(self.fields, self._depends)
        self._cache: dict[tuple[object, ...], Resolved[Spec]] = {}

    # What the two sides do differently.

    @abstractmethod
    def build(self, values: Mapping[str, Any]) -> Spec:
        """Returns the spec of resolved ``values``.

        Raises:
            SpecError: it cannot exist.
        """

    def verify(self, spec: Spec) -> None:
        """Raises `SpecError` where ``spec`` cannot exist, beyond what `build` finds."""

    @abstractmethod
    def encode(self, spec: Spec) -> Point:
        """Returns the canonical point that means ``spec``.

        Raises:
            UserError: none does.
        """

    def depends(self, item: Field) -> frozenset[str]:
        """Returns the names of the fields that decide whether ``item`` exists and what its values mean."""
        mentioned = item.when.names if item.when else frozenset()
        return frozenset(n.partition(".")[2] for n in mentioned) & self.fields.keys()

    def representative(self, item: Field, value: Scalar, values: Mapping[str, Any]) -> Scalar:  # noqa: ARG002 - a hook
        """Returns the value that stands for all those that mean the same as ``value``."""
        return value

    def meanings(self, item: Field, values: Mapping[str, Any]) -> int:  # noqa: ARG002 - a hook
        """Returns how many different things one value of ``item`` can mean."""
        return int(item.domain.size())

    def filler(self, item: Field) -> Scalar:
        """Returns the value that a parameter takes when a step to a neighbour makes it matter."""
        return item.domain.from_unit(0.0)

    def variants(self, here: Point, base: Point, name: str, value: Scalar) -> Iterator[Point]:  # noqa: ARG002 - a hook
        """Yields the points in which parameter ``name`` went to ``value``."""
        yield {**base, name: value}

    def found(self, draft: Draft, item: Field) -> None:
        """Notes what follows from the value that ``item`` just got."""

    # What points mean.

    def holds(self, item: Field, values: Mapping[str, Any], troubles: list[Violation] | None = None) -> bool:
        """Returns whether ``item`` exists; one that cannot be computed counts as broken and goes to ``troubles``."""
        if item.when is None:
            return True
        try:
            return bool(item.when({self.name: values}))
        except UncomputableError as error:
            if troubles is not None:
                limit = f"{item.path} exists when {item.when.text} (cannot be computed: {error})"
                troubles.append(Violation(limit=limit, excess=1.0))
            return False

    def take(self, draft: Draft, item: Field, name: str) -> Scalar:
        """Returns the value that the point gives parameter ``name``.

        Raises:
            UserError: it gives none, or one outside the domain.
        """
        draft.read.add(name)
        given = draft.raw.get(name)
        if given is None:
            raise UserError(f"the point gives no value for {name}; it takes {item.domain}")
        value = item.domain.normal(given)
        if value is None:
            raise UserError(f"{name} is {given!r}, which its domain lacks; it takes {item.domain}")
        return value

    def settle(self, draft: Draft, item: Field) -> None:
        """Finds the value of ``item``, given those it depends on, and notes it in ``draft``."""
        values = draft.values
        count = None if item.repeats is None else int(values["depth"])
        if item.fixed or not self.holds(item, values, draft.troubles):
            constant = item.domain.values()[0] if item.fixed else item.otherwise
            values[item.name] = constant if count is None else (constant,) * count
        elif count is None:
            draft.point[item.path] = values[item.name] = self._chosen(draft, item, item.path)
        else:
            chosen = {name: self._chosen(draft, item, name) for name in item.names[:count]}
            draft.point.update(chosen)
            values[item.name] = tuple(chosen.values())
        self.found(draft, item)

    def _chosen(self, draft: Draft, item: Field, name: str) -> Scalar:
        return self.representative(item, self.take(draft, item, name), draft.values)

    def resolve(self, point: Point) -> Resolved[Spec]:
        """Returns what ``point`` means; remembered, so that asking again costs little.

        Raises:
            UserError: a parameter that matters is missing, outside its domain, or one is unknown.
        """
        key = tuple(map(point.get, self._names))
        try:
            known = self._cache.get(key)
        except TypeError:  # a list, say: take() tells the user
            known = None
        if known is not None:
            return known
        for name in point:
            if name not in self._known and name.startswith(f"{self.name}."):
                raise UserError(f"the point gives {name}, which the space lacks; {did_you_mean(name, self._known)}")
        draft = Draft(raw=point, values=dict(self._constants))
        for item in self._order:
            self.settle(draft, item)
        resolved = self._finish(draft)
        if len(self._cache) >= _MOST_CACHED:
            self._cache.clear()
        self._cache[key] = resolved
        return resolved

    def _finish(self, draft: Draft) -> Resolved[Spec]:
        spec, error = None, None
        try:
            spec = self.build(draft.values)
        except SpecError as caught:
            error = caught
        return Resolved(
            values=draft.values,
            point={name: draft.point[name] for name in self._names if name in draft.point},
            read=frozenset(draft.read),
            troubles=tuple(draft.troubles),
            spec=spec,
            error=error,
        )

    def spec(self, point: Point) -> Spec:
        """Returns what ``point`` decodes to.

        Raises:
            SpecError: it cannot exist.
            UserError: the point does not belong to the space.
        """
        resolved = self.resolve(point)
        if resolved.spec is None:
            error = resolved.error or SpecError(self.name, "cannot exist", "change the point")
            raise SpecError(f"{self.name}.{error.field}", error.problem, error.remedy)
        return resolved.spec

    # What samplers use.

    def canonical(self, point: Point) -> dict[str, Scalar]:
        """Returns the one point that means what ``point`` means.

        Parameters that do not matter are left out; among values that mean the same, the smallest stands for all.

        Raises:
            UserError: the point does not belong to the space.
        """
        return dict(self.resolve(point).point)

    def violations(self, point: Point) -> tuple[Violation, ...]:
        """Returns what is wrong with this side: constraints that mention it alone, or that it cannot exist.

        Raises:
            UserError: the point does not belong to the space.
        """
        resolved = self.resolve(point)
        if resolved.violations is None:
            resolved.violations = tuple(self._violations(resolved))
        return resolved.violations

    def _violations(self, resolved: Resolved[Spec]) -> Iterator[Violation]:
        yield from resolved.troubles
        error = resolved.error
        if resolved.spec is not None:
            try:
                self.verify(resolved.spec)
            except SpecError as caught:
                error = caught
        if error is not None:
            yield Violation(limit=f"{self.name}.{error.field} {error.problem}", excess=1.0)
        for constraint in self.constraints:
            violation = constraint.check({self.name: resolved.values})
            if violation is not None:
                yield violation

    def attempt(self, rng: np.random.Generator) -> tuple[Point | None, Counter[str]]:
        """Returns a random valid point, or ``None`` with how often each limit was broken."""
        broken: Counter[str] = Counter()
        for _ in range(ATTEMPTS):
            raw = {parameter.name: parameter.domain.sample(rng) for parameter in self.parameters}
            violations = self.violations(raw)
            if not violations:
                return self.canonical(raw), broken
            broken.update(violation.limit for violation in violations)
        return None, broken

    def sample(self, rng: np.random.Generator) -> Point:
        """Returns a random valid point in canonical form: every parameter uniform, points that break a limit redrawn.

        Raises:
            UserError: none was found; names the limit that rejects most.
        """
        point, broken = self.attempt(rng)
        if point is None:
            raise rejected(broken)
        return point

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Yields the valid canonical points one parameter away, in a fixed order, each once.

        A value on a scale goes to the nearest below and above that mean something else; a choice goes to each other
        value. A parameter that starts to matter takes the value of the block before it, where there is one.
        """
        here = self.canonical(point)
        seen = [here]
        base = self._filled(here)
        for name in here:
            domain = self._owner[name].domain
            if domain.ordered:
                moves = (
                    m for m in (self._away(base, here, name, -1), self._away(base, here, name, 1)) if m is not None
                )
            else:
                moves = (m for value in domain.neighbours(here[name]) for m in self.variants(here, base, name, value))
            for move in moves:
                there = self.canonical(move)
                if there not in seen:
                    seen.append(there)
                    if not self.violations(there):
                        yield there

    def _filled(self, here: Point) -> dict[str, Scalar]:
        """Returns a complete point that means what canonical ``here`` means."""
        out: dict[str, Scalar] = {}
        for item in self.fields.values():
            last = self.filler(item) if item.names else None
            for name in item.names:
                last = here.get(name, last)
                if last is not None:
                    out[name] = last
        return out

    def _away(self, base: Point, here: Point, name: str, direction: int) -> Point | None:
        """Returns the point whose ``name`` went up or down until it means something else; ``None`` at the end."""
        value, domain = here[name], self._owner[name].domain
        while True:
            onward = [v for v in domain.neighbours(value) if (float(v) - float(value)) * direction > 0]
            if not onward:
                return None
            value = onward[0]
            move = {**base, name: value}
            if self.canonical(move) != here:
                return move

    def to_unit(self, point: Point) -> NDArray[np.float64]:
        """Returns the meaning of ``point`` as an array of shape (parameters,) in [0, 1]; what does not matter is 0."""
        here = self.resolve(point).point
        unit = [p.domain.to_unit(here[p.name]) if p.name in here else 0.0 for p in self.parameters]
        return np.array(unit, dtype=np.float64)

    def from_unit(self, array: NDArray[np.float64]) -> dict[str, Scalar]:
        """Returns the complete point that an array of shape (parameters,) stands for; numbers are clipped to [0, 1].

        Parameters that do not matter get their first value.

        Raises:
            UserError: the array has another shape, or holds NaN.
        """
        if np.shape(array) != (len(self.parameters),):
            raise UserError(
                f"{self.name} has {len(self.parameters)} parameters, but the array has shape {np.shape(array)}"
            )
        if np.isnan(array).any():
            raise UserError(f"the array for {self.name} holds NaN; give numbers from 0 to 1")
        raw = {p.name: p.domain.from_unit(float(u)) for p, u in zip(self.parameters, array, strict=True)}
        read = self.resolve(raw).read
        return {p.name: raw[p.name] if p.name in read else p.domain.from_unit(0.0) for p in self.parameters}

    # How many points there are.

    def size(self) -> int | float:
        """Returns the number of canonical points, before constraints; infinity where a value has a continuous meaning.

        Raises:
            UserError: the conditions tie too many parameters together to count.
        """
        if any(math.isinf(item.domain.size()) and item.name not in self.countable for item in self.fields.values()):
            return math.inf
        parents = {name for others in self._depends.values() for name in others}
        variables = {name: self.outcomes(self.fields[name]) for name in parents if not self.fields[name].fixed}
        factors = []
        for item in self.fields.values():
            scope = set(self._depends[item.name]) | ({item.name} & parents)
            names = tuple(sorted(scope & variables.keys()))
            factors.append(Factor(names, _Weight(self, item)))
        return total(variables, factors)

    def outcomes(self, item: Field) -> tuple[Scalar, ...]:
        """Returns all values that ``item`` can end up with."""
        values = tuple(item.domain.values())
        return values if item.when is None or item.otherwise in values else (*values, item.otherwise or 0)

    def ways(self, item: Field, values: Mapping[str, Any]) -> int:
        """Returns how many canonical choices of ``item`` there are, given what it depends on.

        Where ``values`` gives a value for the field itself, only choices that lead to this value count.
        """
        exists = not item.fixed and self.holds(item, values)
        if item.repeats is not None:
            return int(self.meanings(item, values) ** int(values["depth"])) if exists else 1
        if item.name in values and not item.fixed:
            result = values[item.name]
            return int(item.domain.contains(result) if exists else result == item.otherwise)
        return self.meanings(item, values) if exists else 1

    def known(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns ``values`` with the constants added."""
        return {**self._constants, **values}


@dataclass(frozen=True, slots=True)
class _Weight:
    """The number of canonical choices of one field, as a function of what it depends on."""

    side: Side[Any]
    item: Field

    def __call__(self, env: Mapping[str, Any]) -> int:
        return self.side.ways(self.item, self.side.known(env))
