from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from cosearch.errors import EnvironmentProblem, EvaluationError, NotFoundError, SpecError
from cosearch.hardware import SystolicArray, scalesim_counts, technology
from cosearch.hardware.zigzag import Product, read_architecture, zigzag_cost
from cosearch.references import (
    REFERENCES,
    Quantity,
    Reference,
    available,
    catalogue,
    install,
    interpreter,
    matrix_products,
    run,
    zigzag_architecture,
)
from cosearch.references.inputs import payload
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, workload

TASK = TaskShape(image=(32, 32), channels=3, classes=10)
PRICES = technology("horowitz_45nm")


def array(**changes) -> SystolicArray:
    fields = {"rows": 8, "cols": 16, "dataflow": "ws", "ifmap_kib": 32, "filter_kib": 64, "ofmap_kib": 16}
    return SystolicArray(**{**fields, "dram_bytes_per_s": 4e9, "clock_hz": 5e8, **changes})


def product(m: int = 20, k: int = 24, n: int = 40, *, count: int = 1, name: str = "p", bits: int = 8) -> Operator:
    return Operator(
        name=name,
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        count=count,
        a_bits=8,
        b_bits=bits,
        out_bits=8,
        inputs=("x", "w"),
        output=name,
    )


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for tool in REFERENCES.values():
        monkeypatch.delenv(tool.variable, raising=False)


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, **changes) -> Reference:
    """Puts a script in the place of ZigZag's driver, and this interpreter in the place of ZigZag's."""
    driver = tmp_path / "driver.py"
    driver.write_text("import json, os, sys, time\ngiven = json.load(sys.stdin)\n" + body)
    quantities = (Quantity(name="compute_cycles", unit="cycles", description="what it says"),)
    fields = {"python": (3, 11), "requirements": (), "driver": driver, "quantities": quantities}
    tool = Reference(name="zigzag", version="0", title="a stand-in", blind="all", **{**fields, **changes})
    monkeypatch.setattr(catalogue, "REFERENCES", {"zigzag": tool})
    monkeypatch.setenv(tool.variable, sys.executable)
    return tool


# what is there, and what is missing


def test_every_tool_says_what_it_needs_and_gives() -> None:
    assert set(REFERENCES) == {"scalesim", "zigzag", "accelforge"}
    for name, tool in REFERENCES.items():
        assert tool.name == name
        assert tool.driver.is_file()
        assert {"compute_cycles", "stall_cycles", "sram_bytes", "dram_bytes"} <= {q.name for q in tool.quantities}
        assert all(q.unit and q.description for q in tool.quantities)
    assert REFERENCES["zigzag"].requirement == "Python 3.11 or newer with zigzag-dse==3.9.1 and six"
    assert REFERENCES["accelforge"].variable == "COSEARCH_ACCELFORGE_PYTHON"


def test_an_unknown_tool_leads_nowhere() -> None:
    with pytest.raises(NotFoundError, match=r"^no reference is called 'zigzga'; did you mean 'zigzag'\?"):
        interpreter("zigzga")


@pytest.mark.parametrize("name", REFERENCES)
def test_a_tool_that_is_not_installed_says_the_command(name: str) -> None:
    assert not available(name)
    with pytest.raises(EnvironmentProblem) as caught:
        run(name, [product()], array())
    tool = REFERENCES[name]
    assert str(caught.value) == (
        f"{name} is not installed; run: cosearch reference install {name} "
        f"(or set {tool.variable} to a Python that has it: {tool.requirement})"
    )


def test_a_variable_that_names_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSEARCH_ZIGZAG_PYTHON", "/nowhere/python")
    with pytest.raises(
        EnvironmentProblem, match=r"^COSEARCH_ZIGZAG_PYTHON names /nowhere/python, which is no file; run:"
    ):
        interpreter("zigzag")


@pytest.mark.parametrize(
    ("requirement", "found"),
    [
        ("no-such-distribution==1.0", "has no no-such-distribution"),
        ("pytest==0.0.1", f"has pytest {pytest.__version__}"),
        ("pytest<1", f"has pytest {pytest.__version__}"),
    ],
)
def test_a_python_that_lacks_something_gets_the_pip_command(monkeypatch, tmp_path, requirement, found) -> None:
    stand_in(monkeypatch, tmp_path, "", requirements=("pytest", requirement))
    assert not available("zigzag")
    with pytest.raises(EnvironmentProblem) as caught:
        interpreter("zigzag")
    assert str(caught.value) == (
        f"{sys.executable} {found}, but zigzag needs {requirement}; "
        f"run: {sys.executable} -m pip install '{requirement}'"
    )


