"""Same seed, same front: for any number of workers, on one machine or several, after a kill or Ctrl-C.

Everything runs as a user runs it: the command line, real trainings (short ones), a real Ray cluster on loopback.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
cosearch: run/1
name: small
space: vit_digits_systolic
seed: 3
task: {name: digit-pairs, size: 16}
evaluators:
  accuracy: {use: trained, options: {recipe: {steps: 4, batch: 16, calibration: 32}}}
  cost: {use: analytical}
objectives: [accuracy, latency_s, energy_j]
limits: [area_mm2 <= 4]
search: {sampler: split, options: {looks: 24}, trainings: 10, window: 4}
baseline: {sampler: random}
mlflow: {enabled: false}
"""

pytestmark = pytest.mark.slow


def command(*arguments):
    return [sys.executable, "-c", "from cosearch.cli import main; main()", *arguments]


def cosearch(*arguments, cwd):
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "run.yaml").write_text(RUN)
    return folder


@pytest.fixture(scope="module")
def reference(project):
    """The run that nothing disturbed, without Ray."""
    cosearch("run", "run.yaml", "--workers", "0", "--name", "reference", cwd=project)
    return project / "runs" / "reference"


def trained_models(run):
    return [json.loads(line)["key"] for line in (run / "evaluations.jsonl").read_text().splitlines()]


def same(run, reference):
    for name in ("front.json", "baseline-front.json", "search.jsonl", "baseline.jsonl", "comparison.json"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    keys = trained_models(run)
    assert len(keys) == len(set(keys)), "a model was trained twice"
    assert set(keys) == set(trained_models(reference))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers(project, reference, workers):
    name = f"workers{workers}"
    cosearch("run", "run.yaml", "--workers", str(workers), "--name", name, cwd=project)
    same(project / "runs" / name, reference)


def test_a_search_that_asks_briefly_is_no_different(tmp_path):
    options = "{looks: 24, inner: predicted, inner_options: {start: 5, briefs: 2}}"
    (tmp_path / "run.yaml").write_text(RUN.replace("{looks: 24}", options).replace("baseline:", "#"))
    said = cosearch("run", "run.yaml", "--workers", "0", "--name", "one", cwd=tmp_path)
    assert " tried briefly" in said
    cosearch("run", "run.yaml", "--workers", "2", "--name", "two", cwd=tmp_path)
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))
    for name in ("front.json", "search.jsonl", "comparison.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    counts = json.loads((one / "comparison.json").read_text())["search"]
    assert counts["briefed"] >= 2 * counts["trained"] > 0
    kept = {key for key in trained_models(one) if "/brief/" not in key}
    assert len(kept) == counts["trained"]
    assert {path.name for path in (one / "artifacts").iterdir()} == {key.replace("/", "-") for key in kept}


def test_another_seed_gives_another_front(project, reference):
    cosearch("run", "run.yaml", "--workers", "0", "--name", "seeded", "--seed", "4", cwd=project)
    assert (project / "runs" / "seeded" / "front.json").read_bytes() != (reference / "front.json").read_bytes()


def started(project, name, workers, least):
    """Starts a run, and returns its process once ``least`` models are stored."""
    process = subprocess.Popen(
        command("run", "run.yaml", "--workers", str(workers), "--name", name),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stored = project / "runs" / name / "evaluations.jsonl"
    until = time.monotonic() + 300
    while not (stored.exists() and len(stored.read_text().splitlines()) >= least):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("least", "workers"), [(1, 0), (7, 0), (4, 2)])
def test_kill_9_and_resume(project, reference, least, workers):
    name = f"killed{least}"
    process = started(project, name, workers, least)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = project / "runs" / name
    before = (run / "evaluations.jsonl").read_text()
    whole = before[: before.rfind("\n") + 1]
    cosearch("run", "--resume", name, "--workers", "0", cwd=project)
    assert (run / "evaluations.jsonl").read_text().startswith(whole), "what was stored is kept as it was"
    same(run, reference)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(project, reference):
    process = started(project, "stopped", 0, 3)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "cosearch run --resume stopped" in said
    assert "Traceback" not in said
    assert (project / "runs" / "stopped" / "front.json").exists()
    cosearch("run", "--resume", "stopped", "--workers", "0", cwd=project)
    same(project / "runs" / "stopped", reference)


def test_a_finished_run_can_be_resumed_without_training(project, reference):
    before = (reference / "evaluations.jsonl").read_bytes()
    front = (reference / "front.json").read_bytes()
    cosearch("run", "--resume", "reference", "--workers", "0", cwd=project)
    assert (reference / "evaluations.jsonl").read_bytes() == before
    assert (reference / "front.json").read_bytes() == front


def test_two_drivers_do_not_share_a_run(project):
    process = started(project, "held", 0, 1)
    try:
        done = subprocess.run(
            command("run", "--resume", "held"), cwd=project, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 3
        assert "in use by another cosearch" in done.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two Ray nodes with one CPU each on loopback, as ``ray start`` makes them: address and environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0123456789abcdef" * 4)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    ray = str(Path(sys.executable).with_name("ray"))

    def call(*arguments):
        done = subprocess.run([ray, *arguments], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000"]
    common += ["--disable-usage-stats"]
    call("start", "--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false", *common)
    call("start", f"--address={address}", *common)
    yield address, environment
    call("stop", "--force")


def test_a_cluster_of_two_nodes(project, reference, cluster):
    address, environment = cluster
    arguments = command("run", "run.yaml", "--address", address, "--name", "cluster")
    done = subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    same(project / "runs" / "cluster", reference)


def test_a_cluster_whose_token_one_lacks(project, cluster):
    address, environment = cluster
    other = {**environment, "RAY_AUTH_TOKEN_PATH": str(project / "other")}
    (project / "other").write_text("fedcba9876543210" * 4)
    arguments = command("run", "run.yaml", "--address", address, "--name", "refused")
    done = subprocess.run(arguments, cwd=project, env=other, capture_output=True, text=True, timeout=100)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr
