"""The shipped spaces, the schema, and what a space tells people."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from cosearch.errors import SpecError, UserError
from cosearch.hardware import TEMPLATES, build, estimate, fits, technology
from cosearch.space import build_space, explain, load_space, shipped_spaces, space_schema
from cosearch.space.accelerator import AcceleratorSide
from cosearch.spec import TaskShape
from cosearch.workload import workload
from cosearch.yamlfile import read_yaml

DIGITS = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
SPACES = {
    "vit_digits_systolic": DIGITS,
    "vit_cifar_systolic": TaskShape(image=(32, 32), channels=3, classes=100),
    "vit_digits_memories": DIGITS,
    "vit_digits_wide": DIGITS,
    "vit_digits_gemmini": DIGITS,
    "vit_digits_microcontroller": DIGITS,
    "deit_tiny_edge": TaskShape(image=(224, 224), channels=3, classes=1000),
    "deit_tiny_fpga": TaskShape(image=(224, 224), channels=3, classes=1000),
}


def small(constraints=(), **model):
    array = {"rows": {"int": [4, 64], "log": 2}, "cols": 16, "dataflow": "ws", "ifmap_kib": 64, "filter_kib": 64}
    array |= {"ofmap_kib": 64, "dram_bytes_per_s": 10**9, "clock_hz": 10**8}
    fixed = {
        "patch": 4,
        "dim": {"choice": [16, 24]},
        "depth": {"int": [1, 3]},
        "heads": {"choice": [2, 3]},
        "mlp_ratio": 2,
    }
    data = {
        "cosearch": "space/1",
        "name": "small",
        "model": {"template": "vit", **fixed, **model},
        "accelerator": {"template": "systolic", **array},
        "constraints": list(constraints),
    }
    return build_space(data, "small.yaml", DIGITS, TEMPLATES)


def starved(*, rows, ifmap_kib, **others):
    if rows == 64:
        raise SpecError("ifmap_kib", f"is {ifmap_kib}, but the array is hungry", "feed it")


POINT = {"model.dim": 24, "model.depth": 3, "model.heads": 2, "accelerator.rows": 64}


def test_all_shipped_spaces_are_tested():
    assert {path.stem for path in shipped_spaces()} == set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_shipped_spaces_load_and_build(name):
    space, rng = load_space(name, SPACES[name]), np.random.default_rng(1)
    assert space.name == name
    assert space.description
    costed = 0
    for _ in range(50):
        candidate = space.decode(space.sample(rng))
        accelerator, load = build(candidate.accelerator), workload(candidate.model)
        if not fits(load, accelerator):
            assert estimate(load, accelerator, technology("horowitz_45nm")).latency_s > 0
            costed += 1
    assert costed >= 10, "most of the space does not fit its device"


@pytest.mark.parametrize("path", shipped_spaces(), ids=lambda path: path.stem)
def test_shipped_spaces_follow_the_schema(path):
    schema = space_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    content = read_yaml(path, "space file")
    assert list(validator.iter_errors(content)) == []
    content["model"]["dimm"] = 3
    assert list(validator.iter_errors(content))
    assert path.read_text().startswith("# yaml-language-server: $schema=space-1.schema.json\n")


def test_the_committed_schema_is_current():
    committed = shipped_spaces()[0].parent / "space-1.schema.json"
    assert json.loads(committed.read_text()) == space_schema(), "write it anew from cosearch.space.space_schema()"
    assert space_schema()["$id"] == "urn:cosearch:space:1"


def test_every_field_is_described_for_editors():
    for name, definition in space_schema()["$defs"].items():
        for field, content in definition["properties"].items():
            assert content.get("title"), f"{name}.{field} has no title"
            assert content.get("description"), f"{name}.{field} has no description"


def test_a_name_is_looked_up_in_the_project_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spaces").mkdir()
    content = yaml.safe_load(shipped_spaces()[0].read_text())
    Path("spaces/vit_digits_systolic.yaml").write_text(yaml.safe_dump(content | {"name": "ours"}))
    space = load_space("vit_digits_systolic", SPACES["deit_tiny_edge"])
    assert (space.name, space.file) == ("ours", "spaces/vit_digits_systolic.yaml")
    Path("elsewhere.yml").write_text(yaml.safe_dump(content))
    assert load_space("elsewhere.yml", SPACES["deit_tiny_edge"]).name == "deit_tiny_edge"


def test_explain_names_the_constraint_the_values_and_the_distance():
    why = {"that": "accelerator.rows * accelerator.cols <= 512", "why": "the die is small"}
    space = small([why, "model.dim % model.heads == 0"])
    assert explain(space, POINT) == (
        "broken: accelerator.rows * accelerator.cols <= 512\n"
        "  why it is there: the die is small\n"
        "  accelerator.cols = 16\n"
        "  accelerator.rows = 64\n"
        "  missed by 100.0%\n"
        "  stands in small.yaml: constraints[0].that"
    )
    assert explain(space, POINT | {"accelerator.rows": 32}) == (
        "valid: the point breaks none of the 2 constraints of small"
    )


def test_what_cannot_exist_is_a_violation_not_an_exception():
    space = small()
    broken = POINT | {"model.dim": 16, "model.heads": 3}
    (violation,) = space.violations(broken)
    assert violation.limit == "model.blocks[0].heads is 3, which does not divide dim 16"
    assert explain(space, broken) == f"broken: {violation.limit}"
    with pytest.raises(SpecError, match=r"model\.blocks\[0\]\.heads"):
        space.decode(broken)


def test_an_array_that_its_scratchpads_cannot_feed_is_a_violation():
    side = small().side("accelerator")
    wide = AcceleratorSide("systolic", starved, tuple(side.fields.values()), (), {})
    (violation,) = wide.violations(POINT)
    assert violation.limit == "accelerator.ifmap_kib is 64, but the array is hungry"


def test_constraints_that_cannot_be_computed_are_violations():
    space = small(["model.dim % (model.heads - 2) == 0 or model.heads == 2", "model.macs / (model.depth - 1) > 0"])
    limits = [violation.limit for violation in space.violations(POINT | {"model.depth": 1})]
    assert limits == [
        "model.dim % (model.heads - 2) == 0 or model.heads == 2 (cannot be computed: integer modulo by zero)",
        "model.macs / (model.depth - 1) > 0 (cannot be computed: division by zero)",
    ]


def test_constraints_see_what_the_model_costs():
    space = small(["model.macs <= 100_000", "model.weight_bytes * 0 == 0", "model.tokens == 16"])
    (violation,) = space.violations(POINT)
    macs = workload(space.model(POINT)).macs
    assert violation.limit == "model.macs <= 100_000"
    assert violation.excess == pytest.approx(macs / 100_000 - 1)


def test_each_side_checks_only_what_it_can_see():
    space = small(["model.depth <= 2", "accelerator.rows <= 32", "model.depth * accelerator.rows <= 64"])
    assert [v.limit for v in space.side("model").violations(POINT)] == ["model.depth <= 2"]
    assert [v.limit for v in space.side("accelerator").violations(POINT)] == ["accelerator.rows <= 32"]
    assert len(space.violations(POINT)) == 3
    with pytest.raises(UserError, match="no side 'modle'"):
        space.side("modle")


def test_conditions_that_cannot_be_computed_are_violations():
    condition = {"choice": [4, 8], "when": "1 / (model.depth - 2) > 0", "otherwise": 8}
    space = small(edge_bits=condition)
    (violation,) = space.violations(POINT | {"model.depth": 2})
    assert violation.limit == (
        "model.edge_bits exists when 1 / (model.depth - 2) > 0 (cannot be computed: division by zero)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.dim": 20}, "model.dim is 20, which its domain lacks; it takes one of 16, 24"),
        ({"model.dim": [16]}, r"model.dim is \[16\], which its domain lacks"),
        (
            {"accelerator.rows": None},
            "the point gives no value for accelerator.rows; it takes whole numbers from 4 to 64",
        ),
        ({"model.dmi": 16}, "the point gives model.dmi, which the space small lacks; did you mean 'model.dim'"),
    ],
)
def test_points_from_elsewhere_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        small().decode(POINT | change)


def test_candidates_from_elsewhere_are_refused():
    space, other = small(), small(depth=4)
    model = other.decode({name: value for name, value in POINT.items() if name != "model.depth"})
    with pytest.raises(UserError, match=r"model\.depth is 4, which its domain lacks"):
        space.encode(model)
    with pytest.raises(UserError, match="its edge_bits cannot be 8 there"):
        space.encode(small(edge_bits=8).decode(POINT))


def test_sampling_gives_up_and_says_what_stood_in_the_way():
    fields = tuple(small().side("accelerator").fields.values())
    both = small(["accelerator.rows > 4"]).constraints
    both += small(["accelerator.rows < 8"]).constraints
    side = AcceleratorSide("systolic", TEMPLATES["systolic"], fields, both, {})
    message = (
        r"^no valid point among 2000 random ones; 'accelerator\.rows < 8' alone rejects 1\d\d\d of them: loosen it"
    )
    with pytest.raises(UserError, match=message):
        side.sample(np.random.default_rng(0))


def test_wrong_arrays_are_refused():
    space = small()
    with pytest.raises(UserError, match="has 4 parameters, but the array has shape"):
        space.from_unit(np.zeros(3))
    with pytest.raises(UserError, match="NaN"):
        space.from_unit(np.full(4, np.nan))
