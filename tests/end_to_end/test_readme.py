"""Every example in the README is executed, in order, in one empty folder.

Trainings are cut short from outside (the environment variable that `cosearch run` reads in place of the file's number),
so that the commands stand in the README as a user types them.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)

pytestmark = pytest.mark.slow


def test_the_readme_has_examples():
    assert {kind for kind, _ in BLOCKS} == {"sh", "yaml"}
    assert sum(kind == "sh" for kind, _ in BLOCKS) >= 5


def test_every_example_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COSEARCH_TRAININGS", "3")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    ran = 0
    for kind, text in BLOCKS:
        if kind == "yaml":
            name = re.match(r"# (\S+)\n", text)[1]
            assert yaml.safe_load(text)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
            continue
        done = subprocess.run(["sh", "-e", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        ran += len(text.strip().splitlines())
    assert ran >= 15
    assert (tmp_path / "pair" / "model.onnx").is_file()
    assert (tmp_path / "runs" / "quickstart" / "front.html").is_file()


def test_the_two_commands_do_what_the_readme_says():
    planned = subprocess.run(
        ["make", "-n", "search", "test"], cwd=README.parent, capture_output=True, text=True, check=True
    ).stdout
    assert "cosearch run runs/quickstart.yaml" in planned
    assert "-m pytest" in planned
