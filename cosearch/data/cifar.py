"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their published archives on disk, "python version".

The archive is read as it was downloaded (``cifar-10-python.tar.gz``), or as the folder that it unpacks to. Its batches
are pickles; they are read by an unpickler that makes arrays and plain data, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cosearch.data.task import Split, Task, make_task
from cosearch.errors import UserError

__all__ = ["VALIDATION_SHARE", "cifar"]

VALIDATION_SHARE = 0.1
"""The last tenth of the published training images is kept for validation."""

_FILES = {
    "cifar10": ("cifar-10-batches-py", [f"data_batch_{n}" for n in range(1, 6)], "test_batch", "batches.meta"),
    "cifar100": ("cifar-100-python", ["train"], "test", "meta"),
}
_LABELS = {"cifar10": b"labels", "cifar100": b"fine_labels"}
_NAMES = {"cifar10": b"label_names", "cifar100": b"fine_label_names"}
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # the published batches were written by numpy 1
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return super().find_class(module, name)


def cifar(name: str, path: Path) -> Task:
    """Returns CIFAR-10 or CIFAR-100.

    Args:
        name: ``cifar10`` or ``cifar100``.
        path: the archive, the folder that it unpacks to, or the folder that holds that folder.

    Raises:
        UserError: it is not there, or is not that archive.
    """
    read = _reader(name, path)
    _, training, test_file, meta_file = _FILES[name]
    batches = [_batch(name, path, file, read(file)) for file in training]
    images = np.concatenate([split.images for split in batches])
    labels = np.concatenate([split.labels for split in batches])
    class_names = _class_names(name, path, meta_file, _load(path, meta_file, read(meta_file)))
    cut = len(images) - max(1, round(len(images) * VALIDATION_SHARE))
    test = _batch(name, path, test_file, read(test_file))
    return make_task(
        name,
        class_names,
        Split(images=images[:cut], labels=labels[:cut]),
        Split(images=images[cut:], labels=labels[cut:]),
        test,
    )


def _reader(name: str, path: Path) -> Callable[[str], bytes]:
    """Returns what reads a file of the archive."""
    folder = _FILES[name][0]
    if path.is_dir():
        inner = path / folder if (path / folder).is_dir() else path

        def from_folder(file: str) -> bytes:
            try:
                return (inner / file).read_bytes()
            except OSError as error:
                raise _wrong(name, path, f"{file} cannot be read: {error.strerror}") from error

        return from_folder
    try:
        with tarfile.open(path) as archive:
            members = {
                Path(member.name).name: content.read()
                for member in archive
                if member.isfile()
                and Path(member.name).parent.name == folder
                and (content := archive.extractfile(member)) is not None
            }
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise _wrong(name, path, f"it is no readable archive: {error}") from error

    def from_archive(file: str) -> bytes:
        if file not in members:
            raise _wrong(name, path, f"it holds no {folder}/{file}")
        return members[file]

    return from_archive


def _wrong(name: str, path: Path, problem: str) -> UserError:
    archive = "cifar-10-python.tar.gz" if name == "cifar10" else "cifar-100-python.tar.gz"
    return UserError(f"task {name}: {path}: {problem}; give the path of {archive}, or of the folder that it unpacks to")


def _load(path: Path, file: str, content: bytes) -> dict[bytes, Any]:
    try:
        data = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        raise UserError(f"{path}: {file} cannot be read ({error}); get the archive again") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: {file} holds a {type(data).__name__}, not a batch; get the archive again")
    return data


def _class_names(name: str, path: Path, file: str, meta: dict[bytes, Any]) -> tuple[str, ...]:
    names = meta.get(_NAMES[name])
    if not isinstance(names, list) or not all(isinstance(text, (bytes, str)) for text in names):
        raise _wrong(name, path, f"{file} holds no {name} class names")
    return tuple(text.decode() if isinstance(text, bytes) else text for text in names)


def _batch(name: str, path: Path, file: str, content: bytes) -> Split:
    data = _load(path, file, content)
    pixels, labels = data.get(b"data"), data.get(_LABELS[name])
    whole = isinstance(labels, list) and all(isinstance(label, int) for label in labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,) or not whole:
        raise _wrong(name, path, f"{file} holds no {name} images")
    labels = labels or []
    if len(labels) != len(pixels):
        raise _wrong(name, path, f"{file} holds {len(pixels)} images, but {len(labels)} labels")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(images=np.ascontiguousarray(images), labels=np.asarray(labels, dtype=np.int64)[:, None])
