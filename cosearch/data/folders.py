"""A user's own images as files: one folder for each class.

    images/cat/*.png, images/dog/*.jpg ...            split by file name: 80 % train, 10 % validation, 10 % test
    images/train/cat/*.png, images/test/cat/*.png ... as given; validation/ likewise, else a tenth of train

Each class needs training images. A class without a folder in ``validation`` or ``test`` is no mistake: accuracy is then
over the images that are there. Images in grey become colour, those of 16 bits keep their upper 8.

Images are decoded once, cut to their middle square, resized, and kept as memory-mapped arrays in a cache folder; a
changed, added or removed file, or another size, makes a new cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosearch.data.task import Split, Task, make_task
from cosearch.errors import StoreError, UserError

__all__ = ["cache_folder", "images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def cache_folder() -> Path:
    """Returns where decoded images are kept: ``COSEARCH_CACHE``, else ``cosearch`` in the user's cache folder."""
    if named := os.environ.get("COSEARCH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosearch"


def images(path: Path, size: int) -> Task:
    """Returns the task in a folder of images.

    Args:
        path: a folder with a folder for each class, or with ``train`` and ``test`` that hold those.
        size: side of the square that images are resized to, in pixels.

    Raises:
        UserError: there are no images, fewer than two classes, or one cannot be decoded.
        StoreError: the cache folder cannot be written.
    """
    if not path.is_dir():
        raise UserError(f"task images: {path} is not a folder; give a folder with one folder for each class")
    given = {name: path / name for name in SHARES if (path / name).is_dir()}
    if given and not {"train", "test"} <= set(given):
        raise UserError(f"task images: {path} has {', '.join(given)}, but needs both train and test; add the other")
    names = _classes(given.get("train", path))
    files: dict[str, list[tuple[Path, int]]] = {name: [] for name in SHARES}
    if given:
        for split, folder in given.items():
            present = _classes(folder, 2 if split == "train" else 1)
            if unknown := set(present) - set(names):
                raise UserError(
                    f"task images: {folder} has {sorted(unknown)[0]!r}, which {path / 'train'} lacks; add it"
                )
            files[split] = [
                (file, label) for label, name in enumerate(names) if name in present for file in _files(folder / name)
            ]
    for label, name in enumerate(names):
        if not given:
            _share(_files(path / name), label, files, SHARES)
        elif "validation" not in given:
            own = [file for file, of in files["train"] if of == label]
            files["train"] = [pair for pair in files["train"] if pair[1] != label]
            _share(own, label, files, {"train": 0.9, "validation": 0.1})
    splits = {name: _read(pairs, size) for name, pairs in files.items()}
    return make_task("images", tuple(names), splits["train"], splits["validation"], splits["test"])


def _classes(folder: Path, least: int = 2) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < least:
        words = "two at least" if least == 2 else "one at least"
        raise UserError(f"task images: {folder} has {len(names)} folders; make one for each class, {words}")
    return names


def _files(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise UserError(f"task images: {folder} has no images ({', '.join(sorted(SUFFIXES))}); add some, or remove it")
    return found


def _share(
    found: Sequence[Path], label: int, files: dict[str, list[tuple[Path, int]]], shares: dict[str, float]
) -> None:
    """Deals a class's files out by the hash of their names, so that an added file moves no other one."""
    order = sorted(found, key=lambda file: hashlib.sha256(file.name.encode()).digest())
    if len(order) < len(shares):
        raise UserError(
            f"task images: {found[0].parent} has {len(order)} images; it needs at least {len(shares)}, one a split"
        )
    ends = np.cumsum([max(1, round(len(order) * share)) for name, share in shares.items() if name != "train"])
    others = [name for name in shares if name != "train"]
    for index, file in enumerate(order):
        at = int(np.searchsorted(ends, index, side="right"))
        files[others[at] if at < len(others) else "train"].append((file, label))


def _read(pairs: Sequence[tuple[Path, int]], size: int) -> Split:
    labels = np.array([label for _, label in pairs], dtype=np.int64).reshape(-1, 1)
    stamp = hashlib.sha256(f"2/{size}".encode())
    for file, _ in pairs:
        status = file.stat()
        stamp.update(f"{file.resolve()}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    place = cache_folder() / f"images-{stamp.hexdigest()[:24]}.npy"
    pixels = _kept(place, (len(pairs), size, size, 3))
    if pixels is None:
        pixels = (
            np.stack([_decode(file, size) for file, _ in pairs]) if pairs else np.zeros((0, size, size, 3), np.uint8)
        )
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f"{place.stem}.{os.getpid()}.partial.npy")
            np.save(partial, pixels)
            partial.replace(place)
        except OSError as error:
            raise StoreError(
                f"{place.parent} cannot be written ({error.strerror or error}); name another folder in COSEARCH_CACHE"
            ) from error
        pixels = np.load(place, mmap_mode="c")
    return Split(images=pixels, labels=labels)


def _kept(place: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Returns the images in a cache file; None if there is none, or it is damaged and must be made again."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        pixels: NDArray[np.uint8] = np.load(place, mmap_mode="c", allow_pickle=False)
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return pixels
    return None


def _decode(file: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    if file.stat().st_size == 0:
        raise UserError(f"task images: {file} is empty; mend or remove it")
    try:
        with Image.open(file) as image:
            if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
                raise ValueError(f"its pixels are of mode {image.mode}, whose black and white are unknown")
            deep = image.mode.startswith("I")  # 16 bits; Pillow's own conversion would cut all above 255 off
            grey = Image.fromarray(_upper_bits(np.asarray(image))) if deep else image
            square = ImageOps.fit(grey.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except Exception as error:
        raise UserError(f"task images: {file} cannot be decoded ({error}); mend or remove it") from error
    return np.asarray(square, dtype=np.uint8)


def _upper_bits(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Returns 0 to 65535 as 0 to 255."""
    return (np.asarray(pixels, dtype=np.uint32) >> 8).astype(np.uint8)
