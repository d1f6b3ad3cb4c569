"""Every template by name, and the cost model that belongs to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from cosearch.errors import SpecError, did_you_mean
from cosearch.hardware.ledger import Batch, Ledger
from cosearch.hardware.systolic import SystolicArray, SystolicArrays
from cosearch.hardware.systolic.model import systolic_ledger
from cosearch.hardware.technology import Technology
from cosearch.spec import AcceleratorSpec
from cosearch.workload import Workload

__all__ = ["TEMPLATES", "Accelerator", "batch_of", "build", "cost_model"]

Accelerator = SystolicArray
"""An accelerator of any template."""

TEMPLATES: Mapping[str, type[Accelerator]] = {"systolic": SystolicArray}
"""Each template's name, as space files write it, and its class. Fields of the class are the template's parameters."""

_MODELS: Mapping[type, Callable[[Workload, Any, Technology], Ledger]] = {SystolicArrays: systolic_ledger}
"""The cost model of each kind of batch."""


def build(spec: AcceleratorSpec) -> Accelerator:
    """Returns the accelerator that ``spec`` describes.

    Raises:
        SpecError: the template or a parameter is unknown, a parameter is missing, or a value makes no sense.
    """
    template = TEMPLATES.get(spec.template)
    if template is None:
        raise SpecError("template", f"is {spec.template!r}, which is unknown", did_you_mean(spec.template, TEMPLATES))
    given = spec.as_dict()
    fields = {item.name: item for item in dataclasses.fields(template)}
    for name in given:
        if name not in fields:
            raise SpecError(name, f"is not a parameter of {spec.template!r}", did_you_mean(name, fields))
    for name, item in fields.items():
        if item.default is MISSING and name not in given:
            raise SpecError(name, f"is missing from the {spec.template!r} accelerator", "add it")
    return template(**given)  # type: ignore[arg-type]


def batch_of(accelerators: Sequence[Accelerator]) -> Batch:
    """Returns ``accelerators``, all of one template, as a batch for their cost model."""
    return SystolicArrays.of(accelerators)


def cost_model(batch: Batch) -> Callable[[Workload, Any, Technology], Ledger]:
    """Returns the cost model of the template that ``batch`` holds."""
    return _MODELS[type(batch)]
