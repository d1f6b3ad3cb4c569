"""``cosearch estimate``, ``space``, ``list`` and ``schema``: looking without searching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cosearch.cli.common import make_console

if TYPE_CHECKING:
    from cosearch.space import Space
    from cosearch.spec import Candidate, TaskShape

__all__ = ["add_to"]

ESTIMATE_EXAMPLES = """\
Examples:

  cosearch estimate --dim 192 --depth 12 --heads 3 --rows 32 --cols 32        DeiT-Tiny, 8 bits
  cosearch estimate --dim 192 --depth 12 --heads 3 --weight-bits 4 --pe-bits 4 --dataflow os
  cosearch estimate pair                                                      what 'cosearch export' wrote
  cosearch estimate pair.json                                                 a line of 'cosearch space sample'
"""
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
    app.command(epilog=ESTIMATE_EXAMPLES)(estimate)
    spaces = typer.Typer(
        help="Look into a search space.", epilog=SPACE_EXAMPLES, no_args_is_help=True, rich_markup_mode="rich"
    )
    for command in (describe, sample, count, explain):
        spaces.command()(command)
    app.add_typer(spaces, name="space")
    app.command("list")(list_parts)
    app.command()(schema)


def estimate(
    file: Annotated[
        Path | None, typer.Argument(help="An exported folder, or a pair as JSON.", show_default=False)
    ] = None,
    image: Annotated[int, typer.Option(help="Side of the image, pixels.")] = 224,
    classes: Annotated[int, typer.Option()] = 1000,
    patch: Annotated[int, typer.Option()] = 16,
    dim: Annotated[int, typer.Option()] = 192,
    depth: Annotated[int, typer.Option()] = 12,
    heads: Annotated[int, typer.Option()] = 3,
    mlp_ratio: Annotated[float, typer.Option()] = 4.0,
    weight_bits: Annotated[int, typer.Option()] = 8,
    activation_bits: Annotated[int, typer.Option()] = 8,
    rows: Annotated[int, typer.Option()] = 32,
    cols: Annotated[int, typer.Option()] = 32,
    dataflow: Annotated[str, typer.Option(help="ws, os or is.")] = "ws",
    buffer_kib: Annotated[int, typer.Option(help="Each of the three scratchpads, KiB.")] = 64,
    dram_gb_per_s: Annotated[float, typer.Option(help="DRAM bandwidth, 1e9 bytes per second.")] = 4.0,
    clock_mhz: Annotated[float, typer.Option()] = 500.0,
    pe_bits: Annotated[int, typer.Option(help="Operand width of one multiplier.")] = 8,
    technology: Annotated[str, typer.Option(help="Table of energies and areas.")] = "horowitz_45nm",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the cost of one pair, with a table of its operators."""
    from cosearch import hardware
    from cosearch.cli.show import cost_tables
    from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, Scalar, TaskShape, to_json
    from cosearch.workload import workload

    if file is not None:
        candidate = _read_candidate(file)
    else:
        block = BlockSpec(
            heads=heads, mlp_hidden=round(mlp_ratio * dim), weight_bits=weight_bits, activation_bits=activation_bits
        )
        task = TaskShape(image=(image, image), channels=3, classes=classes)
        edge = max(weight_bits, activation_bits)
        parameters: dict[str, Scalar] = {
            "rows": rows,
            "cols": cols,
            "dataflow": dataflow,
            "ifmap_kib": buffer_kib,
            "filter_kib": buffer_kib,
            "ofmap_kib": buffer_kib,
            "dram_bytes_per_s": dram_gb_per_s * 1e9,
            "clock_hz": clock_mhz * 1e6,
            "pe_bits": pe_bits,
        }
        candidate = Candidate(
            model=ModelSpec(task=task, patch=patch, dim=dim, blocks=(block,) * depth, edge_bits=edge),
            accelerator=AcceleratorSpec.of("systolic", parameters),
        )
    array = hardware.build(candidate.accelerator)
    load = workload(candidate.model)
    cost = hardware.estimate(load, array, hardware.technology(technology))
    if as_json:
        print(json.dumps(to_json(cost), indent=1, sort_keys=True))
        return
    console = make_console()
    for table in cost_tables(candidate, load, cost):
        console.print(table)


def _read_candidate(path: Path) -> Candidate:
    """Returns the pair in an exported folder, or in JSON: a candidate, or a line of ``cosearch space sample``."""
    from cosearch.errors import FileError, SpecError
    from cosearch.spec import Candidate, from_json

    try:
        if path.is_dir():
            model, accelerator = (json.loads((path / f"{n}.json").read_text("utf-8")) for n in ("model", "accelerator"))
            data = {"model": model, "accelerator": accelerator["spec"]}
        else:
            data = json.loads(path.read_text(encoding="utf-8"))
            data = data.get("candidate", data) if isinstance(data, dict) else data
        return from_json(Candidate, data)
    except OSError as error:
        raise FileError(
            str(path), "", f"cannot be read ({error.strerror})", "name an exported folder or JSON"
        ) from error
    except (ValueError, KeyError) as error:
        raise FileError(str(path), "", f"holds no pair ({error})", "see what 'cosearch space sample' prints") from error
    except SpecError as error:
        raise FileError(str(path), error.field, error.problem, error.remedy) from error


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
    from cosearch.hardware import TECHNOLOGIES, TEMPLATES
    from cosearch.plugins import EVALUATORS, SAMPLERS, names
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
