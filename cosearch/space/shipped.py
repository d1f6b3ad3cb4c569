"""Finds space files: those of the user's project, and those that come with the package."""

from __future__ import annotations

from pathlib import Path

from cosearch.errors import NotFoundError, did_you_mean

__all__ = ["find_space", "shipped_spaces"]

_SUFFIXES = (".yaml", ".yml")


def _shipped_folder() -> Path:
    """The folder inside an installed package; in a checkout, ``spaces`` beside the package."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_shipped" / "spaces"
    return inside if inside.is_dir() else package.parent / "spaces"


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file()))


def shipped_spaces() -> tuple[Path, ...]:
    """Returns the space files that come with the package, sorted by name."""
    return _files(_shipped_folder())


def find_space(name_or_path: str) -> Path:
    """Returns the file that a name or a path stands for; a path need not exist.

    A text with a separator, or that ends in ``.yaml`` or ``.yml``, is a path. A name is looked up in ``spaces`` under
    the working directory, then among the shipped spaces.

    Raises:
        NotFoundError: no space has this name.
    """
    if "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(_SUFFIXES):
        return Path(name_or_path)
    known = {path.stem: path for path in (*shipped_spaces(), *_files(Path("spaces")))}
    if name_or_path not in known:
        raise NotFoundError(f"no space is called {name_or_path!r}; {did_you_mean(name_or_path, known)}")
    return known[name_or_path]
