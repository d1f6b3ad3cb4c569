"""MLflow away, locked or read-only: a clear error before the search, at most a warning after, and nothing lost."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cosearch.errors import TrackingError
from cosearch.front import Front, Member, Objective
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.track import Location, Tracker, locate, log_run, ui_command
from cosearch.track.location import quiet

ARGUMENTS = {"experiment": "faults", "name": "quickstart", "parameters": {"seed": 1}}
FRONT = Front.of(
    (Objective("accuracy", "max"),),
    [
        Member(
            Candidate(
                model=ModelSpec(
                    task=TaskShape(image=(8, 8), channels=1, classes=10),
                    patch=4,
                    dim=8,
                    blocks=(BlockSpec(heads=1, mlp_hidden=8),),
                ),
                accelerator=AcceleratorSpec.of("systolic", {"rows": 4, "cols": 4}),
            ),
            {"accuracy": 0.5},
        )
    ],
)


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory):
    runs = tmp_path_factory.mktemp("mlflow")
    Tracker.open(locate(runs, environment={}), **ARGUMENTS).abort("done")
    return runs


@pytest.fixture
def location(fresh_store, tmp_path):
    shutil.copy(fresh_store / "mlflow.db", tmp_path / "mlflow.db")
    return locate(tmp_path, environment={})


@pytest.fixture
def impatient(monkeypatch):
    """A locked database is given up on at once, so that the test need not wait either."""
    monkeypatch.setattr("cosearch.track.location.LOCK_S", 0.05)


@pytest.fixture
def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2.0  # more than the time between two writes
        return self.now


def lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def steps(location: Location, run_id: str) -> list[int]:
    with quiet():
        return [m.step for m in MlflowClient(location.uri).get_metric_history(run_id, "hypervolume")]


# --- at open ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named_with_three_ways_out(tmp_path, closed_port):
    uri = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(TrackingError) as caught:
        Tracker.open(locate(tmp_path, None, {"MLFLOW_TRACKING_URI": uri}), **ARGUMENTS)
    assert str(caught.value) == (
        f"MLflow at {uri} cannot be reached (Connection refused); start it (this project's own store: cosearch ui), "
        "unset or change MLFLOW_TRACKING_URI, or run with --no-mlflow"
    )


def test_an_uri_from_the_run_file_is_blamed_on_the_run_file(tmp_path, closed_port):
    location = locate(tmp_path, f"http://me:secret@127.0.0.1:{closed_port}", {})
    with pytest.raises(TrackingError, match=r"change mlflow\.tracking_uri in the run file") as caught:
        Tracker.open(location, **ARGUMENTS)
    assert "secret" not in str(caught.value)


def test_a_server_that_takes_the_call_but_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("cosearch.track.location.ANSWER_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        location = locate(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", {})
        with pytest.raises(TrackingError, match=r"cannot be reached \(timed out\)"):
            Tracker.open(location, **ARGUMENTS)


def test_something_else_than_mlflow_listens(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    try:
        port = re.search(r"port (\d+)", server.stdout.readline())[1]
        with pytest.raises(TrackingError, match=r"refuses: .*404.*--no-mlflow"):
            Tracker.open(locate(tmp_path, f"http://127.0.0.1:{port}", {}), **ARGUMENTS)
    finally:
        server.kill()
        server.communicate()


def test_a_locked_database(location, tmp_path, impatient):
    holder = lock(tmp_path / "mlflow.db")
    try:
        with pytest.raises(
            TrackingError, match="is locked by another process; end whatever is writing to it"
        ) as caught:
            Tracker.open(location, **ARGUMENTS)
        assert str(tmp_path / "mlflow.db") in str(caught.value)
    finally:
        holder.close()
    Tracker.open(location, **ARGUMENTS)


def test_a_database_that_may_only_be_read(fresh_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder "file:" where it runs
    shutil.copy(fresh_store / "mlflow.db", tmp_path / "mlflow.db")
    location = locate(tmp_path, f"sqlite:///file:{tmp_path}/mlflow.db?mode=ro&uri=true", {})
    with pytest.raises(TrackingError, match=r"cannot be written \(attempt to write a readonly database\)"):
        Tracker.open(location, **ARGUMENTS)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingError, match=r"cannot be written \((Not a directory|.*File exists.*)\); allow writing"):
        Tracker.open(locate(tmp_path / "file" / "runs", environment={}), **ARGUMENTS)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is a text file, and a long one too\n" * 100)
    with pytest.raises(TrackingError, match="file is not a database"):
        Tracker.open(locate(tmp_path, environment={}), **ARGUMENTS)


def test_an_uri_that_means_nothing(tmp_path):
    with pytest.raises(TrackingError, match="MLflow at ftp://nowhere refuses"):
        Tracker.open(locate(tmp_path, "ftp://nowhere", {}), **ARGUMENTS)


# --- later ------------------------------------------------------------------------------------------------------------


def test_an_outage_costs_one_warning_and_no_step(location, tmp_path, impatient):
    clock = Clock()
    tracker = Tracker.open(location, **ARGUMENTS, clock=clock)
    assert tracker.progress(1, {"hypervolume": 0.1}) is None
    holder = lock(tmp_path / "mlflow.db")
    try:
        warning = tracker.progress(2, {"hypervolume": 0.2})
        assert warning is not None
        assert "is locked by another process" in warning
        assert warning.endswith("(the search goes on)")
        clock.now += 1000
        assert tracker.progress(3, {"hypervolume": 0.3}) is None, "one warning is enough"
    finally:
        holder.close()
    clock.now += 1000
    assert tracker.progress(4, {"hypervolume": 0.4}) is None
    assert steps(location, tracker.run_id) == [1, 2, 3, 4]


def test_a_failing_store_is_left_alone_for_a_while(location, tmp_path, impatient, monkeypatch):
    tracker = Tracker.open(location, **ARGUMENTS, clock=Clock())
    holder = lock(tmp_path / "mlflow.db")
    try:
        assert tracker.progress(1, {"hypervolume": 0.1}) is not None
    finally:
        holder.close()
    monkeypatch.setattr(tracker, "_attempt", lambda action: pytest.fail("tried again too soon"))
    tracker.progress(2, {"hypervolume": 0.2})


def test_a_search_that_ends_during_an_outage_is_logged_later(location, tmp_path, impatient):
    tracker = Tracker.open(location, **ARGUMENTS)
    holder = lock(tmp_path / "mlflow.db")
    try:
        tracker.progress(1, {"hypervolume": 0.1})
        warning = tracker.finish(FRONT)
        assert "log it later" in str(warning)
        assert "log it later" in str(tracker.abort("so be it"))
    finally:
        holder.close()
    late = log_run(location, history=[(1, {"hypervolume": 0.1})], front=FRONT, run_id=tracker.run_id, **ARGUMENTS)
    assert late.run_id == tracker.run_id
    assert steps(location, late.run_id) == [1]


def test_logging_afterwards_fails_loudly(location, tmp_path):
    missing = tmp_path / "front.html"
    with pytest.raises(TrackingError, match=r"front\.html"):
        log_run(location, history=[], front=FRONT, files=[missing], **ARGUMENTS)


def test_a_front_page_that_is_gone_is_a_warning(location, tmp_path):
    tracker = Tracker.open(location, **ARGUMENTS)
    assert "front.html" in str(tracker.finish(FRONT, files=[tmp_path / "front.html"]))


# --- a real server ----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(runs: Path, port: int) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    server = subprocess.Popen(
        ui_command(runs, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=runs,
        start_new_session=True,
    )
    for _ in range(1800):
        assert server.poll() is None, "the server ended at once"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.read() == b"OK"
                return server
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not come up within three minutes")


def stop(server: subprocess.Popen) -> None:
    os.killpg(server.pid, 9)
    server.wait()


@pytest.mark.slow
def test_a_server_comes_and_goes_while_a_search_runs(location, tmp_path):
    port = free_port()
    (tmp_path / "front.html").write_text("<p>front</p>")
    remote = locate(tmp_path, f"http://127.0.0.1:{port}", {})
    clock = Clock()
    server = start(tmp_path, port)
    try:
        tracker = Tracker.open(
            remote, **ARGUMENTS | {"experiment": "remote"}, files=[tmp_path / "front.html"], clock=clock
        )
        tracker.progress(1, {"hypervolume": 0.1})
    finally:
        stop(server)
    assert "cannot be reached" in str(tracker.progress(2, {"hypervolume": 0.2}))
    clock.now += 1000
    server = start(tmp_path, port)
    try:
        assert tracker.progress(3, {"hypervolume": 0.3}) is None
        assert tracker.finish(FRONT, files=[tmp_path / "front.html"]) is None
        experiment = re.search(r"experiments/(\d+)/", tracker.url)[1]
        found = json.loads(
            urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={tracker.run_id}", timeout=30
            ).read()
        )["run"]
        assert found["info"]["status"] == "FINISHED"
        assert found["info"]["experiment_id"] == experiment
        assert found["info"]["artifact_uri"].startswith("mlflow-artifacts:")
    finally:
        stop(server)
    # the same store without the server
    assert steps(location, tracker.run_id) == [1, 2, 3]
    assert list(tmp_path.glob("mlartifacts/**/front.html")), "files go under the runs folder"
