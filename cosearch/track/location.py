"""Which MLflow store a search writes to, whether it answers, and talking to it quietly."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cosearch.errors import TrackingError

__all__ = ["Location", "explain", "locate", "probe", "quiet", "ui_command"]

ENVIRONMENT = "MLFLOW_TRACKING_URI"
CONNECT_S = 3.0
"""Seconds to wait for a server to take a connection: what is not there should say so at once."""

ANSWER_S = 10.0
"""Seconds to wait for a server's answer: it may be busy."""

LOCK_S = 2.0
"""Seconds to wait for another process to finish writing to an SQLite file (MLflow itself would wait for 20)."""

_CALM = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(ANSWER_S)),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's own settings while a search talks to it, where the user has not set them: it would retry an unreachable
server for minutes, print links over the progress bar, and report usage to its makers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """An MLflow store.

    Attributes:
        uri: MLflow's tracking URI.
        artifacts: folder for files of experiments that are made here; ``None`` where a server decides.
        source: what named it, for messages: the environment, the run file, or nothing (this project's own store).
    """

    uri: str
    artifacts: Path | None = None
    source: str = ""

    @property
    def is_server(self) -> bool:
        """Whether it is reached over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def text(self) -> str:
        """The URI without a password, for messages."""
        return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", self.uri)


def locate(runs: Path, tracking_uri: str | None = None, environment: Mapping[str, str] | None = None) -> Location:
    """Returns the store to use: the one in ``MLFLOW_TRACKING_URI``, else the run file's, else SQLite under ``runs``.

    Args:
        runs: the folder that holds the runs.
        tracking_uri: what the run file says.
        environment: environment variables; ``os.environ`` when left out.
    """
    named = (os.environ if environment is None else environment).get(ENVIRONMENT)
    source = ENVIRONMENT if named else "the run file" if tracking_uri else ""
    uri = named or tracking_uri or f"sqlite:///{_database(runs)}"
    # a database holds no files; without a folder of ours MLflow would put them into the current directory
    artifacts = runs.resolve() / "mlartifacts" if _is_database(uri) else None
    return Location(uri=uri, artifacts=artifacts, source=source)


def ui_command(runs: Path, port: int = 5000) -> list[str]:
    """Returns the command line that serves this project's own store at ``http://127.0.0.1:PORT``, to this machine only.

    MLflow's queue for language-model jobs stays off: eight processes and half a gigabyte that no search needs.

    Args:
        runs: the folder that holds the runs.
        port: TCP port.
    """
    return [
        *("env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"),
        sys.executable,
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{_database(runs)}"),
        *("--artifacts-destination", (runs.resolve() / "mlartifacts").as_uri()),
    ]


def _database(runs: Path) -> Path:
    return runs.resolve() / "mlflow.db"


def _is_database(uri: str) -> bool:
    return re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:", uri) is not None


def probe(location: Location) -> None:
    """Looks whether a store answers and can be written, within seconds.

    Raises:
        TrackingError: it does not.
    """
    if location.is_server:
        _probe_server(location)
    elif location.uri.startswith("sqlite"):
        _probe_sqlite(location)
    if location.artifacts is not None:
        try:
            location.artifacts.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=location.artifacts).close()
        except OSError as error:
            raise explain(location, error) from error


def _probe_server(location: Location) -> None:
    import requests

    try:
        requests.get(location.uri, timeout=(CONNECT_S, ANSWER_S), stream=True).close()
    except requests.exceptions.SSLError:
        return  # it answers; whether its certificate will do is for MLflow's own settings to say
    except (requests.ConnectionError, requests.Timeout) as error:
        raise explain(location, error) from error
    except requests.RequestException:
        return


def _probe_sqlite(location: Location) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        database = make_url(location.uri).database
        if database and database != ":memory:" and not database.startswith("file:"):
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(location.uri, connect_args={"timeout": LOCK_S}, poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.rollback()
    except (OSError, SQLAlchemyError) as error:
        raise explain(location, error) from error


def explain(location: Location, error: Exception) -> TrackingError:
    """Returns the error that says what is wrong with a store, and what to do, in place of ``error``."""
    if isinstance(error, TrackingError):
        return error
    way_out = {
        ENVIRONMENT: f"unset or change {ENVIRONMENT}",
        "the run file": "change mlflow.tracking_uri in the run file",
    }.get(location.source, f"name another store in {ENVIRONMENT}")
    tail = f"{way_out}, or run with --no-mlflow"
    cause = _cause(error)
    if "database is locked" in cause:
        return TrackingError(
            f"MLflow's store {location.text} is locked by another process; end whatever is writing to it, {tail}"
        )
    if re.search("refused|timed out|unreachable|resolve|Max retries|Connection aborted|Errno 11[013]", cause):
        return TrackingError(
            f"MLflow at {location.text} cannot be reached ({_brief(cause)}); start it (this project's own store: "
            f"cosearch ui), {tail}"
        )
    if isinstance(error, OSError) or re.search("readonly|unable to open|disk I/O|disk is full|Errno", cause):
        return TrackingError(
            f"MLflow's store {location.text} cannot be written ({_brief(cause)}); allow writing there, {tail}"
        )
    return TrackingError(f"MLflow at {location.text} refuses: {_brief(cause)}; mend that, {tail}")


def _cause(error: BaseException) -> str:
    """Returns the text of the error and of those that it came from."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(texts) < 6:
        texts.append(f"{link}")
        link = link.__cause__ or link.__context__
    return "\n".join(texts)


def _brief(cause: str) -> str:
    """Returns the telling part of a long text in one short line."""
    for sign in (
        "Connection refused",
        "Name or service not known",
        "Temporary failure in name resolution",
        "No route to host",
        "Network is unreachable",
        "timed out",
        "Permission denied",
        "Read-only file system",
        "No space left on device",
        "Not a directory",
        "attempt to write a readonly database",
        "unable to open database file",
    ):
        if sign in cause:
            return sign
    line = next((line.strip() for line in cause.splitlines() if line.strip()), "no reason given")
    return line if len(line) <= 200 else line[:199] + "…"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps MLflow short-tempered and off the terminal: its settings for this process, its logs, its warnings."""
    before = {name: os.environ.get(name) for name in _CALM}
    os.environ.update({name: value for name, value in _CALM.items() if before[name] is None})
    threshold = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
