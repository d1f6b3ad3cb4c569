"""The accelerator's side of a space: fields are those of a template of `cosearch.hardware`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cosearch.errors import UserError
from cosearch.space.field import Constraint, Field
from cosearch.space.side import Side
from cosearch.spec import AcceleratorSpec, Point, Scalar

__all__ = ["AcceleratorSide"]


class AcceleratorSide(Side[AcceleratorSpec]):
    """The sub-space of accelerators.

    Args:
        template: the template's name.
        make: the template: called with the fields by name, raises `SpecError` for what cannot be built.
        fields: the fields that the space file gives.
        constraints: those that mention the accelerator alone.
        defaults: values of the template's other fields, for expressions.
    """

    def __init__(
        self,
        template: str,
        make: Callable[..., object],
        fields: Sequence[Field],
        constraints: Sequence[Constraint],
        defaults: Mapping[str, Scalar],
    ) -> None:
        super().__init__("accelerator", fields, constraints, defaults)
        self.template = template
        self._make = make
        self._kinds = {item.name: item.kind for item in fields}

    def build(self, values: Mapping[str, Any]) -> AcceleratorSpec:
        """Returns the spec with the fields that the space file gives; the template's own defaults are left out."""
        pairs = ((name, float(values[name]) if kind is float else values[name]) for name, kind in self._kinds.items())
        return AcceleratorSpec(template=self.template, parameters=tuple(pairs))

    def verify(self, spec: AcceleratorSpec) -> None:
        """Raises `SpecError` where the template refuses the parameters."""
        self._make(**spec.as_dict())

    def encode(self, spec: AcceleratorSpec) -> Point:
        """Returns the canonical point that means ``spec``.

        Raises:
            UserError: none does; names the first parameter that differs.
        """
        if spec.template != self.template:
            raise UserError(f"the accelerator is a {spec.template!r}, but the space has {self.template!r} ones")
        given = spec.as_dict()
        odd = sorted(given.keys() ^ self._kinds.keys())
        if odd:
            fault = "gives" if odd[0] in given else "lacks"
            raise UserError(f"the accelerator {fault} {odd[0]}, other than the space; give exactly its parameters")
        raw = {item.path: given[name] for name, item in self.fields.items() if not item.fixed}
        resolved = self.resolve(raw)
        made = self.build(resolved.values).as_dict()
        for name, value in given.items():
            if made[name] != value:
                raise UserError(f"accelerator.{name} is {value!r}, but in the space it is {made[name]!r} here")
        return dict(resolved.point)
