"""Muon: momentum whose matrices are orthogonalised before they are applied.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon.
Matrices of one shape are orthogonalised as one batch: on small models the cost is calls, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon", "ScaleAdam", "orthogonalise"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration ("Muon", section "Coefficient selection")."""

ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Returns nearly orthogonal matrices (singular values 0.7 to 1.2) with the same singular vectors.

    Args:
        matrices: shape (..., rows, columns).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon:
    """Nesterov momentum, orthogonalised, scaled so that tall matrices move as far as wide ones.

    Args:
        parameters: matrices.
        momentum: share of the old momentum kept in a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self._groups = list(by_shape.values())
        self._momenta = [torch.zeros(len(group), *group[0].shape) for group in self._groups]
        self._momentum = momentum

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Moves every parameter against its gradient."""
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in group])
            momentum.lerp_(gradient, 1 - self._momentum)
            update = orthogonalise(gradient.lerp(momentum, self._momentum))
            rows, columns = group[0].shape
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(group, update.unbind(0), strict=True):
                parameter.add_(change, alpha=-scale)


class ScaleAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) on the logarithm of quantisation scales.

    Scales lie orders of magnitude apart and must stay positive: a step of AdamW, as long as its learning rate whatever
    the gradient, would carry small ones past zero at once. Here a step multiplies each scale by at most about
    ``exp(learning_rate)``.

    Args:
        scales: positive parameters.
        betas: decay of the two moments.
    """

    def __init__(self, scales: Iterable[nn.Parameter], betas: tuple[float, float] = (0.9, 0.95)) -> None:
        self._scales = list(scales)
        self._betas = betas
        self._sizes = [scale.numel() for scale in self._scales]
        self._first = torch.zeros(sum(self._sizes))
        self._second = torch.zeros(sum(self._sizes))
        self._steps = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Multiplies every scale against its gradient."""
        if not self._scales:
            return
        self._steps += 1
        scales = torch.cat([scale.view(-1) for scale in self._scales])
        gradients = torch.cat(
            [torch.zeros_like(s).view(-1) if s.grad is None else s.grad.view(-1) for s in self._scales]
        )
        gradients = gradients * scales  # of the logarithm
        one, two = self._betas
        self._first.lerp_(gradients, 1 - one)
        self._second.lerp_(gradients.square(), 1 - two)
        first = self._first / (1 - one**self._steps)
        second = self._second / (1 - two**self._steps)
        moved = scales * torch.exp(-learning_rate * first / (second.sqrt() + 1e-12))
        for scale, values in zip(self._scales, torch.split(moved, self._sizes), strict=True):
            scale.copy_(values.view_as(scale))
