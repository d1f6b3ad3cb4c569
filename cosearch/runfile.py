"""Run files: what to search, how, and where results go. pydantic stands here, at the border, and nowhere further in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cosearch.errors import FileError, NotFoundError, did_you_mean
from cosearch.yamlfile import read_yaml

__all__ = [
    "EvaluatorSection",
    "Limit",
    "RunFile",
    "SamplerSection",
    "find_run_file",
    "known_runs",
    "load_run_file",
    "run_schema",
]

RUN_VERSION = "run/1"
_LIMIT = re.compile(r"^\s*([A-Za-z_]\w*)\s*(<=|>=)\s*([-+0-9.eE_]+)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound on a metric.

    Attributes:
        metric: the metric's name.
        upper: whether the bound is from above.
        bound: in the metric's unit.
    """

    metric: str
    upper: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.upper else '>='} {self.bound:g}"

    def excess(self, value: float) -> float:
        """Returns by how much ``value`` breaks the bound, relative to it; 0 where it keeps it."""
        over = value - self.bound if self.upper else self.bound - value
        return max(0.0, over / (abs(self.bound) or 1.0))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EvaluatorSection(_Section):
    """One evaluator of a run."""

    use: str = Field(description="entry-point name, module:Class, or file.py:Class relative to this file")
    options: dict[str, Any] = Field(default_factory=dict, description="what the evaluator is made with")


class SamplerSection(_Section):
    """What proposes points."""

    sampler: str = Field("split", description="a sampler's name ('cosearch list samplers')")
    options: dict[str, Any] = Field(default_factory=dict, description="what the sampler is made with")


class SearchSection(SamplerSection):
    """The search proper."""

    trainings: Annotated[int, Field(ge=1)] = Field(description="models to train in all")
    points: Annotated[int, Field(ge=1)] | None = Field(
        None, description="candidates to propose at most; left out: as many as the trainings allow"
    )
    window: Annotated[int, Field(ge=1)] = Field(
        8,
        description="models in training at a time at most, and so how many the sampler proposes ahead of what it was "
        "told; part of what makes a run reproducible, so it does not follow the number of workers",
    )


class PoolSection(_Section):
    """Where evaluations run."""

    address: str = Field("local", description="'local', 'auto', or a cluster's address")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="evaluations at a time; 0 runs them in the driver's process; left out: every CPU"
    )


class TrackSection(_Section):
    """MLflow."""

    enabled: bool = True
    tracking_uri: str | None = Field(None, description="left out: SQLite under the runs folder")
    experiment: str = "cosearch"


