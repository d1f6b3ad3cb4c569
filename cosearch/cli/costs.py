"""``cosearch estimate``, ``validate``, ``reference`` and ``surrogate``: costs, and what they are held against."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cosearch.cli.common import RunsOption, make_console

if TYPE_CHECKING:
    from cosearch.hardware import Accelerator, Cost, Technology
    from cosearch.spec import AcceleratorSpec, Candidate, Scalar
    from cosearch.validation import Validation
    from cosearch.workload import Workload

__all__ = ["add_to"]

ESTIMATE_EXAMPLES = """\
Examples:

  cosearch estimate --dim 192 --depth 12 --heads 3 --rows 32 --cols 32        DeiT-Tiny, 8 bits
  cosearch estimate --dim 192 --depth 12 --heads 3 --weight-bits 4 --pe-bits 4 --dataflow os
  cosearch estimate --set mapping=search --set attention=fused --set activation_kib=512
  cosearch estimate --template gemmini --set dim=32                           another template
  cosearch estimate --model nets.py:make_vit --image 224                     a torch module of your own
  cosearch estimate --weight-format mxint8 --activation-format mxint8 --set pe_kind=mx_integer
  cosearch estimate --weight-sparsity 2:4 --set sparsity=2:4
  cosearch estimate --against zigzag                                          the same by another tool
  cosearch estimate pair                                                      what 'cosearch export' wrote
  cosearch estimate pair.json                                                 a line of 'cosearch space sample'
"""
VALIDATE_EXAMPLES = """\
Examples:

  cosearch validate scalesim scalesim_v3.csv
  cosearch validate gemmini measured.csv --out predictions.csv
"""
FIT_EXAMPLES = """\
Examples:

  cosearch surrogate fit timed                      learn what the run's slow evaluator measured
  cosearch surrogate fit timed --evaluator cost     where the run has several

