"""A new project works as it is, with an evaluator of one's own; a disk that refuses loses nothing."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def cosearch(*arguments, cwd, **environment):
    command = [sys.executable, "-c", "from cosearch.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    assert cosearch("init", "mine", cwd=folder).returncode == 0
    return folder / "mine"


def test_init_searches_with_an_evaluator_of_ones_own(project):
    done = cosearch("run", "first", "--trainings", "3", "--workers", "1", "--no-mlflow", cwd=project)
    assert done.returncode == 0, done.stderr
    front = json.loads((project / "runs" / "first" / "front.json").read_text())
    assert [o["metric"] for o in front["objectives"]] == ["accuracy", "latency_s", "flash_bytes"]
    assert all(member["metrics"]["flash_bytes"] > 0 for member in front["members"])


def test_init_leaves_what_is_there(project):
    done = cosearch("init", str(project), cwd=project)
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_the_front_in_every_form(project):
    table = cosearch("front", "first", cwd=project)
    assert table.returncode == 0, table.stderr
    assert "Pareto front of first" in table.stdout
    assert json.loads(cosearch("front", "first", "--json", cwd=project).stdout)["cosearch"] == "front/1"
    one = cosearch("front", "first", "--pick", "max accuracy", cwd=project)
    assert "flash_bytes" in one.stdout
    none = cosearch("front", "first", "--pick", "min latency_s where accuracy >= 2", cwd=project)
    assert none.returncode == 2
    assert "the nearest is" in none.stderr


SHIM = """
import errno, os
limit = int(os.environ["FULL_AFTER"])
real, count = os.fsync, 0
def fsync(fd):
    global count
    count += 1
    if count > limit:
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(fd)
os.fsync = fsync
from cosearch.cli import main
main()
"""


@pytest.mark.parametrize("after", ["6", "9"])
def test_a_disk_that_fills_up_loses_nothing(project, after):
    name = f"full{after}"
    arguments = ["run", "first", "--name", name, "--trainings", "3", "--workers", "0", "--no-mlflow"]
    done = subprocess.run(
        [sys.executable, "-c", SHIM, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "FULL_AFTER": after},
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "No space left on device; free some space, then go on with --resume" in done.stderr
    assert "Traceback" not in done.stderr
    again = cosearch("run", "--resume", name, "--workers", "0", cwd=project)
    assert again.returncode == 0, again.stderr
    whole = project / "runs" / "undisturbed"
    if not whole.exists():
        arguments[3] = "undisturbed"
        assert cosearch(*arguments, cwd=project).returncode == 0
    assert (project / "runs" / name / "front.json").read_bytes() == (whole / "front.json").read_bytes()


def test_a_folder_that_cannot_be_written(project):
    (project / "taken").write_text("a file, not a folder")
    done = cosearch("run", "first", "--runs", "taken", "--workers", "0", "--no-mlflow", cwd=project)
    assert done.returncode == 3, done.stderr
    assert "taken/first cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_locked(project):
    import sqlite3

    place = project / "locked.db"
    connection = sqlite3.connect(place)
    connection.execute("create table t (x)")
    connection.commit()
    connection.execute("begin exclusive")
    try:
        uri = f"sqlite:///{place}"
        done = cosearch("run", "first", "--name", "locked", "--workers", "0", cwd=project, MLFLOW_TRACKING_URI=uri)
    finally:
        connection.close()
    assert done.returncode == 3, done.stderr
    assert "is locked by another process" in done.stderr
    assert not (project / "runs" / "locked").exists()
