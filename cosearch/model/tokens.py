"""Token reduction with static counts: attention-based pruning and bipartite merging.

Both leave the class token (index 0) alone and are deterministic: of equals, the earlier token wins. Neither uses a
matrix product except the similarity of merging, as `cosearch.workload` has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_scores", "match", "merge", "prune"]

_LEAST_WEIGHT = 1e-6
"""Added to every score, so that tokens that are all scored 0 (coarse softmax codes) fuse into their plain mean."""


def class_scores(attention: Tensor) -> Tensor:
    """Returns how much the class token attends to each image token, mean over heads, shape (batch, tokens - 1).

    Args:
        attention: after the softmax, shape (batch, heads, tokens, tokens).
    """
    return attention[:, :, 0, 1:].mean(1)


def prune(x: Tensor, scores: Tensor, keep: int) -> Tensor:
    """Returns the class token, the ``keep - 1`` best image tokens in their order, and one token fused of the others.

    The fused token is the average of the others weighted by their scores (EViT: Liang et al., "Not All Patches are
    What You Need", ICLR 2022, section 3.2, https://arxiv.org/abs/2202.07800).

    Args:
        x: tokens, shape (batch, tokens, dim), the class token first.
        scores: of the image tokens, shape (batch, tokens - 1).
        keep: image tokens to return, the fused one included.
    """
    order = _best_first(scores)
    best, rest = order[:, : keep - 1].sort(dim=1).values, order[:, keep - 1 :]
    weights = scores.gather(1, rest) + _LEAST_WEIGHT
    weights = weights / weights.sum(1, keepdim=True)
    fused = (_rows(x, rest + 1) * weights.unsqueeze(2)).sum(1, keepdim=True)
    return torch.cat((x[:, :1], _rows(x, best + 1), fused), dim=1)


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
    order = _best_first(value)
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
    moved = _rows(sources, going) * moved_size.unsqueeze(2)
    index = target.unsqueeze(2).expand(-1, -1, x.shape[2])
    summed = (targets * target_size.unsqueeze(2)).scatter_add(1, index, moved)
    tokens = torch.cat((x[:, :1], _rows(sources, stay), summed / total.unsqueeze(2)), dim=1)
    return tokens, torch.cat((size[:, :1], source_size.gather(1, stay), total), dim=1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Returns the rows ``index``, shape (batch, rows), of x, shape (batch, tokens, dim)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _best_first(scores: Tensor) -> Tensor:
    """Returns the order of ``scores``, shape (batch, tokens), best first; of equals the earlier comes first."""
    if torch.compiler.is_exporting():
        # the exporter knows no stable sort, but ONNX's TopK promises the same order of equals
        return torch.topk(scores, scores.shape[1], dim=1).indices
    return torch.sort(scores, dim=1, descending=True, stable=True).indices
