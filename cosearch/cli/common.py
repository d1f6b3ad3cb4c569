"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["RunsOption", "make_console"]

PIPED_WIDTH = 140
"""Columns where the output is no terminal: tables stay whole in a file or a log."""

RunsOption = Annotated[
    Path, typer.Option("--runs", help="Folder that holds the runs.", envvar="COSEARCH_RUNS", show_default=True)
]


def make_console() -> Console:
    """Returns the console that commands print to: as wide as the terminal, or wide enough for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)
