"""``cosearch run``: launches a search, shows how it goes, and ends with the front."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cosearch.cli.common import RunsOption, make_console

if TYPE_CHECKING:
    from cosearch.search import Counts, Leg
    from cosearch.session import Summary

__all__ = ["add_to"]

EXAMPLES = """\
Examples:

  cosearch run quickstart                                 the shipped example
  cosearch run runs/mine.yaml --workers 4 --seed 1        your own file, two values changed
  cosearch run runs/mine.yaml --address auto              on the Ray cluster that this machine belongs to
  cosearch run --resume quickstart                        go on after a crash, a kill or Ctrl-C
"""


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(run)


def run(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(help="Run file, by path or by name.", show_default=False)] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run.", metavar="RUN")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the file's seed.")] = None,
    trainings: Annotated[
        int | None, typer.Option(help="In place of the file's search.trainings.", envvar="COSEARCH_TRAININGS")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="In place of the file's search.sampler.")] = None,
    workers: Annotated[int | None, typer.Option(help="Evaluations at a time; 0 runs them without Ray.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster: 'local', 'auto', or an address.")] = None,
    mlflow: Annotated[bool, typer.Option(help="Log to MLflow.")] = True,
    runs: RunsOption = Path("runs"),
) -> None:
    """Search: train models, estimate costs, keep the Pareto front."""
    from cosearch import session
    from cosearch.errors import UserError
    from cosearch.runfile import find_run_file, load_run_file
    from cosearch.store import find_run

    changes: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "search.trainings": trainings,
        "pool.workers": workers,
        "pool.address": address,
        "mlflow.enabled": None if mlflow else False,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    if sampler is not None:  # another sampler has other options
        changes |= {"search.sampler": sampler, "search.options": {}}
    if (file is None) == (resume is None):
        raise UserError("give a run file, or --resume RUN; one of the two (cosearch run --help shows examples)")
    console = make_console()
    if resume is not None:
        source = context.get_parameter_source("trainings")
        if source is not None and source.name == "ENVIRONMENT":
            changes.pop("search.trainings", None)  # meant for runs that begin
        fixed = sorted(set(changes) - {"pool.workers", "pool.address", "mlflow.enabled"})
        if fixed:
            raise UserError(f"--{fixed[0].rpartition('.')[2]} cannot change in a run that was begun; begin a new one")
        prepared = session.reopen(find_run(runs, resume), changes)
    else:
        loaded = load_run_file(find_run_file(str(file)), changes)
        prepared = session.begin(loaded, runs, changes)
    with _Watch(console, prepared) as watch:
        try:
            summary = session.run(prepared, watch)
        except KeyboardInterrupt:
            watch.stop()
            console.print(
                f"\nStopped; what was found is kept. Go on with:\n  cosearch run --resume {prepared.folder.name}"
            )
            raise
    _report(console, summary, runs)


class _Watch:
    """A progress bar for each leg: trained models, costed pairs, front size, hypervolume, time left."""

    def __init__(self, console: Console, prepared: Any) -> None:
        self._console = console
        self._budget = prepared.loaded.file.search
        self._bars: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._printed = 0.0

    def __enter__(self) -> _Watch:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the bars as they stand."""
        self._progress.stop()

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text)

    def told(self, leg: Leg) -> None:
        """Redraws a leg's bar; without a terminal, prints a line every few seconds."""
        self.waiting(leg)
        done = leg.trainings - leg.counts.spent < 1
        if not self._console.is_terminal and (done or time.monotonic() - self._printed > 10):
            self._printed = time.monotonic()
            self._console.print(f"{leg.name}: {self._state(leg)}")

    def waiting(self, leg: Leg) -> None:
        """Redraws a leg's bar."""
        if leg.name not in self._bars:
            self._bars[leg.name] = self._progress.add_task(leg.name, total=leg.trainings, state="")
        self._progress.update(self._bars[leg.name], completed=leg.counts.spent, state=self._state(leg))

    def _state(self, leg: Leg) -> str:
        counts = leg.counts
        parts = [
            f"{counts.spent:.0f}/{leg.trainings} trainings"
            if counts.briefed
            else f"{counts.trained}/{leg.trainings} trained",
            f"{counts.costed:,} costed",
            f"front {len(leg.front)}",
            f"hypervolume {leg.front.hypervolume:.4f}",
        ]
        evaluated = counts.trained + counts.briefed
        fresh = counts.spent * (1 - counts.reused / evaluated) if evaluated else 0.0
        if fresh > 0 and leg.trainings - counts.spent >= 1:
            left = (time.monotonic() - leg.started) / fresh * (leg.trainings - counts.spent)
            parts.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        if counts.failed:
            parts.append(f"{counts.failed} failed")
        return " · ".join(parts)


def _trained(counts: Counts) -> str:
    """Returns how many models were trained, and how many only briefly."""
    return f"{counts.trained} models trained" + (f", {counts.briefed} tried briefly" if counts.briefed else "")


def _report(console: Console, summary: Summary, runs: Path) -> None:
    """Prints the front, what it compares to, where it is, and what to type next."""
    from cosearch.cli.show import front_table
    from cosearch.errors import UserError

    search, failures = summary.legs["search"].counts, summary.legs["search"].failures
    if not summary.front.members:
        reason = next(iter(failures.values()), "none kept the limits")
        raise UserError(f"nothing was found: {_trained(search)}, {search.failed} failed ({reason})")
    console.print()
    console.print(front_table(summary.front, summary.folder.name))
    console.print(
        f"{_trained(search)} ({search.failed} failed), {search.costed:,} pairs costed, "
        f"{summary.seconds:.0f} s in all. In one common box:"
    )
    for subject, reason in list(failures.items())[:3]:
        console.print(f"  failed: {subject}: {reason}")
    for name, value in summary.hypervolumes.items():
        what = (
            f"this search ({summary.samplers[name]})" if name == "search" else f"the {summary.samplers[name]} sampler"
        )
        counts = summary.legs[name].counts
        console.print(f"  hypervolume {value:.4f}  {what}: {_trained(counts)}, {counts.costed:,} pairs costed")
    for warning in summary.warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    where = "" if runs == Path("runs") else f" --runs {runs}"
    console.print(f"Front page: {summary.folder / 'front.html'}\n\nNext:")
    console.print(f"  cosearch ui{where}                      browse it in MLflow", soft_wrap=True)
    console.print(
        f"  cosearch export {summary.folder.name} --pick knee --out pair{where}   model and accelerator, checked",
        soft_wrap=True,
    )
