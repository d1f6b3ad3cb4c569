"""Options that name files are found from the run file's folder."""

from __future__ import annotations

from pathlib import Path

from cosearch.plugins import EVALUATORS, refer


def test_a_file_beside_the_run_file_gets_its_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").write_bytes(b"x")
    options = {"recipe": {"teacher": "teacher.safetensors", "distill": 0.5, "warm_start": "self"}}
    found = refer(EVALUATORS, "trained", options, tmp_path).options
    assert found["recipe"]["teacher"] == str(tmp_path / "teacher.safetensors")
    assert found["recipe"]["warm_start"] == "self"
    assert options["recipe"]["teacher"] == "teacher.safetensors"


def test_what_is_no_file_there_stays_as_it_is(tmp_path: Path) -> None:
    options = {"recipe": {"teacher": "nowhere.safetensors"}}
    assert refer(EVALUATORS, "trained", options, tmp_path).options == options
    assert refer(EVALUATORS, "trained", {}, tmp_path).options == {}
