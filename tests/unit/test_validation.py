"""Errors against a table, by hand."""

from __future__ import annotations

import pytest

from cosearch.errors import NotFoundError, UserError
from cosearch.hardware.gemmini import predict_rows
from cosearch.validation import validate

NAME = "gemmini_default_cycles_median"
SHAPES = ((4, 256, 256), (196, 1024, 256), (784, 128, 512), (3136, 64, 256))


def table(factors: tuple[float, ...]) -> list[dict[str, str]]:
    """Rows whose measured cycles are the predicted ones times a factor; of factor 0 nothing was measured."""
    rows = [{"M": str(m), "K": str(k), "N": str(n)} for m, k, n in SHAPES[: len(factors)]]
    for row, found, factor in zip(rows, predict_rows(rows), factors, strict=True):
        row[NAME] = repr(found.gemmini_default_cycles_median * factor)
    return rows


def test_errors_are_relative_to_the_table() -> None:
    found = validate("gemmini", table((1.0, 2.0, 0.5, 1.25)))
    only = found.agreements[0]
    assert (only.quantity, only.rows, only.exact) == (NAME, 4, 1)
    # predicted over measured is 1, 1/2, 2 and 4/5: off by 0, 0.5, 1 and 0.2
    assert only.median == pytest.approx(0.35)
    assert only.mean == pytest.approx(1.7 / 4)
    assert only.worst == pytest.approx(1.0)


def test_ranks() -> None:
    assert validate("gemmini", table((1.0, 1.0, 1.0, 1.0))).agreements[0].spearman == pytest.approx(1.0)
    ordered = sorted(table((1.0,) * 4), key=lambda row: float(row[NAME]))
    values = [row[NAME] for row in reversed(ordered)]
    swapped = [row | {NAME: value} for row, value in zip(ordered, values, strict=True)]
    assert validate("gemmini", swapped).agreements[0].spearman == pytest.approx(-1.0)
    assert validate("gemmini", table((1.0,))).agreements[0].spearman is None


def test_a_value_of_zero_is_met_or_missed() -> None:
    assert validate("gemmini", table((0.0, 1.0))).agreements[0].worst == 1.0


def test_cells_without_a_number_do_not_count() -> None:
    rows = table((1.0, 1.0, 1.0))
    rows[1][NAME] = "error"
    found = validate("gemmini", rows)
    assert found.rows == 3
    assert found.agreements[0].rows == 2
    assert len(found.predictions) == 3


def test_a_row_of_an_unknown_architecture_has_no_prediction() -> None:
    row = {
        **{"M": "50", "K": "64", "N": "50", "w_bits": "8", "a_bits": "8", "psum_bits": "16", "opt": "latency"},
        "latency_total2_cycles": "1232",
    }
    found = validate("zigzag", [row | {"arch": "ws16_dbuf"}, row | {"arch": "somebody_elses"}])
    assert found.predictions[1] == {}
    latency = next(one for one in found.agreements if one.quantity == "latency_total2_cycles")
    assert (latency.rows, latency.exact) == (1, 1)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(NotFoundError, match="no reference is called 'gemini'; did you mean 'gemmini'"):
        validate("gemini", table((1.0,)))
    with pytest.raises(UserError, match="the table has no rows"):
        validate("gemmini", [])
    with pytest.raises(UserError, match="none of the quantities"):
        validate("gemmini", [{"M": "1", "K": "1", "N": "1"}])
