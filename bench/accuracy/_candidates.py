"""Random models of a wide space: every token method, mixer and number format that specs know, by name.

Nothing is listed here that specs list themselves, so that what is added there is drawn from then on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from cosearch.formats import NUMBER_FORMATS
from cosearch.spec import (
    MIXERS,
    MLPS,
    NORMS,
    POOLS,
    TOKEN_METHODS,
    BlockSpec,
    Mixer,
    ModelSpec,
    TaskShape,
    TokenMethod,
    bits_and_format,
)

__all__ = ["FORMATS", "random_candidate"]

FORMATS = tuple(name for name, found in NUMBER_FORMATS.items() if found.signed and name != "ternary_packed")
"""Formats that weights and activations may have; packing changes what ternary costs, not what it computes."""

_INTEGERS = tuple(name for name in FORMATS if NUMBER_FORMATS[name].family == "integer")
_OTHERS = tuple(name for name in FORMATS if NUMBER_FORMATS[name].family != "integer")
_FEW_BITS = tuple(name for name in _INTEGERS if NUMBER_FORMATS[name].bits <= 8)


def random_candidate(task: TaskShape, seed: int) -> ModelSpec:
    """Returns a model, the same for the same arguments: dim 32 to 96, 2 to 6 blocks, MLP ratio 0 to 4.

    Half the models quantise to integers of 2 to 8 bits, block by block; a quarter have other formats, a quarter none.
    Half have softmax attention and a GELU MLP throughout, the others mix what there is.
    """
    rng = random.Random(seed)
    patch = rng.choice([2, 4, 4])
    dim, depth = rng.choice([32, 48, 64, 80, 96]), rng.randint(2, 6)
    method = TOKEN_METHODS[rng.choice(list(TOKEN_METHODS))]
    tokens = (task.image[0] // patch) * (task.image[1] // patch)
    keeps = _keeps(rng, method, tokens, depth)
    mixers, mlps = _parts(rng, method, keeps)
    weights, activations = _formats(rng, depth)
    edge_bits, edge_format = bits_and_format(rng.choice(["fp32", "int8", weights[0]]))
    small = {"rank": rng.choice([0, 0, 0, 16]), "sparsity": rng.choice([(1, 1), (1, 1), (1, 1), (2, 4)])}
    blocks = tuple(
        _block(rng, MIXERS[mixers[i]], mlps[i], keeps[i], dim, (weights[i], activations[i]), small)
        for i in range(depth)
    )
    return ModelSpec(
        task=task,
        patch=patch,
        dim=dim,
        blocks=blocks,
        token_method=method.name if any(keep is not None for keep in keeps) else "none",
        overlap=rng.randint(0, patch // 2),
        stem_hidden=rng.choice([0, 64]),
        edge_bits=edge_bits,
        edge_format=edge_format,
        norm=rng.choice(["layernorm", *NORMS]),
        pool=rng.choice(["class", *POOLS]),
    )


def _keeps(rng: random.Random, method: TokenMethod, tokens: int, depth: int) -> list[int | None]:
    """Returns the image tokens that each block leaves: of what it has, a share of 0.3 to 0.9."""
    keeps: list[int | None] = [None] * depth
    chosen = [0] if method.core else sorted(rng.sample(range(depth), rng.randint(1, min(3, depth))))
    for index in chosen if method.name != "none" else []:
        least, most = method.least(tokens), tokens - 1
        if least > most:
            break
        keeps[index] = tokens = min(max(round(tokens * rng.uniform(0.3, 0.9)), least), most)
    return keeps


def _parts(rng: random.Random, method: TokenMethod, keeps: Sequence[int | None]) -> tuple[list[str], list[str]]:
    """Returns mixer and MLP of each block, those that suit the token method."""
    if rng.random() < 0.5:
        return ["softmax"] * len(keeps), ["gelu"] * len(keeps)
    mixers: list[str] = []
    usual = rng.choice(list(MIXERS))
    reduced = method.core
    for keep in keeps:
        fits = [
            name
            for name, mixer in MIXERS.items()
            if not (mixer.grid and reduced)
            and (keep is None or {"map": mixer.map, "keys": mixer.heads, "": True}[method.needs])
        ]
        mixers.append(usual if usual in fits and rng.random() < 0.7 else rng.choice(fits))
        reduced = reduced or keep is not None
    return mixers, [rng.choice(["gelu", *MLPS]) for _ in keeps]


def _formats(rng: random.Random, depth: int) -> tuple[list[str], list[str]]:
    """Returns the formats of weights and activations of each block."""
    style = rng.random()
    if style < 0.25:
        return ["fp32"] * depth, ["fp32"] * depth
    if style < 0.75:
        return [rng.choice(_FEW_BITS) for _ in range(depth)], [rng.choice(_FEW_BITS) for _ in range(depth)]
    return [rng.choice(_OTHERS)] * depth, [rng.choice(_OTHERS)] * depth


def _block(
    rng: random.Random,
    mixer: Mixer,
    mlp: str,
    keep: int | None,
    dim: int,
    formats: tuple[str, str],
    small: dict[str, int | tuple[int, int]],
) -> BlockSpec:
    heads = rng.choice([2, 4]) if mixer.heads else 1
    asked = rng.choice([0, 0, 0, heads // 2]) if mixer.map else 0
    shared = rng.choice([0, 0, 0, 1]) if mixer.map and (asked or heads) > 1 else 0
    (weight_bits, weight_format), (activation_bits, activation_format) = map(bits_and_format, formats)
    return BlockSpec(
        heads=heads,
        mlp_hidden=0 if mlp == "none" else dim * rng.randint(1, 4) // 4 * 4,
        keep_tokens=keep,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        weight_format=weight_format,
        activation_format=activation_format,
        mixer=mixer.name,
        query_heads=asked,
        kv_heads=shared,
        mlp=mlp,
        rank=small["rank"],  # type: ignore[arg-type]
        sparsity=small["sparsity"],  # type: ignore[arg-type]
    )