Then, in a run file:  cost: {use: surrogate, options: {of: {use: zigzag}, run: timed}}
"""


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=ESTIMATE_EXAMPLES)(estimate)
    app.command(epilog=VALIDATE_EXAMPLES)(validate)
    surrogates = typer.Typer(help="Fast models of slow evaluators.", no_args_is_help=True)
    surrogates.command("fit", epilog=FIT_EXAMPLES)(fit)
    app.add_typer(surrogates, name="surrogate")
    references = typer.Typer(help="Other tools to hold costs against.", no_args_is_help=True)
    references.command("list")(list_references)
    references.command("install")(install_reference)
    app.add_typer(references, name="reference")


def estimate(
    file: Annotated[
        Path | None, typer.Argument(help="An exported folder, or a pair as JSON.", show_default=False)
    ] = None,
    image: Annotated[int | None, typer.Option(help="Side of the image, pixels; 224 where nothing says it.")] = None,
    classes: Annotated[int, typer.Option()] = 1000,
    patch: Annotated[int, typer.Option()] = 16,
    dim: Annotated[int, typer.Option()] = 192,
    depth: Annotated[int, typer.Option()] = 12,
    heads: Annotated[int, typer.Option()] = 3,
    mlp_ratio: Annotated[float, typer.Option()] = 4.0,
    weight_bits: Annotated[int, typer.Option()] = 8,
    activation_bits: Annotated[int, typer.Option()] = 8,
    template: Annotated[str, typer.Option(help="Kind of accelerator; 'cosearch list' names them.")] = "systolic",
    rows: Annotated[int, typer.Option(help="Of a systolic array, as the next seven.")] = 32,
    cols: Annotated[int, typer.Option()] = 32,
    dataflow: Annotated[str, typer.Option(help="ws, os or is.")] = "ws",
    buffer_kib: Annotated[int, typer.Option(help="Each of the three scratchpads, KiB.")] = 64,
    dram_gb_per_s: Annotated[float, typer.Option(help="DRAM bandwidth, 1e9 bytes per second.")] = 4.0,
    clock_mhz: Annotated[float, typer.Option()] = 500.0,
    pe_bits: Annotated[int, typer.Option(help="Operand width of one multiplier.")] = 8,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any parameter of the template; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A torch module of your own instead, as FILE.py:FACTORY, PACKAGE:FACTORY or FILE.pt2.",
            metavar="MODULE",
        ),
    ] = None,
    weight_format: Annotated[
        str, typer.Option(help="Number format of weights, such as mxfp4; 'cosearch list' names them.")
    ] = "",
    activation_format: Annotated[str, typer.Option(help="Likewise of activations.")] = "",
    weight_sparsity: Annotated[
        str, typer.Option(help="Of every M weights at most N are not zero.", metavar="N:M")
    ] = "1:1",
    technology: Annotated[
        str, typer.Option(help="Table of energies and areas; '+hbm2' and the like choose the DRAM.")
    ] = "horowitz_45nm",
    against: Annotated[
        str | None, typer.Option(help="A reference tool to compare with; 'cosearch reference list' names them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the cost of one pair, with a table of its operators."""
    from cosearch import hardware
    from cosearch.cli.show import cost_tables
    from cosearch.spec import BlockSpec, ModelSpec, TaskShape, to_json
    from cosearch.words import describe_model
    from cosearch.workload import with_formats, workload

    if file is not None:
        candidate = _read_candidate(file)
        accelerator, load, name = candidate.accelerator, workload(candidate.model), describe_model(candidate.model)
    else:
        block = BlockSpec(
            heads=heads, mlp_hidden=round(mlp_ratio * dim), weight_bits=weight_bits, activation_bits=activation_bits
        )
        task = TaskShape(image=(image or 224, image or 224), channels=3, classes=classes)
        systolic: dict[str, Scalar] = {
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
        accelerator = _accelerator(template, systolic if template == "systolic" else {}, settings or [])
        if model is not None:
            load, name = _imported(model, image, weight_bits, activation_bits), model
        else:
            spec = ModelSpec(
                task=task, patch=patch, dim=dim, blocks=(block,) * depth, edge_bits=max(weight_bits, activation_bits)
            )
            load, name = workload(spec), describe_model(spec)
    array = hardware.build(accelerator)
    load = with_formats(load, weights=weight_format, activations=activation_format, sparsity=_sparsity(weight_sparsity))
    prices = hardware.technology(technology)
    _refuse_what_does_not_fit(load, array)
    cost = hardware.estimate(load, array, prices)
    theirs = _ask(against, load, array, prices) if against else None
    if as_json:
        out = to_json(cost) | {"trust": hardware.trust(array)} | ({"against": {against: theirs}} if theirs else {})
        print(json.dumps(out, indent=1, sort_keys=True))
        return
    console = make_console()
    for table in cost_tables(name, accelerator, load, cost):
        console.print(table)
    if theirs:
        console.print(_beside(str(against), load, cost, theirs))
    console.print("\n[bold]How far to trust it[/]")
    for line in hardware.trust(array):
        console.print(f"- {line}")


def _accelerator(template: str, parameters: dict[str, Scalar], settings: list[str]) -> AcceleratorSpec:
    """Returns the accelerator of ``template`` with ``parameters`` and what ``--set`` gives."""
    from cosearch.errors import UserError
    from cosearch.spec import AcceleratorSpec

    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UserError(f"--set is {setting!r}; write NAME=VALUE, such as mapping=search")
        parameters[name] = _scalar(text)
    return AcceleratorSpec.of(template, parameters)


def _imported(reference: str, image: int | None, weight_bits: int, activation_bits: int) -> Workload:
    """Returns the workload of a user's own module."""
    from cosearch.imported import load_module, workload_of

    found = load_module(reference, image=None if image is None else (3, image, image))
    return workload_of(
        found.module,
        found.example_inputs,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        name=found.name,
    )


def _sparsity(text: str) -> tuple[int, int]:
    from cosearch.errors import UserError

    kept, colon, of = text.partition(":")
    if not (colon and kept.isdecimal() and of.isdecimal()):
        raise UserError(f"--weight-sparsity is {text!r}; write N:M, such as 2:4")
    return int(kept), int(of)


def _scalar(text: str) -> Scalar:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _refuse_what_does_not_fit(load: Workload, accelerator: Accelerator) -> None:
    from cosearch.errors import UserError
    from cosearch.hardware import fits

    if broken := fits(load, accelerator):
        lacks = "; ".join(f"{one.limit} is exceeded by {one.excess:.0%}" for one in broken)
        raise UserError(f"the model does not fit the device: {lacks}. Make the model or the design smaller")


def _ask(name: str, load: Workload, accelerator: Accelerator, prices: Technology) -> dict[str, dict[str, float]]:
    """Returns what the tool ``name`` says of each matrix product, by the operator's name."""
    from cosearch.errors import UserError
    from cosearch.hardware import SystolicArray
    from cosearch.references import matrix_products, run

    if not isinstance(accelerator, SystolicArray):
        raise UserError("--against needs a systolic array, which is what the reference tools are given")
    products = matrix_products(load)
    return {op.name: found for op, found in zip(products, run(name, products, accelerator, prices), strict=True)}


def _beside(name: str, load: Workload, cost: Cost, theirs: dict[str, dict[str, float]]) -> Table:
    """Returns a table of matrix products by both, equal ones of several blocks in one row."""
    from cosearch.words import quantity

    table = Table(title=f"Matrix products beside {name}", title_justify="left", box=None, padding=(0, 1, 0, 0))
    quantities = (("cycles", ""), ("dram_bytes", "B"), ("energy_j", "J"))
    known = [(quantity_name, unit) for quantity_name, unit in quantities if _theirs(quantity_name, theirs)]
    table.add_column("operator", no_wrap=True)
    table.add_column("n", justify="right")
    for quantity_name, _ in known:
        title = quantity_name.removesuffix("_j").removesuffix("_bytes").replace("dram", "DRAM")
        for column in (title, name, "apart"):
            table.add_column(column, justify="right", no_wrap=True)
    rows: dict[tuple[str, ...], list[str]] = {}
    for op, ours in zip(load.operators, cost.operators, strict=True):
        if op.name not in theirs:
            continue
        cells: list[str] = []
        for quantity_name, unit in known:
            mine, other = float(getattr(ours, quantity_name)), _value(quantity_name, theirs[op.name])
            apart = f"{mine / other - 1:+.1%}" if other else ("0.0%" if not mine else "")
            cells += [f"{mine:,.0f}", f"{other:,.0f}"] if not unit else [quantity(mine, unit), quantity(other, unit)]
            cells.append(apart)
        rows.setdefault((op.name.rpartition(".")[2] if op.name.startswith("block") else op.name, *cells), []).append(
            op.name
        )
    for (part, *cells), names in rows.items():
        first, last = names[0].partition(".")[0], names[-1].partition(".")[0]
        shown = f"{first}-{last.removeprefix('block')}.{part}" if len(names) > 1 else names[0]
        table.add_row(shown, str(len(names)), *cells)
    return table


def _theirs(name: str, theirs: dict[str, dict[str, float]]) -> bool:
    return name == "cycles" or all(name in found for found in theirs.values())


def _value(name: str, found: dict[str, float]) -> float:
    return found["compute_cycles"] + found["stall_cycles"] if name == "cycles" else found[name]


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


def validate(
    reference: Annotated[str, typer.Argument(help="scalesim, zigzag or gemmini.", metavar="REFERENCE")],
    file: Annotated[Path, typer.Argument(help="A table with the columns of the reference, CSV.", metavar="FILE")],
    out: Annotated[Path | None, typer.Option(help="Write the prediction of each row to this CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold predictions against a table of a reference, row by row."""
    from cosearch.validation import validate as hold_against

    rows = _read_table(file)
    found = hold_against(reference, rows)
    if out is not None:
        _write_predictions(out, rows, found)
    if as_json:
        import dataclasses

        report = {"reference": found.reference, "rows": found.rows, "file": str(file)}
        print(json.dumps(report | {"quantities": [dataclasses.asdict(one) for one in found.agreements]}, indent=1))
        return
    table = Table(title=f"{reference}: {found.rows} rows of {file}", title_justify="left", box=None)
    table.add_column("quantity", no_wrap=True)
    for name in ("rows", "exact", "median error", "mean error", "worst error", "Spearman"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.agreements:
        errors = [f"{100 * error:.2f} %" for error in (one.median, one.mean, one.worst)]
        rank = "" if one.spearman is None else f"{one.spearman:.4f}"
        table.add_row(one.quantity, str(one.rows), str(one.exact), *errors, rank)
    console = make_console()
    console.print(table)
    silent = sum(not prediction for prediction in found.predictions)
    if silent:
        console.print(f"{silent} rows have no prediction: what they ran on is not known, or nothing fits.")
    if out is not None:
        console.print(f"The prediction of each row: {out}")


def _read_table(file: Path) -> list[dict[str, str]]:
    from cosearch.errors import FileError

    remedy = "give a CSV file with the columns of the reference"
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [{k: v for k, v in row.items() if k and v is not None} for row in csv.DictReader(stream)]
    except OSError as error:
        raise FileError(str(file), "", f"cannot be read ({error.strerror})", remedy) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(str(file), "", f"is no CSV ({error})", remedy) from error
    return rows


def _write_predictions(out: Path, rows: list[dict[str, str]], found: Validation) -> None:
    from cosearch.errors import StoreError

    given = list(dict.fromkeys(name for row in rows for name in row))
    predicted = list(dict.fromkeys(name for prediction in found.predictions for name in prediction))
    try:
        with out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([*given, *(f"predicted_{name}" for name in predicted)])
            for row, prediction in zip(rows, found.predictions, strict=True):
                values: list[Any] = [prediction.get(name, "") for name in predicted]
                writer.writerow([*(row.get(name, "") for name in given), *values])
    except OSError as error:
        raise StoreError(f"{out} cannot be written ({error.strerror}); choose another place with --out") from error


def list_references() -> None:
    """List the tools that costs can be held against, and whether they are here."""
    from cosearch.references import REFERENCES, available

    table = Table(box=None)
    for name in ("name", "version", "here", "what it is", "does not see"):
        table.add_column(name)
    for tool in REFERENCES.values():
        table.add_row(tool.name, tool.version, "yes" if available(tool.name) else "no", tool.title, tool.blind)
    console = make_console()
    console.print(table)
    console.print("'cosearch reference install NAME' brings one into an environment of its own.")


def install_reference(
    name: Annotated[str, typer.Argument(help="As 'cosearch reference list' names it.")],
    again: Annotated[bool, typer.Option("--again", help="Install anew what is here already.")] = False,
) -> None:
    """Bring a reference tool into an environment of its own; does nothing where it is here already."""
    from cosearch.references import REFERENCES, available, install, interpreter

    python = interpreter(name) if not again and available(name) else install(name)
    make_console().print(f"{REFERENCES[name].title}: ready in {python}")


def fit(
    run: Annotated[str, typer.Argument(help="Name of a run, or its folder.", metavar="RUN")],
    evaluator: Annotated[
        str, typer.Option(help="Name in the run file; left out: its only slow one.", show_default=False)
    ] = "",
    out: Annotated[Path | None, typer.Option(help="File to write; the run's folder by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is held out, and of the trees.")] = 0,
    runs: RunsOption = Path("runs"),
) -> None:
    """Learn a fast model of a slow evaluator from what a run evaluated."""
    from rich.markdown import Markdown

    from cosearch.store import find_run
    from cosearch.surrogate import FILE, fit_surrogate

    folder = find_run(runs, run)
    learnt = fit_surrogate(folder, evaluator=evaluator, seed=seed)
    path = out or folder / FILE
    learnt.save(path)
    console = make_console()
    console.print(Markdown(learnt.report.text()))
    console.print(f"\nWritten: {path}")