def test_a_python_that_has_everything_is_taken(monkeypatch, tmp_path) -> None:
    stand_in(monkeypatch, tmp_path, "", requirements=("pytest<10000", f"pytest=={pytest.__version__}"))
    assert interpreter("zigzag") == Path(sys.executable)
    assert available("zigzag")


def test_a_python_that_is_too_old_is_refused(monkeypatch, tmp_path) -> None:
    stand_in(monkeypatch, tmp_path, "", python=(3, 99))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(
        EnvironmentProblem, match=rf"is Python {version}, but zigzag needs 3\.99 or newer; set COSEARCH_"
    ):
        interpreter("zigzag")


def test_a_file_that_is_no_python_says_so(monkeypatch, tmp_path) -> None:
    stand_in(monkeypatch, tmp_path, "")
    (tmp_path / "python").write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("COSEARCH_ZIGZAG_PYTHON", str(tmp_path / "python"))
    with pytest.raises(EnvironmentProblem, match=r"python does not answer: broken$"):
        interpreter("zigzag")


# installing


def wheel(place: Path) -> None:
    """Writes a wheel with nothing but a name: cosearch-nothing 1.0."""
    name = "cosearch_nothing-1.0"
    with zipfile.ZipFile(place / f"{name}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: cosearch-nothing\nVersion: 1.0\n")
        file.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{name}.dist-info/RECORD", "")


@pytest.fixture
def only_our_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("only_our_wheel")
def test_installing_makes_an_interpreter_that_is_found(monkeypatch, tmp_path) -> None:
    tool = stand_in(
        monkeypatch, tmp_path, "json.dump([{'compute_cycles': 3}], sys.stdout)", requirements=("cosearch-nothing==1.0",)
    )
    monkeypatch.delenv(tool.variable)
    assert not available("zigzag")
    python = install("zigzag")
    assert python == interpreter("zigzag")
    assert python.is_relative_to(tmp_path / "cache" / "cosearch" / "references" / "zigzag")
    assert run("zigzag", [product()], array()) == [{"compute_cycles": 3.0}]


@pytest.mark.usefixtures("only_our_wheel")
def test_a_failed_installation_leaves_nothing_behind(monkeypatch, tmp_path) -> None:
    stand_in(monkeypatch, tmp_path, "", requirements=("cosearch-nothing==2.0",))
    with pytest.raises(EnvironmentProblem, match=r"^pip cannot install cosearch-nothing==2\.0: ERROR: "):
        install("zigzag")
    assert not (tmp_path / "cache" / "cosearch" / "references" / "zigzag").exists()


def test_without_a_python_new_enough_nothing_is_installed(monkeypatch, tmp_path) -> None:
    stand_in(monkeypatch, tmp_path, "", python=(3, 99))
    with pytest.raises(EnvironmentProblem, match=r"^zigzag needs Python 3\.99 or newer, and none was found on PATH or"):
        install("zigzag")


# running


def test_figures_come_in_order_and_for_all_repetitions(monkeypatch, tmp_path) -> None:
    body = "json.dump([{'compute_cycles': job['sizes']['B']} for job in given['jobs']], sys.stdout)"
    stand_in(monkeypatch, tmp_path, body)
    products = [product(30, count=2), product(10), product(30, name="q"), product(10, bits=4)]
    assert [figures["compute_cycles"] for figures in run("zigzag", products, array())] == [60.0, 10.0, 30.0, 10.0]


def test_the_same_shape_is_asked_for_once(monkeypatch, tmp_path) -> None:
    body = "n = len(given['jobs'])\njson.dump([{'compute_cycles': n}] * n, sys.stdout)"
    stand_in(monkeypatch, tmp_path, body)
    products = [product(name="a"), product(name="b", count=3), product(21)]
    assert [figures["compute_cycles"] for figures in run("zigzag", products, array())] == [2.0, 6.0, 2.0]


