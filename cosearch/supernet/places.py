"""Where the parameters of a model lie in the shared ones.

A *bank* is one shared parameter: a tensor as large as the largest model needs, of which every smaller model has the
leading part along each axis, as in Once-for-all (Cai et al., ICLR 2020, https://arxiv.org/abs/1908.09791, section 3.2)
and AutoFormer (Chen et al., ICCV 2021, https://arxiv.org/abs/2107.00651, section 3.2). What means something else in
another model has a bank of its own: other patches, other positions, other mixers, other formats' scales. A parameter
that no rule knows is shared by its name, along leading axes, so that every model has all that it needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cosearch.model import VisionTransformer
from cosearch.model.formats import Quantizer
from cosearch.spec import BlockSpec, ModelSpec

__all__ = ["Place", "is_scale", "matrix_shape", "places"]

_BLOCK = re.compile(r"blocks\.(\d+)\.(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a parameter lies.

    Attributes:
        bank: name of the shared parameter.
        view: shape of the parameter as the bank has its axes; the leading part of each is its own.
    """

    bank: str
    view: tuple[int, ...]


def places(model: VisionTransformer) -> Mapping[str, Place]:
    """Returns the place of every parameter of ``model``, by the parameter's name."""
    modules, spec, out = dict(model.named_modules()), model.spec, {}
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".")
        module = modules[owner]
        kind = f"[{module.format.name}]" if isinstance(module, Quantizer) else ""
        bank = f"{_bank(owner, spec)}{kind}.{last}" if owner else _top(last, spec)
        out[name] = Place(bank=bank, view=_view(name, tuple(parameter.shape), spec))
    return out


def is_scale(bank: str) -> bool:
    """Returns whether a bank holds the scales of a quantiser."""
    return bank.endswith("].scale")


def matrix_shape(bank: str, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns (outputs, inputs) of a bank that is a matrix of the stem or of a block, None for all others."""
    if not bank.startswith(("stem", "blocks.")) or not bank.endswith(".weight") or len(shape) < 2:
        return None
    return math.prod(shape[:-1]), shape[-1]


def _top(name: str, spec: ModelSpec) -> str:
    return f"position[{spec.patches}]" if name == "position" else name


def _bank(owner: str, spec: ModelSpec) -> str:
    """Returns the name of the module that shares its parameters with ``owner``."""
    found = _BLOCK.fullmatch(owner)
    if found:
        index, rest = int(found[1]), found[2]
        return f"blocks.{index}.{_in_block(rest, spec, spec.blocks[index])}"
    part, _, rest = owner.partition(".")
    if part == "stem":
        detail = ",detail" if spec.token_method == "detail" else ""
        kind = f"{spec.patch}+{spec.overlap},{spec.stem_hidden}{detail}"
    elif part == "pool":
        kind = spec.pool
    else:
        kind = spec.norm if spec.norm != "layernorm" and part == "norm" else ""
    return (f"{part}[{kind}]" if kind else part) + (f".{rest}" if rest else "")


def _in_block(name: str, spec: ModelSpec, block: BlockSpec) -> str:
    """Returns what a part of a block is called among its likes: only those of one kind share."""
    part, _, rest = name.partition(".")
    if part == "mixer":
        shared = f",{block.kv_heads} of {block.query_heads or block.heads}" if block.kv_heads else ""
        hashed = f",{block.heads}" if block.mixer == "hashed" else ""  # its projection is as wide as a head
        kind = f"{block.mixer}{shared}{hashed}"
    else:
        kinds = {"mlp": block.mlp, "reduction": spec.token_method, "exchange": spec.token_method}
        kind = kinds.get(part, spec.norm)
    rank = f",rank {block.rank}" if rest.endswith(("down", "up")) or ".down." in rest or ".up." in rest else ""
    return f"{part}[{kind}{rank}]" + (f".{rest}" if rest else "")


def _view(name: str, shape: tuple[int, ...], spec: ModelSpec) -> tuple[int, ...]:
    """Returns the shape with an axis of its own for parts that lie one after another: queries, keys and values, say."""
    found = _BLOCK.fullmatch(name)
    if not found:
        return shape
    block = spec.blocks[int(found[1])]
    part, last = found[2].split(".", 1)[0], found[2].rsplit(".", 1)[1]
    layer = found[2].split(".")[1:2]
    if ".down." in name or ".input_quantizer." in name or last not in ("weight", "bias", "scale"):
        return shape
    parts = 1
    if part == "mixer" and layer == ["qkv"]:
        parts = 3
        if block.kv_heads:
            parts = (block.query_heads or block.heads) + 2 * block.kv_heads
    elif (part, layer, block.mlp) == ("mlp", ["fc1"], "glu") or (part, layer) == ("exchange", ["kv"]):
        parts = 2
    return shape if parts == 1 or shape[0] % parts else (parts, shape[0] // parts, *shape[1:])
