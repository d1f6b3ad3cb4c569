"""Token reduction with static counts.

All methods leave the class token (index 0) alone and are deterministic: of equals, the earlier token wins. None uses a
matrix product but for similarities, and for giving detail, as `cosearch.workload` has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cosearch.model.tokens._rows import best_first, rows

__all__ = ["cluster", "contributions", "detailed", "hired", "match", "merge", "prune"]

_LEAST_WEIGHT = 1e-6
"""Added to every score, so that tokens that are all scored 0 (coarse codes of the map) are treated alike."""


def prune(x: Tensor, scores: Tensor, keep: int) -> Tensor:
    """Returns the class token, the ``keep - 1`` best image tokens in their order, and one token fused of the others.

    The fused token is the average of the others weighted by their scores (EViT: Liang et al., "Not All Patches are
    What You Need", ICLR 2022, section 3.2, https://arxiv.org/abs/2202.07800).

    Args:
        x: tokens, shape (batch, tokens, dim), the class token first.
        scores: of the image tokens, shape (batch, tokens - 1).
        keep: image tokens to return, the fused one included.
    """
    order = best_first(scores)
    best, rest = order[:, : keep - 1].sort(dim=1).values, order[:, keep - 1 :]
    weights = scores.gather(1, rest) + _LEAST_WEIGHT
    weights = weights / weights.sum(1, keepdim=True)
    fused = (rows(x, rest + 1) * weights.unsqueeze(2)).sum(1, keepdim=True)
    return torch.cat((x[:, :1], rows(x, best + 1), fused), dim=1)


def match(metric: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the most similar pairs between image tokens 0, 2, 4, ... (sources) and 1, 3, 5, ... (targets).

    ToMe: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3, https://arxiv.org/abs/2210.09461.

    Args:
        metric: unit vectors, shape (batch, image tokens, length).
        keep: image tokens that are to be left.

    Returns:
        Sources that stay, in order, shape (batch, sources - merged); sources that merge, shape (batch, merged); the
        target of each of these, the same shape. Sources and targets are counted within their set.
    """
    merged = metric.shape[1] - keep
    similarity = torch.matmul(metric[:, ::2], metric[:, 1::2].transpose(1, 2))
    value, target = similarity.max(dim=2)
    order = best_first(value)
    going = order[:, :merged]
    return order[:, merged:].sort(dim=1).values, going, target.gather(1, going)


def merge(x: Tensor, size: Tensor, metric: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Returns the tokens with the most similar pairs averaged, weighted by size, and their sizes.

    The order is: class token, sources that stay, targets.

    Args:
        x: tokens, shape (batch, tokens, dim), the class token first.
        size: patches in each token, shape (batch, tokens).
        metric: as in `match`.
        keep: image tokens to return.
    """
    stay, going, target = match(metric, keep)
    sources, source_size = x[:, 1::2], size[:, 1::2]
    targets, target_size = x[:, 2::2], size[:, 2::2]
    moved_size = source_size.gather(1, going)
    total = target_size.scatter_add(1, target, moved_size)
    moved = rows(sources, going) * moved_size.unsqueeze(2)
    index = target.unsqueeze(2).expand(-1, -1, x.shape[2])
    summed = (targets * target_size.unsqueeze(2)).scatter_add(1, index, moved)
    tokens = torch.cat((x[:, :1], rows(sources, stay), summed / total.unsqueeze(2)), dim=1)
    return tokens, torch.cat((size[:, :1], source_size.gather(1, stay), total), dim=1)


def cluster(x: Tensor, size: Tensor, metric: Tensor, scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Returns one token for each of the ``keep`` best image tokens and all those nearest to it, averaged, and sizes.

    One assignment of Token Pooling's K-Medoids (Marin et al., "Token Pooling in Vision Transformers", WACV 2023,
    section 4, https://arxiv.org/abs/2110.03860), with the tokens that the class token attends to most as medoids, so
    that each averages a semantic unit of the image. Averages are weighted by size.

    Args:
        x: tokens, shape (batch, tokens, dim), the class token first.
        size: patches in each token, shape (batch, tokens).
        metric: unit vectors, shape (batch, tokens - 1, length).
        scores: of the image tokens, shape (batch, tokens - 1).
        keep: image tokens to return.
    """
    centres = best_first(scores)[:, :keep].sort(dim=1).values
    nearest = torch.matmul(metric, rows(metric, centres).transpose(1, 2)).max(dim=2).indices
    own = torch.arange(keep, device=x.device).expand_as(centres)
    nearest = nearest.scatter(1, centres, own)  # a centre stays with itself, however coarse the metric is
    image, weights = x[:, 1:], size[:, 1:]
    total = torch.zeros_like(weights[:, :keep]).scatter_add(1, nearest, weights)
    index = nearest.unsqueeze(2).expand(-1, -1, x.shape[2])
    summed = torch.zeros_like(image[:, :keep]).scatter_add(1, index, image * weights.unsqueeze(2))
    tokens = torch.cat((x[:, :1], summed / total.unsqueeze(2)), dim=1)
    return tokens, torch.cat((size[:, :1], total), dim=1)


def hired(scores: Tensor, part: Tensor, parts: int, keep: int) -> Tensor:
    """Returns which ``keep`` image tokens stay, in order: the best of each part, a part's share by its attention.

    HiRED (Arif et al., "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution
    Vision-Language Models", AAAI 2025, section 4, https://arxiv.org/abs/2408.10945) gives each part of the image a
    budget in proportion to the class token's attention to it, and fills it with the part's best tokens. Budgets are
    whole numbers here by Webster's method of apportionment: the r-th best token of a part with share s (r from 0) has
    rank (r + 1/2) / s, and the lowest ranks win; no part can be given more than it has, and the sum is ``keep``.

    Args:
        scores: of the image tokens, shape (batch, tokens).
        part: part of the image that each is in, shape (batch, tokens).
        parts: how many there are.
        keep: tokens to return.
    """
    order = best_first(scores)
    members = torch.nn.functional.one_hot(part.gather(1, order), parts).to(scores.dtype)
    weights = scores.gather(1, order) + _LEAST_WEIGHT
    shares = (members * weights.unsqueeze(2)).sum(1, keepdim=True)
    within = members.cumsum(1) - 0.5
    rank = (members * (within / shares.clamp_min(_LEAST_WEIGHT))).sum(2)
    return order.gather(1, best_first(-rank)[:, :keep]).sort(dim=1).values


def contributions(attention: Tensor, values: Tensor) -> Tensor:
    """Returns how much each image token contributes to all contexts, shape (batch, tokens - 1).

    The sum over heads and queries of the attention that a token gets times the length of its value: attention context
    contribution (Kachuee & Sharifkhani, "Latency Adjustable Transformer Encoder for Language Understanding", 2022,
    section 3, https://arxiv.org/abs/2201.03327). Those with the least are dropped; how many can be set after training.

    Args:
        attention: map, shape (batch, heads, tokens, tokens).
        values: shape (batch, heads, tokens, depth).
    """
    received = attention[:, :, :, 1:].sum(2)
    lengths = values[:, :, 1:].square().sum(3).sqrt()
    return (received * lengths).sum(1)


def detailed(x: Tensor, lifted: Tensor) -> Tensor:
    """Returns the tokens, shape (batch, tokens, dim), with ``lifted``, one row fewer, added to the image tokens."""
    return torch.cat((x[:, :1], x[:, 1:] + lifted), dim=1)
