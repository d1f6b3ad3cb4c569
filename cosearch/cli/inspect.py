"""``cosearch space``, ``list`` and ``schema``: looking without searching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cosearch.cli.common import make_console

if TYPE_CHECKING:
    from cosearch.space import Space
    from cosearch.spec import TaskShape

__all__ = ["add_to"]

SPACE_EXAMPLES = """\
Examples:

  cosearch space describe vit_digits_systolic
  cosearch space sample spaces/mine.yaml --n 3 --seed 1
  cosearch space count deit_tiny_edge
  cosearch space explain vit_digits_systolic point.json     why a point is not valid
"""
SpaceArgument = Annotated[str, typer.Argument(help="Name of a space, or its path.", metavar="SPACE")]
TaskOption = Annotated[
    str, typer.Option("--task", help="Images it is for: HEIGHTxWIDTHxCHANNELS:CLASSES[xLABELS].", metavar="SHAPE")
]
DIGIT_PAIRS = "16x16x1:10x2"


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    spaces = typer.Typer(
        help="Look into a search space.", epilog=SPACE_EXAMPLES, no_args_is_help=True, rich_markup_mode="rich"
    )
    for command in (describe, sample, count, explain):
        spaces.command()(command)
    app.add_typer(spaces, name="space")
    app.command("list")(list_parts)
    app.command()(schema)


def describe(space: SpaceArgument, task: TaskOption = DIGIT_PAIRS) -> None:
    """Show what may vary in a space."""
    from cosearch.cli.show import space_table

    loaded = _load(space, task)
    console = make_console()
    console.print(f"[bold]{loaded.name}[/]: {loaded.description}")
    console.print(space_table(loaded))
    size = loaded.size()
    console.print(f"{size:.3g} distinct candidates before constraints." if size < float("inf") else "Continuous.")


def sample(
    space: SpaceArgument,
    n: Annotated[int, typer.Option(help="How many.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    task: TaskOption = DIGIT_PAIRS,
) -> None:
    """Print random valid candidates as JSON, one a line, each with the point that gives it."""
    import numpy as np

    from cosearch.spec import to_json

    loaded = _load(space, task)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        point = loaded.sample(rng)
        candidate = loaded.decode(point)
        print(json.dumps({"id": candidate.id, "point": dict(point), "candidate": to_json(candidate)}, sort_keys=True))


def count(space: SpaceArgument, task: TaskOption = DIGIT_PAIRS) -> None:
    """Print how many distinct candidates a space holds, before constraints."""
    print(_load(space, task).size())


def explain(
    space: SpaceArgument,
    point: Annotated[Path, typer.Argument(help="A point as JSON: parameter name to value.", metavar="POINT")],
    task: TaskOption = DIGIT_PAIRS,
) -> None:
    """Say why a point is not valid in a space, or that it is."""
    from cosearch.errors import FileError
    from cosearch.space import explain as explain_point

    try:
        data = json.loads(point.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(
            str(point), "", f"cannot be read ({error})", "give a JSON file of parameter names and values"
        ) from error
    print(explain_point(_load(space, task), data.get("point", data)))


def _load(space: str, task: str) -> Space:
    from cosearch.space import load_space

    return load_space(space, _shape(task))


def _shape(text: str) -> TaskShape:
    import re

    from cosearch.errors import UserError
    from cosearch.spec import TaskShape

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+):(\d+)(?:x(\d+))?", text)
    if not match:
        raise UserError(f"--task is {text!r}; write HEIGHTxWIDTHxCHANNELS:CLASSES, such as 224x224x3:1000")
    height, width, channels, classes, labels = (int(part or 1) for part in match.groups())
    return TaskShape(image=(height, width), channels=channels, classes=classes, labels=labels)


def list_parts() -> None:
    """List spaces, run files, samplers, evaluators, tasks, templates and technology tables."""
    from cosearch.data import TASKS
    from cosearch.formats import NUMBER_FORMATS
    from cosearch.hardware import DRAMS, PE_KINDS, TECHNOLOGIES, TEMPLATES
    from cosearch.plugins import EVALUATORS, SAMPLERS, names
    from cosearch.references import REFERENCES
    from cosearch.runfile import known_runs
    from cosearch.space import shipped_spaces

    table = Table(box=None, show_header=False)
    for what, found in (
        ("spaces", [path.stem for path in shipped_spaces()]),
        ("run files", known_runs()),
        ("samplers", names(SAMPLERS)),
        ("evaluators", names(EVALUATORS)),
        ("tasks", sorted(TASKS)),
        ("accelerator templates", sorted(TEMPLATES)),
        ("technology tables", sorted(TECHNOLOGIES)),
        ("DRAM (table+dram)", sorted(DRAMS)),
        ("kinds of PE", sorted(PE_KINDS)),
        ("number formats", list(NUMBER_FORMATS)),
        ("reference tools", sorted(REFERENCES)),
    ):
        table.add_row(f"[bold]{what}[/]", ", ".join(found))
    make_console().print(table)


def schema(what: Annotated[str, typer.Argument(help="'space' or 'run'.")]) -> None:
    """Print the JSON schema of a file format, for completion in editors."""
    from cosearch.errors import NotFoundError, did_you_mean
    from cosearch.runfile import run_schema
    from cosearch.space import space_schema

    schemas = {"space": space_schema, "run": run_schema}
    if what not in schemas:
        raise NotFoundError(f"no format is called {what!r}; {did_you_mean(what, schemas)}")
    print(json.dumps(schemas[what](), indent=1))
