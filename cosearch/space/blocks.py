"""From the resolved values of a model's fields to its blocks; what a block has no use for is at its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cosearch.spec import MIXERS, BlockSpec, bits_and_format, layer_rank

__all__ = ["block_of", "hidden_units", "width_of"]


def hidden_units(ratio: float, dim: int) -> int:
    """Returns the hidden units of an MLP: ``ratio * dim`` rounded to a whole number, halves to the even one."""
    return round(round(ratio * dim, 9))  # the inner one makes 0.7 * 45 the 31.5 that it means


def block_of(values: Mapping[str, Any], index: int, keep: int | None) -> BlockSpec:
    """Returns block ``index``; what it has no use for is at its default."""
    dim, entry = int(values["dim"]), {name: _entry(values[name], index) for name in _BLOCK_FIELDS}
    mixer = MIXERS[entry["mixer"]]
    heads = entry["heads"] if mixer.heads else 1
    asked = entry["query_heads"] if mixer.map and entry["query_heads"] != heads else 0
    shared = entry["kv_heads"] if mixer.map and entry["kv_heads"] != (asked or heads) else 0
    hidden = hidden_units(entry["mlp_ratio"], dim) if entry["mlp"] != "none" else 0
    kept, of = map(int, entry["sparsity"].split(":"))
    weight_bits, weight_format = width_of(values, "weight", index)
    activation_bits, activation_format = width_of(values, "activation", index)
    made = BlockSpec(
        heads=heads,
        mlp_hidden=hidden,
        keep_tokens=keep,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        weight_format=weight_format,
        activation_format=activation_format,
        mixer=mixer.name,
        query_heads=asked,
        kv_heads=shared,
        mlp=entry["mlp"],
        rank=entry["rank"],
        sparsity=(kept, of),
    )
    return made if not made.rank or _factored(made, dim) else replace(made, rank=0)


def _factored(block: BlockSpec, dim: int) -> bool:
    """Returns whether the block's rank makes one of its linear layers smaller."""
    depth, asked = dim // block.heads, block.query_heads or block.heads
    shared, wide = block.kv_heads or asked, 2 if block.mlp == "glu" else 1
    shapes = [(dim, (asked + 2 * shared) * depth), (asked * depth, dim)] if MIXERS[block.mixer].heads else []
    shapes += [(dim, wide * block.mlp_hidden), (block.mlp_hidden, dim)] if block.mlp != "none" else []
    return any(layer_rank(block.rank, inputs, outputs) for inputs, outputs in shapes)


def width_of(values: Mapping[str, Any], side: str, index: int | None) -> tuple[int, str]:
    """Returns bits and format of one side: by its format's name if it has one, else by its bits."""
    name, bits = values[f"{side}_format"], values[f"{side}_bits"]
    if index is not None:
        name, bits = _entry(name, index), _entry(bits, index)
    return bits_and_format(name) if name else (bits, "")


_BLOCK_FIELDS = ("mixer", "heads", "query_heads", "kv_heads", "mlp", "mlp_ratio", "rank", "sparsity")


def _entry(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, tuple) else value
