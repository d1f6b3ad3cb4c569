import errno
import json
import multiprocessing
from pathlib import Path

import pytest

from cosearch.errors import NotFoundError, StoreError
from cosearch.store import Evaluation, Store, find_run, list_runs, write_atomically


def make(folder: Path) -> Store:
    return Store.create(folder, {"run.yaml": "name: x\n"}, {"seed": 3})


def test_what_was_recorded_is_there_after_reopening(tmp_path):
    store = make(tmp_path / "run")
    store.record("accuracy/abc", Evaluation(metrics={"accuracy": 0.9}, seconds=1.5, artifacts={"w.bin": b"123"}))
    store.record("accuracy/def", Evaluation(failed="diverged at step 4"))
    store.close()

    again = Store.open(tmp_path / "run")
    assert again.state["seed"] == 3
    assert again.evaluations["accuracy/abc"].metrics == {"accuracy": 0.9}
    assert again.evaluations["accuracy/def"].failed == "diverged at step 4"
    assert (again.artifacts("accuracy/abc") / "w.bin").read_bytes() == b"123"
    again.close()


def test_a_line_is_on_disk_before_record_returns(tmp_path):
    store = make(tmp_path / "run")
    store.record("accuracy/abc", Evaluation(metrics={"accuracy": 0.5}))
    assert json.loads((tmp_path / "run" / "evaluations.jsonl").read_text())["metrics"] == {"accuracy": 0.5}
    store.close()


@pytest.mark.parametrize("torn", ['{"key": "accuracy/d', '{"key": "accuracy/def", "metrics": {}}'])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    store = make(tmp_path / "run")
    store.record("accuracy/abc", Evaluation(metrics={"accuracy": 0.5}))
    store.close()
    path = tmp_path / "run" / "evaluations.jsonl"
    whole = path.read_text()
    path.write_text(whole + torn)

    again = Store.open(tmp_path / "run")
    assert list(again.evaluations) == ["accuracy/abc"]
    assert path.read_text() == whole
    again.record("accuracy/def", Evaluation(metrics={"accuracy": 0.6}))
    again.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["accuracy/abc", "accuracy/def"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    store = make(tmp_path / "run")
    store.record("a/1", Evaluation(metrics={"accuracy": 0.5}))
    store.close()
    path = tmp_path / "run" / "evaluations.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(StoreError, match=r"evaluations\.jsonl: line 1 is not JSON"):
        Store.open(tmp_path / "run")


def test_told_lines_are_checked_and_not_written_twice(tmp_path):
    store = make(tmp_path / "run")
    store.tell("search", 0, ['{"a": 1}', '{"a": 2}'])
    store.close()
    again = Store.open(tmp_path / "run")
    again.tell("search", 0, ['{"a": 1}'])
    again.tell("search", 1, ['{"a": 2}', '{"a": 3}'])
    again.close()
    assert (tmp_path / "run" / "search.jsonl").read_text().splitlines() == ['{"a": 1}', '{"a": 2}', '{"a": 3}']


def test_a_run_that_other_code_began_is_not_mixed(tmp_path):
    store = make(tmp_path / "run")
    store.tell("search", 0, ['{"a": 1}'])
    store.close()
    again = Store.open(tmp_path / "run")
    with pytest.raises(StoreError, match=r"search\.jsonl: line 1 does not agree .* begin a new run"):
        again.tell("search", 0, ['{"a": 7}'])
    again.close()


def test_a_run_has_one_driver(tmp_path):
    store = make(tmp_path / "run")
    with pytest.raises(StoreError, match="in use by another cosearch"):
        Store.open(tmp_path / "run")
    store.close()
    Store.open(tmp_path / "run").close()


def _hold_and_die(folder):
    make(folder)
    import os

    os.kill(os.getpid(), 9)


def test_a_killed_driver_leaves_no_lock(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path / "run",))
    process.start()
    process.join()
    assert process.exitcode == -9
    Store.open(tmp_path / "run").close()


def test_an_existing_folder_is_left_alone(tmp_path):
    make(tmp_path / "run").close()
    with pytest.raises(StoreError, match=r"exists already; choose another --name, or go on with it: --resume run"):
        make(tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "allow writing there"), (errno.EROFS, "read-only file system")],
)
def test_the_disk_refuses(tmp_path, monkeypatch, number, remedy):
    store = make(tmp_path / "run")

    def refuse(fd):
        raise OSError(number, "no")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StoreError, match=remedy):
        store.record("a/1", Evaluation(metrics={"accuracy": 1.0}))
    monkeypatch.undo()
    store.close()
    again = Store.open(tmp_path / "run")  # whatever was written before is still there and readable
    again.record("a/2", Evaluation(metrics={"accuracy": 1.0}))
    again.close()


def test_a_failed_whole_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "front.json"
    write_atomically(path, "old")

    def refuse(fd):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StoreError):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_runs_are_found_by_name_and_by_path(tmp_path):
    make(tmp_path / "alpha").close()
    assert list_runs(tmp_path) == ("alpha",)
    assert find_run(tmp_path, "alpha") == tmp_path / "alpha"
    assert find_run(Path("elsewhere"), str(tmp_path / "alpha")) == tmp_path / "alpha"
    with pytest.raises(NotFoundError, match="did you mean 'alpha'"):
        find_run(tmp_path, "alpa")
