"""From a module to a graph of core ATen operators with static shapes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from cosearch.errors import SpecError, UserError
from cosearch.imported.operators import KEPT_WHOLE

__all__ = ["check_input", "export_program"]

_REMEDY = "mend its forward so that torch.export takes it (docs.pytorch.org/docs/stable/export.html)"
_STATIC = "its control flow or shapes depend on the values of the image; rewrite them with static shapes"


def export_program(
    module: nn.Module | ExportedProgram, example_inputs: Tensor | Sequence[Tensor] | None, name: str
) -> ExportedProgram:
    """Returns ``module`` in inference mode as core ATen, but for the operators that `KEPT_WHOLE` names.

    Raises:
        SpecError: example inputs are missing, hold more than one image or are no floating-point tensors.
        UserError: ``torch.export`` does not take the module.
    """
    if isinstance(module, ExportedProgram):
        program = module
    elif isinstance(module, nn.Module):
        program = _export(module, _checked(example_inputs), name)
    else:
        raise SpecError(
            name,
            f"is a {type(module).__name__}, not a module",
            "give a torch.nn.Module or what torch.export.export made",
        )
    table: MutableMapping[Any, Any] = torch.export.default_decompositions()
    for overload in list(table.keys()):
        if str(overload).split(".")[1] in KEPT_WHOLE:
            table.pop(overload)
    with _quiet(), torch.no_grad():
        decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _checked(example_inputs: Tensor | Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs or ())
    if not inputs:
        raise SpecError(
            "example_inputs", "are missing", "give what forward takes, such as (torch.zeros(1, 3, 224, 224),)"
        )
    for position, value in enumerate(inputs):
        field = f"example_inputs[{position}]"
        if not isinstance(value, Tensor):
            raise SpecError(
                field, f"is a {type(value).__name__}, not a tensor", "fix other arguments inside a module of your own"
            )
        check_input(field, value)
    return inputs


def check_input(field: str, value: Tensor) -> None:
    """Checks that ``value`` is one image of real numbers, with static sizes.

    Raises:
        SpecError: it is not.
    """
    if not value.dtype.is_floating_point:
        raise SpecError(
            field,
            f"has dtype {str(value.dtype).removeprefix('torch.')}, but a workload starts from real numbers",
            "give floating point, and do lookups of integers inside the module from constants",
        )
    if not all(isinstance(size, int) for size in value.shape):
        raise SpecError(
            field, f"has the dynamic shape {tuple(value.shape)}", "export with static shapes and a batch of 1"
        )
    if value.dim() < 1 or value.shape[0] != 1:
        raise SpecError(
            field,
            f"has shape {tuple(value.shape)}, but a workload is that of one image",
            "give a batch of 1, and keep arguments without a batch inside the module",
        )


def _export(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> ExportedProgram:
    problem: Exception | None = None
    with _inference(module), _quiet(), torch.no_grad():
        for strict in (False, True):
            try:
                return torch.export.export(module, inputs, strict=strict)
            except Exception as error:  # whatever the user's own forward raises
                problem = problem or error
    assert problem is not None
    text = str(problem)
    dynamic = any(
        word in f"{type(problem).__name__} {text}" for word in ("DataDependent", "data-dependent", "Unbacked")
    )
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    remedy = _STATIC if dynamic else _REMEDY
    raise UserError(f"{name} cannot be exported: {type(problem).__name__}: {first[:300]}; {remedy}") from problem


@contextmanager
def _inference(module: nn.Module) -> Iterator[None]:
    """Puts all parts into inference mode, and each back into its own at the end."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's own warnings from the user, who can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # a module that caches a table in an attribute: the exporter puts the attribute back
        warnings.filterwarnings("ignore", message="The tensor attribute", category=UserWarning)
        yield
