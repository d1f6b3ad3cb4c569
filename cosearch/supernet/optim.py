"""What moves the shared parameters: the optimisers of `cosearch.train`, for parameters that grow and are used in part.

What no model of a step used stays as it is: Muon makes every step as long as the last, so old momentum alone would
move it as far as a gradient. Orthogonalising a gradient that is zero outside its part is the same as orthogonalising
the part, so Muon sees no more of a bank than the largest model of the step has, which is far cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cosearch.supernet.places import is_scale, matrix_shape
from cosearch.supernet.weights import SharedWeights, enlarged, leading
from cosearch.train import Recipe, orthogonalise
from cosearch.train.optim import BETAS

__all__ = ["SharedOptimizer"]

_EPSILON = 1e-8
"""Of AdamW (Loshchilov & Hutter 2019, algorithm 2)."""

_SCALE_EPSILON = 1e-12
"""Gradients of scales are far smaller; as in `cosearch.train.optim.ScaleAdam`."""


class SharedOptimizer:
    """Muon for the stem's and the blocks' matrices, Adam on the logarithm of scales, AdamW for the rest.

    Args:
        weights: what it moves.
        recipe: its rates; ``adamw`` moves all banks by AdamW.

    Attributes:
        first: Muon's momentum, or AdamW's first moment, by bank.
        second: AdamW's second moment.
        counts: steps that moved a bank by AdamW.
    """

    def __init__(self, weights: SharedWeights, recipe: Recipe) -> None:
        self._weights, self._recipe = weights, recipe
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Moves every bank that has a gradient at ``factor`` times the highest rates, and drops the gradients."""
        matrices: dict[tuple[int, int], dict[str, Tensor]] = {}
        for bank, whole in self._weights.gradients.items():
            part = leading(self._weights.used[bank])
            gradient = whole[part]
            shape = matrix_shape(bank, tuple(gradient.shape)) if self._recipe.optimizer == "muon" else None
            if shape is None:
                self._adamw(bank, gradient, factor)
            else:
                momentum = self._state(self.first, bank)[part].lerp_(gradient, 1 - self._recipe.momentum)
                update = gradient.lerp(momentum, self._recipe.momentum)
                matrices.setdefault(shape, {})[bank] = update.reshape(shape)
        for shape, updates in matrices.items():
            self._muon(shape, updates, factor)
        self._weights.clear_gradients()

    def _muon(self, shape: tuple[int, int], updates: Mapping[str, Tensor], factor: float) -> None:
        moves = orthogonalise(torch.stack(list(updates.values())))
        rate = self._recipe.matrix_lr * factor * max(1.0, shape[0] / shape[1]) ** 0.5
        for bank, move in zip(updates, moves, strict=True):
            values = self._values(bank)
            values.add_(move.view(values.shape), alpha=-rate)

    def _adamw(self, bank: str, gradient: Tensor, factor: float) -> None:
        values, (one, two), part = self._values(bank), BETAS, leading(self._weights.used[bank])
        scales = is_scale(bank)
        if scales:  # of the logarithm, as in `cosearch.train.optim.ScaleAdam`
            gradient = gradient * values.nan_to_num()  # between two parts a bank may hold what no model had yet
        count = self.counts[bank] = self.counts.get(bank, 0) + 1
        first = self._state(self.first, bank)[part].lerp_(gradient, 1 - one)
        second = self._state(self.second, bank)[part].lerp_(gradient.square(), 1 - two)
        deviation = (second / (1 - two**count)).sqrt_()
        if scales:
            move = first / (1 - one**count) / deviation.add_(_SCALE_EPSILON)
            values.mul_(torch.exp(-self._recipe.scale_lr * factor * move))
            return
        rate = self._recipe.lr * factor
        if values.dim() >= 2 and not bank.endswith("bias"):
            values.mul_(1 - rate * self._recipe.weight_decay)
        values.addcdiv_(first, deviation.add_(_EPSILON), value=-rate / (1 - one**count))

    def _values(self, bank: str) -> Tensor:
        """Returns the part of a bank that was used."""
        return self._weights.values[bank][leading(self._weights.used[bank])]

    def _state(self, states: dict[str, Tensor], bank: str) -> Tensor:
        values = self._weights.values[bank]
        state = states.get(bank)
        state = torch.zeros_like(values) if state is None else enlarged(state, values.shape, 0.0)
        states[bank] = state
        return state
