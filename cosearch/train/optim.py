"""Muon: momentum whose matrices are orthogonalised before they are applied.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon.
Matrices of one shape are orthogonalised as one batch: on small models the cost is calls, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalise"]

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
