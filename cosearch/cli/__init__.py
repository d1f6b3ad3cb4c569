"""The ``cosearch`` command: the only place, with `cosearch.session`, that puts the parts together.

Exit codes: 0 done, 1 a bug of ours (with traceback), 2 the user's input is wrong, 3 the machine stands in the way,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from cosearch import __version__
from cosearch.cli import adopt, costs, inspect, project, results, running, supernet, verify
from cosearch.errors import CosearchError, EnvironmentProblem

__all__ = ["app", "main"]

app = typer.Typer(
    name="cosearch",
    help="Search vision transformers and accelerators together.",
    epilog="Start with:  cosearch run quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (running, results, verify, supernet, adopt, costs, inspect, project):
    group.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cosearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Search vision transformers and accelerators together."""


def main() -> None:
    """Runs the command line; errors that are meant for the user are printed as one line, without a traceback."""
    try:
        app()
    except CosearchError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(3 if isinstance(error, EnvironmentProblem) else 2)
    except KeyboardInterrupt:
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