def test_no_products_need_no_tool() -> None:
    assert run("scalesim", [], array()) == []


def test_a_vector_operator_is_refused() -> None:
    model = ModelSpec(task=TASK, patch=8, dim=32, blocks=(BlockSpec(heads=2, mlp_hidden=64),))
    operators = workload(model).operators
    products = matrix_products(workload(model))
    assert {operator.kind for operator in products} == {OperatorKind.MATMUL}
    assert sum(operator.macs for operator in products) == workload(model).macs
    with pytest.raises(SpecError, match=r"^products\[\d+\] is .*; give matrix products \(matrix_products\)$"):
        run("zigzag", operators, array())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("print('noise', file=sys.stderr)\nraise SystemExit('out of order')", "zigzag 0 failed:\nnoise\nout of order"),
        ("os._exit(4)", "zigzag 0 failed:\nexit code 4"),
        ("print('Welcome')", "zigzag 0 did not answer:\nWelcome"),
        ("json.dump([], sys.stdout)", "zigzag 0 gave other figures than it should: []"),
        ("json.dump([{'cycles': 1}], sys.stdout)", "zigzag 0 gave other figures than it should: [{'cycles': 1}]"),
    ],
)
def test_a_tool_that_fails_shows_its_last_words(monkeypatch, tmp_path, body: str, text: str) -> None:
    stand_in(monkeypatch, tmp_path, body)
    with pytest.raises(EvaluationError) as caught:
        run("zigzag", [product()], array())
    assert str(caught.value) == text


def test_a_tool_that_hangs_is_ended_with_its_children(monkeypatch, tmp_path) -> None:
    body = (
        "import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(600)"
    )
    stand_in(monkeypatch, tmp_path, body)
    with pytest.raises(EvaluationError, match=r"^zigzag took longer than 3 s; give it fewer or smaller products"):
        run("zigzag", [product()], array(), limit_s=3)
    for pid in (tmp_path / "pids").read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", "it still runs"


def test_its_folder_is_gone_afterwards(monkeypatch, tmp_path) -> None:
    body = (
        f"open({str(tmp_path / 'where')!r}, 'w').write(os.getcwd())\nopen('left.txt', 'w').write('x')\n"
        "json.dump([{'compute_cycles': 1}], sys.stdout)"
    )
    stand_in(monkeypatch, tmp_path, body)
    run("zigzag", [product()], array())
    assert not Path((tmp_path / "where").read_text()).exists()


# what the tools are given


def test_scalesim_gets_config_and_topology() -> None:
    given = payload("scalesim", [product(20, 24, 40), product(7, 8, 9)], array(dataflow="os"), PRICES)
    assert given["topology"] == "Layer,M,N,K,\np0,20,40,24,\np1,7,9,8,\n"
    assert "ArrayHeight : 8\nArrayWidth : 16\n" in given["config"]
    assert "Dataflow : os\n" in given["config"]
    assert "InterfaceBandwidth : USER\n" in given["config"]


@pytest.mark.parametrize(
    ("dataflow", "stays", "rows", "cols"), [("ws", "w", "k", "n"), ("os", "o", "m", "n"), ("is", "i", "k", "m")]
)
def test_zigzag_gets_the_array_in_its_own_files(tmp_path, dataflow, stays, rows, cols) -> None:
    job = payload("zigzag", [product(bits=4)], array(dataflow=dataflow, overlap="double_buffered"), PRICES)["jobs"][0]
    (tmp_path / "a.yaml").write_text(job["architecture"])
    (tmp_path / "m.yaml").write_text(job["mapping"])
    found = read_architecture(tmp_path / "a.yaml", tmp_path / "m.yaml")
    assert [(axis.size, axis.loop) for axis in found.axes] == [(16, cols), (8, rows)]
    memories = {memory.name: memory for memory in found.memories}
    assert memories[f"register_{stays}"].bits == {"w": 2 * 4, "o": 32, "i": 2 * 8}[stays]
    assert [memories[f"sram_{operand}"].bits for operand in "iwo"] == [32 * 8192, 64 * 8192, 16 * 8192]
    assert memories["sram_w"].read_pj == pytest.approx(PRICES.sram.read_pj(64) * memories["sram_w"].ports[0].bits_max)
    assert memories["dram"].ports[0].bits_max == 64  # 4 GB/s at 500 MHz
    assert found.mac_pj == pytest.approx(PRICES.mac_pj(8, 4))
    assert job["sizes"] == {"B": 20, "C": 24, "K": 40}
    assert job["bits"] == {"I": 8, "W": 4, "O": 32, "O_final": 8}


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_full_array_computes_its_folds(dataflow: str) -> None:
    shape = Product(m=32, k=48, n=64, a_bits=8, w_bits=8, psum_bits=32)
    cost = zigzag_cost(shape, zigzag_architecture(array(dataflow=dataflow), PRICES, 8, 8))
    assert cost.compute_cycles == shape.m * shape.k * shape.n / (8 * 16)


