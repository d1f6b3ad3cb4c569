"""Every error that cosearch raises on purpose.

CosearchError
├── UserError            something that the user wrote or asked for is wrong: exit code 2, no traceback
│   ├── FileError        a space, run or task file: names file, field and remedy
│   ├── SpecError        a model or accelerator that cannot exist
│   └── NotFoundError    a name (space, sampler, evaluator, run, metric) that leads nowhere
├── EnvironmentProblem   the machine stands in the way (disk, permission, server, missing package): exit code 3
│   ├── StoreError       a run folder cannot be read or written
│   ├── PoolError        Ray cannot be reached or lost its workers
│   └── TrackingError    MLflow cannot be reached or refuses
└── EvaluationError      a candidate could not be scored; becomes ``failed(reason)``, never ends a search
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CosearchError",
    "EnvironmentProblem",
    "EvaluationError",
    "FileError",
    "NotFoundError",
    "PoolError",
    "SpecError",
    "StoreError",
    "TrackingError",
    "UserError",
    "did_you_mean",
]


class CosearchError(Exception):
    """Base of everything below; its text is meant for the user as it stands."""


class UserError(CosearchError):
    """Something that the user wrote or asked for is wrong."""


class FileError(UserError):
    """A file that the user wrote is wrong.

    Args:
        file: the file's path as the user gave it.
        field: dotted path of the field, such as ``accelerator.rows.choice[0]``; empty for the file as a whole.
        problem: what is wrong.
        remedy: how to mend it.
    """

    def __init__(self, file: str, field: str, problem: str, remedy: str) -> None:
        where = f"{file}: {field}" if field else f"{file}:"
        super().__init__(f"{where} {problem}; {remedy}")
        self.file, self.field, self.problem, self.remedy = file, field, problem, remedy


class SpecError(UserError):
    """A model or accelerator that cannot exist.

    Args:
        field: the field's name, such as ``heads``.
        problem: what is wrong, with the value.
        remedy: how to mend it.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field} {problem}; {remedy}")
        self.field, self.problem, self.remedy = field, problem, remedy


class NotFoundError(UserError):
    """A name that leads nowhere."""


class EnvironmentProblem(CosearchError):
    """The machine, not the user's input, stands in the way."""


class StoreError(EnvironmentProblem):
    """A run folder cannot be read or written."""


class PoolError(EnvironmentProblem):
    """Ray cannot be reached, or lost its workers."""


class TrackingError(EnvironmentProblem):
    """MLflow cannot be reached, or refuses."""


class EvaluationError(CosearchError):
    """A candidate could not be scored; the search records it as failed, with this text as the reason."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a remedy that lists ``known`` names, the nearest to ``name`` first."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    listed = ", ".join(names) if names else "nothing"
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"known: {listed}"
