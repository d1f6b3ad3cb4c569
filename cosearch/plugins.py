"""Finds samplers and evaluators by name and makes them; built-in ones and a stranger's enter by the same door.

A name is looked up among the entry points of the group (``cosearch.samplers``, ``cosearch.evaluators``).
``module:Class`` imports a class. ``path/to/file.py:Class`` runs that one file: its text travels with the reference, so
that workers on other machines need not have the file.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from cosearch.errors import NotFoundError, UserError, did_you_mean
from cosearch.evaluator import Evaluator

__all__ = ["EVALUATORS", "SAMPLERS", "PluginRef", "names", "refer"]

SAMPLERS = "cosearch.samplers"
EVALUATORS = "cosearch.evaluators"


def names(group: str) -> tuple[str, ...]:
    """Returns the names that the entry-point ``group`` offers, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


@dataclass(frozen=True, kw_only=True)
class PluginRef:
    """A class by name, and the options to make it with: what workers get instead of objects.

    Attributes:
        group: `SAMPLERS` or `EVALUATORS`.
        use: entry-point name, ``module:Class`` or ``file.py:Class``.
        options: keyword arguments.
        source: text of the file, where ``use`` names one.
    """

    group: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def load(self) -> Any:
        """Returns the class.

        Raises:
            NotFoundError: no such name, module, file or class.
            UserError: its module cannot be imported.
        """
        if ":" not in self.use:
            for entry in entry_points(group=self.group):
                if entry.name == self.use:
                    return entry.load()
            kind = self.group.rpartition(".")[2].rstrip("s")
            raise NotFoundError(f"no {kind} is called {self.use!r}; {did_you_mean(self.use, names(self.group))}")
        module_name, _, attribute = self.use.rpartition(":")
        module = self._module(module_name)
        if not hasattr(module, attribute):
            offered = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__]
            raise NotFoundError(f"{module_name} has no class {attribute!r}; {did_you_mean(attribute, offered)}")
        return getattr(module, attribute)

    def _module(self, name: str) -> ModuleType:
        try:
            if self.source is None:
                return importlib.import_module(name)
            module = ModuleType(f"cosearch_file_{Path(name).stem}")
            module.__file__ = name
            exec(compile(self.source, name, "exec"), module.__dict__)  # a file of the user's own, named by the user
            return module
        except Exception as error:
            raise UserError(
                f"{name} cannot be imported: {type(error).__name__}: {error}; mend it, or install it"
            ) from error

    def check_options(self, given: tuple[str, ...] = ()) -> None:
        """Checks the options against the class's signature.

        Args:
            given: names of arguments that the caller fills in itself.

        Raises:
            UserError: an option is unknown, or one is missing.
        """
        parameters = inspect.signature(self.load()).parameters
        known = {n: p for n, p in parameters.items() if n not in given}
        for name in self.options:
            if name not in known:
                raise UserError(f"{self.use!r} has no option {name!r}; {did_you_mean(name, known)}")
        for name, parameter in known.items():
            required = parameter.default is inspect.Parameter.empty and parameter.kind not in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            )
            if required and name not in self.options:
                raise UserError(f"{self.use!r} needs the option {name!r}; add it under options")

    def evaluator(self) -> Evaluator:
        """Returns the evaluator that this reference means.

        Raises:
            UserError: it does not keep to the `cosearch.evaluator.Evaluator` protocol, or refuses its options.
        """
        self.check_options()
        made = self.load()(**self.options)
        if not isinstance(made, Evaluator):
            raise UserError(
                f"evaluator {self.use!r} lacks one of metrics, scope, cheap, evaluate; "
                "see cosearch.evaluator.Evaluator, or start from 'cosearch init'"
            )
        return made


def refer(group: str, use: str, options: Mapping[str, Any], folder: Path) -> PluginRef:
    """Returns a reference to ``use``; reads the file where it names one, relative to ``folder``.

    A class may say in ``paths`` which of its options name files, such as ``("weights", "recipe.teacher")``: where
    ``folder`` has the file, its absolute path takes the option's place, so that workers find it.

    Raises:
        NotFoundError: the file does not exist, or there is no such name or module.
        UserError: its module cannot be imported.
    """
    name = use.rpartition(":")[0]
    if not name.endswith(".py"):
        ref = PluginRef(group=group, use=use, options=options)
        for dotted in getattr(ref.load(), "paths", ()):
            options = _resolved(options, dotted.split("."), folder)
        return PluginRef(group=group, use=use, options=options)
    path = folder / name
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read ({error.strerror}); check the path in 'use: {use}'") from error
    return PluginRef(group=group, use=use, options=options, source=source)


def _resolved(options: Mapping[str, Any], names: list[str], folder: Path) -> Mapping[str, Any]:
    """Returns ``options`` with the path under ``names`` made absolute, if it is a file of ``folder``."""
    first, *rest = names
    value = options.get(first)
    if rest and isinstance(value, Mapping):
        return {**options, first: _resolved(value, rest, folder)}
    if not rest and isinstance(value, str) and value and (folder / value).is_file():
        return {**options, first: str((folder / value).resolve())}
    return options
