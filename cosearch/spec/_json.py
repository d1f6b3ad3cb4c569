"""Specs to JSON and back, and the ids that come of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cosearch.errors import SpecError

__all__ = ["Scalar", "canonical_json", "from_json", "ident", "require", "to_json"]

Scalar = bool | int | float | str
"""What a parameter can be."""


def require(condition: bool, field: str, problem: str, remedy: str) -> None:
    """Raises `SpecError` unless ``condition`` holds."""
    if not condition:
        raise SpecError(field, problem, remedy)


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Returns ``value`` (a spec, or what specs are made of) as JSON types, fields equal to their default left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for item in dataclasses.fields(value):
            content = getattr(value, item.name)
            default = item.default_factory() if callable(item.default_factory) else item.default
            if content != default:
                out[item.name] = to_json(content)
        return out
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def from_json(cls: type[T], data: Any) -> T:
    """Returns the ``cls`` that `to_json` turned into ``data``.

    Raises:
        SpecError: a field is unknown or missing, or its value makes no sense.
    """
    return _read(cls, data, cls.__name__)  # type: ignore[no-any-return]


def _read(hint: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        require(isinstance(data, Mapping), where, f"is {data!r}", "give a mapping")
        hints = get_type_hints(hint)
        unknown = sorted(set(data) - set(hints))
        require(not unknown, where, f"has no field {unknown[:1]}", f"its fields: {', '.join(hints)}")
        for item in dataclasses.fields(hint):
            needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            require(not needed or item.name in data, where, f"lacks {item.name!r}", "add it")
        return hint(**{name: _read(hints[name], content, f"{where}.{name}") for name, content in data.items()})
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        require(isinstance(data, (list, tuple)), where, f"is {data!r}", "give a list")
        inner = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        require(len(inner) == len(data), where, f"has {len(data)} entries", f"give {len(inner)}")
        return tuple(_read(h, d, f"{where}[{i}]") for i, (h, d) in enumerate(zip(inner, data, strict=True)))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        require(data in set(hint), where, f"is {data!r}", f"write one of {', '.join(hint)}")
        return hint(data)
    if hint is int:
        require(isinstance(data, int) and not isinstance(data, bool), where, f"is {data!r}", "give a whole number")
    if hint is str:
        require(isinstance(data, str), where, f"is {data!r}", "give text")
    return data


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of ``value``: keys sorted, no spaces, defaults left out."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def ident(value: Any) -> str:
    """Returns twelve hexadecimal digits that stand for ``value``: the start of its canonical JSON's SHA-256."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]
