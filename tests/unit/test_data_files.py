"""Loaders of a user's own data, on small files made here."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from cosearch.data import load_task, task_shape
from cosearch.data.loading import _load
from cosearch.errors import StoreError, UserError

ROWS = 10


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COSEARCH_CACHE", str(tmp_path / "cache"))
    _load.cache_clear()
    yield tmp_path / "cache"
    _load.cache_clear()


# CIFAR


def batch(seed, key=b"labels", classes=10, **changes):
    pixels = np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), np.uint8)
    return {b"data": pixels, key: [n % classes for n in range(ROWS)]} | {k.encode(): v for k, v in changes.items()}


def cifar10_files():
    names = [f"kind{n}".encode() for n in range(10)]
    return {f"data_batch_{n}": batch(n) for n in range(1, 6)} | {
        "test_batch": batch(6),
        "batches.meta": {b"label_names": names},
    }


def cifar100_files():
    fine = {"train": batch(1, b"fine_labels", 3), "test": batch(2, b"fine_labels", 3)}
    return fine | {"meta": {b"fine_label_names": [b"x", b"y", b"z"]}}


def as_bytes(content):
    """As the published batches are: numpy 1's module names, protocol 2."""
    if isinstance(content, bytes):
        return content
    return pickle.dumps(content, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive(path, files, folder="cifar-10-batches-py"):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = as_bytes(content)
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return str(path)


def test_cifar10_as_published(tmp_path):
    task = load_task({"name": "cifar10", "path": archive(tmp_path / "c.tar.gz", cifar10_files())})
    assert task.shape == task_shape({"name": "cifar10", "path": str(tmp_path / "c.tar.gz")})
    assert (len(task.train), len(task.validation), len(task.test)) == (45, 5, 10)
    assert task.class_names[3] == "kind3"
    first = cifar10_files()["data_batch_1"][b"data"][0]
    for channel in range(3):  # a row holds all red, then all green, then all blue, line by line
        assert task.train.images[0, :, :, channel].ravel().tolist() == first[1024 * channel :][:1024].tolist()
    last = cifar10_files()["data_batch_5"]
    assert task.validation.labels[:, 0].tolist() == last[b"labels"][-5:]
    assert task.validation.images[-1, 0, 0, 0] == last[b"data"][-1, 0]


@pytest.mark.parametrize("inside", [True, False])
def test_cifar100_from_a_folder(tmp_path, inside):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, content in cifar100_files().items():
        (folder / name).write_bytes(as_bytes(content))
    task = load_task({"name": "cifar100", "path": str(folder if inside else tmp_path)})
    assert task.class_names == ("x", "y", "z")
    assert (len(task.train), len(task.validation), len(task.test)) == (9, 1, 10)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_batch": batch(6, labels=["x"] * ROWS)}, r"test_batch holds no cifar10 images"),
        ({"test_batch": batch(6, data=np.full((ROWS, 3072), np.nan))}, r"test_batch holds no cifar10 images"),
        ({"test_batch": batch(6, data=np.zeros((ROWS, 100), np.uint8))}, r"test_batch holds no cifar10 images"),
        ({"test_batch": batch(6, labels=[0])}, r"test_batch holds 10 images, but 1 labels"),
        ({"test_batch": {}}, r"test_batch holds no cifar10 images"),
        ({"test_batch": [1]}, r"test_batch holds a list, not a batch"),
        ({"test_batch": b"junk"}, r"test_batch cannot be read"),
        ({"batches.meta": {}}, r"batches\.meta holds no cifar10 class names"),
    ],
)
def test_a_wrong_batch_is_named(tmp_path, changes, message):
    path = archive(tmp_path / "c.tar.gz", cifar10_files() | changes)
    with pytest.raises(UserError, match=message):
        load_task({"name": "cifar10", "path": path})


def test_a_batch_can_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "c.tar.gz", cifar10_files() | {"data_batch_1": Harmful()})
    with pytest.raises(UserError, match=r"data_batch_1 cannot be read \(it wants to run \w+\.mkdir\)"):
        load_task({"name": "cifar10", "path": path})
    assert not (tmp_path / "harm").exists()


def test_a_wrong_or_damaged_archive_is_named(tmp_path):
    other = archive(tmp_path / "other.tar.gz", cifar100_files(), "cifar-100-python")
    with pytest.raises(UserError, match=r"it holds no cifar-10-batches-py/data_batch_1; give the path of cifar-10-py"):
        load_task({"name": "cifar10", "path": other})
    whole = (tmp_path / "other.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar.gz").write_text("nothing")
    (tmp_path / "folder").mkdir()
    for name, message in [
        ("cut.tar.gz", "no readable archive"),
        ("text.tar.gz", "no readable archive"),
        ("folder", "train"),
    ]:
        with pytest.raises(UserError, match=message):
            load_task({"name": "cifar100", "path": str(tmp_path / name)})


