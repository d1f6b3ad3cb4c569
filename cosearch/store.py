"""The durable results of a run: a folder of plain files, written before anything is told.

    runs/NAME/
      run.yaml, space.yaml      what was asked for, as given
      state.json                seed, versions, the MLflow run
      evaluations.jsonl         one line per costly evaluation (a trained model): its metrics, or why it failed
      search.jsonl              one line per told point, in the order of asking; baseline.jsonl likewise
      artifacts/KEY/            files that an evaluation left (weights)
      front.json, front.html    written at the end, and whenever the search stops

A line is one JSON object; it is on disk (fsync) before `Store.record` returns. A torn last line, as a killed process
leaves it, is cut off when the run is opened again. One driver at a time holds the run's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cosearch.errors import NotFoundError, StoreError, did_you_mean

__all__ = ["Evaluation", "Store", "find_run", "list_runs", "read_state", "write_atomically"]

STATE = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one costly evaluation gave.

    Attributes:
        metrics: the numbers; empty where it failed.
        failed: why it failed; empty where it did not.
        seconds: wall time that it took on its worker.
        artifacts: file name to content; kept in files, not in memory, once recorded.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    seconds: float = 0.0
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal into a `StoreError` that names the path and a way out."""
    try:
        yield
    except OSError as error:
        remedy = {
            28: "free some space, then go on with --resume",
            30: "it is on a read-only file system; choose another folder with --runs",
            13: "allow writing there, or choose another folder with --runs",
        }.get(error.errno or 0, "mend that, then go on with --resume")
        raise StoreError(f"{path} cannot be written: {error.strerror or error}; {remedy}") from error


def write_atomically(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader sees the old content or the new, never a part.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    with _disk(path):
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise


class Store:
    """A run's folder, held by one driver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self._told: dict[str, list[str]] = {}
        self._files: dict[str, IO[str]] = {}
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, folder: Path, files: Mapping[str, str], state: Mapping[str, Any]) -> Store:
        """Returns the store of a new run.

        Args:
            folder: must not exist yet.
            files: name to text of the files that say what was asked for.
            state: seed, versions and the like.

        Raises:
            StoreError: the folder exists or cannot be written.
        """
        if folder.exists():
            raise StoreError(
                f"{folder} exists already; choose another --name, or go on with it: --resume {folder.name}"
            )
        with _disk(folder):
            folder.mkdir(parents=True)
        store = cls(folder)
        store._hold()
        for name, text in files.items():
            write_atomically(folder / name, text)
        store.update(**state)
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Returns the store of a run that was begun before, to go on with.

        Raises:
            StoreError: another driver holds it, or its files make no sense.
        """
        store = cls(folder)
        store._hold()
        try:
            store._read()
        except BaseException:
            store.close()
            raise
        return store

    def update(self, **state: Any) -> None:
        """Adds to the run's state."""
        self.state.update(state)
        write_atomically(self.folder / STATE, json.dumps(self.state, indent=1, sort_keys=True) + "\n")

    def record(self, key: str, evaluation: Evaluation) -> None:
        """Makes an evaluation durable. Artifacts are written first, so a recorded line always finds its files."""
        if evaluation.artifacts:
            folder = self.artifacts(key)
            with _disk(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for name, content in evaluation.artifacts.items():
                    partial = folder / f"{name}.partial"
                    with partial.open("wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                    partial.replace(folder / name)
        line: dict[str, Any] = {"key": key, "seconds": round(evaluation.seconds, 3)}
        line |= {"failed": evaluation.failed} if evaluation.failed else {"metrics": dict(evaluation.metrics)}
        self._append("evaluations.jsonl", [json.dumps(line, sort_keys=True)])
        self.evaluations[key] = Evaluation(
            metrics=evaluation.metrics, failed=evaluation.failed, seconds=evaluation.seconds
        )

    def artifacts(self, key: str) -> Path:
        """Returns the folder of an evaluation's files."""
        return self.folder / "artifacts" / key.replace("/", "-")

    def tell(self, leg: str, first: int, lines: Sequence[str]) -> None:
        """Makes told points durable, or, where an earlier session of this run has told them, checks that they agree.

        Args:
            leg: ``search`` or ``baseline``.
            first: index of the first line.
            lines: one JSON text per point.

        Raises:
            StoreError: the run was begun by other code or on other data, so that going on would mix two searches.
        """
        if leg not in self._told:
            self._told[leg] = list(self._lines(f"{leg}.jsonl"))
        before = self._told[leg]
        for offset, line in enumerate(lines):
            index = first + offset
            if index < len(before) and before[index] != line:
                raise StoreError(
                    f"{self.folder}/{leg}.jsonl: line {index + 1} does not agree with what this session found; the run "
                    "was begun with another version of cosearch, its plug-ins or its data: begin a new run instead"
                )
        fresh = list(lines[max(0, len(before) - first) :])
        if fresh:
            self._append(f"{leg}.jsonl", fresh)
            before.extend(fresh)

    def write(self, name: str, text: str) -> Path:
        """Writes a file of the run whole, and returns its path."""
        write_atomically(self.folder / name, text)
        return self.folder / name

    def close(self) -> None:
        """Lets go of the files and the lock."""
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read(self) -> None:
        self.state = read_state(self.folder)
        for line in self._lines("evaluations.jsonl"):
            record = json.loads(line)
            self.evaluations[record["key"]] = Evaluation(
                metrics=record.get("metrics", {}), failed=record.get("failed", ""), seconds=record.get("seconds", 0.0)
            )

    def _hold(self) -> None:
        path = self.folder / "driver.lock"
        with _disk(path):
            lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreError(
                f"{self.folder} is in use by another cosearch; wait for it to end, or stop it, then try again"
            ) from None
        self._lock = lock

    def _append(self, name: str, lines: Sequence[str]) -> None:
        path = self.folder / name
        with _disk(path):
            if name not in self._files:
                self._files[name] = path.open("a", encoding="utf-8")
            file = self._files[name]
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, name: str) -> Iterator[str]:
        path = self.folder / name
        if not path.exists():
            return
        with _disk(path):
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):  # a torn line: the process was killed while it wrote
                os.truncate(path, whole)
        for number, line in enumerate(content[:whole].decode("utf-8").splitlines(), start=1):
            try:
                json.loads(line)
            except json.JSONDecodeError as error:
                raise StoreError(
                    f"{path}: line {number} is not JSON ({error.msg}); restore the file, or begin anew"
                ) from error
            yield line


def read_state(folder: Path) -> dict[str, Any]:
    """Returns a run's state.

    Raises:
        StoreError: there is none that can be read.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(
            f"{folder / STATE} cannot be read ({error}); this is not a whole run: begin a new one"
        ) from error
    return state


def list_runs(runs: Path) -> tuple[str, ...]:
    """Returns the names of the runs under ``runs``, the latest first."""
    found = [path.parent for path in runs.glob(f"*/{STATE}")]
    return tuple(path.name for path in sorted(found, key=lambda p: (p / STATE).stat().st_mtime, reverse=True))


def find_run(runs: Path, name: str) -> Path:
    """Returns the folder of the run called ``name``, or at that path.

    Raises:
        NotFoundError: there is none.
    """
    for folder in (runs / name, Path(name)):
        if (folder / STATE).is_file():
            return folder
    raise NotFoundError(f"no run is called {name!r} under {runs}/; {did_you_mean(name, list_runs(runs))}")
