"""A search, as MLflow has it afterwards; on a real SQLite store."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from cosearch.errors import TrackingError
from cosearch.front import Front, Member, Objective
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.track import Location, Tracker, locate, log_run, ui_command
from cosearch.track.location import quiet
from cosearch.track.records import flat, key, shortened, spread, table

OBJECTIVES = (Objective("accuracy", "max"), Objective("latency_s", "min", "s"))
PARAMETERS = {"seed": 7, "search": {"trainings": 48, "sampler": "optuna"}, "limits": ["area_mm2 <= 4"]}


def member(dim: int, accuracy: float, latency_s: float) -> Member:
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    block = BlockSpec(heads=2, mlp_hidden=2 * dim, weight_bits=8, activation_bits=8)
    model = ModelSpec(task=task, patch=4, dim=dim, blocks=(block, block), edge_bits=8)
    chip = AcceleratorSpec.of("systolic", {"rows": 16, "cols": 32, "dataflow": "ws"})
    metrics = {"accuracy": accuracy, "latency_s": latency_s, "odd": float("nan")}
    return Member(Candidate(model=model, accelerator=chip), metrics)


A, B, C = member(16, 0.8, 1e-4), member(32, 0.9, 2e-4), member(64, 0.95, 4e-4)


def front(*members: Member) -> Front:
    return Front.of(OBJECTIVES, members)


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory):
    """A folder with an MLflow database as its migrations leave it, which takes seconds to make."""
    runs = tmp_path_factory.mktemp("mlflow")
    Tracker.open(locate(runs, environment={}), experiment="first", name="first", parameters={}).abort("done")
    return runs


@pytest.fixture
def location(fresh_store, tmp_path):
    shutil.copy(fresh_store / "mlflow.db", tmp_path / "mlflow.db")
    return locate(tmp_path, environment={})


@pytest.fixture
def client(location):
    with quiet():
        return MlflowClient(location.uri)


def opened(location: Location, **changes) -> Tracker:
    arguments = {"experiment": "digits", "name": "quickstart", "parameters": PARAMETERS}
    return Tracker.open(location, **{**arguments, **changes})


def children(client: MlflowClient, tracker: Tracker, view: int = ViewType.ACTIVE_ONLY) -> dict[str, str]:
    experiment = client.get_run(tracker.run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tracker.run_id}'", run_view_type=view)
    names = {run.data.tags["cosearch.candidate"]: run.info.run_id for run in runs}
    assert len(names) == len(runs), "a member appears twice"
    return names


def text(client: MlflowClient, run_id: str, artifact: str, folder: Path) -> str:
    return Path(client.download_artifacts(run_id, artifact, str(folder))).read_text(encoding="utf-8")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- where ------------------------------------------------------------------------------------------------------------


def test_the_environment_comes_before_the_run_file_before_the_default(tmp_path):
    environment = {"MLFLOW_TRACKING_URI": "http://server:5000"}
    assert locate(tmp_path, "http://other", environment).uri == "http://server:5000"
    assert locate(tmp_path, "http://other", {}).uri == "http://other"
    assert locate(tmp_path, None, {}).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_files_lie_beside_the_default_database_and_a_server_keeps_its_own(tmp_path):
    assert locate(tmp_path, None, {}).artifacts == tmp_path / "mlartifacts"
    assert locate(tmp_path, "postgresql+psycopg2://db/mlflow", {}).artifacts == tmp_path / "mlartifacts"
    assert locate(tmp_path, "https://server", {}).artifacts is None


def test_a_relative_runs_folder_means_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(Path("runs"), None, {}).uri == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_a_password_is_not_shown():
    assert Location(uri="https://me:secret@server/x").text == "https://me:***@server/x"


def test_the_ui_serves_this_store_to_this_machine_only(tmp_path):
    command = ui_command(tmp_path, 5050)
    assert command[2:6] == [sys.executable, "-m", "mlflow", "server"]
    pairs = dict(zip(command[6::2], command[7::2], strict=True))
    assert pairs["--host"] == "127.0.0.1"
    assert pairs["--port"] == "5050"
    assert pairs["--backend-store-uri"] == locate(tmp_path, None, {}).uri
    assert pairs["--artifacts-destination"] == locate(tmp_path, None, {}).artifacts.as_uri()


# --- plain records ----------------------------------------------------------------------------------------------------


def test_nested_parameters_become_flat_ones():
    nested = {"a": {"b": 1, "c": [1, 2]}, "blocks": [{"heads": 2}, {"heads": 4}], "on": True, "none": {}}
    assert flat(nested) == {
        "a.b": "1",
        "a.c": "[1, 2]",
        "blocks.0.heads": "2",
        "blocks.1.heads": "4",
        "on": "true",
        "none": "{}",
    }


def test_names_and_long_values_fit_mlflow():
    assert key("model.weight_bits[2]") == "model.weight_bits.2"
    assert key("a<=b") == "a__b"
    assert shortened("x" * 500) == "x" * 500
    assert shortened("x" * 9000) == "x" * 460 + "… (9000 characters)"


def test_a_large_front_is_thinned_evenly_with_both_ends():
    members = [member(2 * dim, 0.5, 1.0) for dim in range(1, 251)]
    thin = spread(members, 100)
    assert len({m.candidate.id for m in thin}) == 100
    assert thin[0] is members[0]
    assert thin[-1] is members[-1]
    assert spread(members[:100], 100) == members[:100]


def test_the_table_starts_with_id_and_objectives():
    columns = table(front(A, B))
    assert list(columns) == ["id", "accuracy", "latency_s", "odd", "model", "accelerator"]
    assert columns["accuracy"] == [0.9, 0.8]
    assert columns["odd"] == [None, None]


# --- a search ---------------------------------------------------------------------------------------------------------


def test_a_whole_search_can_be_read_back(location, client, tmp_path):
    for name in ("run.yaml", "space.yaml", "front.html", "front.json"):
        (tmp_path / name).write_text(f"content of {name}", encoding="utf-8")
    tracker = opened(
        location, files=[tmp_path / "run.yaml", tmp_path / "space.yaml"], tags={"cosearch.run": "quickstart"}
    )
    assert tracker.url is None
    for step in (1, 2, 3):
        assert tracker.progress(step, {"hypervolume": step / 10, "front_size": step, "bad": float("inf")}) is None
    files = [tmp_path / "front.html", tmp_path / "front.json"]
    assert tracker.finish(front(A, B), files=files, metrics={"final_hypervolume": 0.3}) is None

    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "quickstart"
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    assert run.data.params["search.trainings"] == "48"
    assert run.data.params["limits"] == '["area_mm2 <= 4"]'
    assert run.data.params["environment.cpus"] == str(os.cpu_count())
    assert run.data.metrics == {"hypervolume": 0.3, "front_size": 3.0, "final_hypervolume": 0.3}
    assert [(m.step, m.value) for m in client.get_metric_history(tracker.run_id, "hypervolume")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
    ]
    assert run.data.tags["cosearch.run"] == "quickstart"
    assert "mlflow.user" in run.data.tags
    assert {f.path for f in client.list_artifacts(tracker.run_id)} == {
        "environment.json",
        "front.html",
        "front.json",
        "front_table.json",
        "inputs",
    }
    assert {f.path for f in client.list_artifacts(tracker.run_id, "inputs")} == {"inputs/run.yaml", "inputs/space.yaml"}
    assert text(client, tracker.run_id, "front.html", tmp_path / "mlartifacts") == "content of front.html"
    environment = json.loads(text(client, tracker.run_id, "environment.json", tmp_path / "mlartifacts"))
    assert environment["packages"]["cosearch"] != "not installed"
    assert run.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())


def test_members_are_child_runs_in_words_and_numbers(location, client):
    tracker = opened(location)
    tracker.finish(front(A, B, C))
    found = children(client, tracker)
    assert set(found) == {m.candidate.id for m in (A, B, C)}
    child = client.get_run(found[B.candidate.id])
    assert child.info.status == "FINISHED"
    assert child.info.run_name == B.candidate.id
    assert child.data.metrics == {"accuracy": 0.9, "latency_s": 2e-4}
    assert child.data.params["model"] == "dim 32, 2 blocks, 2 heads, MLP 64, patch 4, W 8 A 8 edges 8"
    assert child.data.params["accelerator"] == "16x32 ws"
    assert child.data.params["model.blocks.1.mlp_hidden"] == "64"
    assert child.data.params["accelerator.rows"] == "16"
    assert child.data.tags["cosearch.model"] == B.candidate.model.id


def test_the_table_is_one_that_mlflow_loads(location, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", location.uri)  # load_table looks here, whatever its client was given
    tracker = opened(location)
    tracker.finish(front(A))
    tracker.finish(front(A, B))  # the search went on: not three rows
    experiment = client.get_run(tracker.run_id).info.experiment_id
    with quiet():
        loaded = client.load_table(experiment, "front_table.json", [tracker.run_id])
    assert list(loaded["id"]) == [B.candidate.id, A.candidate.id]
    assert list(loaded.columns) == ["id", "accuracy", "latency_s", "odd", "model", "accelerator"]


def test_a_deep_model_fits_into_several_batches(location, client):
    block = BlockSpec(heads=4, mlp_hidden=128, weight_bits=4, activation_bits=4)
    model = ModelSpec(
        task=TaskShape(image=(32, 32), channels=3, classes=10), patch=4, dim=64, blocks=(block,) * 48, edge_bits=8
    )
    deep = Member(Candidate(model=model, accelerator=A.candidate.accelerator), {"accuracy": 0.9, "latency_s": 1.0})
    tracker = opened(location)
    assert tracker.finish(front(deep)) is None
    child = client.get_run(children(client, tracker)[deep.candidate.id])
    assert child.data.params["model.blocks.47.heads"] == "4"
    assert len(child.data.params) > 190


def test_steps_close_together_go_in_one_write(location, client):
    clock = Clock()
    tracker = opened(location, clock=clock)
    tracker.progress(1, {"hypervolume": 0.1})
    tracker.progress(2, {"hypervolume": 0.2})
    assert client.get_run(tracker.run_id).data.metrics == {"hypervolume": 0.1}
    clock.now += 1.5
    tracker.progress(3, {"hypervolume": 0.3})
    assert [m.step for m in client.get_metric_history(tracker.run_id, "hypervolume")] == [1, 2, 3]


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_stopped_run_says_why_and_goes_on_without_repeating_itself(location, client):
    tracker = opened(location)
    for step in (1, 2, 3):
        tracker.progress(step, {"hypervolume": step / 10})
    tracker.finish(front(A, B))
    before = children(client, tracker)
    tracker.abort("Ctrl-C")
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["cosearch.stopped"]) == ("KILLED", "Ctrl-C")

    again = opened(location, run_id=tracker.run_id, parameters=PARAMETERS | {"seed": 8, "pool": "ray"})
    assert again.run_id == tracker.run_id
    run = client.get_run(again.run_id)
    assert run.info.status == "RUNNING"
    assert "cosearch.stopped" not in run.data.tags
    for step in (1, 2, 3, 4):  # a resumed search walks its path from the start
        again.progress(step, {"hypervolume": step / 10})
    again.finish(front(B, C))
    assert [m.step for m in client.get_metric_history(again.run_id, "hypervolume")] == [1, 2, 3, 4]
    after = children(client, again)
    assert set(after) == {B.candidate.id, C.candidate.id}
    assert after[B.candidate.id] == before[B.candidate.id]
    assert set(children(client, again, ViewType.DELETED_ONLY)) == {A.candidate.id}
    run = client.get_run(again.run_id)
    assert run.data.params["seed"] == "7"
    assert run.data.tags["changed.seed"] == "8"
    assert run.data.params["pool"] == "ray"
    assert run.info.status == "FINISHED"


def test_a_child_that_was_cut_off_is_completed(location, client):
    tracker = opened(location)
    tracker.finish(front(A))
    experiment = client.get_run(tracker.run_id).info.experiment_id
    tags = {"mlflow.parentRunId": tracker.run_id, "cosearch.candidate": B.candidate.id}
    half = client.create_run(experiment, tags=tags).info.run_id  # as a killed process leaves it
    tracker.finish(front(A, B))
    assert children(client, tracker)[B.candidate.id] == half
    assert client.get_run(half).data.metrics["accuracy"] == 0.9
    assert client.get_run(half).info.status == "FINISHED"


def test_an_error_shows_as_failed(location, client):
    tracker = opened(location)
    tracker.abort("Ray lost its workers", failed=True)
    assert client.get_run(tracker.run_id).info.status == "FAILED"


@pytest.mark.parametrize("gone", ["never was", "deleted"])
def test_a_run_that_the_store_does_not_have_begins_anew(location, client, gone):
    old = "0" * 32
    if gone == "deleted":
        old = opened(location).run_id
        client.delete_run(old)
    assert opened(location, run_id=old).run_id != old


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(location, client):
    experiment = client.get_run(opened(location).run_id).info.experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"bin; get it back with 'mlflow experiments restore .*{experiment}'"):
        opened(location)


def test_a_finished_search_is_logged_afterwards_as_often_as_one_likes(location, client):
    arguments = {"experiment": "late", "name": "quickstart", "parameters": PARAMETERS}
    history = [(1, {"hypervolume": 0.1}), (2, {"hypervolume": 0.2})]
    first = log_run(location, history=history, front=front(A, B), **arguments)
    second = log_run(location, history=history, front=front(A, B), run_id=first.run_id, **arguments)
    assert first.run_id == second.run_id
    assert set(children(client, second)) == {A.candidate.id, B.candidate.id}
    assert [m.value for m in client.get_metric_history(first.run_id, "hypervolume")] == [0.1, 0.2]


# --- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_of_mlflow_shows_on_the_terminal_or_stays_in_the_environment(tmp_path):
    program = """
import os, sys
from pathlib import Path
from cosearch.front import Front, Objective
from cosearch.track import Tracker, locate
before = dict(os.environ)
assert "mlflow" not in sys.modules, "importing cosearch.track must be quick"
tracker = Tracker.open(locate(Path(sys.argv[1])), experiment="x", name="y", parameters={"a": 1})
tracker.progress(1, {"hypervolume": 0.5})
tracker.finish(Front((Objective("accuracy", "max"),), ()))
assert dict(os.environ) == before
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"], "MLflow wrote into the current directory"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mlartifacts", "mlflow.db"]


def test_settings_that_the_user_made_are_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with quiet():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
