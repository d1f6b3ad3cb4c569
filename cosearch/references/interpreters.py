"""Interpreters of the tools: found, checked and made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cosearch.errors import EnvironmentProblem
from cosearch.references.catalogue import Reference, reference

__all__ = ["available", "folder", "install", "interpreter"]

_PROBE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps({"python": sys.version_info[:2], "found": found}))
"""
_PROBE_S = 60
_INSTALL_S = 1800


def folder(name: str) -> Path:
    """Returns where `install` puts the tool: under ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "cosearch" / "references" / name


def available(name: str) -> bool:
    """Returns whether the tool can be run here.

    Raises:
        NotFoundError: no tool has this name.
    """
    try:
        interpreter(name)
    except EnvironmentProblem:
        return False
    return True


def interpreter(name: str) -> Path:
    """Returns the Python that runs the tool, once it has shown that it has what the tool needs.

    Raises:
        NotFoundError: no tool has this name.
        EnvironmentProblem: there is none, or it lacks something; says what, and the command that mends it.
    """
    tool = reference(name)
    given = os.environ.get(tool.variable)
    python = Path(given).expanduser() if given else _python_in(folder(name))
    if not python.is_file():
        found = f"{tool.variable} names {python}, which is no file" if given else f"{name} is not installed"
        raise EnvironmentProblem(
            f"{found}; run: cosearch reference install {name} "
            f"(or set {tool.variable} to a Python that has it: {tool.requirement})"
        )
    _check(tool, python)
    return python


def _python_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _check(tool: Reference, python: Path) -> None:
    """Raises the `EnvironmentProblem` that ``python`` is not what ``tool`` needs, if it is not."""
    names = [_split(requirement)[0] for requirement in tool.requirements]
    answer = _run([str(python), "-I", "-c", _PROBE, *names], f"{python} does not answer", _PROBE_S)
    told = json.loads(answer)
    if tuple(told["python"]) < tool.python:
        version, oldest = (".".join(map(str, pair)) for pair in (told["python"], tool.python))
        raise EnvironmentProblem(
            f"{python} is Python {version}, but {tool.name} needs {oldest} or newer; "
            f"set {tool.variable} to one that is, or unset it and run: cosearch reference install {tool.name}"
        )
    for requirement in tool.requirements:
        name, relation, version = _split(requirement)
        present = told["found"][name]
        if present is None or not _meets(present, relation, version):
            found = f"has no {name}" if present is None else f"has {name} {present}"
            raise EnvironmentProblem(
                f"{python} {found}, but {tool.name} needs {requirement}; run: {python} -m pip install '{requirement}'"
            )


def _split(requirement: str) -> tuple[str, str, str]:
    """Returns name, relation and version; the last two empty where any version will do."""
    match = re.fullmatch(r"([\w.-]+?)(?:(==|<)([\w.]+))?", requirement)
    assert match is not None, requirement
    return match[1], match[2] or "", match[3] or ""


def _meets(present: str, relation: str, version: str) -> bool:
    if relation == "<":
        return _numbers(present) < _numbers(version)
    return not relation or present == version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def install(name: str) -> Path:
    """Makes an interpreter for the tool and puts the tool into it; returns the interpreter.

    Raises:
        NotFoundError: no tool has this name.
        EnvironmentProblem: no Python here is new enough, or pip failed; says what stands in the way.
    """
    tool = reference(name)
    place = folder(name)
    base = _base(tool)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _run([str(base), "-m", "venv", str(place)], f"{base} cannot make a virtual environment", _INSTALL_S)
        python = _python_in(place)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *tool.requirements], f"pip cannot install {' '.join(tool.requirements)}", _INSTALL_S)
        _check(tool, python)
    except (EnvironmentProblem, OSError) as error:
        shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, OSError):
            raise EnvironmentProblem(f"{place} cannot be made: {error.strerror}; check its permissions") from error
        raise
    return python


def _base(tool: Reference) -> Path:
    """Returns a Python that is new enough for ``tool``; the oldest such, for it is the best tried."""
    if sys.version_info[:2] >= tool.python:
        return Path(sys.executable)
    found = sorted(((version, path) for version, path in _pythons() if version >= tool.python), key=lambda it: it[0])
    if not found:
        oldest = ".".join(map(str, tool.python))
        raise EnvironmentProblem(
            f"{tool.name} needs Python {oldest} or newer, and none was found on PATH or under pyenv; install one, "
            f"or set {tool.variable} to a Python that has it: {tool.requirement}"
        )
    return found[0][1]


def _pythons() -> Iterator[tuple[tuple[int, int], Path]]:
    """Yields version and path of the other Pythons here: ``python3.N`` on PATH, then pyenv's."""
    for minor in range(11, 20):
        found = shutil.which(f"python3.{minor}")
        if found and _answers(Path(found), minor):
            yield (3, minor), Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    for python in sorted(root.glob("versions/3.*/bin/python")):
        match = re.match(r"3\.(\d+)", python.parent.parent.name)
        if match and _answers(python, int(match[1])):
            yield (3, int(match[1])), python


def _answers(python: Path, minor: int) -> bool:
    """Returns whether ``python`` is what its name says: a shim of a version that is not selected is not."""
    try:
        told = _run([str(python), "-I", "-c", _PROBE], "", _PROBE_S)
    except EnvironmentProblem:
        return False
    return bool(json.loads(told)["python"] == [3, minor])


def _run(command: list[str], problem: str, limit_s: float) -> str:
    """Returns what ``command`` prints.

    Raises:
        EnvironmentProblem: it cannot be run, fails, or takes longer than ``limit_s``.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{problem}: no answer after {limit_s:.0f} s") from None
    except OSError as error:
        raise EnvironmentProblem(f"{problem}: {error.strerror}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise EnvironmentProblem(f"{problem}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout
