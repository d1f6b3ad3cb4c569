"""Tokens between blocks, and choosing among them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Stream", "best_first", "class_scores", "rows"]


class Stream(NamedTuple):
    """Tokens between blocks, and what goes with them.

    Attributes:
        x: tokens, shape (batch, tokens, dim), the class token first.
        size: patches in each token, shape (batch, tokens); None where each is one.
        place: patch that each image token was, shape (batch, tokens - 1); None while all are in their places.
        image: what goes beside the tokens: all image tokens where ``x`` holds core tokens, shape (batch, patches, dim);
            the pixels of each patch where detail is still to come, shape (batch, patches, pixels); else None.
    """

    x: Tensor
    size: Tensor | None = None
    place: Tensor | None = None
    image: Tensor | None = None


def class_scores(attention: Tensor) -> Tensor:
    """Returns how much the class token attends to each image token, mean over heads, shape (batch, tokens - 1).

    Args:
        attention: map, shape (batch, heads, tokens, tokens).
    """
    return attention[:, :, 0, 1:].mean(1)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Returns the rows ``index``, shape (batch, rows), of x, shape (batch, tokens, dim)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def best_first(scores: Tensor) -> Tensor:
    """Returns the order of ``scores``, shape (batch, tokens), best first; of equals the earlier comes first."""
    if torch.compiler.is_exporting():
        # the exporter knows no stable sort, but ONNX's TopK promises the same order of equals
        return torch.topk(scores, scores.shape[1], dim=1).indices
    return torch.sort(scores, dim=1, descending=True, stable=True).indices
