"""``cosearch adopt``: a trained vision transformer of another library, to search tokens, bits and hardware for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosearch.cli.common import make_console

__all__ = ["add_to"]

EXAMPLES = """\
Examples:

  cosearch adopt nets.py:make --out model.safetensors --space space.yaml      timm's, transformers', torchvision's
  cosearch adopt deit.safetensors --heads 3 --out model.safetensors           parameters alone
  cosearch adopt runs/first/artifacts/accuracy-0123/weights.safetensors --out model.safetensors

Then, in a run file:  accuracy: {use: post_training, options: {weights: model.safetensors}}
"""


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(adopt)


def adopt(
    model: Annotated[
        str,
        typer.Argument(help="A safetensors file, or a module as FILE.py:FACTORY or PACKAGE:FACTORY.", metavar="MODEL"),
    ],
    out: Annotated[Path, typer.Option(help="Weights to write, with the model's spec in the file.")],
    space: Annotated[
        Path | None, typer.Option(help="Space file to write: sizes fixed, tokens, bits and accelerator searched.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Attention heads of each block; needed for parameters alone.", min=1)
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Image in pixels, where it is no square.", metavar="HEIGHTxWIDTH")
    ] = None,
    labels: Annotated[int, typer.Option(help="Labels that the head gives.", min=1)] = 1,
    epsilon: Annotated[
        float | None, typer.Option(help="That LayerNorm adds to the variance, where it is not the library's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Take over a trained vision transformer, its weights and its sizes."""
    from cosearch.errors import UserError
    from cosearch.imported import adopted_from_reference, adopted_to_bytes, space_of
    from cosearch.words import describe_model

    for path in (out, space):
        if path is not None and path.exists() and not force:
            raise UserError(f"{path} is there already; write another name, or --force")
    found = adopted_from_reference(model, heads=heads, image=_sides(image), labels=labels, epsilon=epsilon)
    text = space_of(found.spec, space.stem) if space is not None else ""
    _write(out, adopted_to_bytes(found))
    console = make_console()
    console.print(f"{describe_model(found.spec)}, as {found.origin} names its weights: {out}")
    if space is not None:
        _write(space, text.encode())
        console.print(f"its tokens, bits and accelerator to search: {space}")


def _sides(text: str | None) -> tuple[int, int] | None:
    from cosearch.errors import UserError

    if text is None:
        return None
    parts = text.split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--image is {text!r}; write pixels, such as 224 or 224x192")
    return int(parts[0]), int(parts[-1])


def _write(path: Path, content: bytes) -> None:
    from cosearch.errors import StoreError

    try:
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); choose another place") from error
