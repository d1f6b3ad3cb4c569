"""``cosearch verify``: trains the front's models again, and says which points stand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cosearch.cli.common import PIPED_WIDTH, RunsOption, make_console
from cosearch.words import describe_model, quantity, unit_of

if TYPE_CHECKING:
    from cosearch.session import Verified
    from cosearch.verification import Estimate, MemberVerdict, ModelFigures, Verification

__all__ = ["add_to", "points_table", "seeds_table"]

EXAMPLES = """\
Examples:

  cosearch verify quickstart                       5 seeds, 4 times the steps
  cosearch verify quickstart --longer 1            as many steps as in the search
  cosearch verify quickstart --models knee         one model
  cosearch verify quickstart --json                for other programs
"""
MOST = 16
"""Points from which on those that are not in doubt are counted, not shown."""

ROLES = {
    "survives": "[green]survives[/]",
    "falls": "[red]falls[/]",
    "open": "[yellow]open[/]",
    "failed": "[red]failed[/]",
}


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(verify)


def verify(
    run: Annotated[str, typer.Argument(help="Name of a run, or its folder.", metavar="RUN")],
    seeds: Annotated[int, typer.Option(help="Trainings of each model; the first ones of an earlier call count.")] = 5,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps of each training.", show_default=False)] = None,
    longer: Annotated[
        float | None,
        typer.Option(help="Times as many steps as in the search; 4 without --steps.", show_default=False),
    ] = None,
    models: Annotated[str, typer.Option(help="'all' of the front, its 'knee', or how many, spread over it.")] = "all",
    workers: Annotated[int | None, typer.Option(help="Trainings at a time; 0 runs them without Ray.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster: 'local', 'auto', or an address.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print verified.json.")] = False,
    mlflow: Annotated[bool, typer.Option(help="Add the result to the search in MLflow.")] = True,
    runs: RunsOption = Path("runs"),
) -> None:
    """Train the front's models again with several seeds, and say which points survive.

    Accuracy becomes a mean over seeds with a 95 % interval. A point falls if another one dominates it by these means;
    how sure that is stands beside it. What was trained is kept, so a second call goes on or adds seeds.
    """
    from cosearch import session
    from cosearch.store import find_run

    plan = session.Plan(seeds=seeds, steps=steps, longer=longer, models=models)
    changes: dict[str, Any] = {
        "pool.workers": workers,
        "pool.address": address,
        "mlflow.enabled": None if mlflow else False,
    }
    folder = find_run(runs, run)
    prepared = session.reopen(folder, {field: value for field, value in changes.items() if value is not None})
    console = Console(stderr=True, highlight=False, width=PIPED_WIDTH) if as_json else make_console()
    with _Watch(console) as watch:
        try:
            found = session.verify(prepared, plan, watch)
        except KeyboardInterrupt:
            watch.stop()
            console.print("\nStopped; finished trainings are kept. The same command goes on with the others.")
            raise
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    if as_json:
        print(found.text, end="")
    else:
        _report(console, found)


class _Watch:
    """A bar of trainings; without a terminal, a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("verifying"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} trainings"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._bar = self._progress.add_task("", total=None)
        self._printed = 0.0

    def __enter__(self) -> _Watch:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the bar as it stands."""
        self._progress.stop()

    def progress(self, done: int, total: int) -> None:
        """Redraws the bar."""
        self._progress.update(self._bar, completed=done, total=total)
        if not self._console.is_terminal and (done == total or time.monotonic() - self._printed > 10):
            self._printed = time.monotonic()
            self._console.print(f"verifying: {done}/{total} trainings")


def _report(console: Console, found: Verified) -> None:
    result = found.verification
    console.print(seeds_table(found))
    console.print()
    console.print(points_table(found))
    console.print(_counted(result))
    for name, tau in result.tau.items():
        if tau is not None and name in {objective.metric for objective in result.objectives}:
            console.print(f"Kendall's tau of the models' {name}, search against verified: {tau:.2f}")
    for model in result.models:
        for reason in dict.fromkeys(model.failed):
            console.print(f"  failed: {model.model_id[:8]}: {reason}")
    console.print(
        f"{found.trained} trainings in {found.seconds:.0f} s"
        + (f", {found.reused} were there from earlier" if found.reused else "")
        + f". All figures: {found.folder / 'verified.json'}; page: {found.folder / 'verified.html'}"
    )


def _counted(result: Verification) -> str:
    parts = [
        f"{result.count('survives')} of {len(result.members)} points survive",
        f"{result.count('falls')} fall",
        f"{result.count('open')} cannot be told apart",
    ]
    if failed := result.count("failed"):
        parts.append(f"{failed} failed")
    if others := result.front_size - len(result.members):
        parts.append(f"{others} are of models that were not verified")
    return ", ".join(parts)


def seeds_table(found: Verified) -> Table:
    """Returns the models as a table: each objective that was verified, in the search and over seeds; the test split."""
    result = found.verification
    shown = [o.metric for o in result.objectives if o.metric in result.metrics] or list(result.metrics[:1])
    title = f"Models of {found.folder.name}'s front, trained again (mean over seeds, 95 % interval)"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("model id", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("seeds", justify="right")
    for name in shown:
        for column in (f"{name} in search", "mean", "sd", "interval"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("test ± sd", justify="right", no_wrap=True)
    table.add_column("model")
    words = {m.candidate.model.id: describe_model(m.candidate.model) for m in found.front.members}
    for model in result.models:
        cells = [cell for name in shown for cell in _figures(model, name)]
        done = max((len(values) for values in model.values.values()), default=0)
        table.add_row(
            model.model_id[:8],
            "" if model.steps is None else str(model.steps),
            f"{done} of {done + len(model.failed)}" if model.failed else str(done),
            *cells,
            words[model.model_id],
        )
    return table


def _figures(model: ModelFigures, name: str) -> list[str]:
    unit = unit_of(name)
    search = quantity(model.search[name], unit)
    if name not in model.estimates:
        return [search, "", "", "too few", ""]
    own, test = model.estimates[name], model.test.get(name)
    interval = f"{_precise(own.low, unit)} - {_precise(own.high, unit)}"
    return [search, _precise(own.mean, unit), _precise(own.sd, unit), interval, _with_reach(test, unit)]


def _precise(value: float, unit: str) -> str:
    return quantity(value, unit) if unit else f"{value:.4f}"


def _with_reach(test: Estimate | None, unit: str) -> str:
    return "" if test is None else f"{_precise(test.mean, unit)} ± {_precise(test.sd, unit)}"


def points_table(found: Verified) -> Table:
    """Returns the points of the front and what became of them; where they are many, only those in doubt."""
    result = found.verification
    doubtful = [member for member in result.members if member.verdict != "survives"]
    members = result.members if len(result.members) <= MOST else doubtful
    known = {member.candidate.id: member for member in found.front.members}
    title = "Points of the front" if members is result.members else "Points of the front that do not surely survive"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("id", no_wrap=True)
    table.add_column("model id", no_wrap=True)
    for objective in result.objectives:
        if objective.metric not in result.metrics:
            table.add_column(objective.metric, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("falls with probability", justify="right", no_wrap=True)
    table.add_column("because of")
    for member in members:
        costs = [
            quantity(known[member.id].metrics[o.metric], o.unit)
            for o in result.objectives
            if o.metric not in result.metrics
        ]
        falls = "" if member.verdict == "failed" else f"{member.falls:.2f}"
        table.add_row(member.id[:8], member.model_id[:8], *costs, ROLES[member.verdict], falls, _because(member))
    return table


def _because(member: MemberVerdict) -> str:
    """Returns the likeliest of what pushes a point off the front."""
    if member.verdict == "failed":
        return "its model was not trained twice"
    causes = [f"by the mean, {limit} is broken" for limit in member.broken]
    causes += [f"{rival.id[:8]} dominates it ({rival.probability:.2f})" for rival in member.rivals[:2]]
    more = len(member.rivals) - 2
    return ", ".join(causes) + (f", {more} more" if more > 0 else "")
