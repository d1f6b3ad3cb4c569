"""Muon: momentum whose matrices are orthogonalised before they are applied.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon.
Matrices of one shape are orthogonalised as one batch: on small models the cost is calls, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.train.recipe import Recipe

__all__ = ["BETAS", "Groups", "Muon", "Optimizers", "Packed", "ScaleAdam", "orthogonalise", "parameter_groups"]

BETAS = (0.9, 0.95)
"""Decay of AdamW's and ScaleAdam's moments."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration ("Muon", section "Coefficient selection")."""

ITERATIONS = 5


_LANES = 16
"""Single-precision numbers in the widest vector register of a processor (AVX-512)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Parameters by what moves them.

    Attributes:
        hidden: the stem's and the blocks' matrices, Muon's; none if the recipe asks for AdamW.
        scales: of quantisation, ScaleAdam's.
        decayed: the other matrices, AdamW's with weight decay.
        plain: all the rest, AdamW's without.
    """

    hidden: list[nn.Parameter]
    scales: list[nn.Parameter]
    decayed: list[nn.Parameter]
    plain: list[nn.Parameter]


def parameter_groups(parameters: Mapping[str, nn.Parameter], recipe: Recipe, *, stacked: bool = False) -> Groups:
    """Returns a model's parameters in groups.

    Args:
        parameters: by name.
        recipe: which optimiser they are for.
        stacked: whether each has a leading axis of models.
    """
    matrix = 3 if stacked else 2
    scales = [parameter for name, parameter in parameters.items() if name.endswith("quantizer.scale")]
    hidden = [
        parameter
        for name, parameter in parameters.items()
        if recipe.optimizer == "muon" and name.startswith(("stem.", "blocks.")) and parameter.dim() == matrix
    ]
    taken = {id(parameter) for parameter in (*hidden, *scales)}
    rest = [parameter for parameter in parameters.values() if id(parameter) not in taken]
    return Groups(
        hidden=hidden,
        scales=scales,
        decayed=[p for p in rest if p.dim() >= matrix],
        plain=[p for p in rest if p.dim() < matrix],
    )


def orthogonalise(matrices: Tensor) -> Tensor:
    """Returns nearly orthogonal matrices (singular values 0.7 to 1.2) with the same singular vectors.

    Args:
        matrices: shape (..., rows, columns).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).view(matrices.shape)


class Muon:
    """Nesterov momentum, orthogonalised, scaled so that tall matrices move as far as wide ones.

    Args:
        parameters: matrices, or stacks of them: shape (..., rows, columns).
        momentum: share of the old momentum kept in a step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self._groups = list(by_shape.values())
        self._momenta = [torch.zeros(len(group), *group[0].shape) for group in self._groups]
        self._momentum = momentum

    def momenta(self) -> dict[int, Tensor]:
        """Returns each parameter's momentum, a view, by the parameter's `id`."""
        pairs = zip(self._groups, self._momenta, strict=True)
        return {id(p): momentum[index] for group, momentum in pairs for index, p in enumerate(group)}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Moves every parameter against its gradient."""
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in group])
            momentum.lerp_(gradient, 1 - self._momentum)
            update = orthogonalise(gradient.lerp(momentum, self._momentum))
            rows, columns = group[0].shape[-2:]
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

    def __init__(self, scales: Iterable[nn.Parameter], betas: tuple[float, float] = BETAS) -> None:
        self._scales = list(scales)
        self._betas = betas
        self._sizes = [scale.numel() for scale in self._scales]
        self._first = torch.zeros(sum(self._sizes))
        self._second = torch.zeros(sum(self._sizes))
        self.steps = 0

    def moments(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Returns each parameter's moments, views, by the parameter's `id`."""
        first, second = (torch.split(values, self._sizes) for values in (self._first, self._second))
        return {id(p): pair for p, *pair in zip(self._scales, first, second, strict=True)}  # type: ignore[misc]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Multiplies every scale against its gradient."""
        if not self._scales:
            return
        self.steps += 1
        scales = torch.cat([scale.view(-1) for scale in self._scales])
        gradients = torch.cat(
            [torch.zeros_like(s).view(-1) if s.grad is None else s.grad.view(-1) for s in self._scales]
        )
        gradients = gradients * scales  # of the logarithm
        one, two = self._betas
        self._first.lerp_(gradients, 1 - one)
        self._second.lerp_(gradients.square(), 1 - two)
        first = self._first / (1 - one**self.steps)
        second = self._second / (1 - two**self.steps)
        moved = scales * torch.exp(-learning_rate * first / (second.sqrt() + 1e-12))
        for scale, values in zip(self._scales, torch.split(moved, self._sizes), strict=True):
            scale.copy_(values.view_as(scale))


