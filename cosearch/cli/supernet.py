"""``cosearch supernet``: trains one network for all models of a run's space."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cosearch.cli.common import make_console

__all__ = ["add_to"]

EXAMPLES = """\
Examples:

  cosearch supernet quickstart --steps 2000           space, task and seed of a run file
  cosearch supernet quickstart --resume               go on after a crash, a kill or Ctrl-C
  cosearch supernet mine.yaml --set strategy=sandwich --set random=2

Then, in a run file:

  accuracy: {use: supernet, options: {checkpoint: runs/quickstart-supernet.safetensors, finetune_steps: 10}}
"""
_SAVE_EVERY_S = 30.0


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(supernet)


def supernet(
    file: Annotated[str, typer.Argument(help="Run file, by path or by name.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write; runs/NAME-supernet.safetensors by default.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.", min=1)] = 1200,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Field of the recipe, as NAME=VALUE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the file, by the recipe in it.")] = False,
) -> None:
    """Train one network whose parts are all models of a space."""
    from cosearch.data import load_task
    from cosearch.errors import UserError
    from cosearch.runfile import find_run_file, load_run_file
    from cosearch.session.prepare import resolve_task
    from cosearch.space import load_space
    from cosearch.supernet import Choices, SupernetRecipe, SupernetTraining, resume_training, save_training

    loaded = load_run_file(find_run_file(file), {})
    target = out or Path("runs") / f"{loaded.file.name}-supernet.safetensors"
    folder, name = loaded.path.parent, loaded.file.space
    task = load_task(resolve_task(loaded.file.task, folder))
    space = load_space(str(folder / name) if name.endswith((".yaml", ".yml")) or "/" in name else name, task.shape)
    choices = Choices.of_space(space, loaded.file.seed)
    if resume:
        training = resume_training(target, choices, task)
    elif target.exists():
        raise UserError(f"{target} exists already; go on with it (--resume), or write elsewhere (--out)")
    else:
        recipe = SupernetRecipe.from_config({"steps": steps, **_fields(changes or [])})
        training = SupernetTraining(choices, task, recipe, loaded.file.seed)
    console, saved, total = make_console(), time.monotonic(), training.supernet.recipe.base.steps
    while not training.done:
        training.advance()
        if time.monotonic() - saved > _SAVE_EVERY_S:
            save_training(training, target)
            saved = time.monotonic()
            console.print(f"{training.supernet.steps}/{total} steps · loss {training.supernet.losses[-1]:.3f}")
    save_training(training, target)
    console.print(f"{total} steps made. Supernet: {target}", soft_wrap=True)


def _fields(changes: list[str]) -> dict[str, Any]:
    """Returns the recipe's fields of ``NAME=VALUE`` texts, numbers as numbers."""
    from cosearch.errors import UserError

    out: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set {change} gives no value; write --set NAME=VALUE")
        out[name.strip()] = _value(value.strip())
    return out


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
