"""Predictions held against measurements of others, row by row of a table.

Each reference has its table's columns: `validate` reads those that describe a case, predicts the others that it knows,
and says how far prediction and table lie apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cosearch.errors import NotFoundError, SpecError, UserError, did_you_mean
from cosearch.hardware.gemmini import predict_rows as predict_gemmini
from cosearch.hardware.scalesim import scalesim_counts
from cosearch.hardware.scalesim_memory import scalesim_memory
from cosearch.hardware.systolic import SystolicArray
from cosearch.hardware.zigzag import predict_rows as predict_zigzag

__all__ = ["VALIDATIONS", "Agreement", "Validation", "validate"]

Rows = Sequence[Mapping[str, str]]
Figures = Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far predictions of one quantity lie from a table's.

    An error is relative to the table's value; where that is 0, it is 0 if the prediction is 0 too, and 1 if not.

    Attributes:
        quantity: the table's column.
        rows: rows with both a value and a prediction.
        exact: rows where they are equal.
        median: median error.
        mean: mean error.
        worst: greatest error.
        spearman: Spearman's rank correlation; None where it is not defined (fewer than two distinct values).
    """

    quantity: str
    rows: int
    exact: int
    median: float
    mean: float
    worst: float
    spearman: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predictions for a table, and how far they lie from it.

    Attributes:
        reference: whose table it is.
        rows: rows of the table.
        agreements: one for each quantity that the table and the prediction share.
        predictions: for each row, the quantities predicted; empty for a row that cannot be.
    """

    reference: str
    rows: int
    agreements: tuple[Agreement, ...]
    predictions: tuple[Mapping[str, float], ...]


def validate(reference: str, rows: Rows) -> Validation:
    """Returns how far this project's predictions lie from the rows of a table.

    Args:
        reference: one of `VALIDATIONS`.
        rows: the table, each cell as its text.

    Raises:
        NotFoundError: no such reference.
        UserError: the table is empty, or shares no quantity with the predictions.
        SpecError: a cell that describes a case is missing or makes no sense; names row and column.
    """
    if reference not in VALIDATIONS:
        raise NotFoundError(f"no reference is called {reference!r}; {did_you_mean(reference, VALIDATIONS)}")
    if not rows:
        raise UserError("the table has no rows; give one with the columns of the reference")
    predictions = tuple(VALIDATIONS[reference](rows))
    names = list(dict.fromkeys(name for found in predictions for name in found))
    agreements = [found for name in names if (found := _agreement(name, rows, predictions))]
    if not agreements:
        raise UserError(
            f"the table has none of the quantities that are predicted ({', '.join(names)}); name its columns so"
        )
    return Validation(reference=reference, rows=len(rows), agreements=tuple(agreements), predictions=predictions)


def _agreement(name: str, rows: Rows, predictions: Figures) -> Agreement | None:
    pairs = [
        (found[name], float(row[name]))
        for row, found in zip(rows, predictions, strict=True)
        if name in found and _is_number(row.get(name))
    ]
    if not pairs:
        return None
    ours, theirs = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    near = np.abs(ours - theirs)
    error = np.where(theirs != 0, near / np.abs(np.where(theirs != 0, theirs, 1.0)), (ours != 0).astype(float))
    return Agreement(
        quantity=name,
        rows=len(pairs),
        exact=int(np.sum(ours == theirs)),
        median=float(np.median(error)),
        mean=float(np.mean(error)),
        worst=float(np.max(error)),
        spearman=_spearman(ours, theirs),
    )


def _spearman(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if np.unique(ours).size < 2 or np.unique(theirs).size < 2:
        return None
    return float(spearmanr(ours, theirs).statistic)


def _is_number(cell: str | None) -> bool:
    try:
        return cell is not None and bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _scalesim(rows: Rows) -> Figures:
    """Returns what SCALE-Sim v3 reports, quirks included: see `cosearch.hardware.scalesim` and `scalesim_memory`."""
    return [_scalesim_row(row, f"rows[{position}]") for position, row in enumerate(rows)]


def _scalesim_row(row: Mapping[str, str], where: str) -> dict[str, float]:
    m, k, n = (_whole(row, name, where) for name in ("M", "K", "N"))
    mode = row.get("bandwidth_mode", "CALC")
    if mode not in ("CALC", "USER"):
        raise SpecError(f"{where}.bandwidth_mode", f"is {mode!r}", "write CALC or USER")
    try:
        array = SystolicArray(
            rows=_whole(row, "rows", where),
            cols=_whole(row, "cols", where),
            dataflow=row.get("dataflow", ""),  # type: ignore[arg-type]  # checked by the template
            ifmap_kib=_whole(row, "ifmap_kb", where),
            filter_kib=_whole(row, "filter_kb", where),
            ofmap_kib=_whole(row, "ofmap_kb", where),
            dram_bytes_per_s=1e9,
            clock_hz=1e9,
        )
    except SpecError as error:
        raise (
            error if error.field.startswith(where) else SpecError(f"{where}.{error.field}", error.problem, error.remedy)
        ) from None
    words = _whole(row, "bandwidth", where) if mode == "USER" else 10
    counts = scalesim_counts(m, k, n, array)
    memory = scalesim_memory(m, k, n, array, bandwidth=mode, words_per_cycle=words)  # type: ignore[arg-type]
    return {name: float(value) for name, value in {**asdict(counts), **asdict(memory)}.items()} | {
        "total_cycles": float(counts.compute_cycles + memory.stall_cycles)
    }


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    text = row.get(name)
    if text is None:
        raise SpecError(f"{where}.{name}", "is missing", "give every row the columns of the reference")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value >= 1 and value.is_integer()):
        raise SpecError(f"{where}.{name}", f"is {text!r}", "write a whole number of at least 1")
    return int(value)


def _gemmini(rows: Rows) -> Figures:
    return [asdict(found) for found in predict_gemmini(rows)]


VALIDATIONS: Mapping[str, Callable[[Rows], Figures]] = {
    "gemmini": _gemmini,
    "scalesim": _scalesim,
    "zigzag": predict_zigzag,
}
"""References by name, and what predicts the quantities of their tables."""
