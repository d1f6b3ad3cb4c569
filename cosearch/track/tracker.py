"""One search as MLflow runs: the search as the parent, members of its front as children."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosearch.errors import TrackingError
from cosearch.front import Front, Member
from cosearch.track.location import Location, explain, probe, quiet
from cosearch.track.records import environment, finite, flat, key, member_parameters, shortened, spread, table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MEMBERS", "PARENT", "Tracker", "log_batches", "log_run"]

MEMBERS = 100
"""Front members that get a run of their own; the table and the JSON hold all of them."""

EVERY_S = 1.0
"""Seconds between two writes of step metrics; points in between wait and go together."""

PATIENCE_S = 60.0
"""Seconds before a store that failed is tried again, so that an outage does not slow the search down."""

TABLE = "front_table.json"
PARENT = "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open on runs and charts instead of language-model traces."""

CANDIDATE, STOPPED, SHOWN = "cosearch.candidate", "cosearch.stopped", "cosearch.members"


class Tracker:
    """Writes one search to MLflow; made by `Tracker.open`.

    Only `open` raises. The other methods return a warning for the user the first time MLflow fails, and go on; step
    metrics that could not be written are kept and sent once it answers again.
    """

    def __init__(
        self,
        client: MlflowClient,
        location: Location,
        run: Run,
        logged: Mapping[str, int],
        clock: Callable[[], float],
    ) -> None:
        self._client, self._location, self._clock = client, location, clock
        self._run_id, self._experiment_id = str(run.info.run_id), str(run.info.experiment_id)
        self._logged = dict(logged)  # last step written, by metric
        self._pending: dict[tuple[str, int], tuple[float, int]] = {}  # (metric, step): value, time in milliseconds
        self._next = clock()
        self._warned = False

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        files: Sequence[Path] = (),
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Tracker:
        """Returns a tracker with its MLflow run started, or taken up again.

        Args:
            location: where to write (`locate`).
            experiment: the experiment's name; made where it does not exist.
            name: the run's name.
            parameters: what the search was asked for, nested as in the run file; written flat, long values cut.
            files: the run file, the space file: kept as they are, under ``inputs``.
            tags: further tags; MLflow adds user, source and git commit itself.
            run_id: the run to go on with. A new one is begun where the store does not have it (any more).
            clock: seconds, from any start.

        Raises:
            TrackingError: the store cannot be reached or written; found out within seconds.
        """
        with quiet():
            probe(location)
            try:
                from mlflow import MlflowClient

                client = MlflowClient(tracking_uri=location.uri)
                run = _reopened(client, run_id) if run_id else None
                if run is None:
                    run = _begun(client, _experiment(client, location, experiment), name, tags)
                _describe(client, run, parameters, files)
                return cls(client, location, run, _last_steps(client, run), clock)
            except Exception as error:  # whatever MLflow, its database driver or the network raise
                raise explain(location, error) from error

    @property
    def run_id(self) -> str:
        """MLflow's id of the search's run; keep it to go on with the run later."""
        return self._run_id

    @property
    def url(self) -> str | None:
        """The run's page, where the store is a server."""
        page = f"#/experiments/{self._experiment_id}/runs/{self._run_id}"
        return f"{self._location.text.rstrip('/')}/{page}" if self._location.is_server else None

    def progress(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Writes step metrics, such as hypervolume and front size; at most once a second, the rest follows later.

        A step that an earlier session wrote is not written again.

        Args:
            step: models trained so far.
            metrics: by name; values that are no finite numbers are left out.

        Returns:
            A warning, the first time that MLflow fails.
        """
        stamp = int(time.time() * 1000)
        for name, value in finite(metrics).items():
            if step > self._logged.get(name, -1):
                self._pending[name, step] = value, stamp
        return None if self._clock() < self._next else self._attempt(self._send)

    def finish(
        self, front: Front, *, files: Sequence[Path] = (), metrics: Mapping[str, float] | None = None
    ) -> str | None:
        """Writes what the search found and ends the run.

        Calling it again, after the search went on, replaces the front: no member appears twice, and one that has left
        the front goes to MLflow's bin.

        Args:
            front: the non-dominated candidates; written as a table, and each (up to `MEMBERS`) as a child run.
            files: the front's page and its JSON, as the run folder holds them.
            metrics: closing figures, written once, without a step.

        Returns:
            A warning, if MLflow fails. What is in the run folder is not touched.
        """

        def write() -> None:
            self._send()
            for file in files:
                self._client.log_artifact(self._run_id, str(file))
            self._write_table(front)
            self._write_members(front)
            self._batch(self._run_id, metrics=[(name, v, 0, 0) for name, v in finite(metrics or {}).items()])
            self._client.set_terminated(self._run_id, "FINISHED")

        return self._attempt(write, last=True)

    def abort(self, reason: str, *, failed: bool = False) -> str | None:
        """Ends the run before the search did.

        Args:
            reason: why, for the tag ``cosearch.stopped``.
            failed: whether an error stopped it; otherwise the user did.

        Returns:
            A warning, if MLflow fails.
        """

        def write() -> None:
            self._send()
            self._client.set_tag(self._run_id, STOPPED, shortened(reason))
            self._client.set_terminated(self._run_id, "FAILED" if failed else "KILLED")

        return self._attempt(write, last=True)

    def _attempt(self, action: Callable[[], None], *, last: bool = False) -> str | None:
        """Does ``action``; returns a warning if that fails, only once unless it is the ``last``."""
        with quiet():
            try:
                probe(self._location)
                action()
            except Exception as error:  # MLflow must never stop a search, whatever it raises
                self._next = self._clock() + PATIENCE_S
                if self._warned and not last:
                    return None
                self._warned = True
                then = "the run folder holds everything; log it later with --resume" if last else "the search goes on"
                return f"{explain(self._location, error)} ({then})"
        self._next = self._clock() + EVERY_S
        return None

    def _send(self) -> None:
        points = [(name, value, stamp, step) for (name, step), (value, stamp) in self._pending.items()]
        self._batch(self._run_id, metrics=points)
        for name, step in self._pending:
            self._logged[name] = max(step, self._logged.get(name, -1))
        self._pending.clear()

    def _batch(
        self,
        run_id: str,
        *,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        log_batches(self._client, run_id, metrics=metrics, parameters=parameters or {})

    def _write_table(self, front: Front) -> None:
        columns = table(front)
        if TABLE not in {file.path for file in self._client.list_artifacts(self._run_id)}:
            self._client.log_table(self._run_id, columns, TABLE)
            return
        # log_table appends to a table that is there, so a later one takes its place by hand, in the same format
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_dict(self._run_id, {"columns": list(columns), "data": rows}, TABLE)

    def _write_members(self, front: Front) -> None:
        """Makes the child runs equal to the front's members."""
        shown = spread(front.members, MEMBERS)
        wanted = {member.candidate.id: member for member in shown}
        done: set[str] = set()
        for run in self._children():
            candidate = run.data.tags.get(CANDIDATE, "")
            if candidate not in wanted or candidate in done:
                self._client.delete_run(run.info.run_id)
                continue
            done.add(candidate)
            if run.info.status != "FINISHED":  # a process died while it wrote this one
                self._write_member(run.info.run_id, wanted[candidate])
        for candidate, member in wanted.items():
            if candidate not in done:
                tags = {PARENT: self._run_id, CANDIDATE: candidate, "cosearch.model": member.candidate.model.id}
                child = self._client.create_run(self._experiment_id, tags=tags, run_name=candidate)
                self._write_member(child.info.run_id, member)
        self._client.set_tag(self._run_id, SHOWN, f"{len(shown)} of {len(front.members)}")

    def _write_member(self, run_id: str, member: Member) -> None:
        points = [(name, value, 0, 0) for name, value in finite(member.metrics).items()]
        self._batch(run_id, metrics=points, parameters=member_parameters(member))
        self._client.set_terminated(run_id, "FINISHED")

    def _children(self) -> Iterable[Run]:
        found, token = [], None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], f"tags.`{PARENT}` = '{self._run_id}'", max_results=1000, page_token=token
            )
            found += list(page)
            token = page.token
            if not token:
                return found


