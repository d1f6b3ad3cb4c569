"""Data flows one way: a module imports only what stands above it in the list of docs/structure.md."""

import ast
from pathlib import Path

import pytest

import cosearch

PACKAGE = Path(cosearch.__file__).parent
EVALUATORS = PACKAGE.parent / "evaluators" / "cosearch_evaluators"
ORDER = (
    *("errors", "yamlfile", "formats", "spec", "words", "evaluator", "workload", "hardware", "references"),
    *(
        "validation",
        "space",
        "model",
        "data",
        "train",
        "imported",
        "supernet",
        "trees",
        "predictors",
        "front",
        "samplers",
    ),
    *("plugins", "store", "runfile", "surrogate", "verification", "pool", "search", "track", "plots", "export"),
    *("session", "cli", "testing"),
)
HEAVY = {"torch", "ray", "mlflow", "optuna", "pymoo", "plotly", "sklearn", "onnx", "onnxruntime"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path, *, only_top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if only_top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layers_of(names: set[str]) -> set[str]:
    found = {name.split(".")[1] for name in names if name.startswith("cosearch.")}
    return found & set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(path):
    own = layer(path)
    if own == "__init__":
        assert layers_of(imported(path)) == set()
        return
    assert own in ORDER, f"say where {own} stands"
    for other in layers_of(imported(path)) - {own}:
        assert ORDER.index(other) < ORDER.index(own), f"{own} imports {other}, which stands below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_library_knows_no_evaluator(path):
    assert not any(name.startswith("cosearch_evaluators") for name in imported(path))


def test_evaluators_know_neither_search_nor_samplers():
    for path in EVALUATORS.glob("*.py"):
        assert not layers_of(imported(path)) & {"search", "samplers", "pool", "store", "session", "cli", "track"}


def test_the_command_line_starts_without_heavy_packages():
    """Top-level imports of the command line and all that it pulls in at start-up stay light."""
    seen, todo = set(), [PACKAGE / "cli" / "__init__.py"]
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for name in imported(path, only_top_level=True):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name} at start-up"
            if name.startswith("cosearch"):
                place = PACKAGE.parent.joinpath(*name.split("."))
                todo += [place.with_suffix(".py"), place / "__init__.py"]
