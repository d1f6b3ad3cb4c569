"""Normalisation: LayerNorm, and BatchNorm that a training turns it into."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EPSILON", "ProgressiveBatchNorm", "make_norm"]

EPSILON = 1e-6
"""Added to the variance in LayerNorm, as in ViT's published code."""

_HANDOVER = 0.5
"""Share of a training after which only BatchNorm is left; the rest of it settles the statistics (assumption)."""

_MOMENTUM = 0.1


def make_norm(kind: str, dim: int) -> nn.Module:
    """Returns the normalisation called ``kind`` for tokens of ``dim`` values."""
    return ProgressiveBatchNorm(dim) if kind == "batchnorm" else nn.LayerNorm(dim, eps=EPSILON)


class ProgressiveBatchNorm(nn.Module):
    """PRepBN: gamma LN(x) + (1 - gamma) (BN(x) + eta x), with gamma going from 1 to 0 as training goes on.

    Guo et al., "SLAB: Efficient Transformers with Simplified Linear Attention and Progressive Re-parameterized Batch
    Normalization", ICML 2024, section 3.2, https://arxiv.org/abs/2405.11582. In the end it is one scale and one shift
    for each channel. Statistics are taken over all tokens of a batch.

    Args:
        dim: width of a token.
    """

    gamma: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(dim, eps=EPSILON)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eta = nn.Parameter(torch.zeros(1))
        self.register_buffer("gamma", torch.ones(1))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self._share = 1.0

    def progress(self, done: float) -> None:
        """Hands over to BatchNorm as a share ``done`` of the training is done."""
        self._share = max(0.0, 1.0 - done / _HANDOVER)
        self.gamma.fill_(self._share)

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self._share = float(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised tokens, shape (batch, tokens, dim)."""
        if self.training:
            batch = F.batch_norm(
                x.flatten(0, -2), self.mean, self.variance, self.weight, self.bias, True, _MOMENTUM, EPSILON
            ).view_as(x)
            simple = batch + self.eta * x
        else:
            scale = self.weight * torch.rsqrt(self.variance + EPSILON)
            simple = x * (scale + self.eta) + (self.bias - self.mean * scale)
        if self._share == 0.0:
            return simple
        mixed: Tensor = self.gamma * self.layer(x) + (1 - self.gamma) * simple
        return mixed