class RunFile(_Section):
    """A search, as its file says it."""

    cosearch: Literal["run/1"] = Field(description="version of this format")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(description="name of the run's folder")
    description: str = ""
    space: str = Field(description="name of a space, or path relative to this file")
    seed: Annotated[int, Field(ge=0)] = 0
    task: dict[str, Any] = Field(description="the images: name, and what the loader needs")
    evaluators: dict[str, EvaluatorSection] = Field(min_length=1)
    objectives: list[str] = Field(min_length=1, description="metrics to trade off against each other")
    limits: list[str] = Field(default_factory=list, description="such as 'area_mm2 <= 4'")
    search: SearchSection
    baseline: SamplerSection | None = Field(
        None, description="a second sampler to compare with, given as many trained models"
    )
    pool: PoolSection = PoolSection.model_validate({})
    mlflow: TrackSection = TrackSection.model_validate({})

    @field_validator("objectives")
    @classmethod
    def _no_repeats(cls, value: list[str]) -> list[str]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice[0]!r} twice; name each metric once")
        return value

    @field_validator("limits")
    @classmethod
    def _limits_parse(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_limit(text)
        return value


def parse_limit(text: str) -> Limit:
    """Returns the limit that ``text`` says.

    Raises:
        ValueError: it is not of the form ``metric <= number``.
    """
    match = _LIMIT.match(text)
    try:
        if match:
            return Limit(metric=match[1], upper=match[2] == "<=", bound=float(match[3]))
    except ValueError:
        pass
    raise ValueError(f"holds {text!r}, which is not of the form 'metric <= number' or 'metric >= number'; mend it")


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run file, and where it came from.

    Attributes:
        path: as the user gave it, for messages.
        text: its content.
        file: the content, checked.
    """

    path: Path
    text: str
    file: RunFile

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits, parsed."""
        return tuple(parse_limit(text) for text in self.file.limits)

    def error(self, field: str, problem: str, remedy: str) -> FileError:
        """Returns the error that says what is wrong in this file."""
        return FileError(str(self.path), field, problem, remedy)


def shipped_runs() -> Path:
    """Returns the folder of run files that come with cosearch."""
    package = Path(__file__).parent
    installed = package / "_shipped" / "runs"
    return installed if installed.is_dir() else package.parent / "runs"


def find_run_file(name: str) -> Path:
    """Returns the path of a run file given by path, or by name (looked up in ``./runs``, then among the shipped ones).

    Raises:
        NotFoundError: there is none.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.parent != Path():
        if not path.is_file():
            raise NotFoundError(f"{path} is not a file; give the path of a run file, or a name: {known_runs()}")
        return path
    for folder in (Path("runs"), shipped_runs()):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise NotFoundError(f"no run file is called {name!r}; {did_you_mean(name, known_runs())}")


def known_runs() -> list[str]:
    """Returns the names of the run files in ``./runs`` and of those that come with cosearch."""
    return sorted({p.stem for folder in (Path("runs"), shipped_runs()) for p in folder.glob("*.yaml")})


def load_run_file(path: Path, changes: Mapping[str, Any] | None = None) -> LoadedRun:
    """Returns the run file at ``path``.

    Args:
        path: a YAML file.
        changes: values that the command line puts in place of the file's, by dotted field.

    Raises:
        FileError: it cannot be read, or is wrong.
    """
    data = read_yaml(path, "run file")
    text = path.read_text(encoding="utf-8")
    if not isinstance(data, dict):
        raise FileError(str(path), "", "holds no fields", "start it with 'cosearch: run/1'; see runs/quickstart.yaml")
    version = data.get("cosearch")
    if version != RUN_VERSION:
        problem = "is missing" if version is None else f"is {version!r}"
        raise FileError(
            str(path), "cosearch", f"{problem}, but this cosearch reads {RUN_VERSION!r}", f"write {RUN_VERSION}"
        )
    for dotted, value in (changes or {}).items():
        _put(data, dotted, value)
    try:
        return LoadedRun(path=path, text=text, file=RunFile.model_validate(data))
    except ValidationError as error:
        raise _file_error(path, error) from error


def _put(data: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    for folder in folders:
        inner = data.setdefault(folder, {})
        if not isinstance(inner, dict):
            return  # the file is wrong there, and its own error says so better
        data = inner
    data[last] = value


def _file_error(path: Path, error: ValidationError) -> FileError:
    """Returns the first mistake that pydantic found, in our words."""
    first = error.errors()[0]
    location = list(first["loc"])
    field = ""
    for part in location:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        model: Any = RunFile
        for part in location[:-1]:
            model = _field_model(model, part)
        known = list(getattr(model, "model_fields", {}))
        return FileError(str(path), field, "is not a field of a run file", did_you_mean(str(location[-1]), known))
    if kind == "missing":
        return FileError(str(path), field, "is missing", "add it; see runs/quickstart.yaml")
    if kind == "value_error":
        problem, _, remedy = str(first["ctx"]["error"]).rpartition("; ")
        return FileError(str(path), field, problem, remedy)
    message = first["msg"][0].lower() + first["msg"][1:]
    return FileError(str(path), field, f"is {given!r}", f"{message.replace('input should', 'it should')}")


def _field_model(model: Any, part: str | int) -> Any:
    fields = getattr(model, "model_fields", None)
    if fields is None or part not in fields:
        return EvaluatorSection if model is dict else model
    annotation = fields[part].annotation
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return model


def run_schema() -> dict[str, Any]:
    """Returns the JSON schema of run files, for completion in editors."""
    schema = RunFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "cosearch-run-1", **schema}
