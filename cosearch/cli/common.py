"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["RunsOption"]

RunsOption = Annotated[
    Path, typer.Option("--runs", help="Folder that holds the runs.", envvar="COSEARCH_RUNS", show_default=True)
]
