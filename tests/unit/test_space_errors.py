"""Every kind of mistake in a space file has its own message: file, field, what is wrong, how to mend it."""
# ruff: noqa: E501 - messages stand as users see them

from pathlib import Path

import pytest

from cosearch.errors import FileError, NotFoundError
from cosearch.space import load_space
from cosearch.space.templates import MODEL_RULES
from cosearch.space.vit import DERIVED
from cosearch.spec import TaskShape

TASK = TaskShape(image=(16, 16), channels=1, classes=10)
GOOD = """\
cosearch: space/1
name: edge
model:
  template: vit
  patch: {choice: [2, 4]}
  dim: {int: [32, 96], step: 16}
  depth: {int: [2, 6]}
  heads: {choice: [2, 4]}
  mlp_ratio: 2
  token_method: {choice: [none, prune]}
  stages: 3
  keep: {per: stage, float: [0.4, 1.0], step: 0.1}
  weight_bits: {per: block, int: [2, 8]}
accelerator:
  template: systolic
  rows: {choice: [8, 16]}
  cols: {int: [4, 64], log: 2}
  dataflow: {choice: [ws, os]}
  ifmap_kib: 64
  filter_kib: 64
  ofmap_kib: 64
  dram_bytes_per_s: 1e9
  clock_hz: {float: [1.0e+8, 2e8]}
constraints:
  - model.dim % model.heads == 0
"""

FIELDS = ", ".join(sorted({"template", *(rule.name for rule in MODEL_RULES["vit"])}))
NAMES = ", ".join(sorted({*DERIVED, *(rule.name for rule in MODEL_RULES["vit"])}))

