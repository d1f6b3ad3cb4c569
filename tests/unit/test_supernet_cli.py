"""``cosearch supernet``: trains, refuses to overwrite, goes on."""

import pytest
import typer
from typer.testing import CliRunner

from cosearch.cli import supernet as command
from cosearch.errors import UserError
from cosearch.supernet import load_supernet

SPACE = """\
cosearch: space/1
name: tiny
description: Two models.
model: {template: vit, patch: 4, dim: {choice: [8, 16]}, depth: 1, heads: 1, mlp_ratio: 1}
accelerator: {template: systolic, rows: 8, cols: 8, dataflow: ws, ifmap_kib: 16, filter_kib: 16, ofmap_kib: 16,
  dram_bytes_per_s: 1e9, clock_hz: 400e6}
"""
RUN = """\
cosearch: run/1
name: tiny
space: ./tiny_space.yaml
seed: 3
task: {name: digits}
evaluators:
  accuracy: {use: supernet, options: {checkpoint: tiny.safetensors}}
  cost: {use: analytical, options: {technology: horowitz_45nm}}
objectives: [accuracy, latency_s]
search: {sampler: random, trainings: 2}
"""


@pytest.fixture
def invoke(tmp_path):
    (tmp_path / "tiny_space.yaml").write_text(SPACE)
    (tmp_path / "run.yaml").write_text(RUN)
    app = typer.Typer()
    app.callback()(lambda: None)
    command.add_to(app)

    def call(*arguments):
        words = ["supernet", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "tiny.safetensors"), *arguments]
        result = CliRunner().invoke(app, words)
        if result.exception is not None:
            raise result.exception
        return result.output

    return call


def test_it_trains_before_the_run_has_its_checkpoint_and_goes_on_where_it_was(invoke, tmp_path):
    text = invoke("--steps", "3", "--set", "batch=16", "--set", "strategy=sandwich")
    assert "3 steps made" in text
    supernet = load_supernet(tmp_path / "tiny.safetensors")
    assert (supernet.steps, supernet.seed, supernet.space, supernet.task) == (3, 3, "tiny", "digits")
    assert (supernet.recipe.strategy, supernet.recipe.base.batch) == ("sandwich", 16)
    with pytest.raises(UserError, match="exists already"):
        invoke("--steps", "3")
    assert "3 steps made" in invoke("--resume")


def test_a_field_that_makes_no_sense(invoke):
    with pytest.raises(UserError, match="gives no value"):
        invoke("--set", "batch")
    with pytest.raises(UserError, match="strategy is 'all'"):
        invoke("--set", "strategy=all")
