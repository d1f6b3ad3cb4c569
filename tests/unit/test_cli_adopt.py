"""``cosearch adopt`` writes weights that know their model, and a space whose models they fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from cosearch.cli.adopt import add_to
from cosearch.errors import CosearchError
from cosearch.imported import adopted_from_file, space_of, with_weights
from cosearch.model import build_model
from cosearch.space import load_space
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.train import weights_to_bytes

TASK = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
SPEC = ModelSpec(task=TASK, patch=4, overlap=2, stem_hidden=24, dim=24, blocks=(BlockSpec(heads=3, mlp_hidden=40),) * 3)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "trained.safetensors"
    path.write_bytes(weights_to_bytes(build_model(SPEC, seed=1)))
    return path


def adopt(*arguments):
    app = typer.Typer()
    add_to(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["adopt", *map(str, arguments)])


def test_weights_and_space(source, tmp_path):
    out, space = tmp_path / "model.safetensors", tmp_path / "own.yaml"
    done = adopt(source, "--out", out, "--space", space)
    assert done.exit_code == 0, done.output
    assert "as cosearch names its weights" in done.output
    found = adopted_from_file(out)
    assert found.spec == SPEC
    made = load_space(str(space), TASK)
    assert made.name == "own"
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        model = made.model(made.sample(rng))
        assert with_weights(model, found.spec, found.weights).spec == model
        seen.add(model.token_method)
    assert {"none", "prune", "merge", "hired", "cluster", "contribution"} <= seen


def test_the_space_of_a_wide_mlp_is_exact():
    for dim, hidden in ((24, 41), (192, 768), (7, 3), (384, 1537)):
        spec = dataclasses.replace(SPEC, dim=dim, blocks=(BlockSpec(heads=1, mlp_hidden=hidden),))
        text = space_of(spec, "own")
        ratio = next(line for line in text.splitlines() if "mlp_ratio" in line).split()[1]
        from cosearch.space.vit import hidden_units

        assert hidden_units(float(ratio), dim) == hidden


def test_what_no_space_file_says():
    blocks = (BlockSpec(heads=3, mlp_hidden=40), BlockSpec(heads=3, mlp_hidden=48))
    with pytest.raises(CosearchError, match="the model's blocks differ"):
        space_of(dataclasses.replace(SPEC, blocks=blocks), "own")
    with pytest.raises(CosearchError, match="the model's heads are shared"):
        space_of(dataclasses.replace(SPEC, blocks=(BlockSpec(heads=3, mlp_hidden=40, kv_heads=1),)), "own")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "big"), "--image is 'big'; write pixels, such as 224 or 224x192"),
        (("--image", "0x3"), "--image is '0x3'"),
    ],
)
def test_wrong_options(source, tmp_path, arguments, said):
    done = adopt(source, "--out", tmp_path / "model.safetensors", *arguments)
    assert isinstance(done.exception, CosearchError)
    assert said in str(done.exception)
    assert not (tmp_path / "model.safetensors").exists()


def test_nothing_is_replaced_unasked(source, tmp_path):
    out = tmp_path / "model.safetensors"
    out.write_text("mine")
    done = adopt(source, "--out", out)
    assert "is there already" in str(done.exception)
    assert out.read_text() == "mine"
    assert adopt(source, "--out", out, "--force").exit_code == 0
    assert adopted_from_file(out).spec == SPEC


def test_a_place_that_cannot_be_written(source, tmp_path):
    done = adopt(source, "--out", tmp_path / "none" / "model.safetensors")
    assert "cannot be written (No such file or directory)" in str(done.exception)


def test_parameters_alone(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    done = adopt(tmp_path / "other.safetensors", "--out", tmp_path / "model.safetensors")
    assert "are no known vision transformer's" in str(done.exception)
