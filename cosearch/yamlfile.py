"""Reads YAML the strict way: no code, no duplicate keys, YAML 1.2 scalars, and errors that give the line."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cosearch.errors import FileError

__all__ = ["read_yaml", "shown"]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2: ``1e9`` is a number, ``no`` and ``1:30`` are texts."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _DuplicateKeyError(yaml.MarkedYAMLError):
    pass


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable) or key in seen:
            first = f" again, after line {seen[key]}" if isinstance(key, Hashable) else ", which is no name"
            raise _DuplicateKeyError(problem=f"{key!r}{first}", problem_mark=key_node.start_mark)
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def shown(path: Path) -> str:
    """Returns ``path`` as a message shows it: relative where it lies under the working directory."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read_yaml(path: Path, what: str) -> Any:
    """Returns the content of the YAML file at ``path`` as dicts, lists and scalars.

    Args:
        path: where the file is.
        what: what it ought to be, for messages, such as ``space file``.

    Raises:
        FileError: it is not a file, cannot be read, is not UTF-8, is not YAML, or has a key twice.
    """
    file = shown(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise FileError(file, "", f"{kind}, but a {what} is wanted", "check the path")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FileError(file, f"line {line}", "is not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise FileError(file, "", f"cannot be read: {error.strerror}", "check its permissions") from None
    try:
        return yaml.load(text, Loader=_Loader)
    except _DuplicateKeyError as error:
        raise FileError(file, _line(error), f"gives the key {error.problem}", "remove or rename it") from None
    except yaml.MarkedYAMLError as error:
        raise FileError(
            file, _line(error), f"is not YAML: {error.problem}", "check indentation, colons and quotes"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition(os.linesep)[0]
        raise FileError(file, "", f"is not YAML: {reason}", "check for control characters and odd values") from None


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}" if mark else ""