@pytest.mark.parametrize(("dataflow", "stays"), [("ws", "weight"), ("os", "output"), ("is", "input")])
def test_accelforge_gets_the_array_in_its_own_terms(dataflow: str, stays: str) -> None:
    job = payload("accelforge", [product(bits=4)], array(dataflow=dataflow), PRICES)["jobs"][0]
    register = job["architecture"].partition("name: Register\n")[2]
    assert f"keep: {stays}" in register.partition("actions")[0]
    assert f"size: {32 * 8192}\n" in job["architecture"]
    assert "throughput: 3.200000e+10" in job["architecture"].partition("input_scratchpad")[0]
    reuse = {"ws": ("input", "output"), "os": ("input", "weight"), "is": ("weight", "output")}[dataflow]
    for side, fanout, tensor in zip(("cols", "rows"), (16, 8), reuse, strict=True):
        assert f"{{name: {side}, fanout: {fanout}, reuse: {tensor}, min_usage: 0}}" in job["architecture"]
    assert "m: 0 <= m < 20\n    k: 0 <= k < 24\n    n: 0 <= n < 40\n" in job["workload"]
    assert '{"I": 8, "W": 4, "O": 8}' in job["workload"]


# the tools themselves, where they are installed

FOUND = {name: str(interpreter(name)) for name in REFERENCES if available(name)}


def restore(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Brings back the interpreter that `nothing_installed` hid."""
    monkeypatch.setenv(REFERENCES[name].variable, FOUND[name])


@pytest.mark.skipif("scalesim" not in FOUND, reason="scalesim is an optional reference and is not installed")
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_scalesim_itself_counts_as_our_closed_forms_say(monkeypatch, dataflow: str) -> None:
    restore(monkeypatch, "scalesim")
    (found,) = run("scalesim", [product()], array(dataflow=dataflow))
    counts = scalesim_counts(20, 24, 40, array(dataflow=dataflow))
    assert found["compute_cycles"] == counts.compute_cycles
    assert found["sram_bytes"] == counts.ifmap_sram_reads + counts.filter_sram_reads + counts.ofmap_sram_writes


@pytest.mark.skipif("zigzag" not in FOUND, reason="zigzag is an optional reference and is not installed")
@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_zigzag_itself_says_what_our_replay_says(monkeypatch, dataflow: str) -> None:
    restore(monkeypatch, "zigzag")
    (found,) = run("zigzag", [product(bits=4)], array(dataflow=dataflow))
    shape = Product(m=20, k=24, n=40, a_bits=8, w_bits=4, psum_bits=32)
    cost = zigzag_cost(shape, zigzag_architecture(array(dataflow=dataflow), PRICES, 8, 4))
    assert found["compute_cycles"] + found["stall_cycles"] == pytest.approx(cost.latency_cycles, rel=1e-9)
    assert found["energy_j"] == pytest.approx(1e-12 * cost.energy_pj, rel=1e-9)


@pytest.mark.skipif("accelforge" not in FOUND, reason="accelforge is an optional reference and is not installed")
def test_accelforge_itself_moves_at_least_each_operand_once(monkeypatch) -> None:
    restore(monkeypatch, "accelforge")
    (found,) = run("accelforge", [product()], array())
    assert found["compute_cycles"] >= 20 * 24 * 40 / (8 * 16) - 0.5
    assert found["dram_bytes"] >= 20 * 24 + 24 * 40 + 20 * 40
    assert found["energy_j"] > 0
