"""What samplers need of a space: a small part of `cosearch.space.Space`, so that a toy space serves as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cosearch.spec import Point, Scalar

__all__ = ["SearchDomain", "SearchParameter", "SearchSpace", "SplitSpace"]


class SearchDomain(Protocol):
    """The values of a parameter."""

    @property
    def ordered(self) -> bool:
        """Whether the values lie on a scale."""
        ...

    def size(self) -> int | float:
        """Returns the number of values; infinity where it is continuous."""
        ...

    def values(self) -> Sequence[Scalar]:
        """Returns all values of a finite domain."""
        ...

    def to_unit(self, value: Any) -> float:
        """Returns the value's place in [0, 1]."""
        ...

    def from_unit(self, unit: float) -> Scalar:
        """Returns the value at a place in [0, 1]."""
        ...


class SearchParameter(Protocol):
    """A parameter of a space."""

    @property
    def name(self) -> str:
        """Flat name, such as ``model.depth``."""
        ...

    @property
    def domain(self) -> SearchDomain:
        """Its values."""
        ...


class SearchSpace(Protocol):
    """Where points come from."""

    @property
    def parameters(self) -> Sequence[SearchParameter]:
        """All parameters, those that exist only under a condition included."""
        ...

    def canonical(self, point: Mapping[str, Scalar]) -> Point:
        """Returns the one form of all points that mean the same."""
        ...

    def violations(self, point: Mapping[str, Scalar]) -> Sequence[object]:
        """Returns what the point breaks; empty where it is valid."""
        ...

    def sample(self, rng: np.random.Generator) -> Point:
        """Returns a random valid point."""
        ...

    def neighbours(self, point: Point) -> Iterable[Point]:
        """Returns the valid points one step away."""
        ...


class SplitSpace(SearchSpace, Protocol):
    """A space with a model side and an accelerator side."""

    def side(self, name: Any) -> SearchSpace:
        """Returns the space of the ``model`` or the ``accelerator`` parameters alone."""
        ...

    def join(self, model_point: Point, accelerator_point: Point) -> Point:
        """Returns the point that pairs the two."""
        ...
