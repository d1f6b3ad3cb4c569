"""``cosearch verify`` as a user runs it: real trainings (short ones), any number of workers, Ctrl-C, and mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

RUN = """
cosearch: run/1
name: small
space: vit_digits_systolic
seed: 4
task: {name: digit-pairs, size: 16}
evaluators:
  accuracy: {use: trained, options: {recipe: {steps: 4, batch: 16, calibration: 32}}}
  cost: {use: analytical}
objectives: [accuracy, latency_s]
limits: [area_mm2 <= 4]
search: {sampler: split, options: {looks: 24}, trainings: 6, window: 4}
mlflow: {enabled: false}
"""
QUICK = ("--seeds", "2", "--longer", "1.5", "--workers", "0")

pytestmark = pytest.mark.slow


def command(*arguments):
    return [sys.executable, "-c", "from cosearch.cli import main; main()", *arguments]


def called(*arguments, cwd):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=400)


def cosearch(*arguments, cwd):
    done = called(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "run.yaml").write_text(RUN)
    cosearch("run", "run.yaml", "--workers", "0", cwd=folder)
    for name in ("ray", "stopped", "more"):
        shutil.copytree(folder / "runs" / "small", folder / "runs" / name)
    cosearch("verify", "small", *QUICK, cwd=folder)
    return folder


def verified(project, name):
    return (project / "runs" / name / "verified.json").read_bytes()


def trainings(project, name):
    return [json.loads(line) for line in (project / "runs" / name / "verify.jsonl").read_text().splitlines()]


def test_every_model_of_the_front_has_its_trainings_and_its_test_split(project):
    front = json.loads((project / "runs" / "small" / "front.json").read_text())
    data = json.loads(verified(project, "small"))
    assert {model["model_id"] for model in data["models"]} == {member["model_id"] for member in front["members"]}
    assert {member["id"] for member in data["members"]} == {member["id"] for member in front["members"]}
    for model in data["models"]:
        assert model["steps"] == 6
        assert len(model["values"]["accuracy"]) == 2
        assert model["estimates"]["accuracy"]["low"] <= model["estimates"]["accuracy"]["mean"]
        assert model["test"]["accuracy"]["n"] == 2
    assert len({line["seed"] for line in trainings(project, "small")}) == 2 * len(data["models"])


def test_any_number_of_workers_gives_the_same(project):
    cosearch("verify", "ray", *QUICK[:-1], "2", cwd=project)
    assert verified(project, "ray") == verified(project, "small")

    def numbers(name):
        return {line["key"]: (line["metrics"], line["test"]) for line in trainings(project, name)}

    assert numbers("ray") == numbers("small")


def test_ctrl_c_keeps_what_was_trained_and_the_same_command_goes_on(project):
    process = subprocess.Popen(
        command("verify", "stopped", *QUICK),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    path = project / "runs" / "stopped" / "verify.jsonl"
    until = time.monotonic() + 200
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "finished trainings are kept" in said
    assert "Traceback" not in said
    kept = path.read_text()
    assert not (path.parent / "verified.json").exists()
    said = cosearch("verify", "stopped", *QUICK, cwd=project)
    assert "were there from earlier" in said
    assert path.read_text().startswith(kept)
    assert verified(project, "stopped") == verified(project, "small")


def test_json_on_stdout_is_the_file(project):
    said = cosearch("verify", "small", *QUICK, "--json", cwd=project)
    assert said.encode() == verified(project, "small")


def test_the_table_says_what_became_of_each_point(project):
    said = cosearch("verify", "small", *QUICK, cwd=project)
    for word in ("accuracy in search", "interval", "falls with probability", "points survive", "Kendall's tau"):
        assert word in said
    for model in json.loads(verified(project, "small"))["models"]:
        assert model["model_id"][:8] in said


def test_other_steps_are_other_trainings(project):
    before = trainings(project, "small")
    shutil.copy(project / "runs" / "small" / "verify.jsonl", project / "runs" / "more")
    cosearch("verify", "more", "--seeds", "2", "--steps", "5", "--models", "knee", "--workers", "0", cwd=project)
    after = trainings(project, "more")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 2
    assert json.loads(verified(project, "more"))["models"][0]["steps"] == 5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone"], 2, "no run is called 'gone'"),
        (["small", "--seeds", "1"], 2, "--seeds is 1; an interval takes at least 2"),
        (["small", "--steps", "5", "--longer", "2"], 2, "give one of the two"),
        (["small", "--models", "best"], 2, "write 'all', 'knee', or how many"),
        (["bare"], 3, "has no front.json yet"),
        (["small", "--seeds", "3", "--address", "127.0.0.1:1", "--workers", "1"], 3, "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_a_mistake_is_one_line(project, arguments, code, said):
    if not (project / "runs" / "bare").exists():
        shutil.copytree(project / "runs" / "small", project / "runs" / "bare")
        (project / "runs" / "bare" / "front.json").unlink()
    done = called("verify", *arguments, cwd=project)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
