"""Random models over everything that specs can say, for tests of what must hold for all of them."""

from __future__ import annotations

import random

from cosearch.spec import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape, bits_and_format

__all__ = ["FORMATS", "random_model"]

FORMATS = (
    *("fp32", "int2", "int3", "int4", "int8", "int16", "bf16", "fp8_e4m3", "fp8_e5m2", "fp4_e2m1"),
    *("mxfp8_e4m3", "mxint8", "mxfp4", "ternary", "pow2_4"),
)
"""Number formats that a random model may have: a family each, and several widths of integers."""

_SPARSITIES = ((1, 1), (1, 1), (2, 4), (1, 4))


def random_model(seed: int, *, token_method: str | None = None, formats: tuple[str, ...] = FORMATS) -> ModelSpec:
    """Returns a small model, the same for the same arguments.

    Args:
        seed: of the choice.
        token_method: how tokens are reduced; any if left out.
        formats: number formats to choose from.
    """
    rng = random.Random(seed)
    method = TOKEN_METHODS[rng.choice(list(TOKEN_METHODS)) if token_method is None else token_method]
    patch = rng.choice([2, 4])
    image = (patch * rng.randint(2, 6), patch * rng.randint(2, 6))
    dim = rng.choice([8, 16, 24])
    tokens, reduced = image[0] * image[1] // patch**2, False
    blocks: list[BlockSpec] = []
    for index in range(rng.randint(1, 4)):
        least, keep = method.least(tokens), None
        may = method.name != "none" and least < tokens and (index == 0 or not method.core)
        if may and (rng.random() < 0.6 or method.core):
            keep = rng.randint(least, tokens - 1)
        fits = [
            name
            for name, mixer in MIXERS.items()
            if not (mixer.grid and (reduced or method.core))
            and (keep is None or {"map": mixer.map, "keys": mixer.heads, "": True}[method.needs])
        ]
        blocks.append(_block(rng, rng.choice([*fits, "softmax"]), keep, dim, formats))
        tokens, reduced = (tokens, reduced) if keep is None else (keep, True)
    edge_bits, edge_format = bits_and_format(rng.choice(formats))
    return ModelSpec(
        task=TaskShape(image=image, channels=rng.choice([1, 3]), classes=rng.randint(2, 10), labels=rng.randint(1, 2)),
        patch=patch,
        dim=dim,
        blocks=tuple(blocks),
        token_method=method.name if reduced else "none",
        overlap=rng.randint(0, patch),
        stem_hidden=rng.choice([0, 0, 5, 16]),
        edge_bits=edge_bits,
        edge_format=edge_format,
        norm=rng.choice(list(NORMS)),
        pool=rng.choice(list(POOLS)),
    )


def _block(rng: random.Random, mixer: str, keep: int | None, dim: int, formats: tuple[str, ...]) -> BlockSpec:
    found = MIXERS[mixer]
    heads = rng.choice([1, 2, 4]) if found.heads else 1
    asked = rng.choice([0, *range(1, heads)]) if found.map else 0
    divisors = [d for d in range(1, asked or heads) if (asked or heads) % d == 0]
    mlp = rng.choice(list(MLPS))
    sparsity = rng.choice(_SPARSITIES)
    if dim // heads * (asked or heads) % sparsity[1]:
        sparsity = (1, 1)
    step = sparsity[1]
    weights, activations = rng.choice(formats), rng.choice(formats)
    if rng.random() < 0.2 and "fp32" in formats:
        weights = activations = "fp32"
    weight_bits, weight_format = bits_and_format(weights)
    activation_bits, activation_format = bits_and_format(activations)
    return BlockSpec(
        heads=heads,
        mlp_hidden=0 if mlp == "none" else step * rng.randint(1, 40 // step),
        keep_tokens=keep,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        weight_format=weight_format,
        activation_format=activation_format,
        mixer=mixer,
        query_heads=asked,
        kv_heads=rng.choice([0, *divisors]) if found.map else 0,
        mlp=mlp,
        rank=rng.choice([0, 0, 4, 8]),
        sparsity=sparsity,
    )
