"""``cosearch init``: a new project with a space, a run file and an evaluator that works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add_to"]

EXAMPLES = """\
Examples:

  cosearch init mine && cd mine && cosearch run first
"""

EVALUATOR = '''\
"""An evaluator of your own. It is found as `evaluators/storage.py:Storage` in runs/first.yaml.

An evaluator says what it measures (`metrics`), what that depends on (`scope`: "model" or "pair") and whether it is
`cheap` (then it runs before anything is trained). Test it with `cosearch.testing.EvaluatorContract`.
"""

from cosearch.evaluator import Metric
from cosearch.workload import workload


class Storage:
    """Bytes of flash that a model's weights take, with room for a header each."""

    metrics = (Metric(name="flash_bytes", unit="B", direction="min", description="weights and headers"),)
    scope = "model"
    cheap = True

    def __init__(self, header_bytes: int = 16) -> None:
        self.header_bytes = header_bytes

    def evaluate(self, candidate, context):
        tensors = [t for t in workload(candidate.model).tensors if t.weight]
        return {"flash_bytes": float(sum(t.bytes + self.header_bytes for t in tensors))}
'''

RUN = """\
# yaml-language-server: $schema=run-1.schema.json
cosearch: run/1
name: first
description: A first search, with an evaluator of your own.
space: ../spaces/mine.yaml
seed: 0

# Your own images: {name: images, path: ../images, size: 32}, {name: npz, path: ...}, {name: cifar10, path: ...}
task: {name: digit-pairs, size: 16}

evaluators:
  accuracy: {use: trained, options: {recipe: {steps: 60}}}
  cost: {use: analytical}
  storage: {use: "../evaluators/storage.py:Storage", options: {header_bytes: 32}}

objectives: [accuracy, latency_s, flash_bytes]
limits:
  - area_mm2 <= 4

search:
  sampler: split
  trainings: 12
"""

README = """\
# A co-design project

    cosearch run first                                  search
    cosearch front first --html                         look
    cosearch ui                                         browse in MLflow
    cosearch export first --pick knee --out pair        take one

- `spaces/mine.yaml`: what may vary. `cosearch space describe spaces/mine.yaml` explains it.
- `runs/first.yaml`: what to search, how, and for how long.
- `evaluators/storage.py`: a measure of your own.
"""


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(init)


def init(folder: Annotated[Path, typer.Argument(help="Where to put it; must be empty or new.", metavar="DIR")]) -> None:
    """Start a project: spaces/, runs/ and an evaluator of your own that works."""
    import json

    from cosearch.errors import StoreError, UserError
    from cosearch.runfile import run_schema
    from cosearch.space import shipped_spaces, space_schema

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder")
    shipped = next(path for path in shipped_spaces() if path.stem == "vit_digits_systolic")
    space = shipped.read_text(encoding="utf-8").replace("name: vit_digits_systolic", "name: mine")
    files = {
        "README.md": README,
        "spaces/mine.yaml": space,
        "spaces/space-1.schema.json": json.dumps(space_schema(), indent=1) + "\n",
        "runs/first.yaml": RUN,
        "runs/run-1.schema.json": json.dumps(run_schema(), indent=1) + "\n",
        "evaluators/storage.py": EVALUATOR,
        ".gitignore": "runs/*\n!runs/*.yaml\n!runs/*.schema.json\n",
    }
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}; choose another place") from error
    print(f"{folder}: a project that runs as it is. Next:\n  cd {folder}\n  cosearch run first")
