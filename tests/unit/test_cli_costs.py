"""``cosearch estimate``, ``validate``, ``reference`` and ``surrogate``, as they are typed."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from cosearch.cli import main
from cosearch.hardware import TEMPLATES
from cosearch.validation import VALIDATIONS

PUBLISHED = Path(__file__).parent.parent / "published"
SMALL = ["--depth", "1", "--image", "32", "--patch", "16", "--dim", "32", "--heads", "2", "--classes", "4"]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Returns exit code, standard output and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["cosearch", *words])
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    out = capsys.readouterr()
    return code, out.out, " ".join(out.err.split())


SETTINGS = {
    "fpga": ["device=zcu102", "style=temporal", "clock_hz=2e8"],
    "microcontroller": ["device=stm32h743", "clock_hz=480e6"],
    "roofline": ["device=h100_sxm"],
}


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_template_can_be_estimated(
    template: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for setting in SETTINGS.get(template, []) for word in ("--set", setting)]
    code, out, _ = run(monkeypatch, capsys, "estimate", *SMALL, "--template", template, *settings)
    assert code == 0
    assert "In all, for one image" in out
    assert "How far to trust it" in out


def test_estimate_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(monkeypatch, capsys, "estimate", *SMALL, "--json")
    data = json.loads(out)
    assert data["technology"] == "horowitz_45nm"
    assert data["trust"]
    parts = ("compute_cycles", "vector_cycles", "stall_cycles")
    assert sum(op[part] for op in data["operators"] for part in parts) == data["cycles"]


def test_settings_reach_the_template(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain = json.loads(run(monkeypatch, capsys, "estimate", *SMALL, "--json")[1])
    kept = json.loads(run(monkeypatch, capsys, "estimate", *SMALL, "--json", "--set", "activation_kib=512")[1])
    assert kept["dram_bytes"] < plain["dram_bytes"]


def test_formats_and_sparsity(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--weight-format", "mxint8", "--activation-format", "mxint8", "--set", "pe_kind=mx_integer"]
    assert "mxint8/mxint8" in run(monkeypatch, capsys, "estimate", *SMALL, *words)[1]
    words = ["--weight-sparsity", "2:4", "--set", "sparsity=2:4"]
    assert "8/8 2:4" in run(monkeypatch, capsys, "estimate", *SMALL, *words)[1]


def test_a_module_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = tmp_path / "nets.py"
    net.write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))\n")
    code, out, _ = run(monkeypatch, capsys, "estimate", "--model", f"{net}:make", "--image", "8")
    assert code == 0
    assert "1x192x10" in out
    code, _, error = run(monkeypatch, capsys, "estimate", "--model", f"{net}:mak", "--image", "8")
    assert code == 2
    assert "did you mean 'make'" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--set", "rows"], "--set is 'rows'; write NAME=VALUE, such as mapping=search"),
        (["--set", "rows=0"], "rows is 0, but a systolic array has 1 to 4096 rows; write 1 to 4096"),
        (["--set", "rowz=1"], "rowz is not a parameter of 'systolic'; did you mean 'rows'?"),
        (["--template", "systolik"], "template is 'systolik', which is unknown; did you mean 'systolic'?"),
        (["--template", "fpga"], "device is missing from the 'fpga' accelerator, and so are style, clock_hz; add it"),
        (["--buffer-kib", "1", "--rows", "512"], "ifmap_kib is 1, but half of it"),
        (["--technology", "horowitz"], "technology 'horowitz' is unknown; did you mean 'horowitz_45nm'?"),
        (["--weight-format", "mxfp5"], "number format 'mxfp5' is unknown; did you mean 'mxfp4'?"),
        (["--weight-format", "mxfp4"], "stem.proj multiplies int8 by mxfp4, which pe_kind bit_parallel"),
        (["--weight-sparsity", "half"], "--weight-sparsity is 'half'; write N:M, such as 2:4"),
        (["--weight-sparsity", "5:4"], "sparsity is 5:4; write N:M with N of 1 to M"),
        (["--against", "zigzagg"], "no reference is called 'zigzagg'; did you mean 'zigzag'?"),
        (["--template", "gemmini", "--against", "zigzag"], "--against needs a systolic array"),
        (
            [
                *("--template", "microcontroller", "--set", "device=stm32f746", "--set", "clock_hz=216e6"),
                *("--set", "sram_reserve_kib=319"),
            ],
            "the model does not fit the device: sram_bytes <=",
        ),
    ],
)
def test_mistakes_get_one_line(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(monkeypatch, capsys, "estimate", *SMALL, *words)
    assert code == 2
    assert error.startswith("error: ")
    assert text in error


TABLES = {"gemmini": "gemmini_firesim_gemm.csv", "zigzag": "zigzag_3.9.1.csv", "scalesim": "scalesim_v3.csv"}


def few_rows(name: str, tmp_path: Path, count: int = 12) -> Path:
    lines = (PUBLISHED / TABLES[name]).read_text().splitlines()
    step = max(1, (len(lines) - 1) // count)
    path = tmp_path / "few.csv"
    path.write_text("\n".join([lines[0], *lines[1::step]]) + "\n")
    return path


@pytest.mark.parametrize("name", sorted(VALIDATIONS))
def test_validate_reports_every_quantity(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = few_rows(name, tmp_path), tmp_path / "predictions.csv"
    code, printed, _ = run(monkeypatch, capsys, "validate", name, str(table), "--out", str(out), "--json")
    assert code == 0
    report = json.loads(printed)
    with table.open(newline="") as stream:
        given = list(csv.DictReader(stream))
    with out.open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert report["rows"] == len(given) == len(written)
    for quantity in report["quantities"]:
        column = quantity["quantity"]
        errors = [abs(float(row[f"predicted_{column}"]) - float(row[column])) for row in written]
        assert quantity["rows"] == len(errors)
        assert quantity["exact"] == sum(error == 0 for error in errors)
        assert 0 <= quantity["median"] <= quantity["worst"]
    if name != "gemmini":
        assert all(quantity["worst"] < 1e-6 for quantity in report["quantities"])
    else:
        default = next(q for q in report["quantities"] if q["quantity"] == "gemmini_default_cycles_median")
        assert default["mean"] < 0.12
        assert default["spearman"] > 0.98


def test_validate_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(monkeypatch, capsys, "validate", "gemmini", str(few_rows("gemmini", tmp_path)))
    for word in ("median error", "mean error", "worst error", "Spearman", "gemmini_auto_cycles_median"):
        assert word in out


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        ("M,K,N\n1,2,x\n", "gemmini", "rows[0].N is 'x'; write a whole number of at least 1"),
        ("M,K\n1,2\n", "gemmini", "rows[0].N is missing"),
        ("M,K,N\n1,2,3\n", "gemmini", "the table has none of the quantities that are predicted"),
        ("", "gemmini", "the table has no rows"),
        ("M,K,N,rows,cols\n1,2,3,0,4\n", "scalesim", "rows[0].rows is '0'"),
        ("M,K,N\n1,2,3\n", "scalesimm", "no reference is called 'scalesimm'; did you mean 'scalesim'?"),
    ],
)
def test_bad_tables(
    content: str,
    name: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    code, _, error = run(monkeypatch, capsys, "validate", name, str(path))
    assert code == 2
    assert text in error


def test_a_table_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(monkeypatch, capsys, "validate", "gemmini", "none.csv")
    assert code == 2
    assert "none.csv: cannot be read (No such file or directory); give a CSV file" in error


def test_references_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "reference", "list")
    assert code == 0
    for name in ("scalesim", "zigzag", "accelforge"):
        assert name in out
    code, _, error = run(monkeypatch, capsys, "reference", "install", "timeloop")
    assert code == 2
    assert "no reference is called 'timeloop'" in error
