"""The examples of docs/own_model.md, executed in order in one empty folder: train, adopt, search untrained, export.

The training and the search are cut short from outside, as in the test of the README.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_model.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which every example was executed."""
    folder = tmp_path_factory.mktemp("own")
    environment = {
        "COSEARCH_TRAININGS": "6",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
    }
    for kind, text in BLOCKS:
        if kind != "sh":
            name = re.match(r"# (\S+)\n", text)[1]
            (folder / name).write_text(text.replace("steps=300", "steps=60"))
            continue
        done = subprocess.run(
            ["sh", "-e", "-c", text], cwd=folder, capture_output=True, text=True, timeout=500, env=environment
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return folder


def test_the_page_has_examples():
    assert [kind for kind, _ in BLOCKS] == ["python", "sh", "yaml", "sh", "python", "sh"]


def test_a_search_without_training(project):
    run = project / "runs" / "own"
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    front = json.loads((run / "front.json").read_text())
    assert [objective["metric"] for objective in front["objectives"]] == ["accuracy", "latency_s", "energy_j"]
    assert max(member["metrics"]["accuracy"] for member in front["members"]) > 0.3, "the weights were taken over"
    left = sorted(path.name for path in next((run / "artifacts").iterdir()).iterdir())
    assert left == ["post_training.json", "weights.safetensors"]


def test_the_pair_is_exported_with_the_accuracy_of_the_search(project):
    metrics = json.loads((project / "pair" / "metrics.json").read_text())
    assert metrics["validation"]["torch"] == pytest.approx(metrics["search"]["accuracy"], abs=1e-9)
    assert metrics["validation"]["onnx"] == pytest.approx(metrics["search"]["accuracy"], abs=5e-3)
