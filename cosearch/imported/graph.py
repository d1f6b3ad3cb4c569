"""Looking at a node of an exported graph: its operator, shapes and place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from cosearch.errors import SpecError
from cosearch.imported.operators import SHAPE_ONLY

__all__ = ["argument", "dependent_nodes", "elements", "operator_name", "parameters", "path", "results", "shape"]


def operator_name(node: Node) -> str:
    """Returns the operator without its overload: ``linear``; with its library unless that is ATen."""
    if not isinstance(node.target, OpOverload):
        return str(getattr(node.target, "__name__", node.target))
    library, name, *_ = str(node.target).split(".")
    return name if library == "aten" else f"{library}.{name}"


def path(node: Node) -> str:
    """Returns the path of the module that the node is in: ``blocks.0.attn``; empty for the outermost."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if entry[0]]
    return paths[-1].removeprefix("L['self']").lstrip(".") if paths else ""


def results(node: Node) -> tuple[Tensor, ...]:
    """Returns the tensors that the node makes, as the exporter's stand-ins without values."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(item for item in values if isinstance(item, Tensor))


def shape(node: Node, result: int = 0) -> tuple[int, ...]:
    """Returns the shape of a tensor that the node makes.

    Raises:
        SpecError: it depends on the values of the image.
    """
    sizes = results(node)[result].shape
    if not all(isinstance(size, int) for size in sizes):
        raise SpecError(
            f"{path(node) or 'forward'} ({node.target})",
            f"has a result of shape {tuple(sizes)}, which depends on the values of the image",
            "give it a static shape: keep a fixed number of tokens",
        )
    return tuple(sizes)


def elements(node: Node) -> int:
    """Returns the values in what the node makes; of several results, in those that are used."""
    count = len(results(node))
    used = range(count)
    if count > 1:
        taken = {user.args[1] for user in node.users if user.op == "call_function" and len(user.args) > 1}
        used_results = [index for index in range(count) if index in taken]
        return sum(math.prod(shape(node, index)) for index in used_results or used)
    return math.prod(shape(node))


def argument(node: Node, name: str) -> Any:
    """Returns an argument by its name in the operator's schema, its default where it is left out, else None."""
    assert isinstance(node.target, OpOverload)
    for position, parameter in enumerate(node.target._schema.arguments):
        if parameter.name == name:
            if name in node.kwargs:
                return node.kwargs[name]
            return node.args[position] if position < len(node.args) else parameter.default_value
    return None


def parameters(program: ExportedProgram) -> Iterator[tuple[str, str, bool]]:
    """Yields, for each placeholder, its name, what it stands for, and whether it is given with each image."""
    for item in program.graph_signature.input_specs:
        name = getattr(item.arg, "name", "")
        yield name, item.target or name, item.kind is InputKind.USER_INPUT


def dependent_nodes(program: ExportedProgram) -> frozenset[Node]:
    """Returns the nodes whose values depend on the image; all others can be computed once, before any image."""
    given = {name for name, _, from_user in parameters(program) if from_user}
    found: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in given:
                found.add(node)
        elif operator_name(node) not in SHAPE_ONLY and any(source in found for source in node.all_input_nodes):
            found.add(node)
    return frozenset(found)
