"""Modules are found where a reference says: in files, in packages, in saved programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cosearch.errors import NotFoundError, SpecError, UserError
from cosearch.imported import load_module, workload_of

FACTORIES = """
import torch
from torch import nn

def alone():
    return nn.Linear(4, 2)

def pair():
    return nn.Linear(4, 2), (torch.zeros(1, 4),)

def configured():
    model = nn.Conv2d(3, 2, 3)
    model.pretrained_cfg = {"input_size": (3, 9, 9)}
    return model

def fails():
    raise RuntimeError("no weights here")

def wants(dim):
    return nn.Linear(dim, 2)

def number():
    return 3

ready = nn.Conv2d(1, 1, 1)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(FACTORIES)
    return path


def test_modules_are_found_in_files(file):
    pair = load_module(f"{file}:pair")
    assert workload_of(pair.module, pair.example_inputs).macs == 8
    assert load_module(f"{file}:configured").example_inputs[0].shape == (1, 3, 9, 9)
    assert load_module(f"{file}:configured", image=(3, 5, 7)).example_inputs[0].shape == (1, 3, 5, 7)
    assert load_module(f"{file}:ready", image=(1, 2, 2)).example_inputs[0].shape == (1, 1, 2, 2)


def test_modules_are_found_in_packages(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    try:
        found = load_module("models:pair")
    finally:
        sys.modules.pop("models", None)
    assert workload_of(found.module, found.example_inputs).macs == 8


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own, while it saves
def test_saved_programs_are_read(tmp_path):
    path = tmp_path / "network.pt2"
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)).eval()
    example = (torch.zeros(1, 3, 8, 8),)
    torch.export.save(torch.export.export(network, example), path)
    found, made = load_module(str(path)), workload_of(network, example)
    assert workload_of(found.module, found.example_inputs).macs == made.macs == 4 * 6 * 6 * (27 + 2)


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        ("{file}", UserError, "names no factory"),
        ("{file}:", UserError, "names no factory"),
        ("{file}:pairs", NotFoundError, "did you mean 'pair'"),
        ("{file}:fails", UserError, "RuntimeError: no weights here"),
        ("{file}:wants", UserError, "cannot be called without arguments"),
        ("{file}:number", SpecError, "returns a int, not a module"),
        ("{file}:alone", SpecError, "says nothing of its input"),
        ("{folder}/none.py:pair", NotFoundError, "does not exist"),
        ("{folder}/none.pt2", NotFoundError, "does not exist"),
        ("{folder}/broken.pt2", UserError, "cannot be loaded"),
        ("{folder}/broken.py:make", UserError, "cannot be run: ModuleNotFoundError"),
        ("no_such_package.models:make", NotFoundError, "no module is called 'no_such_package'"),
    ],
)
def test_references_that_lead_nowhere(reference, error, text, file):
    (file.parent / "broken.pt2").write_bytes(b"no archive")
    (file.parent / "broken.py").write_text("import no_such_dependency\n")
    with pytest.raises(error, match=text):
        load_module(reference.format(file=file, folder=file.parent))