def log_run(
    location: Location,
    *,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    history: Sequence[tuple[int, Mapping[str, float]]],
    front: Front,
    inputs: Sequence[Path] = (),
    files: Sequence[Path] = (),
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> Tracker:
    """Writes a search that has ended, such as one that ran while MLflow was away; again and again without harm.

    Args:
        location: where to write.
        experiment: the experiment's name.
        name: the run's name.
        parameters: what the search was asked for.
        history: step and step metrics, in order.
        front: what it found.
        inputs: the run file and the space file.
        files: the front's page and its JSON.
        metrics: closing figures.
        tags: further tags.
        run_id: the run to go on with, if there is one.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    tracker = Tracker.open(
        location, experiment=experiment, name=name, parameters=parameters, files=inputs, tags=tags, run_id=run_id
    )
    tracker._next = float("inf")  # all steps in one go, with the front
    for step, values in history:
        tracker.progress(step, values)
    warning = tracker.finish(front, files=files, metrics=metrics)
    if warning:
        raise TrackingError(warning)
    return tracker


def _experiment(client: MlflowClient, location: Location, name: str) -> str:
    """Returns the id of the experiment ``name``, made where it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        folder = None if location.artifacts is None else (location.artifacts / key(name).replace("/", "_")).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=folder, tags=KIND))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another search made it just now
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow's experiment {name!r} at {location.text} is in its bin; get it back with "
            f"'mlflow experiments restore --experiment-id {found.experiment_id}', or write another name under "
            "mlflow.experiment in the run file"
        )
    return str(found.experiment_id)


