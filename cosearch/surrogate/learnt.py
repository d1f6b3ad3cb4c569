"""A surrogate: what it predicts, where it may be trusted, and how it is kept in a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import FileError, StoreError
from cosearch.spec import Candidate
from cosearch.surrogate.features import Encoding, features
from cosearch.surrogate.regress import Kernel, nearest
from cosearch.trees import Trees

__all__ = ["COVERAGE", "FILE", "MetricReport", "Prediction", "Report", "Surrogate", "Target"]

Floats = NDArray[np.float64]
Kind = Literal["trees", "kernel", "blend"]

FORMAT = "cosearch surrogate/1"

FILE = "surrogate.npz"
"""Name of the file in a run's folder that its surrogate is kept in."""

COVERAGE = 0.9
"""Share of new candidates whose true value is meant to lie in the interval."""


class Prediction(NamedTuple):
    """What a surrogate says of candidates; arrays have shape (candidates,).

    Attributes:
        values: by metric; not a number where a candidate is outside the range.
        low: lower end of the interval, likewise.
        high: upper end, likewise.
        inside: whether each candidate lies inside the range that was learnt.
        why: for each, in what it lies outside; empty where it does not.
    """

    values: Mapping[str, Floats]
    low: Mapping[str, Floats]
    high: Mapping[str, Floats]
    inside: NDArray[np.bool_]
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReport:
    """Errors on candidates that were held out, those inside the range.

    Errors are relative to the true value where the metric was learnt as a logarithm, in its unit otherwise.

    Attributes:
        kind: what predicts it.
        relative: whether errors are relative.
        median: half of the held-out candidates have a smaller error.
        q90: nine in ten have.
        q95: nineteen in twenty have.
        worst: the largest.
        coverage: share of true values inside their intervals, which are meant to hold `COVERAGE`.
        rho: Spearman's rank correlation of prediction and truth; 0 where the truth never changes.
    """

    kind: str
    relative: bool
    median: float
    q90: float
    q95: float
    worst: float
    coverage: float
    rho: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How well a surrogate does.

    Attributes:
        learnt: pairs that the surrogate was fitted to.
        held_out: pairs that a surrogate fitted to the others was judged on; whole models where there are ten or more.
        inside: share of them inside the range.
        metrics: by name.
    """

    learnt: int
    held_out: int
    inside: float
    metrics: Mapping[str, MetricReport]

    def text(self) -> str:
        """Returns the report as a Markdown table."""
        lines = [
            f"Learnt from {self.learnt} pairs; judged on {self.held_out} that were held out: {self.inside:.0%} of them "
            "lie inside the learnt range.",
            "",
            f"| metric | by | median error | 90 % | 95 % | worst | in the {COVERAGE:.0%} interval | Spearman |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, m in self.metrics.items():
            errors = (f"{100 * e:.1f} %" if m.relative else f"{e:.3g}" for e in (m.median, m.q90, m.q95, m.worst))
            lines.append(f"| {name} | {m.kind} | {' | '.join(errors)} | {m.coverage:.0%} | {m.rho:.3f} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """How one metric is predicted.

    Attributes:
        kind: ``trees``, ``kernel``, or ``blend``, the mean of both.
        log: whether its logarithm is what is predicted.
        centre: mean of what is predicted, which the regressions see as 0.
        spread: its standard deviation, which they see as 1.
        width: half of the interval, in that unit.
        trees: where they take part.
        kernel: likewise.
    """

    kind: Kind
    log: bool
    centre: float
    spread: float
    width: float
    trees: Trees | None
    kernel: Kernel | None

    def standardised(self, x: Floats) -> Floats:
        """Returns predictions of rows ``x`` as the regressions see them, shape (rows,)."""
        parts = [part.predict(x) for part in (self.trees, self.kernel) if part is not None]
        return parts[0] if len(parts) == 1 else 0.5 * (parts[0] + parts[1])

    def unit(self, values: Floats) -> Floats:
        """Returns standardised ``values`` in the metric's unit."""
        raw = self.centre + self.spread * values
        return np.exp(raw) if self.log else raw


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surrogate:
    """A fast model of a slow evaluator.

    Attributes:
        pair: whether it looks at the accelerator, or at the model alone.
        encoding: how it sees candidates, and what range it learnt.
        rows: the learnt rows, shape (learnt, columns).
        reach: a candidate farther than this from every learnt row is outside.
        targets: by metric.
        report: how well it does.
    """

    pair: bool
    encoding: Encoding
    rows: Floats
    reach: float
    targets: Mapping[str, Target]
    report: Report

    def predict(self, candidates: Sequence[Candidate]) -> Prediction:
        """Returns value and interval of each metric for each candidate, and whether the candidate is in range."""
        rows = [features(candidate, pair=self.pair) for candidate in candidates]
        why = [self.encoding.outside(row) for row in rows]
        inside = np.array([not text for text in why], dtype=np.bool_)
        found = np.flatnonzero(inside)
        x = self.encoding.encode([rows[i] for i in found]) if found.size else np.zeros((0, self.rows.shape[1]))
        distance = nearest(x, self.rows) if found.size else np.zeros(0)
        for position, far in zip(found, distance, strict=True):
            if far > self.reach:
                why[position] = f"{far:.3g} from the nearest learnt pair, but those lie at most {self.reach:.3g} apart"
        near = distance <= self.reach
        inside[found[~near]] = False
        values, low, high = ({name: np.full(len(rows), np.nan) for name in self.targets} for _ in range(3))
        for name, target in self.targets.items():
            middle = target.standardised(x[near])
            for out, shift in ((values, 0.0), (low, -target.width), (high, target.width)):
                out[name][found[near]] = target.unit(middle + shift)
        return Prediction(values, low, high, inside, tuple(why))

    def save(self, path: Path) -> None:
        """Writes the surrogate to ``path``: numpy arrays and a JSON text, nothing that runs when it is read.

        Raises:
            StoreError: it cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {"rows": self.rows}
        targets = {}
        for name, target in self.targets.items():
            targets[name] = {key: getattr(target, key) for key in ("kind", "log", "centre", "spread", "width")}
            for part in (target.trees, target.kernel):
                if part is not None:
                    kind = type(part).__name__.lower()
                    arrays |= {f"{name}.{kind}.{f.name}": getattr(part, f.name) for f in dataclasses.fields(part)}
        about = {
            "format": FORMAT,
            "pair": self.pair,
            "reach": self.reach,
            "encoding": dataclasses.asdict(self.encoding),
            "targets": targets,
            "report": dataclasses.asdict(self.report),
        }
        arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), dtype=np.uint8)
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
            partial.replace(path)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error.strerror or error}; mend that, and fit again"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Surrogate:
        """Returns the surrogate in ``path``.

        Raises:
            FileError: it cannot be read, or is no surrogate.
        """
        remedy = "write it with 'cosearch surrogate fit RUN'"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays["about"].tobytes())
            if about.get("format") != FORMAT:
                problem = f"is {about.get('format')!r}, but this cosearch reads {FORMAT!r}"
                raise FileError(str(path), "format", problem, remedy)
            return cls(
                pair=about["pair"],
                encoding=_encoding(about["encoding"]),
                rows=arrays["rows"],
                reach=about["reach"],
                targets={name: _target(name, data, arrays) for name, data in about["targets"].items()},
                report=_report(about["report"]),
            )
        except FileNotFoundError as error:
            raise FileError(str(path), "", "does not exist", remedy) from error
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
            raise FileError(str(path), "", f"is no surrogate ({error})", remedy) from error


def _encoding(data: Mapping[str, Any]) -> Encoding:
    plain = {name: tuple(values) for name, values in data.items() if name != "names"}
    return Encoding(names=tuple((name, tuple(words)) for name, words in data["names"]), **plain)


def _target(name: str, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Target:
    def part(cls: type[Any]) -> Any:
        start = f"{name}.{cls.__name__.lower()}."
        found = {key.removeprefix(start): values for key, values in arrays.items() if key.startswith(start)}
        return cls(**found) if found else None

    return Target(trees=part(Trees), kernel=part(Kernel), **data)


def _report(data: Mapping[str, Any]) -> Report:
    metrics = {name: MetricReport(**found) for name, found in data["metrics"].items()}
    return Report(metrics=metrics, **{name: data[name] for name in ("learnt", "held_out", "inside")})
