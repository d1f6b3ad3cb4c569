"""Bad images and trainings that go wrong, as a user meets them: an error that names the file, or a stated behaviour.

Every loader's own mistakes are in tests/unit/test_data_files.py.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from cosearch.data import Split, load_task, make_task
from cosearch.data.loading import _load
from cosearch.errors import SpecError, UserError
from cosearch.plugins import EVALUATORS, PluginRef
from cosearch.pool import Job, run_job
from cosearch.space.shipped import find_space
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape, canonical_json, to_json
from cosearch.train import Recipe, train

RECIPE = {"steps": 4, "batch": 16, "calibration": 16}
SIDE = 8


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COSEARCH_CACHE", str(tmp_path / "cache"))
    _load.cache_clear()
    yield
    _load.cache_clear()


def cosearch(*arguments, cwd):
    command = [sys.executable, "-c", "from cosearch.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)


def one_line(done, *said, code=2):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for text in said:
        assert text in done.stderr


def model(task, **changes):
    block = BlockSpec(heads=2, mlp_hidden=16, weight_bits=8, activation_bits=8)
    fields = {"patch": 4, "dim": 16, "edge_bits": 8, "blocks": (block,), **changes}
    return ModelSpec(task=task.shape if hasattr(task, "shape") else task, **fields)


def split(labels, side=SIDE):
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), side, side, 1), np.uint8)
    return Split(images=pixels, labels=np.array(labels, np.int64).reshape(-1, 1))


def picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def run_file(folder, **changes):
    run = {
        "cosearch": "run/1",
        "name": "small",
        "space": "vit_digits_systolic",
        "task": {"name": "digit-pairs", "size": 16},
        "evaluators": {"accuracy": {"use": "trained", "options": {"recipe": RECIPE}}, "cost": {"use": "analytical"}},
        "objectives": ["accuracy", "latency_s"],
        "search": {"sampler": "random", "trainings": 2},
        "pool": {"workers": 0},
        "mlflow": {"enabled": False},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump({**run, **changes}, sort_keys=False))
    return folder


# --- divergence and NaN -----------------------------------------------------------------------------------------------


def evaluated(recipe, task=None, seed=0):
    config = task or {"name": "digits"}
    ref = PluginRef(group=EVALUATORS, use="trained", options={"recipe": {**RECIPE, **recipe}})
    pair = Candidate(model=model(load_task(config)), accelerator=AcceleratorSpec.of("systolic", {}))
    return run_job(Job(key="k", evaluator=ref, candidate=pair, seed=seed, task=config))


def test_a_training_that_diverges_is_a_failure_with_its_step():
    found = evaluated({"steps": 20, "lr": 1e30, "matrix_lr": 1e30})
    assert found.failed.startswith("training diverged at step ")
    assert (found.metrics, found.artifacts) == ({}, {})


def test_a_search_of_nothing_but_divergence_says_so(tmp_path):
    wild = {"use": "trained", "options": {"recipe": {**RECIPE, "steps": 20, "lr": 1e30, "matrix_lr": 1e30}}}
    run_file(tmp_path, evaluators={"accuracy": wild, "cost": {"use": "analytical"}})
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    one_line(done, "nothing was found: 2 models trained, 2 failed (training diverged")
    one_line(cosearch("verify", "small", cwd=tmp_path), "the front is empty, so there is nothing to verify")


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_recipe_of_nan_is_refused_before_anything_is_trained(tmp_path, rate):
    section = {"use": "trained", "options": {"recipe": {**RECIPE, "lr": rate}}}
    run_file(tmp_path, evaluators={"accuracy": section, "cost": {"use": "analytical"}})
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    one_line(done, "run.yaml: evaluators.accuracy is wrong: recipe.lr is", "write a finite number")
    assert not (tmp_path / "runs").exists()


def test_nan_pixels_are_refused_before_anything_is_trained(tmp_path):
    images, labels = np.full((20, SIDE, SIDE), np.nan), np.arange(20) % 2
    np.savez(tmp_path / "t.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    run_file(tmp_path, task={"name": "npz", "path": "t.npz"})
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    one_line(done, "run.yaml: task is wrong: ", "x_train holds NaN or infinity", "mend those pixels")


# --- a class that is missing ------------------------------------------------------------------------------------------


def test_a_class_without_training_images_is_named_by_every_loader(tmp_path):
    for name in "ab":
        for number in range(3):
            picture(tmp_path / "im" / "test" / name / f"{number}.png", np.full((9, 9), number, np.uint8))
    picture(tmp_path / "im" / "train" / "a" / "0.png", np.zeros((9, 9), np.uint8))
    config = {"name": "images", "path": str(tmp_path / "im"), "size": SIDE}
    with pytest.raises(UserError, match=r"train has 1 folders; make one for each class, two at least$"):
        load_task(config)
    picture(tmp_path / "im" / "train" / "c" / "0.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(UserError, match=r"test has 'b', which .*train lacks; add it$"):
        load_task(config)
    with pytest.raises(UserError, match=r"^task 't' has no training image of class 'b'; add some, or drop the class$"):
        make_task("t", ("a", "b"), split([0, 0]), split([1]), split([0]))


def test_a_class_that_validation_and_test_lack_is_left_out_of_their_accuracy(tmp_path):
    """Stated in `cosearch.data.folders`; the same holds of the other loaders (`make_task`)."""
    for part, classes in (("train", "abc"), ("validation", "a"), ("test", "bc")):
        for label, name in enumerate("abc"):
            for number in range(4 if name in classes else 0):
                picture(tmp_path / "im" / part / name / f"{number}.png", np.full((9, 9), 60 * label, np.uint8))
    task = load_task({"name": "images", "path": str(tmp_path / "im"), "size": SIDE})
    assert task.class_names == ("a", "b", "c")
    assert set(task.validation.labels.ravel().tolist()) == {0}
    assert set(task.test.labels.ravel().tolist()) == {1, 2}
    found = train(model(task), task, Recipe(**RECIPE), 0)
    assert found.score.accuracy in {n / 4 for n in range(5)}  # shares of the four images of class a


def test_a_split_of_a_folder_that_has_no_class_at_all_is_named(tmp_path):
    for name in "ab":
        picture(tmp_path / "im" / "train" / name / "0.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "im" / "test").mkdir()
    with pytest.raises(UserError, match=r"test has 0 folders; make one for each class, one at least$"):
        load_task({"name": "images", "path": str(tmp_path / "im"), "size": SIDE})


# --- one image --------------------------------------------------------------------------------------------------------


def test_one_image_to_read_is_right_or_wrong():
    task = make_task("t", ("a", "b"), split([0, 1, 0, 1]), split([1]), split([0]))
    found = train(model(task), task, Recipe(**RECIPE), 0)
    assert found.score.accuracy in (0.0, 1.0)
    assert found.score.exact == found.score.accuracy


def test_one_image_to_learn_from_lacks_a_class():
    with pytest.raises(UserError, match=r"has no training image of class 'b'"):
        make_task("t", ("a", "b"), split([0]), split([0]), split([0]))


def test_one_image_a_class_and_split_runs_through_a_search(tmp_path):
    for number, part in enumerate(("train", "validation", "test")):
        for label, name in enumerate("ab"):
            picture(tmp_path / "im" / part / name / "0.png", np.full((16, 16), 100 * label + number, np.uint8))
    run_file(tmp_path, task={"name": "images", "path": "im", "size": 16}, space="vit_cifar_systolic")
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    members = json.loads((tmp_path / "runs" / "small" / "front.json").read_text())["members"]
    assert {member["metrics"]["accuracy"] for member in members} <= {0.0, 0.5, 1.0}


# --- images that are damaged, or of several kinds ---------------------------------------------------------------------


def test_a_corrupt_jpeg_is_named_before_anything_is_trained(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in "ab":
        for number in range(10):
            picture(tmp_path / "im" / name / f"{number}.jpg", noise)
    bad = tmp_path / "im" / "b" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:1500])
    run_file(tmp_path, task={"name": "images", "path": "im"})
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    one_line(done, "run.yaml: task is wrong: ", "b/4.jpg cannot be decoded (image file is truncated", "mend or remove")
    assert not (tmp_path / "runs").exists()


def grey_ramp():
    return np.tile(np.linspace(0, 255, SIDE).round().astype(np.uint8), (SIDE, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_the_same_picture_in_grey_colour_and_16_bits_gives_the_same_pixels(tmp_path, mode):
    ramp = grey_ramp()
    kinds = {"I;16": Image.fromarray(ramp.astype(np.uint16) * 257)}
    for name in "ab":
        for number in range(3):
            path = tmp_path / "im" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picked = kinds.get(mode) or Image.fromarray(ramp).convert(mode)
            (picked if number == 0 else Image.fromarray(ramp).convert("RGB")).save(path)
    task = load_task({"name": "images", "path": str(tmp_path / "im"), "size": SIDE})
    for part in (task.train, task.validation, task.test):
        for image in part.images:
            assert image.shape == (SIDE, SIDE, 3)
            assert np.abs(image.astype(int) - ramp[..., None]).max() <= (3 if mode == "P" else 0)


def test_pixels_whose_range_is_unknown_are_refused(tmp_path):
    for name in "ab":
        for number in range(3):
            picture(tmp_path / "im" / name / f"{number}.tiff", np.zeros((9, 9), np.uint8))
    picture(tmp_path / "im" / "a" / "0.tiff", np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9))
    with pytest.raises(UserError, match=r"a/0\.tiff cannot be decoded \(its pixels are of mode F, whose black and"):
        load_task({"name": "images", "path": str(tmp_path / "im"), "size": SIDE})


# --- more tokens kept than there are ----------------------------------------------------------------------------------

SHAPE = TaskShape(image=(16, 16), channels=1, classes=10)  # 16 tokens of 4 x 4 pixels


def keeping(count):
    block = BlockSpec(heads=2, mlp_hidden=16, keep_tokens=count, weight_bits=8, activation_bits=8)
    return model(SHAPE, blocks=(block,), token_method="prune")


@pytest.mark.parametrize("count", [16, 17, 99])
def test_a_model_that_keeps_more_tokens_than_there_are_cannot_be(count):
    message = rf"^blocks\[0\]\.keep_tokens is {count}, but 'prune' can take 16 tokens to 2 up to 15; choose a count in"
    with pytest.raises(SpecError, match=message):
        keeping(count)


def test_the_second_reduction_counts_what_the_first_left():
    blocks = keeping(8).blocks * 2
    with pytest.raises(SpecError, match=r"^blocks\[1\]\.keep_tokens is 8, but 'prune' can take 8 tokens to 2 up to 7"):
        model(SHAPE, blocks=blocks, token_method="prune")


def test_a_space_that_keeps_more_tokens_than_there_are_is_refused_by_run_and_describe(tmp_path):
    text = find_space("vit_digits_systolic").read_text()
    assert "float: [0.4, 1.0]" in text
    (tmp_path / "space.yaml").write_text(text.replace("float: [0.4, 1.0]", "float: [0.4, 1.2]", 1))
    said = "model.keep.float gives 1.1, but a keep ratio is above 0 and at most 1; write 1"
    run_file(tmp_path, space="space.yaml")
    one_line(cosearch("run", "run.yaml", cwd=tmp_path), "space.yaml: ", said)
    one_line(cosearch("space", "describe", "space.yaml", cwd=tmp_path), "space.yaml: ", said)
    assert not (tmp_path / "runs").exists()


def test_a_pair_that_keeps_more_tokens_than_there_are_is_refused_by_estimate(tmp_path):
    accelerator = AcceleratorSpec.of("systolic", {})
    data = to_json(Candidate(model=keeping(8), accelerator=accelerator))
    data["model"]["blocks"][0]["keep_tokens"] = 17
    (tmp_path / "pair.json").write_text(canonical_json(data))
    one_line(cosearch("estimate", "pair.json", cwd=tmp_path), "keep_tokens is 17", "16 tokens to 2 up to 15")
