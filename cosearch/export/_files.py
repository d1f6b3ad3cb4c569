"""A bundle on disk: all files or none, each with its hash in ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosearch import __version__
from cosearch.errors import FileError, StoreError, UserError

__all__ = ["FORMAT", "MANIFEST", "as_json", "check_place", "read_files", "write_files"]

FORMAT = "bundle/1"
MANIFEST = "manifest.json"

_ERRNO_REMEDY = {
    13: "allow writing there, or choose another folder with --out",
    28: "free some space, or choose a folder on another disk with --out",
    30: "it is on a read-only file system; choose another folder with --out",
}


def as_json(value: object) -> bytes:
    """Returns ``value`` as JSON for people: indented, ends in a newline, keys in the order given."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal into a `StoreError`."""
    try:
        yield
    except OSError as error:
        remedy = _ERRNO_REMEDY.get(error.errno or 0, "mend that, or choose another folder with --out")
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; {remedy}") from error


def check_place(out: Path, *, force: bool) -> None:
    """Checks, before any work, that a bundle can be written to ``out``.

    Raises:
        UserError: something is there already.
        StoreError: the folder around it cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder; choose another name with --out")
    with _disk(out):
        filled = out.is_dir() and any(out.iterdir())
    if filled and not force:
        raise UserError(f"{out} exists and is not empty; choose another folder with --out, or replace it with --force")
    if filled and not _is_bundle(out):
        raise UserError(f"{out} holds something other than a bundle, so --force leaves it alone; choose another folder")
    around = next(parent for parent in out.absolute().parents if parent.exists())
    with _disk(out):
        tempfile.TemporaryFile(dir=around).close()


def _is_bundle(path: Path) -> bool:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and str(manifest.get("format")).startswith("bundle/")


def write_files(out: Path, files: Mapping[str, bytes], facts: Mapping[str, Any], *, force: bool) -> None:
    """Writes ``files`` and a manifest to the folder ``out``, all of them or none.

    Args:
        out: made by renaming a finished folder beside it.
        files: name to content.
        facts: what the manifest says besides format, version and hashes.
        force: replace the bundle that is there.

    Raises:
        UserError: something is there already.
        StoreError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_place(out, force=force)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    manifest = as_json({"format": FORMAT, "cosearch": __version__, **facts, "sha256": hashes})
    with _disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        try:
            ready, replaced = partial / "new", partial / "old"
            ready.mkdir()  # with the permissions that the user's umask gives, unlike the folder around it
            for name, content in {**files, MANIFEST: manifest}.items():
                _write(ready / name, content)
            if out.exists():
                out.rename(replaced)
            try:
                ready.rename(out)
            except OSError:
                if replaced.exists():
                    replaced.rename(out)
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_files(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns a bundle's manifest, and its files by name with their hashes verified.

    Raises:
        FileError: it is no bundle, a file is missing or was changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise FileError(
            str(path), "", f"has no {MANIFEST}, so it is no bundle", "name a folder that export wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise FileError(str(path / MANIFEST), "", f"cannot be read ({error})", "export the pair again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise FileError(
            str(path / MANIFEST), "format", f"is {found!r}, but this cosearch reads {FORMAT!r}", "export the pair again"
        )
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or any(Path(name).name != name for name in hashes):
        raise FileError(
            str(path / MANIFEST), "sha256", "is not a list of files in this folder", "export the pair again"
        )
    files = {}
    for name, wanted in hashes.items():
        try:
            files[name] = (path / name).read_bytes()
        except OSError as error:
            raise FileError(
                str(path / name), "", f"cannot be read ({error.strerror})", "export the pair again"
            ) from error
        if hashlib.sha256(files[name]).hexdigest() != wanted:
            raise FileError(str(path / name), "", f"is not what {MANIFEST} says (sha256)", "export the pair again")
    return manifest, files