# NPZ


def arrays(**changes):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 6), np.uint8)
    labels = np.arange(20) % 2
    whole = {"x_train": images, "y_train": labels, "x_test": images[:5], "y_test": labels[:5]} | changes
    return {name: array for name, array in whole.items() if array is not None}


def saved(tmp_path, **changes):
    np.savez(tmp_path / "t.npz", **arrays(**changes))
    return {"name": "npz", "path": str(tmp_path / "t.npz")}


def test_npz_with_its_last_tenth_for_validation(tmp_path):
    task = load_task(saved(tmp_path))
    assert (task.shape.image, task.shape.channels, task.shape.classes, task.shape.labels) == ((4, 6), 1, 2, 1)
    assert (task.train.images[..., 0] == arrays()["x_train"][:18]).all()
    assert (task.validation.images[..., 0] == arrays()["x_train"][18:]).all()
    assert task.class_names == ("0", "1")


def test_npz_with_several_labels_colour_names_and_validation(tmp_path):
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(12).reshape(6, 2) % 3
    own = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    task = load_task(
        saved(tmp_path, **own, x_validation=images[:2], y_validation=labels[:2], class_names=["a", "b", "c"])
    )
    assert (task.shape.labels, task.shape.channels, len(task.train), len(task.validation)) == (2, 3, 6, 2)
    assert task.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"has no array 'y_test'; did you mean "),
        ({"x_train": np.full((20, 4, 6), np.nan)}, r"x_train holds NaN or infinity; "),
        ({"x_train": np.zeros((20, 4, 6))}, r"x_train is float64; write pixels as uint8"),
        ({"x_train": np.zeros((20, 24), np.uint8)}, r"x_train has shape \(20, 24\); "),
        ({"x_train": np.zeros((0, 4, 6), np.uint8), "y_train": np.zeros(0, int)}, r"x_train has shape \(0, 4, 6\); "),
        ({"y_train": np.arange(19)}, r"y_train has shape \(19,\) for 20 images; "),
        ({"y_train": np.zeros((20, 0), int)}, r"y_train has shape \(20, 0\) for 20 images; "),
        ({"y_train": np.full(20, np.nan)}, r"y_train is float64; write whole numbers"),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(5, int)}, r"has 1 class; "),
        ({"y_train": np.arange(20) * 10**9}, r"has label \d+; number the classes from 0"),
        ({"y_train": np.arange(20) % 2 - 1}, r"has label -1, "),
        ({"x_test": np.zeros((5, 4, 5), np.uint8)}, r"has images of several shapes"),
        ({"y_test": np.zeros((5, 2), int)}, r"has splits with \[1, 2\] labels an image"),
        ({"class_names": ["only"]}, r"has 1 class; "),
        ({"x_train": np.array([None] * 20)}, r"cannot be read \(Object arrays"),
    ],
)
def test_each_mistake_in_an_npz_is_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_task(saved(tmp_path, **changes))


def test_one_image_in_an_npz_leaves_nothing_to_train_on(tmp_path):
    """It goes to validation, as a tenth of the images would, and says so."""
    one = {"x_train": np.zeros((1, 4, 6), np.uint8), "y_train": np.array([0])}
    with pytest.raises(UserError, match=r"^the training split of task 'npz' is empty; give it at least 1 image$"):
        load_task(saved(tmp_path, **one))


def test_an_npz_without_a_class_in_training_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^task 'npz' has no training image of class '2'; add some, or drop the class"):
        load_task(saved(tmp_path, y_test=np.array([0, 1, 2, 3, 1])))


def test_what_is_no_npz_is_named(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "damaged.npz", **arrays())
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[200:240] = bytes(40)
    (tmp_path / "damaged.npz").write_bytes(content)
    for name in ("one.npy", "empty.npz", "damaged.npz", "."):
        with pytest.raises(UserError, match=r"cannot be read \(.+\); give a file that numpy\.savez wrote$"):
            load_task({"name": "npz", "path": str(tmp_path / name)})


# Folders of images


def picture(path, level, size=(9, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level,) * len(mode)).save(path)


def folder(root, count=10):
    """Pictures whose level of grey tells class and number: a is 0 to 9, b is 100 to 109."""
    for label, name in enumerate("ab"):
        for number in range(count):
            picture(root / name / f"{number}.png", 100 * label + number)
    return {"name": "images", "path": str(root), "size": 8}


def levels(split):
    return split.images[:, 0, 0, 0].tolist()


