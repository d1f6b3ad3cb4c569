"""Where a transformer reduces its tokens, and how many a keep ratio leaves.

A model of ``depth`` blocks is cut into ``s = min(stages, depth)`` stages. Stage i (from 0) ends with block
``floor((i + 1) * depth / s) - 1``; tokens are reduced in the last block of each stage but the last. Twelve blocks in
four stages reduce in blocks 2, 5 and 8.

A method with core tokens has as many in every block: one ratio says how many of the stem's tokens there are.

A keep ratio r takes t image tokens to ``ceil(r * t)``, but to no fewer than the method can leave: 2 where they are
pruned (one kept, one fused), ``t - floor(t / 2)`` where they are merged (one half can vanish into the other half). As
many ratios give the same count, the count decides what a ratio means; `schedules` picks one ratio for each meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from cosearch.space.domains import Domain, Float
from cosearch.spec import TOKEN_METHODS

__all__ = ["kept", "reduction_blocks", "schedules"]


def reduction_blocks(depth: int, stages: int, method: str = "") -> tuple[int, ...]:
    """Returns the blocks (from 0) that reduce their tokens: one fewer than there are stages, or than blocks.

    Of a method with core tokens it is the first.
    """
    if method and TOKEN_METHODS[method].core:
        return (0,)
    count = min(stages, depth)
    return tuple((i + 1) * depth // count - 1 for i in range(count - 1))


def kept(method: str, ratio: float, tokens: int) -> int:
    """Returns how many of ``tokens`` image tokens go on; all of them for the method ``none``."""
    # 0.55 * 100 is a little above 55 in floating point, and means 55
    return min(tokens, max(TOKEN_METHODS[method].least(tokens), math.ceil(round(ratio * tokens, 9))))


def _chain(method: str, ratio: float, tokens: int, length: int) -> tuple[int, ...]:
    counts = []
    for _ in range(length):
        tokens = kept(method, ratio, tokens)
        counts.append(tokens)
    return tuple(counts)


@lru_cache(maxsize=4096)
def schedules(domain: Domain, method: str, tokens: int, length: int) -> Mapping[tuple[int, ...], float]:
    """Returns every sequence of token counts that one ratio of ``domain`` makes, with the ratio that stands for it.

    Args:
        domain: the ratios.
        method: one of `cosearch.spec.TOKEN_METHODS`.
        tokens: image tokens before the first reduction.
        length: reductions in a row by the same ratio.

    Returns:
        Sequences of ``length`` counts. Of listed values, the smallest ratio stands for a sequence; of a continuous
        domain the largest, as the ratios of one sequence form an interval that is open below.
    """
    if not isinstance(domain, Float) or domain.step is not None:
        ratios = sorted(float(value) for value in domain.values())
        out: dict[tuple[int, ...], float] = {}
        for ratio in ratios:
            out.setdefault(_chain(method, ratio, tokens, length), ratio)
        return out
    out = {}
    ratio = domain.high
    while ratio >= domain.low:
        counts = _chain(method, ratio, tokens, length)
        steps = list(zip((tokens, *counts), counts, strict=False))
        out[counts] = max(domain.low, min([domain.high, *(after / before for before, after in steps if before)]))
        # just below this ratio at least one count drops; a count held up by the method's least cannot
        drops = [(after - 1) / before for before, after in steps if after == math.ceil(round(ratio * before, 9)) > 0]
        ratio = max((drop for drop in drops if drop < ratio), default=-math.inf)
    return out
