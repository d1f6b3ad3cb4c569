"""What the literature offers for spending tokens and mixing them: facts that specs, workloads and models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["MIXERS", "MLPS", "NORMS", "POOLS", "TOKEN_METHODS", "Mixer", "TokenMethod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMethod:
    """A way to go on with fewer tokens.

    Attributes:
        name: as specs and space files have it.
        summary: what it does, in a line.
        least: from a number of image tokens to the fewest that it can leave.
        needs: what the block's mixer must give: ``map`` (the attention map), ``keys``, or nothing.
        core: whether it holds a second, smaller set of tokens that the blocks work on, instead of dropping any;
            ``keep_tokens`` of the first block is then their number.
        after_training: whether a model that was trained with all its tokens can be given the method afterwards, with
            the very same weights.
        source: who proposed it.
    """

    name: str
    summary: str
    least: Callable[[int], int]
    needs: str = ""
    core: bool = False
    after_training: bool = False
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """A way to mix tokens.

    Attributes:
        name: as specs and space files have it.
        summary: what it does, in a line.
        map: whether it forms an attention map, tokens by tokens.
        heads: whether it has heads, and with them queries, keys and values.
        grid: whether it needs all tokens in their places.
        source: who proposed it.
    """

    name: str
    summary: str
    map: bool = False
    heads: bool = False
    grid: bool = False
    source: str


_METHODS = (
    TokenMethod(
        name="none",
        summary="all tokens, all the way",
        least=lambda tokens: tokens,
        after_training=True,
        source="Dosovitskiy et al. 2021, ViT, https://arxiv.org/abs/2010.11929",
    ),
    TokenMethod(
        name="prune",
        summary="keep the tokens that the class token attends to most, fuse the others into one",
        least=lambda tokens: min(tokens, 2),
        needs="map",
        after_training=True,
        source="Liang et al. 2022, EViT, https://arxiv.org/abs/2202.07800; ratios as in DynamicViT, Rao et al. 2021",
    ),
    TokenMethod(
        name="merge",
        summary="average the most similar pairs of two alternating sets",
        least=lambda tokens: tokens - tokens // 2,
        needs="keys",
        after_training=True,
        source="Bolya et al. 2023, ToMe, https://arxiv.org/abs/2210.09461",
    ),
    TokenMethod(
        name="hired",
        summary="share the budget over parts of the image by the class token's attention, keep the best of each",
        least=lambda tokens: min(tokens, 1),
        needs="map",
        after_training=True,
        source="Arif et al. 2024, HiRED, https://arxiv.org/abs/2408.10945",
    ),
    TokenMethod(
        name="cluster",
        summary="average tokens that mean alike around the most attended ones",
        least=lambda tokens: min(tokens, 1),
        needs="map",
        after_training=True,
        source="Marin et al. 2023, Token Pooling, https://arxiv.org/abs/2110.03860",
    ),
    TokenMethod(
        name="contribution",
        summary="drop the tokens that contribute least to the attention's context",
        least=lambda tokens: min(tokens, 1),
        needs="map",
        after_training=True,
        source="Kachuee & Sharifkhani 2022, Latency Adjustable Transformer Encoder, https://arxiv.org/abs/2201.03327",
    ),
    TokenMethod(
        name="detail",
        summary="begin with patches at half the resolution, drop unattended tokens, give the others their detail",
        least=lambda tokens: min(tokens, 1),
        needs="map",
        source="IRET, Incremental Resolution Enhancing Transformer: dynamically prunable transformers, 2023",
    ),
    TokenMethod(
        name="lookup",
        summary="compressed tokens do the work, and exchange with all tokens by cross-attention both ways",
        least=lambda tokens: min(tokens, 1),
        core=True,
        source="Koner et al. 2024, LookupViT, https://arxiv.org/abs/2407.12753",
    ),
    TokenMethod(
        name="memory",
        summary="a few process tokens read from and write to many memory tokens",
        least=lambda tokens: min(tokens, 1),
        core=True,
        source="Jajal et al. 2024, Vision Token Turing Machines, https://arxiv.org/abs/2409.07613",
    ),
)

TOKEN_METHODS: Mapping[str, TokenMethod] = MappingProxyType({method.name: method for method in _METHODS})
"""Every token method by name."""

_MIXERS = (
    Mixer(
        name="softmax",
        summary="scaled dot-product attention",
        map=True,
        heads=True,
        source="Vaswani et al. 2017, https://arxiv.org/abs/1706.03762",
    ),
    Mixer(
        name="sigmoid",
        summary="attention whose scores pass a sigmoid each, instead of a softmax over the row",
        map=True,
        heads=True,
        source="Ramapuram et al. 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention, "
        "https://arxiv.org/abs/2409.04431",
    ),
    Mixer(
        name="linear",
        summary="attention with rectified queries and keys, computed in time linear in the tokens",
        heads=True,
        source="Guo et al. 2024, SLAB, https://arxiv.org/abs/2405.11582",
    ),
    Mixer(
        name="hashed",
        summary="linear attention over binary codes of queries and keys",
        heads=True,
        source="Liu et al. 2022, EcoFormer, https://arxiv.org/abs/2209.09004",
    ),
    Mixer(
        name="pool",
        summary="the average of a token's neighbours, less itself",
        grid=True,
        source="Yu et al. 2022, MetaFormer Is Actually What You Need for Vision, https://arxiv.org/abs/2111.11418",
    ),
    Mixer(
        name="identity",
        summary="no mixing at all",
        source="Yu et al. 2023, MetaFormer Baselines for Vision, https://arxiv.org/abs/2210.13452",
    ),
)

MIXERS: Mapping[str, Mixer] = MappingProxyType({mixer.name: mixer for mixer in _MIXERS})
"""Every token mixer by name."""

MLPS: Mapping[str, str] = MappingProxyType(
    {
        "gelu": "two linear layers with a GELU between them",
        "glu": "one of two projections is gated by the other's GELU (Shazeer 2020, https://arxiv.org/abs/2002.05202)",
        "none": "no MLP",
    }
)
"""Every kind of MLP by name."""

NORMS: Mapping[str, str] = MappingProxyType(
    {
        "layernorm": "LayerNorm (Ba et al. 2016)",
        "batchnorm": "LayerNorm that training turns into a re-parameterised BatchNorm, which at inference is one scale "
        "and shift a channel (PRepBN: Guo et al. 2024, SLAB, https://arxiv.org/abs/2405.11582)",
    }
)
"""Every kind of normalisation by name."""

POOLS: Mapping[str, str] = MappingProxyType(
    {
        "class": "the class token",
        "mean": "the mean of the image tokens",
        "ggem": "the generalised mean of the image tokens, its exponent learnt for each group of channels "
        "(GGeM: Ko et al. 2023, https://arxiv.org/abs/2212.04114)",
    }
)
"""What the head reads, by name."""