class Optimizers:
    """What moves a model's parameters, each group at its own rate.

    Args:
        parameters: by name.
        recipe: which optimiser, and the highest rates.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> None:
        found = parameter_groups(parameters, recipe)
        groups = [
            {"params": found.decayed, "weight_decay": recipe.weight_decay},
            {"params": found.plain, "weight_decay": 0.0},
        ]
        self._parameters, self._recipe = dict(parameters), recipe
        self._adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=BETAS, fused=True)
        self._muon, self._scales = Muon(found.hidden, recipe.momentum), ScaleAdam(found.scales, BETAS)

    def step(self, factor: float) -> None:
        """Moves every parameter against its gradient, at ``factor`` times the highest rates."""
        for group in self._adamw.param_groups:
            group["lr"] = self._recipe.lr * factor
        self._adamw.step()
        self._muon.step(self._recipe.matrix_lr * factor)
        self._scales.step(self._recipe.scale_lr * factor)

    @torch.no_grad()
    def carry(self, before: Optimizers) -> None:
        """Goes on where the optimisers of another model stopped, for parameters of the same name and shape."""
        momenta, old_momenta = self._muon.momenta(), before._muon.momenta()
        moments, old_moments = self._scales.moments(), before._scales.moments()
        self._scales.steps = before._scales.steps
        for name, parameter in self._parameters.items():
            old = before._parameters.get(name)
            if old is None or old.shape != parameter.shape:
                continue
            if old in before._adamw.state:
                self._adamw.state[parameter] = before._adamw.state[old]
            if id(old) in old_momenta:
                momenta[id(parameter)].copy_(old_momenta[id(old)])
            if id(old) in old_moments:
                for moment, value in zip(moments[id(parameter)], old_moments[id(old)], strict=True):
                    moment.copy_(value)


class Packed:
    """Parameters of a stack as one, a row for each model, for optimisers that go through them element by element.

    Rows are filled up to whole vectors. The last, partial vector of a loop is computed in another way than the others
    and may round differently; without one, no model's values depend on its place in the stack.

    Args:
        parameters: shape (models, ...).

    Attributes:
        values: shape (models, elements); an optimiser moves these between `gather` and `scatter`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._sizes = [parameter[0].numel() for parameter in self._parameters]
        self._fill = -sum(self._sizes) % _LANES
        self.values = nn.Parameter(self._row([parameter.detach() for parameter in self._parameters]))

    def gather(self) -> None:
        """Sets the gradient of ``values`` from the parameters'."""
        self.values.grad = self._row([torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters])

    @torch.no_grad()
    def scatter(self) -> None:
        """Sets the parameters from ``values``."""
        sizes = [*self._sizes, self._fill]
        for parameter, values in zip(self._parameters, torch.split(self.values, sizes, dim=1), strict=False):
            parameter.copy_(values.view_as(parameter))

    def _row(self, tensors: list[Tensor]) -> Tensor:
        if not tensors:
            return torch.zeros(0, 0)
        return F.pad(torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1), (0, self._fill))