def test_a_folder_is_cut_into_splits_that_share_nothing(tmp_path):
    task = load_task(folder(tmp_path / "im"))
    assert task.class_names == ("a", "b")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [16, 2, 2]
    every = [level for split in (task.train, task.validation, task.test) for level in levels(split)]
    assert sorted(every) == [*range(10), *range(100, 110)]
    for split in (task.train, task.validation, task.test):
        assert [level // 100 for level in levels(split)] == split.labels[:, 0].tolist()


def test_given_splits_stay_as_they_are(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        for label, name in enumerate("ab"):
            picture(tmp_path / "im" / split / name / "x.png", 10 * number + label)
    task = load_task({"name": "images", "path": str(tmp_path / "im"), "size": 4})
    assert [levels(split) for split in (task.train, task.validation, task.test)] == [[0, 1], [10, 11], [20, 21]]


def test_grey_and_colour_mix(tmp_path):
    config = folder(tmp_path / "im")
    for number, mode in enumerate(("L", "RGBA")):
        picture(tmp_path / "im" / "a" / f"{number}.png", number, mode=mode)
    assert load_task(config).train.images.shape[1:] == (8, 8, 3)


def test_grey_images_alone_become_colour_too(tmp_path):
    """So that a folder's shape does not hang on which of its images were scanned in grey."""
    for name, level in (("a", 10), ("b", 200)):
        for number in range(3):
            picture(tmp_path / "im" / name / f"{number}.png", level + number, mode="L")
    task = load_task({"name": "images", "path": str(tmp_path / "im"), "size": 8})
    assert task.shape.channels == 3
    assert (task.train.images == task.train.images[..., :1]).all()


def test_images_are_decoded_once_and_mapped(tmp_path, cache, monkeypatch):
    config = folder(tmp_path / "im")
    before = load_task(config)
    _load.cache_clear()
    monkeypatch.setattr("cosearch.data.folders._decode", lambda *_: pytest.fail("decoded again"))
    after = load_task(config)
    assert isinstance(after.train.images, np.memmap)
    assert (after.train.images == before.train.images).all()


def test_a_damaged_cache_and_a_changed_image_are_read_again(tmp_path, cache):
    config = folder(tmp_path / "im")
    before = levels(load_task(config).train)
    for file in cache.iterdir():
        file.write_bytes(b"\x93NUMPY junk")
    _load.cache_clear()
    assert levels(load_task(config).train) == before
    for number in range(10):
        picture(tmp_path / "im" / "a" / f"{number}.png", 50, size=(20, 20))
    _load.cache_clear()
    assert set(levels(load_task(config).train)) & set(range(100)) == {50}


def test_an_image_changed_to_one_of_the_same_size_is_read_again(tmp_path):
    config = folder(tmp_path / "im")
    files = [tmp_path / "im" / "a" / f"x{number}.bmp" for number in range(10)]
    for level, second in ((60, 1), (70, 2)):
        for file in files:
            picture(file, level)
            os.utime(file, (second, second))
        _load.cache_clear()
        seen = set(levels(load_task(config).train))
        assert level in seen
    assert 60 not in seen


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COSEARCH_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(
        StoreError, match=r"cannot be written \(Not a directory\); name another folder in COSEARCH_CACHE"
    ):
        load_task(folder(tmp_path / "im"))


def noisy_jpeg(path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def cut_jpeg(path):
    noisy_jpeg(path)
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), r"bad\.jpg is empty; mend or remove it"),
        (lambda path: path.write_bytes(b"no picture"), r"bad\.jpg cannot be decoded \(cannot identify"),
        (cut_jpeg, r"bad\.jpg cannot be decoded \(image file is truncated"),
    ],
)
def test_a_damaged_image_is_named(tmp_path, damage, message):
    config = folder(tmp_path / "im")
    damage(tmp_path / "im" / "a" / "bad.jpg")
    with pytest.raises(UserError, match=message):
        load_task(config)


def test_folders_that_make_no_task_are_named(tmp_path):
    def refused(message, root):
        with pytest.raises(UserError, match=message):
            load_task({"name": "images", "path": str(tmp_path / root)})

    (tmp_path / "file").write_text("")
    refused(r"is not a folder; ", "file")
    picture(tmp_path / "one" / "a" / "0.png", 0)
    refused(r"has 1 folders; make one for each class, two at least", "one")
    folder(tmp_path / "bare")
    (tmp_path / "bare" / "c").mkdir()
    refused(r"has no images \(\.bmp, ", "bare")
    folder(tmp_path / "few", count=2)
    refused(r"has 2 images; it needs at least 3, one a split", "few")
    folder(tmp_path / "half" / "train")
    refused(r"has train, but needs both train and test; add the other", "half")
    folder(tmp_path / "extra" / "train")
    folder(tmp_path / "extra" / "test")
    picture(tmp_path / "extra" / "test" / "c" / "0.png", 0)
    refused(r"has 'c', which .*train lacks; add it", "extra")
