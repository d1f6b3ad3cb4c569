"""Accelerators and candidates, and what comes of asking for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cosearch.spec._json import Scalar, ident
from cosearch.spec._model import ModelSpec

__all__ = ["AcceleratorSpec", "Candidate", "Point", "Result", "Status", "Violation"]


Point = Mapping[str, Scalar]
"""One choice for each parameter of a space, by the parameter's flat name, such as ``model.weight_bits[2]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorSpec:
    """An accelerator as a template's name and its parameters; `cosearch.hardware.build` makes it concrete.

    Attributes:
        template: the template's name, such as ``systolic``.
        parameters: (name, value) pairs, sorted by name.
    """

    template: str
    parameters: tuple[tuple[str, Scalar], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(sorted((str(n), v) for n, v in self.parameters)))

    @classmethod
    def of(cls, template: str, parameters: Mapping[str, Scalar]) -> AcceleratorSpec:
        """Returns the spec of ``template`` with the given parameters."""
        return cls(template=template, parameters=tuple(parameters.items()))

    def as_dict(self) -> dict[str, Scalar]:
        """Returns the parameters by name."""
        return dict(self.parameters)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this accelerator."""
        return ident(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model and the accelerator that is to run it."""

    model: ModelSpec
    accelerator: AcceleratorSpec

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this pair."""
        return ident(self)


class Status(StrEnum):
    """How the evaluation of a candidate ended."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit or constraint that a candidate breaks.

    Attributes:
        limit: what it breaks, such as ``area_mm2 <= 4`` or ``model.dim % model.heads == 0``.
        excess: by how much, relative to the limit (0.25 is a quarter over); 1 for a constraint without a measure.
    """

    limit: str
    excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one asked point. Every asked point is told exactly once, in the order it was asked.

    Attributes:
        index: position in the order of asking, from 0.
        point: the point as asked.
        status: `Status.OK`, `Status.INFEASIBLE` or `Status.FAILED`.
        candidate_id: id of the candidate that the point means; empty where the point means none.
        model_id: id of its model, likewise.
        metrics: every metric measured, in the metric's own unit and direction.
        objectives: the run's objectives in their order, all to be minimised; empty unless `ok`.
        violations: what was broken; empty unless `infeasible`.
        reason: why it failed; empty unless `failed`.
        share: of the costly evaluations' full cost, what was spent: 1, or less for a point that was asked briefly.
            What came of a brief evaluation never enters a front.
    """

    index: int
    point: Point
    status: Status
    candidate_id: str = ""
    model_id: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[float, ...] = ()
    violations: tuple[Violation, ...] = ()
    reason: str = ""
    share: float = 1.0
