"""Quantisers that a module carries: their widths become those of the operands.

A fake quantiser leaves a chain in the graph, ``round(clamp(x / scale, low, high)) * scale``. On hardware the chain is
requantisation, which happens as the accumulators of the product before it drain, so it is no operator of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node

from cosearch.imported.graph import argument, operator_name
from cosearch.imported.operators import FAKE_QUANTISERS

__all__ = ["Quantisers", "code_bits", "find_quantisers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisers:
    """The chains of a graph.

    Attributes:
        ends: the last node of each chain, with the node that is quantised and the width of its codes.
        inner: the other nodes of the chains.
    """

    ends: dict[Node, tuple[Node, int]]
    inner: frozenset[Node]


def find_quantisers(graph: Graph, dependent: Collection[Node]) -> Quantisers:
    """Returns the quantisers whose scale does not depend on the image."""
    ends: dict[Node, tuple[Node, int]] = {}
    inner: set[Node] = set()
    for node in graph.nodes:
        found = _chain(node)
        if found is None:
            continue
        source, scale, bits, chain = found
        if scale not in dependent:
            ends[node] = (source, bits)
            inner.update(chain)
    return Quantisers(ends=ends, inner=frozenset(inner))


def code_bits(node: Node) -> int | None:
    """Returns the width that one of `FAKE_QUANTISERS` gives, None where it says none."""
    lowest = FAKE_QUANTISERS[operator_name(node)]
    if not lowest:
        return None
    return _bits(argument(node, lowest), argument(node, lowest.replace("min", "max")))


def _chain(node: Node) -> tuple[Node, Any, int, list[Node]] | None:
    """Returns the source, the scale, the width and the inner nodes of the chain that ends in ``node``."""
    if not _is(node, "mul"):
        return None
    first, second = node.args[:2]
    rounded, scale = (first, second) if _is(first, "round") else (second, first)
    clamped = _operand(rounded, "round")
    divided = _operand(clamped, "clamp")
    source = _operand(divided, "div")
    if rounded is None or clamped is None or divided is None or source is None or divided.args[1] is not scale:
        return None
    assert isinstance(rounded, Node)
    bits = _bits(argument(clamped, "min"), argument(clamped, "max"))
    chain = [divided, clamped, rounded]
    if bits is None or any(len(part.users) != 1 for part in chain):
        return None
    return source, scale, bits, chain


def _operand(node: Any, name: str) -> Node | None:
    """Returns what ``node`` works on, if it is a node and the operator is called ``name``."""
    operand = node.args[0] if _is(node, name) else None
    return operand if isinstance(operand, Node) else None


def _is(node: Any, name: str) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and operator_name(node) == name


def _bits(low: Any, high: Any) -> int | None:
    if not isinstance(low, int | float) or not isinstance(high, int | float) or high <= low:
        return None
    return max(2, int(high - low).bit_length())