def _reopened(client: MlflowClient, run_id: str) -> Run | None:
    """Returns the run ``run_id``, running again; ``None`` where the store does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    if run.info.lifecycle_stage == "deleted":
        return None
    client.update_run(run_id, status="RUNNING")
    if STOPPED in run.data.tags:
        client.delete_tag(run_id, STOPPED)
    return run


def _begun(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str] | None) -> Run:
    from mlflow.tracking.context.registry import resolve_tags

    return client.create_run(experiment_id, run_name=name, tags=resolve_tags(dict(tags or {})))


def _describe(client: MlflowClient, run: Run, parameters: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Writes what was asked for and what it runs on; values that changed since the run began become tags."""
    machine = environment()
    wanted = flat({**parameters, "environment": {**machine, "packages": machine["packages"]["cosearch"]}})
    known = run.data.params
    log_batches(client, run.info.run_id, parameters={name: text for name, text in wanted.items() if name not in known})
    for name, text in wanted.items():
        if known.get(name, text) != text:  # MLflow's parameters cannot be changed
            client.set_tag(run.info.run_id, f"changed.{name}"[:250], text)
    client.log_text(run.info.run_id, json.dumps(machine, indent=1) + "\n", "environment.json")
    for file in files:
        client.log_artifact(run.info.run_id, str(file), "inputs")


def _last_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """Returns the last step of each metric that the run has."""
    run_id = run.info.run_id
    return {name: max(m.step for m in client.get_metric_history(run_id, name)) for name in run.data.metrics}


def log_batches(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    parameters: Mapping[str, str],
) -> None:
    """Writes metrics (name, value, time in ms, step) and parameters in as few calls as MLflow's limits allow."""
    from mlflow.entities import Metric, Param

    points = [Metric(name, value, stamp or int(time.time() * 1000), step) for name, value, stamp, step in metrics]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    texts = [Param(name, text) for name, text in parameters.items()]
    for start in range(0, len(texts), 100):
        client.log_batch(run_id, params=texts[start : start + 100])