# what stands in the good file, what the user wrote instead, and what they are told
MISTAKES = [
    (
        "dim: {int",
        "dimm: {int",
        "model.dimm is not a field here; did you mean 'dim'? Known: " + FIELDS,
    ),
    ("name: edge\n", "", "name is missing; add it"),
    ("name: edge", "name: 3", "name is 3, but needs a text; write a text"),
    ("cosearch: space/1\n", "", "cosearch is missing; begin the file with 'cosearch: space/1'"),
    ("space/1", "space/9", "cosearch is 'space/9', which this version does not read; write 'cosearch: space/1'"),
    ("template: vit", "template: vitt", "model.template is 'vitt', which is unknown; did you mean 'vit'? Known: vit"),
    (
        "template: systolic",
        "template: systolc",
        "accelerator.template is 'systolc', which is unknown; did you mean 'systolic'? Known: fpga, "
        "fusemax, gemmini, heterogeneous, microcontroller, pim, roofline, systolic, vitcod",
    ),
    ("  template: vit\n", "", "model.template is missing; write one of vit"),
    (
        "choice: [8, 16]",
        "choice: [0, 16]",
        "accelerator.rows.choice[0] is 0, but a systolic array has 1 to 4096 rows; remove it or write 1 to 4096",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows: 0",
        "accelerator.rows is 0, but a systolic array has 1 to 4096 rows; write 1 to 4096",
    ),
    (
        "int: [4, 64], log: 2",
        "int: [0, 64]",
        "accelerator.cols.int[0] is 0, but a systolic array has 1 to 4096 columns; write 1 to 4096",
    ),
    (
        "int: [4, 64], log: 2",
        "int: [4, 9000], log: 2",
        "accelerator.cols.int gives 8192, but a systolic array has 1 to 4096 columns; write 1 to 4096",
    ),
    ("patch: {choice: [2, 4]}", "patch: {choice: []}", "model.patch.choice is empty; list at least one value"),
    (
        "heads: {choice: [2, 4]}",
        "heads: {choice: [2, 4, 2]}",
        "model.heads.choice[2] is 2, as choice[0] is; remove one of the two",
    ),
    ("[32, 96]", "[96, 32]", "model.dim.int goes from 96 down to 32; write [32, 96]"),
    ("step: 16", "step: 0", "model.dim.step is 0, which leads nowhere; write 1 or more"),
    ("step: 0.1", "step: -0.1", "model.keep.step is -0.1, which leads nowhere; write a number above 0"),
    ("log: 2", "log: 1", "accelerator.cols.log is 1, which leads nowhere; write the factor between values, such as 2"),
    (
        "int: [4, 64], log: 2",
        "int: [0, 64], log: 2",
        "accelerator.cols.int[0] is 0, but multiplying from there leads nowhere; start at 1 or more, or leave log out",
    ),
    (
        "[1.0e+8, 2e8]",
        "[0, 2e8], log: true",
        "accelerator.clock_hz.float[0] is 0, but a log scale starts above 0; start above 0, or leave log out",
    ),
    ("[1.0e+8, 2e8]", "[2e8, 1e8]", "accelerator.clock_hz.float goes from 2e+08 down to 1e+08; write [1e+08, 2e+08]"),
    ("[1.0e+8, 2e8]", "[1e8, .inf]", "accelerator.clock_hz.float[1] is inf; write a finite number"),
    (
        "choice: [8, 16]",
        "choice: [8, big]",
        "accelerator.rows.choice[1] is 'big', but needs a whole number; write a whole number",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows: [8, 16]",
        "accelerator.rows is a list; write {choice: [8, 16]} to choose one of its values",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows:",
        "accelerator.rows is empty; write a value, or a mapping with choice, int or float",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows: {values: [8]}",
        "accelerator.rows has no values to choose from; add one of choice, int or float, such as choice: [1, 2]",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows: {choice: [8], int: [1, 2]}",
        "accelerator.rows has both choice and int; keep one of them",
    ),
    (
        "rows: {choice: [8, 16]}",
        "rows: {choice: [8], steps: 2}",
        "accelerator.rows.steps is not a field here; known: choice, otherwise, per, when",
    ),
    ("[32, 96]", "[32, 64, 96]", "model.dim.int has 3 numbers; write two, the least and the largest, such as [4, 64]"),
    ("[32, 96]", "[32, 96.5]", "model.dim.int[1] is 96.5, but needs a whole number; write a whole number"),
    ("log: 2", "log: true", "accelerator.cols.log is True, but needs a whole number; write a whole number"),
    ("log: 2", "log: 2, step: 4", "accelerator.cols has both step and log; keep one of them"),
    (
        "int: [32, 96], step: 16",
        "float: [32, 96]",
        "model.dim.float gives numbers, but needs a whole number; write int instead",
    ),
    (
        "dataflow: {choice: [ws, os]}",
        "dataflow: {int: [1, 2]}",
        "accelerator.dataflow.int gives numbers, but needs a text; list values under choice",
    ),
    (
        "ofmap_kib: 64",
        "ofmap_kib: 64.5",
        "accelerator.ofmap_kib is 64.5, but needs a whole number; write a whole number",
    ),
    (
        "ofmap_kib: 64",
        "ofmap_kib: true",
        "accelerator.ofmap_kib is True, but needs a whole number; write a whole number",
    ),
    ("  ofmap_kib: 64\n", "", "accelerator.ofmap_kib is missing; add it"),
    (
        "model.heads == 0",
        "model.haeds == 0",
        "constraints[0] mentions model.haeds, which does not exist; did you mean 'heads'? Known: " + NAMES,
    ),
    ("model.dim % model.heads", "dim % model.heads", "constraints[0] mentions 'dim' without its side; write model.dim"),
    (
        "model.dim % model.heads == 0",
        "modle.dim > 3",
        "constraints[0] uses 'modle.dim'; only model.* and accelerator.* have fields",
    ),
    (
        "model.dim % model.heads == 0",
        "model.dim.real == 3",
        "constraints[0] uses 'model.dim.real'; only model.* and accelerator.* have fields",
    ),
    (
        "model.dim % model.heads == 0",
        "__import__('os').getcwd() == 0",
        "constraints[0] calls \"__import__('os').getcwd\", which is not a function here; known: abs, all, any, ceil, floor, len, log2, max, min, round, sum",
    ),
    (
        "model.dim % model.heads == 0",
        "'(lambda: 3) == model.dim'",
        "constraints[0] uses a lambda: 'lambda: 3'; write it with arithmetic, comparisons and functions",
    ),
    (
        "model.dim % model.heads == 0",
        "model.dim <",
        "constraints[0] is not an expression: invalid syntax in 'model.dim <'; write it as in Python",
    ),
    ("model.dim % model.heads == 0", "model.dim is 3", "constraints[0] uses is: 'model.dim is 3'; use == or !="),
    (
        "model.dim % model.heads == 0",
        "model.dim & 3 == 0",
        "constraints[0] uses an operator that expressions lack: 'model.dim & 3'; use + - * / // % **",
    ),
    (
        "model.dim % model.heads == 0",
        "1 < 2",
        "constraints[0] (1 < 2) mentions nothing of the candidate; name model.* or accelerator.*",
    ),
    (
        "- model.dim % model.heads == 0",
        "- 3",
        "constraints[0] is 3; write an expression, or {that: an expression, why: the reason}",
    ),
    (
        "- model.dim % model.heads == 0",
        "- {tat: model.dim > 3}",
        "constraints[0].tat is not a field here; did you mean 'that'? Known: that, why",
    ),
    ("- model.dim", "model.dim", "constraints is 'model.dim % model.heads == 0', but needs a list; write a list"),
    (
        "model.dim % model.heads == 0",
        "model.dim > 1000",
        "constraints[0] (model.dim > 1000) is broken by 2000 of 2000 random points, so none is valid; loosen it, or widen the domains it mentions",
    ),
    (
        "model.dim % model.heads == 0",
        "model.weight_bits > 2",
        "constraints[0] (model.weight_bits > 2 (cannot be computed: > needs numbers, not one value per block or stage)) is broken by 2000 of 2000 random points, so none is valid; loosen it, or widen the domains it mentions",
    ),
    (
        "model.dim % model.heads == 0",
        "model.dim % (model.heads - model.heads) == 0",
        "constraints[0] (model.dim % (model.heads - model.heads) == 0 (cannot be computed: integer modulo by zero)) is broken by 2000 of 2000 random points, so none is valid; loosen it, or widen the domains it mentions",
    ),
    ("per: block", "per: layer", "model.weight_bits.per is 'layer', which is unknown; write block or stage"),
    (
        "per: block",
        "per: stage",
        "model.weight_bits.per is stage, but model.weight_bits has one value per block at most; write per: block",
    ),
    ("dim: {int", "dim: {per: block, int", "model.dim.per is block, but model.dim has one value; remove it"),
    (
        "int: [2, 8]}",
        "int: [1, 8]}",
        "model.weight_bits.int[0] is 1, but integers have 2 to 16 bits, and 32 stands for floating point; write 2",
    ),
    (
        "int: [2, 8]}",
        "int: [2, 20]}",
        "model.weight_bits.int gives 17, but integers have 2 to 16 bits, and 32 stands for floating point; write 16",
    ),
    (
        "choice: [none, prune]",
        "choice: [none, prunes]",
        "model.token_method.choice[1] is 'prunes', which is unknown; did you mean 'prune'? Known: cluster, contribution, detail, hired, lookup, memory, merge, none, prune",
    ),
    (
        "choice: [ws, os]",
        "choice: [ws, so]",
        "accelerator.dataflow.choice[1] is 'so', which is unknown; known: is, os, ws",
    ),
    ("0.4, 1.0", "0.0, 1.0", "model.keep.float[0] is 0, but a keep ratio is above 0 and at most 1; write 0.001"),
    ("0.4, 1.0", "0.4, 1.2", "model.keep.float gives 1.1, but a keep ratio is above 0 and at most 1; write 1"),
    ("heads: {choice: [2, 4]}", "heads: 0", "model.heads is 0, but attention has at least 1 head; write 1"),
    (
        "name: edge\n",
        "name: edge\nname: other\n",
        "line 3 gives the key 'name' again, after line 2; remove or rename it",
    ),
    (
        "  stages: 3\n",
        "  stages: 3\n  stages: 2\n",
        "line 12 gives the key 'stages' again, after line 11; remove or rename it",
    ),
    (
        "patch: {choice: [2, 4]}",
        "patch: {choice: [3, 5]}",
        "model.patch has no value that divides the 16 x 16 image; write a divisor such as 8",
    ),
    (
        "step: 16",
        "step: 16, when: model.dim > 3, otherwise: 48",
        "model.dim.when refers to the field itself; let conditions mention only other fields",
    ),
    (
        "[2, 6]}\n  heads: {choice: [2, 4]",
        "[2, 6], when: model.heads > 2, otherwise: 2}\n  heads: {choice: [2, 4], when: model.depth > 3, otherwise: 2",
        "model.depth.when goes round in a circle: model.depth -> model.heads -> model.depth; let conditions mention only other fields",
    ),
    (
        "step: 16",
        "step: 16, when: model.depth > 3",
        "model.dim has a condition, but no value where it does not hold; add otherwise: and a value",
    ),
    ("step: 16", "step: 16, otherwise: 48", "model.dim.otherwise is there without a condition; add when, or remove it"),
    (
        "step: 16",
        "step: 16, when: accelerator.rows > 3, otherwise: 48",
        "model.dim.when mentions accelerator.rows, but each side stands on its own; tie the two sides with a constraint",
    ),
    (
        "step: 16",
        "step: 16, when: 'model.weight_bits[0] > 3', otherwise: 48",
        "model.dim.when mentions model.weight_bits, which has one value per block; mention other fields, or write a constraint",
    ),
    (
        "step: 16",
        "step: 16, when: model.keep < 1, otherwise: 48",
        "model.dim.when mentions model.keep, which has one value per stage; mention other fields, or write a constraint",
    ),
    (
        "step: 0.1",
        "step: 0.1, when: model.dpth > 2",
        "model.keep.when mentions model.dpth, which does not exist; did you mean 'depth'? Known: " + NAMES,
    ),
    (
        "step: 0.1",
        "step: 0.1, when: model.depth > 2, otherwise: 2",
        "model.keep.otherwise is 2, but a keep ratio is above 0 and at most 1; write 1",
    ),
    (
        "  keep: {per: stage, float: [0.4, 1.0], step: 0.1}\n",
        "",
        "model.keep is missing, but token_method can be prune; add it, or write none",
    ),
    (
        "stages: 3",
        "stages: 1",
        "model.stages is 1, so no block ever reduces its tokens; write 2 or more, or token_method: none",
    ),
    ("stages: 3", "stages: {choice: [1, 2]}", "model.stages is a mapping, but needs one value; write one value"),
    (
        "token_method: {choice: [none, prune]}",
        "token_method: none",
        "model.keep is searched, but token_method is always none; remove it, or add prune or merge",
    ),
    (
        "model:\n",
        "model: 3\nmodl:\n",
        "modl is not a field here; did you mean 'model'? Known: accelerator, constraints, cosearch, description, model, name",
    ),
    ("  heads:", "  3: 4\n  heads:", "model has the key 3; write a field's name instead"),
    (
        "[32, 96]",
        "[32, 96",
        "line 6 is not YAML: expected ',' or ']', but got '}'; check indentation, colons and quotes",
    ),
    (
        "name: edge",
        "name: [edge",
        "line 3 is not YAML: expected ',' or ']', but got ':'; check indentation, colons and quotes",
    ),
]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Writes a space file and returns what the user is told about it."""
    monkeypatch.chdir(tmp_path)
    Path("spaces").mkdir()

    def tell(content):
        Path("spaces/edge.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(FileError) as caught:
            load_space("edge", TASK)
        return str(caught.value)

    return tell


def test_the_good_file_is_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(GOOD)
    assert load_space("mine.yaml", TASK).name == "edge"


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_each_mistake_is_explained(told, right, wrong, message):
    assert GOOD.count(right) >= 1
    assert told(GOOD.replace(right, wrong, 1)) == f"spaces/edge.yaml: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty, but a space file is a mapping; begin with 'cosearch: space/1'"),
        ("[1, 2]", "holds a list, but a space file is a mapping; begin with 'cosearch: space/1'"),
        (b"a: \n\xff\n", "line 2 is not UTF-8 text; save the file as UTF-8"),
        ("a: !!python/object:os.system x", None),
        ("a: &x [*x]", None),
    ],
)
def test_files_that_are_no_space_files(told, content, message):
    text = told(content)
    assert text.startswith("spaces/edge.yaml: ")
    assert message is None or text == f"spaces/edge.yaml: {message}"


def test_paths_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"^none\.yaml: does not exist, but a space file is wanted; check the path$"):
        load_space("none.yaml", TASK)
    Path("dir.yaml").mkdir()
    with pytest.raises(FileError, match=r"^dir\.yaml: is a folder, but a space file is wanted; check the path$"):
        load_space("dir.yaml", TASK)


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        load_space("vit_digit_systolic", TASK)
    assert str(caught.value) == (
        "no space is called 'vit_digit_systolic'; did you mean 'vit_digits_systolic'? "
        "Known: deit_tiny_edge, deit_tiny_fpga, vit_cifar_systolic, vit_digits_gemmini, vit_digits_memories, "
        "vit_digits_microcontroller, vit_digits_systolic, vit_digits_wide"
    )
