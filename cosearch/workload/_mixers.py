"""The operators of token mixers, one function each; `MIXERS` finds them by name.

Each takes the writer, the block's name and spec, its tokens and the normalised tokens, and returns what is added to the
residual stream. `cosearch.model.mixers` computes the same, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cosearch.spec import BlockSpec
from cosearch.workload._data import OperatorKind
from cosearch.workload._writer import Width, Writer

__all__ = ["CODE", "MIXERS", "activations"]

CODE = Width(2)
"""How a binary code is stored, -1 or 1 a bit of it: the narrowest integer that holds both."""


def activations(block: BlockSpec) -> Width:
    """Returns how operands of a block's matrix products are stored."""
    return Width(block.activation_bits, block.activation_format)


def _heads(block: BlockSpec) -> tuple[int, int]:
    """Returns how many heads ask, and how many have keys and values."""
    asked = block.query_heads or block.heads
    return asked, block.kv_heads or asked


def _attention(write: Writer, name: str, block: BlockSpec, tokens: int, normed: str) -> str:
    """Softmax or sigmoid attention."""
    dim, wide, a = write.model.dim, write.wide, activations(block)
    depth, (asked, shared) = dim // block.heads, _heads(block)
    qkv = write.layer(f"{name}.qkv", block, tokens, dim, (asked + 2 * shared) * depth, normed, a)
    scores = write.matmul(f"{name}.scores", tokens, depth, tokens, asked, (qkv,), wide)
    if write.merged:  # proportional attention: the logarithm of each token's size is added (ToMe, equation 1)
        scores = write.vector(f"{name}.bias", OperatorKind.ADD, tokens, tokens, (scores,), wide, asked)
    kind = OperatorKind.SOFTMAX if block.mixer == "softmax" else OperatorKind.SIGMOID
    soft = write.vector(f"{name}.softmax", kind, tokens, tokens, (scores,), a, asked)
    context = write.matmul(f"{name}.context", tokens, tokens, depth, asked, (soft, qkv), a)
    return write.layer(f"{name}.proj", block, tokens, asked * depth, dim, context, wide)


def _linear(write: Writer, name: str, block: BlockSpec, tokens: int, normed: str) -> str:
    """Linear attention; queries and keys are rectified where they are clipped anyway, as accumulators drain."""
    dim, heads = write.model.dim, block.heads
    qkv = write.layer(f"{name}.qkv", block, tokens, dim, 3 * dim, normed, activations(block))
    return _by_state(write, name, block, tokens, qkv, qkv, dim // heads, heads)


def _hashed(write: Writer, name: str, block: BlockSpec, tokens: int, normed: str) -> str:
    """Linear attention over binary codes: signs of projections of queries and keys, as wide as a head."""
    dim, heads = write.model.dim, block.heads
    depth = dim // heads
    qkv = write.layer(f"{name}.qkv", block, tokens, dim, 3 * dim, normed, activations(block))
    weights = Width(block.weight_bits, block.weight_format)
    codes = write.linear(f"{name}.hash", 2 * tokens * heads, depth, depth, qkv, weights, CODE)
    # every pair of codes shares something: the mean of the values is added to all contexts
    mean = write.vector(
        f"{name}.mean", OperatorKind.POOL, tokens, depth + 1, (qkv,), write.wide, heads, elements=heads * (depth + 1)
    )
    return _by_state(write, name, block, tokens, codes, qkv, depth, heads, mean)


def _by_state(
    write: Writer,
    name: str,
    block: BlockSpec,
    tokens: int,
    features: str,
    values: str,
    depth: int,
    heads: int,
    mean: str = "",
) -> str:
    """Keys times values first, then queries times that; one more column of ones gives what the rows are divided by."""
    dim, wide, a = write.model.dim, write.wide, activations(block)
    keys = features
    if write.merged:  # merged tokens count as often as they have patches
        keys = write.vector(f"{name}.weigh", OperatorKind.MULTIPLY, tokens, depth, (features,), a, heads)
    state = write.matmul(f"{name}.state", depth, tokens, depth + 1, heads, (keys, values), a, transposed=True)
    context = write.matmul(f"{name}.context", tokens, depth, depth + 1, heads, (features, state), wide)
    if mean:
        context = write.vector(f"{name}.shift", OperatorKind.ADD, tokens, depth + 1, (context, mean), wide, heads)
    context = write.vector(f"{name}.divide", OperatorKind.DIVIDE, tokens, depth, (context,), a, heads)
    return write.layer(f"{name}.proj", block, tokens, dim, dim, context, wide)


def _pool(write: Writer, name: str, block: BlockSpec, tokens: int, normed: str) -> str:  # noqa: ARG001 - all alike
    return write.vector(f"{name}.pool", OperatorKind.POOL, tokens, write.model.dim, (normed,), write.wide)


MIXERS: Mapping[str, Callable[[Writer, str, BlockSpec, int, str], str]] = MappingProxyType(
    {"softmax": _attention, "sigmoid": _attention, "linear": _linear, "hashed": _hashed, "pool": _pool}
)
"""Every mixer that does something, by name."""
