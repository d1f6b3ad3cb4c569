"""Finds a user's module by a reference.

``file.py:factory`` runs one file, ``package.module:factory`` imports a module, and ``model.pt2`` loads what
``torch.export.save`` wrote. A factory takes no arguments and returns a module, or the module and its example inputs;
the name of a module class or of a module that is made already will do. Running a file, importing a module or loading
a program runs what its author wrote, so take only what you trust.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from cosearch.errors import NotFoundError, SpecError, UserError, did_you_mean

__all__ = ["ImportedModule", "load_module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedModule:
    """What a reference led to; `cosearch.imported.workload_of` takes its fields.

    Attributes:
        module: a module, or an exported program.
        example_inputs: what ``forward`` takes; empty for an exported program.
        name: the reference.
    """

    module: nn.Module | ExportedProgram
    example_inputs: tuple[Tensor, ...]
    name: str


def load_module(reference: str, *, image: tuple[int, int, int] | None = None) -> ImportedModule:
    """Returns the module that ``reference`` names.

    Args:
        reference: ``file.py:factory``, ``package.module:factory`` or ``model.pt2``.
        image: channels, height and width of the image, where the factory returns a module alone. Left out, the
            module's own ``pretrained_cfg`` or ``default_cfg`` says it (timm's models have one).

    Raises:
        NotFoundError: no such file, module or factory.
        UserError: it cannot be run or loaded, or the reference has no ``:factory``.
        SpecError: the factory returns no module, or nothing says how large an image is.
    """
    if reference.endswith(".pt2"):
        return ImportedModule(module=_program(reference), example_inputs=(), name=reference)
    place, separator, attribute = reference.rpartition(":")
    if not separator or not place or not attribute:
        raise UserError(
            f"model {reference!r} names no factory; write file.py:factory, package.module:factory or model.pt2"
        )
    found = _attribute(_module(place), place, attribute)
    made = found if isinstance(found, nn.Module) else _made(found, reference)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module | ExportedProgram):
        raise SpecError(
            reference,
            f"returns a {type(made).__name__}, not a module",
            "return a torch.nn.Module, or a pair of it and its example inputs",
        )
    if inputs is None:
        inputs = () if isinstance(module, ExportedProgram) else _image(module, image, reference)
    return ImportedModule(
        module=module, example_inputs=(inputs,) if isinstance(inputs, Tensor) else tuple(inputs), name=reference
    )


def _program(reference: str) -> ExportedProgram:
    if not Path(reference).is_file():
        raise NotFoundError(f"{reference} does not exist; check the path")
    try:
        return torch.export.load(reference)
    except Exception as error:  # zip, pickle and schema errors alike
        raise UserError(
            f"{reference} cannot be loaded: {type(error).__name__}: {_first_line(error)}; "
            f"save it by torch.export.save with torch {torch.__version__}"
        ) from error


def _module(place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        source = Path(place).read_text(encoding="utf-8")
        module = ModuleType(f"cosearch_file_{Path(place).stem}")
        module.__file__ = place
        exec(compile(source, place, "exec"), module.__dict__)  # a file of the user's own, named by the user
        return module
    except FileNotFoundError as error:
        if place.endswith(".py") and not Path(place).exists():
            raise NotFoundError(f"{place} does not exist; check the path") from error
        raise _broken(place, error) from error
    except ModuleNotFoundError as error:
        if not place.endswith(".py") and error.name is not None and f"{place}.".startswith(f"{error.name}."):
            raise NotFoundError(f"no module is called {error.name!r}; install it, or write file.py:factory") from error
        raise _broken(place, error) from error
    except Exception as error:  # whatever the user's own file raises
        raise _broken(place, error) from error


def _broken(place: str, error: Exception) -> UserError:
    return UserError(f"{place} cannot be run: {type(error).__name__}: {_first_line(error)}; mend it")


def _attribute(module: ModuleType, place: str, attribute: str) -> Any:
    if not hasattr(module, attribute):
        offered = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (isinstance(value, nn.Module) or getattr(value, "__module__", None) == module.__name__)
        ]
        raise NotFoundError(f"{place} has no {attribute!r}; {did_you_mean(attribute, offered)}")
    return getattr(module, attribute)


def _made(factory: Callable[[], Any], reference: str) -> Any:
    if not callable(factory):
        raise SpecError(reference, f"is a {type(factory).__name__}", "name a function that returns a module")
    try:
        return factory()
    except Exception as error:  # whatever the user's own factory raises
        raise UserError(
            f"{reference} cannot be called without arguments: {type(error).__name__}: {_first_line(error)}; "
            "write a function that takes none"
        ) from error


def _image(module: nn.Module, image: tuple[int, int, int] | None, reference: str) -> tuple[Tensor, ...]:
    for name in ("pretrained_cfg", "default_cfg"):
        said = getattr(module, name, None)
        image = image or (said.get("input_size") if isinstance(said, dict) else None)
    if image is None:
        raise SpecError(
            reference,
            "says nothing of its input",
            "return a pair of the module and its example inputs, or give the image",
        )
    if len(image) != 3 or min(image) < 1:
        raise SpecError("image", f"is {tuple(image)}", "give channels, height and width, each at least 1")
    return (torch.zeros(1, *image),)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
