"""What a section of a space file becomes: fields, the parameters they stand for, constraints, and resolved points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cosearch.errors import SpecError
from cosearch.space.domains import Domain
from cosearch.space.expression import Expression, Scope, UncomputableError
from cosearch.spec import Point, Scalar, Violation

__all__ = ["Constraint", "Draft", "Field", "Parameter", "Resolved", "ordered_fields"]

Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One thing to choose.

    Attributes:
        name: flat name, such as ``model.weight_bits[2]``.
        domain: the values it can take.
    """

    name: str
    domain: Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a section of a space file: a constant, a parameter, or one parameter per block or stage.

    Attributes:
        side: ``model`` or ``accelerator``.
        name: such as ``weight_bits``.
        kind: type of its values.
        domain: the values; a constant has one.
        fixed: whether it is a constant.
        repeats: how often it is there at most, one for each block or stage; ``None`` where it is one value.
        when: it exists only where this holds.
        otherwise: its value where ``when`` does not hold.
    """

    side: str
    name: str
    kind: type
    domain: Domain
    fixed: bool = False
    repeats: int | None = None
    when: Expression | None = None
    otherwise: Scalar | None = None

    @property
    def path(self) -> str:
        """Its name with the side, such as ``model.weight_bits``."""
        return f"{self.side}.{self.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Flat names of its parameters; none where it is a constant."""
        if self.fixed:
            return ()
        return (self.path,) if self.repeats is None else tuple(f"{self.path}[{i}]" for i in range(self.repeats))


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What every point must satisfy.

    Attributes:
        expression: what holds.
        why: the reason, for people; may be empty.
        path: where in the file it stands, such as ``constraints[0]``.
    """

    expression: Expression
    why: str = ""
    path: str = ""

    @property
    def sides(self) -> frozenset[str]:
        """The sides it mentions."""
        return frozenset(name.partition(".")[0] for name in self.expression.names)

    def check(self, scope: Scope) -> Violation | None:
        """Returns the violation where it does not hold; one that cannot be computed does not hold."""
        try:
            excess = self.expression.excess(scope)
        except UncomputableError as error:
            return Violation(limit=f"{self.expression.text} (cannot be computed: {error})", excess=1.0)
        return Violation(limit=self.expression.text, excess=excess) if excess else None


@dataclass(slots=True)
class Draft:
    """A point while it is being resolved.

    Attributes:
        raw: the point as given.
        values: what is known so far, by field.
        point: canonical values so far.
        read: flat names that were read.
        troubles: conditions that could not be computed.
    """

    raw: Point
    values: dict[str, Any]
    point: dict[str, Scalar] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    troubles: list[Violation] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Resolved(Generic[Spec]):
    """What a point of one side means.

    Attributes:
        values: by field, what expressions see; one per block or stage is a tuple.
        point: the canonical point.
        read: flat names that had a say, before equal meanings were merged.
        troubles: conditions that could not be computed.
        spec: what it decodes to; ``None`` where that cannot exist.
        error: why it cannot.
        violations: what the side alone finds wrong; filled when first asked for.
    """

    values: Mapping[str, Any]
    point: Mapping[str, Scalar]
    read: frozenset[str]
    troubles: tuple[Violation, ...]
    spec: Spec | None
    error: SpecError | None
    violations: tuple[Violation, ...] | None = None


def ordered_fields(fields: Mapping[str, Field], depends: Mapping[str, frozenset[str]]) -> tuple[Field, ...]:
    """Returns ``fields``, each after those it depends on, otherwise in their order.

    Raises:
        SpecError: a field depends on itself; the error's field is its condition.
    """
    out: list[Field] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            loop = [*path[path.index(name) :], name]
            culprit = next((n for n in loop if fields[n].when is not None), name)
            way = " -> ".join(f"{fields[n].path}" for n in loop)
            problem = "refers to the field itself" if len(loop) == 2 else f"goes round in a circle: {way}"
            raise SpecError(f"{fields[culprit].path}.when", problem, "let conditions mention only other fields")
        if name not in done:
            for other in fields:
                if other in depends[name]:
                    visit(other, (*path, name))
            done.add(name)
            out.append(fields[name])

    for name in fields:
        visit(name, ())
    return tuple(out)
