"""A search space: everything that a space file allows, as one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import UserError, did_you_mean
from cosearch.space.accelerator import AcceleratorSide
from cosearch.space.field import Constraint, Parameter
from cosearch.space.side import ATTEMPTS, rejected
from cosearch.space.vit import ModelSide
from cosearch.spec import AcceleratorSpec, Candidate, ModelSpec, Point, Scalar, TaskShape, Violation

__all__ = ["Space"]


class Space:
    """What can be chosen, what a choice means, and which choices are allowed.

    A *point* gives a value to each parameter by its flat name. It may be *complete* (all parameters) or *canonical*
    (only those that matter, one point for each candidate); every method takes both, and numpy scalars as values.

    Attributes:
        name: the space's name.
        description: what it is for.
        file: the file it was read from, as shown to people.
        task: what the models read and say.
        parameters: all parameters, the model's first, in a fixed order.
        constraints: all constraints, in the file's order.
    """

    def __init__(
        self,
        *,
        name: str,
        description: str,
        file: str,
        task: TaskShape,
        model: ModelSide,
        accelerator: AcceleratorSide,
        constraints: Sequence[Constraint],
    ) -> None:
        self.name, self.description, self.file, self.task = name, description, file, task
        self._model, self._accelerator = model, accelerator
        self.constraints = tuple(constraints)
        self._joint = tuple(constraint for constraint in constraints if len(constraint.sides) > 1)
        self.parameters: tuple[Parameter, ...] = (*model.parameters, *accelerator.parameters)
        self._known = frozenset(parameter.name for parameter in self.parameters)

    @overload
    def side(self, name: Literal["model"]) -> ModelSide: ...
    @overload
    def side(self, name: Literal["accelerator"]) -> AcceleratorSide: ...
    @overload
    def side(self, name: str) -> ModelSide | AcceleratorSide: ...
    def side(self, name: str) -> ModelSide | AcceleratorSide:
        """Returns the sub-space of one side's parameters.

        Args:
            name: ``model`` or ``accelerator``.

        Raises:
            UserError: there is no such side.
        """
        if name == "model":
            return self._model
        if name == "accelerator":
            return self._accelerator
        raise UserError(f"a space has no side {name!r}; ask for 'model' or 'accelerator'")

    def join(self, model_point: Point, accelerator_point: Point) -> dict[str, Scalar]:
        """Returns the canonical point with the model of one point and the accelerator of the other."""
        return {**self._model.resolve(model_point).point, **self._accelerator.resolve(accelerator_point).point}

    def _checked(self, point: Point) -> Point:
        if not point.keys() <= self._known:
            name = sorted(point.keys() - self._known)[0]
            raise UserError(
                f"the point gives {name}, which the space {self.name} lacks; {did_you_mean(name, self._known)}"
            )
        return point

    def canonical(self, point: Point) -> dict[str, Scalar]:
        """Returns the one point that stands for all that decode to the same candidate.

        Parameters that do not matter are left out; among values that mean the same, the smallest stands for all.

        Raises:
            UserError: the point does not belong to the space.
        """
        return self.join(self._checked(point), point)

    def decode(self, point: Point) -> Candidate:
        """Returns the candidate that ``point`` means.

        Raises:
            SpecError: its model cannot exist; `violations` says so without an exception.
            UserError: the point does not belong to the space.
        """
        return Candidate(model=self.model(self._checked(point)), accelerator=self.accelerator(point))

    def model(self, point: Point) -> ModelSpec:
        """Returns the model that ``point`` means; errors as in `decode`."""
        return self._model.spec(point)

    def accelerator(self, point: Point) -> AcceleratorSpec:
        """Returns the accelerator that ``point`` means; errors as in `decode`."""
        return self._accelerator.spec(point)

    def encode(self, candidate: Candidate) -> dict[str, Scalar]:
        """Returns the canonical point that means ``candidate``.

        Raises:
            UserError: the space has no such candidate.
        """
        return {**self._model.encode(candidate.model), **self._accelerator.encode(candidate.accelerator)}

    def violations(self, point: Point) -> tuple[Violation, ...]:
        """Returns what is wrong with ``point``: broken constraints, and specs that cannot exist. Empty: it is valid.

        Raises:
            UserError: the point does not belong to the space.
        """
        self._checked(point)
        return (*self._model.violations(point), *self._accelerator.violations(point), *self._joint_violations(point))

    def _joint_violations(self, point: Point) -> Iterator[Violation]:
        if not self._joint:
            return
        scope = self.values(point)
        for constraint in self._joint:
            violation = constraint.check(scope)
            if violation is not None:
                yield violation

    def values(self, point: Point) -> dict[str, dict[str, object]]:
        """Returns what expressions see of ``point``: values by side and field, one per block or stage as tuples."""
        model, accelerator = self._model.resolve(point).values, self._accelerator.resolve(point).values
        return {"model": model, "accelerator": accelerator}  # type: ignore[dict-item]  # mappings that nobody writes to

    def attempt(self, rng: np.random.Generator) -> tuple[dict[str, Scalar] | None, Counter[str]]:
        """Returns a random valid point, or ``None`` with how often each limit was broken."""
        broken: Counter[str] = Counter()
        for _ in range(ATTEMPTS):
            model, refused = self._model.attempt(rng)
            if model is None:
                return None, refused
            accelerator, refused = self._accelerator.attempt(rng)
            if accelerator is None:
                return None, refused
            point = {**model, **accelerator}
            violations = tuple(self._joint_violations(point))
            if not violations:
                return point, broken
            broken.update(violation.limit for violation in violations)
        return None, broken

    def sample(self, rng: np.random.Generator) -> dict[str, Scalar]:
        """Returns a random valid point in canonical form: every parameter uniform, points that break a limit redrawn.

        Raises:
            UserError: none was found; names the limit that rejects most.
        """
        point, broken = self.attempt(rng)
        if point is None:
            raise rejected(broken)
        return point

    def neighbours(self, point: Point) -> Iterator[dict[str, Scalar]]:
        """Yields the valid canonical points one parameter away, in a fixed order, each once: models first.

        A value on a scale goes to the nearest below and above that mean something else; a choice goes to each other
        value. A parameter that starts to matter takes the value of the block before it, where there is one.
        """
        model, accelerator = self._model.canonical(self._checked(point)), self._accelerator.canonical(point)
        for side, other in ((self._model, accelerator), (self._accelerator, model)):
            for moved in side.neighbours(point):
                there = {**moved, **other} if side is self._model else {**other, **moved}
                if not self.violations(there):
                    yield there

    def size(self) -> int | float:
        """Returns the number of different candidates, before constraints; infinity where a value is continuous.

        The count is exact: models times accelerators, each counted through the structure of its conditions.

        Raises:
            UserError: the conditions tie too many parameters together to count.
        """
        return self._model.size() * self._accelerator.size()

    def to_unit(self, point: Point) -> NDArray[np.float64]:
        """Returns the meaning of ``point`` as an array of shape (parameters,) in [0, 1]; what does not matter is 0."""
        return np.concatenate([self._model.to_unit(self._checked(point)), self._accelerator.to_unit(point)])

    def from_unit(self, array: NDArray[np.float64]) -> dict[str, Scalar]:
        """Returns the complete point that an array of shape (parameters,) stands for; numbers are clipped to [0, 1].

        Parameters that do not matter get their first value.

        Raises:
            UserError: the array has another shape, or holds NaN.
        """
        if np.shape(array) != (len(self.parameters),):
            raise UserError(
                f"the space has {len(self.parameters)} parameters, but the array has shape {np.shape(array)}"
            )
        cut = len(self._model.parameters)
        return {**self._model.from_unit(array[:cut]), **self._accelerator.from_unit(array[cut:])}

    def __repr__(self) -> str:
        return f"<Space {self.name} with {len(self.parameters)} parameters from {self.file}>"
