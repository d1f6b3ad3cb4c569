"""Matrix products: linear layers, products of activations, attention, and convolutions by im2col.

A convolution is the product of the unfolded image, one row for each output pixel, with the kernels, one column for
each output channel; groups repeat it (im2col: Chellapilla et al., "High Performance Convolutional Neural Networks for
Document Processing", 2006, section 2). Unfolding is addressing, so nothing is stored for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from torch.fx import Node

from cosearch.imported.graph import argument, elements, operator_name, shape
from cosearch.imported.operators import CONVOLUTIONS, SDPA
from cosearch.imported.record import Extent, Record, Value
from cosearch.workload import OperatorKind

__all__ = ["PRODUCTS", "Reading", "convolution", "product", "scaled_dot_product_attention"]

PRODUCTS = {
    # positions of the left and the right operand, and of what is added
    "mm": (0, 1, None),
    "bmm": (0, 1, None),
    "mv": (0, 1, None),
    "dot": (0, 1, None),
    "vdot": (0, 1, None),
    "matmul": (0, 1, None),
    "linear": (0, 1, 2),
    "addmm": (1, 2, 0),
    "addmv": (1, 2, 0),
    "addbmm": (1, 2, 0),
    "baddbmm": (1, 2, 0),
    **dict.fromkeys((*CONVOLUTIONS, *SDPA), (0, 1, None)),
}
"""All matrix products by name."""


class Reading(Protocol):
    """A graph that is being read."""

    @property
    def record(self) -> Record:
        """Operators so far."""
        ...

    def value(self, argument: Any) -> Value:
        """Returns what an argument of a node stands for; nothing for what is no node."""
        ...

    def label(self, node: Node, part: str = "") -> str:
        """Returns the name of the node's operator, or of a part of it."""
        ...


def product(reading: Reading, node: Node) -> Value:
    """Writes down one of `PRODUCTS` that is neither a convolution nor a whole attention."""
    name = operator_name(node)
    left, right, added = PRODUCTS[name]
    a, b = node.args[left], node.args[right]
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    shape_a, shape_b = _matrix(shape(a), row=True), _matrix(shape(b), row=False)
    if name == "linear":
        shape_b = (*shape_b[:-2], shape_b[-1], shape_b[-2])
    if name == "linear" and len(shape(b)) == 1:  # one output without a dimension of its own
        shape_b = (shape_b[-1], 1)
    values = reading.value(a), reading.value(b)
    result = _multiply(reading, node, shape_a, shape_b, values, out=elements(node))
    bias = node.args[added] if added is not None and len(node.args) > added else None
    if isinstance(bias, Node) and reading.value(bias).bases:
        extent = reading.record.extents[result.bases[0]]
        read = [result, reading.value(bias)]
        return reading.record.vector(reading.label(node, "add"), OperatorKind.ADD, extent, read, out=elements(node))
    return result


def convolution(reading: Reading, node: Node) -> Value:
    """Writes down a convolution, or a transposed one: each input pixel times the kernels of all outputs."""
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    groups, kernel = int(argument(node, "groups")), shape(weight)
    out_channels, pixels = shape(node)[1], math.prod(shape(node)[2:])
    if argument(node, "transposed"):
        m, k = math.prod(shape(source)[2:]), kernel[0] // groups
        n = math.prod(kernel[1:])
    else:
        m, k, n = pixels, math.prod(kernel[1:]), out_channels // groups
    bias = node.args[2]
    result = reading.record.product(
        reading.label(node),
        (groups, m, k, n),
        reading.value(source),
        reading.value(weight),
        out=elements(node),
        out_extent=(1, pixels, out_channels),
    )
    if isinstance(bias, Node) and reading.value(bias).bases:
        read = [result, reading.value(bias)]
        extent = (1, pixels, out_channels)
        return reading.record.vector(reading.label(node, "add"), OperatorKind.ADD, extent, read, out=elements(node))
    return result


def scaled_dot_product_attention(reading: Reading, node: Node) -> Value:
    """Writes down scores, mask, softmax and context of softmax(q k^T * scale + mask) v, once for each head.

    The scale joins that of the scores. A causal mask is charged as any other; nothing is left out for it.
    """
    query, key, value = (argument(node, name) for name in ("query", "key", "value"))
    mask = next((found for name in ("attn_mask", "attn_bias") if (found := argument(node, name)) is not None), None)
    *batch, queries, depth = shape(query)
    keys, heads = shape(key)[-2], math.prod(batch)
    value_depth = shape(value)[-1]
    extent = (heads, queries, keys)
    record, q, k, v = reading.record, reading.value(query), reading.value(key), reading.value(value)
    scores = _multiply(
        reading,
        node,
        (*batch, queries, depth),
        (*batch, depth, keys),
        (q, k),
        out=heads * queries * keys,
        name=reading.label(node, "scores"),
    )
    if isinstance(mask, Node) or argument(node, "is_causal"):
        read = [scores, reading.value(mask)]
        scores = record.vector(reading.label(node, "bias"), OperatorKind.ADD, extent, read, out=heads * queries * keys)
    soft = record.vector(
        reading.label(node, "softmax"), OperatorKind.SOFTMAX, extent, [scores], out=heads * queries * keys
    )
    return _multiply(
        reading,
        node,
        (*batch, queries, keys),
        (*batch, keys, value_depth),
        (soft, v),
        out=heads * queries * value_depth,
        name=reading.label(node, "context"),
    )


def _matrix(sizes: tuple[int, ...], *, row: bool) -> tuple[int, ...]:
    """Returns ``sizes`` with a vector seen as a row, or as a column."""
    if len(sizes) > 1:
        return sizes
    return (1, sizes[0]) if row else (sizes[0], 1)


def _multiply(
    reading: Reading,
    node: Node,
    shape_a: Sequence[int],
    shape_b: Sequence[int],
    values: tuple[Value, Value],
    *,
    out: int,
    name: str = "",
) -> Value:
    """Writes down (..., m, k) times (..., k, n).

    A right operand that all repetitions share makes them rows of one product. Weights are the right operand: where
    they stand on the left, the product is transposed.
    """
    (m, k), n = shape_a[-2:], shape_b[-1]
    left, right = values
    shared = math.prod(shape_b[:-2]) == 1, math.prod(shape_a[:-2]) == 1
    if not left.bases:
        left, right, m, n, shared = right, left, n, m, (shared[1], shared[0])
    count = out // (m * n)
    if shared[0]:
        m, count = m * count, 1
    extent: Extent = (count, m, n) if values[0].bases else (count, n, m)
    return reading.record.product(
        name or reading.label(node), (count, m, k, n), left, right, out=out, out_extent=extent
    )
