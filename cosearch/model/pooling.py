"""From all tokens to the one row that the head reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GroupGeneralisedMean", "make_pool"]

_GROUP = 8
"""Channels that share an exponent, where they divide the width (assumption; the paper takes one group a head)."""

_FIRST_EXPONENT = 3.0
_SMALLEST = 1e-6


def make_pool(kind: str, dim: int) -> nn.Module:
    """Returns what makes one row, shape (batch, dim), of tokens, shape (batch, tokens, dim), the class token first."""
    return {"class": ClassToken, "mean": Mean}[kind]() if kind != "ggem" else GroupGeneralisedMean(dim)


class ClassToken(nn.Module):
    """The class token."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (batch, dim)."""
        return x[:, 0]


class Mean(nn.Module):
    """The mean of the image tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (batch, dim)."""
        return x[:, 1:].mean(1)


class GroupGeneralisedMean(nn.Module):
    """(mean x^p)^(1/p) over image tokens, p learnt for each group of channels; values below 1e-6 count as that.

    GGeM: Ko et al., "Group Generalized Mean Pooling for Vision Transformer", 2022, equation 3,
    https://arxiv.org/abs/2212.04114.

    Args:
        dim: width of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.group = _GROUP if dim % _GROUP == 0 else 1
        self.exponent = nn.Parameter(torch.full((dim // self.group,), _FIRST_EXPONENT))

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (batch, dim)."""
        power = self.exponent.clamp_min(1.0).repeat_interleave(self.group)
        return x[:, 1:].clamp_min(_SMALLEST).pow(power).mean(1).pow(1 / power)
