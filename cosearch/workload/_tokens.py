"""The operators of token reduction, one function each; `REDUCTIONS` finds them by name.

Each takes the writer, the block's name and spec, tokens before and after (the class token counted) and the residual
stream, and returns the stream with fewer rows. `cosearch.model.tokens` computes the same, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cosearch.spec import BlockSpec
from cosearch.workload._data import OperatorKind
from cosearch.workload._mixers import activations
from cosearch.workload._writer import Width, Writer

__all__ = ["REDUCTIONS"]


def _class_scores(write: Writer, name: str, block: BlockSpec, image_tokens: int) -> str:
    """The class token's row of the attention map, mean over heads."""
    heads = block.query_heads or block.heads
    return write.vector(
        f"{name}.score",
        OperatorKind.SCORE,
        1,
        image_tokens,
        (f"{name}.softmax",),
        write.wide,
        heads,
        elements=image_tokens,
    )


def _gather(write: Writer, name: str, kept: int, stream: str, picked: str) -> str:
    return write.vector(f"{name}.gather", OperatorKind.GATHER, kept, write.model.dim, (stream, picked), write.wide)


def _prune(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    score = _class_scores(write, name, block, tokens - 1)
    picked = write.vector(f"{name}.select", OperatorKind.SELECT, 1, tokens - 1, (score,), write.wide)
    # kept rows are gathered, the others averaged with their scores as weights into one row
    dim = write.model.dim
    return write.vector(
        f"{name}.fuse", OperatorKind.MERGE, tokens, dim, (stream, picked), write.wide, elements=kept * dim
    )


def _merge(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    write.merged = True
    dim, wide, image_tokens = write.model.dim, write.wide, tokens - 1
    source, target = (image_tokens + 1) // 2, image_tokens // 2
    metric = _metric(write, name, block, image_tokens)
    similar = write.matmul(f"{name}.similarity", source, dim // block.heads, target, 1, (metric,), wide)
    picked = write.vector(f"{name}.select", OperatorKind.SELECT, source, target, (similar,), wide)
    return write.vector(f"{name}.merge", OperatorKind.MERGE, tokens, dim, (stream, picked), wide, elements=kept * dim)


def _metric(write: Writer, name: str, block: BlockSpec, image_tokens: int) -> str:
    """Unit vectors that tokens are compared by: their keys, mean over heads."""
    depth = write.model.dim // block.heads
    shared = block.kv_heads or block.query_heads or block.heads
    return write.vector(
        f"{name}.metric",
        OperatorKind.SCORE,
        image_tokens,
        depth,
        (f"{name}.qkv",),
        activations(block),
        shared,
        elements=image_tokens * depth,
    )


def _hired(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    score = _class_scores(write, name, block, tokens - 1)
    # sorted once within the parts of the image, and once more to close the gaps
    ranked = write.vector(f"{name}.rank", OperatorKind.SELECT, 1, tokens - 1, (score,), write.wide)
    picked = write.vector(f"{name}.select", OperatorKind.SELECT, 1, tokens - 1, (ranked,), write.wide)
    return _gather(write, name, kept, stream, picked)


def _cluster(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    write.merged = True
    dim, wide, image_tokens = write.model.dim, write.wide, tokens - 1
    score = _class_scores(write, name, block, image_tokens)
    centres = write.vector(f"{name}.centres", OperatorKind.SELECT, 1, image_tokens, (score,), wide)
    metric = _metric(write, name, block, image_tokens)
    similar = write.matmul(
        f"{name}.similarity", image_tokens, dim // block.heads, kept - 1, 1, (metric, centres, metric), wide
    )
    nearest = write.vector(f"{name}.select", OperatorKind.SELECT, image_tokens, kept - 1, (similar,), wide)
    return write.vector(f"{name}.merge", OperatorKind.MERGE, tokens, dim, (stream, nearest), wide, elements=kept * dim)


def _contribution(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    wide, image_tokens = write.wide, tokens - 1
    depth = write.model.dim // block.heads
    shared = block.kv_heads or block.query_heads or block.heads
    asked = block.query_heads or block.heads
    # lengths of the values, then every column of the attention map times its token's
    lengths = write.vector(
        f"{name}.lengths",
        OperatorKind.SCORE,
        image_tokens,
        depth,
        (f"{name}.qkv",),
        wide,
        shared,
        elements=image_tokens * shared,
    )
    score = write.vector(
        f"{name}.score",
        OperatorKind.SCORE,
        tokens,
        image_tokens,
        (f"{name}.softmax", lengths),
        wide,
        asked,
        elements=image_tokens,
    )
    picked = write.vector(f"{name}.select", OperatorKind.SELECT, 1, image_tokens, (score,), wide)
    return _gather(write, name, kept, stream, picked)


def _detail(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    model, wide = write.model, write.wide
    score = _class_scores(write, name, block, tokens - 1)
    picked = write.vector(f"{name}.select", OperatorKind.SELECT, 1, tokens - 1, (score,), wide)
    stream = _gather(write, name, kept, stream, picked)
    fine = write.streams.pop("fine", "")
    if not fine:  # a token is given its detail once, where tokens are dropped first
        return stream
    pixels = model.task.channels * model.patch**2
    edge = Width(model.edge_bits, model.edge_format)
    patches = write.vector(f"{name}.patches", OperatorKind.GATHER, kept - 1, pixels, (fine, picked), edge)
    lifted = write.linear(f"{name}.lift", kept - 1, pixels, model.dim, patches, edge, wide)
    return write.vector(
        f"{name}.refine", OperatorKind.ADD, kept - 1, model.dim, (lifted, stream), wide, elements=kept * model.dim
    )


REDUCTIONS: Mapping[str, Callable[[Writer, str, BlockSpec, int, int, str], str]] = MappingProxyType(
    {
        "prune": _prune,
        "merge": _merge,
        "hired": _hired,
        "cluster": _cluster,
        "contribution": _contribution,
        "detail": _detail,
    }
)
"""Every method that drops or joins tokens, by name."""
