"""The operators of a whole model, in the order they run."""

from __future__ import annotations

from functools import lru_cache

from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec
from cosearch.workload._core import CORES
from cosearch.workload._data import OperatorKind, Workload
from cosearch.workload._mixers import MIXERS, activations
from cosearch.workload._tokens import REDUCTIONS
from cosearch.workload._writer import Width, Writer

__all__ = ["workload"]

_NORMS = {"layernorm": OperatorKind.LAYERNORM, "batchnorm": OperatorKind.AFFINE}


@lru_cache(maxsize=4096)
def workload(model: ModelSpec) -> Workload:
    """Returns the workload of one image through ``model``."""
    write = Writer(model)
    stream = _stem(write)
    core = CORES.get(model.token_method)
    if core is not None:
        stream = core.begin(write, stream)
    for index, (block, (tokens, kept)) in enumerate(zip(model.blocks, model.tokens, strict=True)):
        name = f"block{index}"
        if core is not None:
            stream = core.read(write, name, block, tokens, stream)
        stream = _block(write, name, block, tokens, kept, stream)
        if core is not None and index < len(model.blocks) - 1:  # after the last nobody reads the image's tokens
            stream = core.write(write, name, block, tokens, stream)
    _head(write, stream, model.tokens[-1][1])
    return write.workload()


def _stem(write: Writer) -> str:
    model, wide, edge = write.model, write.wide, Width(write.model.edge_bits, write.model.edge_format)
    (height, width), patch, overlap = model.task.image, model.patch, model.overlap
    last = write.tensor("image", height * width * model.task.channels, edge)
    if model.token_method == "detail":  # patches of half the resolution first, the others' detail later
        write.streams["fine"] = last
        patch, overlap = patch // 2, overlap // 2
        pixels = height * width * model.task.channels
        last = write.vector("stem.halve", OperatorKind.POOL, pixels // 4, 4, (last,), edge, elements=pixels // 4)
    pixels = model.task.channels * (patch + 2 * overlap) ** 2
    if model.stem_hidden:
        last = write.linear("stem.fc1", model.patches, pixels, model.stem_hidden, last, edge, wide)
        last = write.vector("stem.gelu", OperatorKind.GELU, model.patches, model.stem_hidden, (last,), edge)
        pixels = model.stem_hidden
    last = write.linear("stem.proj", model.patches, pixels, model.dim, last, edge, wide)
    # the class token joins here, so the sum with the position embedding has one row more
    return write.vector("embed", OperatorKind.ADD, model.patches + 1, model.dim, (last,), wide)


def _block(write: Writer, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
    dim, wide = write.model.dim, write.wide
    norm = _NORMS[write.model.norm]
    if block.mixer in MIXERS:
        normed = write.vector(f"{name}.norm1", norm, tokens, dim, (stream,), activations(block))
        out = MIXERS[block.mixer](write, name, block, tokens, normed)
        stream = write.vector(f"{name}.add1", OperatorKind.ADD, tokens, dim, (stream, out), wide)
    if kept < tokens:
        stream = REDUCTIONS[write.model.token_method](write, name, block, tokens, kept, stream)
    if block.mlp == "none":
        return stream
    normed = write.vector(f"{name}.norm2", norm, kept, dim, (stream,), activations(block))
    down = _mlp(write, name, block, kept, normed)
    return write.vector(f"{name}.add2", OperatorKind.ADD, kept, dim, (stream, down), wide)


def _mlp(write: Writer, name: str, block: BlockSpec, tokens: int, normed: str) -> str:
    dim, hidden, wide, a = write.model.dim, block.mlp_hidden, write.wide, activations(block)
    gated = block.mlp == "glu"
    up = write.layer(f"{name}.fc1", block, tokens, dim, hidden * (2 if gated else 1), normed, wide)
    active = write.vector(f"{name}.gelu", OperatorKind.GELU, tokens, hidden, (up,), wide if gated else a)
    if gated:
        active = write.vector(f"{name}.gate", OperatorKind.MULTIPLY, tokens, hidden, (active, up), a)
    return write.layer(f"{name}.fc2", block, tokens, hidden, dim, active, wide)


def _head(write: Writer, stream: str, tokens: int) -> None:
    model, wide, edge = write.model, write.wide, Width(write.model.edge_bits, write.model.edge_format)
    dim, rows = model.dim, tokens - 1
    if model.pool == "ggem":  # the mean of powers, and its root
        stream = write.vector("power", OperatorKind.POWER, rows, dim, (stream,), wide)
    if model.pool != "class":
        stream = write.vector("pool", OperatorKind.POOL, rows, dim, (stream,), wide, elements=dim)
    if model.pool == "ggem":
        stream = write.vector("root", OperatorKind.POWER, 1, dim, (stream,), wide)
    normed = write.vector("norm", _NORMS[model.norm], 1, dim, (stream,), edge)
    write.linear("head", 1, dim, model.task.labels * model.task.classes, normed, edge, Width(FLOAT_BITS))
