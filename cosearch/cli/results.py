"""``cosearch front``, ``export``, ``check`` and ``ui``: what one does with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosearch.cli.common import RunsOption, make_console

__all__ = ["add_to"]

FRONT_EXAMPLES = """\
Examples:

  cosearch front quickstart                     the table
  cosearch front quickstart --html              write the page, and say where it is
  cosearch front quickstart --json              for other programs
  cosearch front quickstart --pick knee         one pair, in full
"""
EXPORT_EXAMPLES = """\
Examples:

  cosearch export quickstart --pick knee --out pair
  cosearch export quickstart --pick 3f2a9c --out pair --force
  cosearch export quickstart --pick "min latency_s where accuracy >= 0.9" --out pair
"""
UI_EXAMPLES = """\
Examples:

  cosearch ui                    http://127.0.0.1:5000
  cosearch ui --port 5050
"""
RunArgument = Annotated[str, typer.Argument(help="Name of a run, or its folder.", metavar="RUN")]
RULES = "'knee', 'max METRIC', 'min METRIC', '... where METRIC >= VALUE and ...', or an id."


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=FRONT_EXAMPLES)(front)
    app.command(epilog=EXPORT_EXAMPLES)(export)
    app.command()(check)
    app.command(epilog=UI_EXAMPLES)(ui)


def front(
    run: RunArgument,
    html: Annotated[bool, typer.Option("--html", help="Write the page front.html.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print front.json.")] = False,
    pick: Annotated[str | None, typer.Option(help=f"One pair by rule: {RULES}")] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Show the Pareto front of a run."""
    from cosearch import session
    from cosearch.cli.show import front_table, member_table
    from cosearch.front import pick as pick_member
    from cosearch.store import find_run

    console = make_console()
    folder = find_run(runs, run)
    if as_json:
        print((folder / "front.json").read_text(encoding="utf-8"), end="")
        return
    found = session.read_front(folder)
    if pick is not None:
        console.print(member_table(pick_member(found, pick)))
        return
    console.print(front_table(found, folder.name))
    if html:
        console.print(f"Front page: {session.write_page(folder)}")


def export(
    run: RunArgument,
    pick: Annotated[str, typer.Option(help=f"Which pair: {RULES}")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    force: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Write a chosen pair: weights, ONNX, accelerator files and a card, checked against each other."""
    from cosearch import session
    from cosearch.store import find_run

    bundle = session.export(find_run(runs, run), pick, out, force=force)
    console = make_console()
    console.print(f"{bundle.path}: pair {bundle.candidate_id[:8]}")
    for line in bundle.findings:
        console.print(f"  {line}")
    console.print(f"Read {bundle.path / 'README.md'} first. Check it again any time:  cosearch check {bundle.path}")


def check(bundle: Annotated[Path, typer.Argument(help="A folder that 'cosearch export' wrote.")]) -> None:
    """Check an exported pair again: hashes, ONNX against weights, costs."""
    from cosearch.export import check_bundle

    for line in check_bundle(bundle).findings:
        print(f"  {line}")


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
    runs: RunsOption = Path("runs"),
) -> None:
    """Open MLflow's pages on this project's searches."""
    import os

    from cosearch.track import ui_command

    command = ui_command(runs, port)
    print(f"MLflow: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    os.execvp(command[0], command)
