"""Bad run files and bad calls: one line that names file, field and remedy, exit code 2, no traceback.

Space files have their own list in tests/unit/test_space_errors.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

GOOD = """
cosearch: run/1
name: small
space: vit_digits_systolic
task: {name: digit-pairs, size: 16}
evaluators:
  accuracy: {use: trained, options: {recipe: {steps: 5}}}
  cost: {use: analytical}
objectives: [accuracy, latency_s]
limits: [area_mm2 <= 4]
search: {sampler: random, trainings: 2}
pool: {workers: 0}
mlflow: {enabled: false}
"""


def cosearch(*arguments, cwd):
    command = [sys.executable, "-c", "from cosearch.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def changed(path, value):
    """Returns the good file with one field (dotted) set, or taken out where the value is ``...``."""
    data = yaml.safe_load(GOOD)
    *folders, last = path.split(".")
    place = data
    for folder in folders:
        place = place[folder]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(data, sort_keys=False)


MISTAKES = {
    "not YAML": ("name: [unclosed", "run.yaml: line 1", "check indentation"),
    "no fields": ("- a\n- b\n", "run.yaml:", "start it with 'cosearch: run/1'"),
    "key twice": (GOOD + "name: again\n", "gives the key 'name' again, after line 3", "remove or rename it"),
    "version missing": (changed("cosearch", ...), "run.yaml: cosearch is missing", "write run/1"),
    "other version": (changed("cosearch", "run/9"), "run.yaml: cosearch is 'run/9'", "write run/1"),
    "unknown field": (GOOD + "sede: 3\n", "run.yaml: sede is not a field", "did you mean 'seed'"),
    "unknown nested field": (
        changed("search.trainngs", 3),
        "run.yaml: search.trainngs is not a field",
        "did you mean 'trainings'",
    ),
    "field missing": (changed("space", ...), "run.yaml: space is missing", "add it"),
    "budget missing": (changed("search.trainings", ...), "run.yaml: search.trainings is missing", "add it"),
    "wrong type": (changed("seed", "many"), "run.yaml: seed is 'many'", "it should be a valid integer"),
    "out of range": (changed("search.trainings", 0), "run.yaml: search.trainings is 0", "greater than or equal to 1"),
    "bad name": (changed("name", "a/b"), "run.yaml: name is 'a/b'", "match pattern"),
    "unknown space": (
        changed("space", "vit_digits_sistolic"),
        "vit_digits_sistolic",
        "did you mean 'vit_digits_systolic'",
    ),
    "unknown task": (changed("task.name", "digit-pears"), "run.yaml: task", "did you mean 'digit-pairs'"),
    "task without its path": (
        changed("task", {"name": "npz"}),
        "run.yaml: task is wrong: task npz needs 'path'",
        "add it",
    ),
    "task path leads nowhere": (
        changed("task", {"name": "npz", "path": "gone.npz"}),
        "gone.npz does not exist",
        "check the path",
    ),
    "unknown evaluator": (
        changed("evaluators.cost.use", "analitical"),
        "run.yaml: evaluators.cost",
        "did you mean 'analytical'",
    ),
    "evaluator file gone": (
        changed("evaluators.cost.use", "mine.py:Cost"),
        "run.yaml: evaluators.cost",
        "check the path in 'use: mine.py:Cost'",
    ),
    "evaluator option unknown": (
        changed("evaluators.cost.options", {"technolgy": "x"}),
        "run.yaml: evaluators.cost",
        "did you mean 'technology'",
    ),
    "technology unknown": (
        changed("evaluators.cost.options", {"technology": "horowitz_46nm"}),
        "run.yaml: evaluators.cost",
        "did you mean 'horowitz_45nm'",
    ),
    "recipe field unknown": (
        changed("evaluators.accuracy.options", {"recipe": {"step": 5}}),
        "run.yaml: evaluators.accuracy is wrong: recipe.step",
        "did you mean 'steps'",
    ),
    "objective unknown": (
        changed("objectives", ["accuracy", "latency"]),
        "run.yaml: objectives[1] names 'latency'",
        "did you mean 'latency_s'",
    ),
    "objective twice": (
        changed("objectives", ["accuracy", "accuracy"]),
        "run.yaml: objectives names 'accuracy' twice",
        "name each metric once",
    ),
    "limit unreadable": (changed("limits", ["area < 4"]), "run.yaml: limits", "metric <= number"),
    "limit on nothing": (
        changed("limits", ["area_mm3 <= 4"]),
        "run.yaml: limits[0] names 'area_mm3'",
        "did you mean 'area_mm2'",
    ),
    "unknown sampler": (
        changed("search.sampler", "optna"),
        "run.yaml: search.sampler is wrong: no sampler is called 'optna'",
        "did you mean 'optuna'",
    ),
    "sampler option unknown": (
        changed("search.options", {"loks": 4}),
        "run.yaml: search.options is wrong: 'random' has no option 'loks'",
        "known",
    ),
    "nothing to train and no number of points": (
        yaml.safe_dump(
            {**yaml.safe_load(changed("objectives", ["latency_s"])), "evaluators": {"cost": {"use": "analytical"}}}
        ),
        "run.yaml: search.points is missing",
        "say how many to propose",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_bad_run_file_gets_its_own_message(tmp_path, mistake):
    text, problem, remedy = MISTAKES[mistake]
    (tmp_path / "run.yaml").write_text(text)
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert problem in done.stderr
    assert remedy in done.stderr
    assert not (tmp_path / "runs").exists(), "a search that cannot start leaves nothing behind"


def test_the_messages_differ():
    assert len({(problem, remedy) for _, problem, remedy in MISTAKES.values()}) >= 15


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "give a run file, or --resume RUN"),
        (["run", "gone.yaml"], "gone.yaml is not a file"),
        (["run", "quikstart"], "did you mean 'quickstart'"),
        (["run", "--resume", "gone"], "no run is called 'gone'"),
        (["front", "gone"], "no run is called 'gone'"),
        (["export", "gone", "--pick", "knee", "--out", "x"], "no run is called 'gone'"),
        (["space", "describe", "gone"], "gone"),
        (["space", "describe", "vit_digits_systolic", "--task", "big"], "--task is 'big'"),
        (["estimate", "gone.json"], "gone.json: cannot be read"),
        (["estimate", "--rows", "0"], "rows"),
        (["estimate", "--dim", "100", "--heads", "3"], "heads"),
        (["estimate", "--technology", "none"], "horowitz_45nm"),
        (["schema", "rum"], "did you mean 'run'"),
    ],
)
def test_a_bad_call_gets_its_own_message(tmp_path, arguments, said):
    done = cosearch(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr


def test_no_ray_cluster_at_the_address(tmp_path):
    (tmp_path / "run.yaml").write_text(changed("pool", {"address": "127.0.0.1:1", "workers": 1}))
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "ray start --head" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(tmp_path, "runs").glob("*")), "nothing was searched, so nothing is left"


def test_an_unreachable_mlflow_server(tmp_path):
    (tmp_path / "run.yaml").write_text(changed("mlflow", {"tracking_uri": "http://127.0.0.1:9"}))
    done = cosearch("run", "run.yaml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "--no-mlflow" in done.stderr
    assert "Traceback" not in done.stderr
