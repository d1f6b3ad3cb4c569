"""Parameters as numbers, the way optimisers of other libraries take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosearch.samplers.space import SearchDomain, SearchSpace
from cosearch.spec import Point, Scalar

__all__ = ["Axes", "Axis"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter with more than one value.

    Its code is a position in ``values``, or a place in [0, 1] where the domain is continuous.

    Attributes:
        name: the parameter's name.
        values: its values, ascending where they are numbers; ``None`` where it is continuous.
        ordered: whether neighbouring positions are alike.
        domain: the parameter's domain.
    """

    name: str
    values: Sequence[Scalar] | None
    ordered: bool
    domain: SearchDomain

    @property
    def last(self) -> int:
        """The last position of a finite axis."""
        return 0 if self.values is None else len(self.values) - 1

    def code(self, value: Scalar) -> int | float:
        """Returns the code of ``value``."""
        return self.domain.to_unit(value) if self.values is None else self.values.index(value)

    def value(self, code: int | float) -> Scalar:
        """Returns the plain Python value with this code."""
        return self.domain.from_unit(float(code)) if self.values is None else self.values[int(code)]


class Axes:
    """All parameters of a space that can vary, and the values of those that cannot."""

    def __init__(self, space: SearchSpace) -> None:
        self.axes: list[Axis] = []
        self.fixed: dict[str, Scalar] = {}
        for parameter in space.parameters:
            domain = parameter.domain
            size = domain.size()
            if size == 1:
                self.fixed[parameter.name] = domain.from_unit(0.5)
            elif size == float("inf"):
                self.axes.append(Axis(parameter.name, None, True, domain))
            else:
                values = domain.values()
                # a choice among numbers has an order after all, and searching along it is easier
                numbers = not domain.ordered and all(type(v) in (int, float) for v in values)
                values = tuple(sorted(values)) if numbers else values
                self.axes.append(Axis(parameter.name, values, domain.ordered or numbers, domain))

    def decode(self, codes: Mapping[str, int | float]) -> dict[str, Scalar]:
        """Returns a value for every parameter of the space, whether it exists under the others' conditions or not."""
        return {**self.fixed, **{axis.name: axis.value(codes[axis.name]) for axis in self.axes}}

    def encode(self, point: Point, instead: Mapping[str, int | float]) -> dict[str, int | float]:
        """Returns the codes of ``point``; those of parameters that do not exist in it are taken from ``instead``."""
        return {
            axis.name: axis.code(point[axis.name]) if axis.name in point else instead[axis.name] for axis in self.axes
        }

    def middle(self) -> dict[str, int | float]:
        """Returns a code for every axis, from the middle of its scale."""
        return {axis.name: 0.5 if axis.values is None else axis.last // 2 for axis in self.axes}
