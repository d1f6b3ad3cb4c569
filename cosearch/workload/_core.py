"""The operators of methods with core tokens: a few tokens that the blocks work on, beside all of the image's.

`CORES` finds them by name. `cosearch.model.core` computes the same, operator by operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from cosearch.spec import BlockSpec
from cosearch.workload._data import OperatorKind
from cosearch.workload._mixers import activations
from cosearch.workload._writer import Writer

__all__ = ["CORES", "Core"]


class Core(Protocol):
    """How core tokens begin, and what they exchange with the image's before and after each block."""

    def begin(self, write: Writer, stream: str) -> str:
        """Returns the core tokens, class token included, and notes the image's in ``write.streams``."""
        ...

    def read(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        """Returns the core tokens with what they took from the image's."""
        ...

    def write(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        """Returns the core tokens; the image's in ``write.streams`` have taken from them."""
        ...


class _Lookup:
    """LookupViT (Koner et al. 2024, section 3): cross-attention both ways with one attention map."""

    def begin(self, write: Writer, stream: str) -> str:
        return _pooled(write, stream)

    def read(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, wide, a, rows = write.model.dim, write.wide, activations(block), write.model.patches
        asked = write.vector(f"{name}.ask", OperatorKind.LAYERNORM, tokens, dim, (stream,), a)
        told = write.vector(f"{name}.tell", OperatorKind.LAYERNORM, rows, dim, (write.streams["image"],), a)
        q = write.layer(f"{name}.read.q", block, tokens, dim, dim, asked, a)
        kv = write.layer(f"{name}.read.kv", block, rows, dim, 2 * dim, told, a)
        depth, heads = dim // block.heads, block.heads
        scores = write.matmul(f"{name}.read.scores", tokens, depth, rows, heads, (q, kv), wide)
        soft = write.vector(f"{name}.read.softmax", OperatorKind.SOFTMAX, tokens, rows, (scores,), a, heads)
        write.streams["scores"] = scores
        context = write.matmul(f"{name}.read.context", tokens, rows, depth, heads, (soft, kv), a)
        out = write.layer(f"{name}.read.proj", block, tokens, dim, dim, context, wide)
        return write.vector(f"{name}.read.add", OperatorKind.ADD, tokens, dim, (stream, out), wide)

    def write(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, wide, a, rows = write.model.dim, write.wide, activations(block), write.model.patches
        depth, heads = dim // block.heads, block.heads
        told = write.vector(f"{name}.back", OperatorKind.LAYERNORM, tokens, dim, (stream,), a)
        v = write.layer(f"{name}.write.v", block, tokens, dim, dim, told, a)
        # the map of the way there, transposed: its scores again, normalised over the core tokens
        soft = write.vector(
            f"{name}.write.softmax", OperatorKind.SOFTMAX, rows, tokens, (write.streams.pop("scores"),), a, heads
        )
        context = write.matmul(f"{name}.write.context", rows, tokens, depth, heads, (soft, v), a)
        out = write.layer(f"{name}.write.proj", block, rows, dim, dim, context, wide)
        image = write.streams["image"]
        write.streams["image"] = write.vector(f"{name}.write.add", OperatorKind.ADD, rows, dim, (image, out), wide)
        return stream


class _Memory:
    """Vision Token Turing Machines (Jajal et al. 2024, section 3): linear reads and writes, added."""

    def begin(self, write: Writer, stream: str) -> str:
        return _pooled(write, stream)

    def read(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, rows = write.model.dim, write.model.patches
        return _moved(write, f"{name}.read", block, write.streams["image"], stream, rows, tokens, dim)

    def write(self, write: Writer, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, rows = write.model.dim, write.model.patches
        image = write.streams["image"]
        write.streams["image"] = _moved(write, f"{name}.write", block, stream, image, tokens, rows, dim)
        return stream


def _moved(
    write: Writer, name: str, block: BlockSpec, source: str, target: str, sources: int, targets: int, dim: int
) -> str:
    """``target`` plus linear attention of its tokens over those of ``source``."""
    wide, a = write.wide, activations(block)
    asked = write.vector(f"{name}.ask", OperatorKind.LAYERNORM, targets, dim, (target,), a)
    told = write.vector(f"{name}.tell", OperatorKind.LAYERNORM, sources, dim, (source,), a)
    q = write.layer(f"{name}.q", block, targets, dim, dim, asked, a)
    k = write.layer(f"{name}.k", block, sources, dim, dim, told, a)
    state = write.matmul(f"{name}.state", dim, sources, dim + 1, 1, (k, told), a, transposed=True)
    context = write.matmul(f"{name}.context", targets, dim, dim + 1, 1, (q, state), wide)
    out = write.vector(f"{name}.divide", OperatorKind.DIVIDE, targets, dim, (context,), wide)
    return write.vector(f"{name}.add", OperatorKind.ADD, targets, dim, (target, out), wide)


def _pooled(write: Writer, stream: str) -> str:
    """Core tokens: averages of the image's over a grid, the class token before them."""
    model = write.model
    core, dim = model.tokens[0][0], model.dim
    write.streams["image"] = stream
    return write.vector("core", OperatorKind.POOL, model.patches + 1, dim, (stream,), write.wide, elements=core * dim)


CORES: Mapping[str, Core] = MappingProxyType({"lookup": _Lookup(), "memory": _Memory()})
"""Every method with core tokens, by name."""
