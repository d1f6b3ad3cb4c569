import json
from pathlib import Path

import pytest

from cosearch.runfile import find_run_file, load_run_file, parse_limit, run_schema

ROOT = Path(__file__).parents[2]


def test_the_committed_schema_is_current():
    """Write it anew with: make schemas."""
    committed = json.loads((ROOT / "runs" / "run-1.schema.json").read_text())
    assert committed == run_schema()


def test_the_shipped_run_file_fits_its_schema():
    import jsonschema
    import yaml

    jsonschema.validate(yaml.safe_load((ROOT / "runs" / "quickstart.yaml").read_text()), run_schema())


def test_quickstart_is_found_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    loaded = load_run_file(find_run_file("quickstart"))
    assert loaded.file.search.trainings >= 40
    assert loaded.file.baseline.sampler == "random"


def test_the_command_line_takes_precedence():
    changes = {"seed": 7, "search.trainings": 3, "pool.workers": 0}
    file = load_run_file(find_run_file(str(ROOT / "runs" / "quickstart.yaml")), changes).file
    assert (file.seed, file.search.trainings, file.pool.workers) == (7, 3, 0)


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [("area_mm2 <= 4", 5.0, 0.25), ("area_mm2 <= 4", 4.0, 0.0), ("accuracy >= 0.8", 0.6, 0.25), ("x >= -2", -3, 0.5)],
)
def test_a_limit_says_by_how_much_it_is_broken(text, value, excess):
    assert parse_limit(text).excess(value) == pytest.approx(excess)


@pytest.mark.parametrize("text", ["area < 4", "4 >= area", "area <= four", "area <=", "<= 4", "area <= 1.2.3"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match="metric <= number"):
        parse_limit(text)
