"""Rounding of a layer's weights learned from a few images: AdaRound.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
https://arxiv.org/abs/2004.10568. Each weight is rounded down or up, whichever makes the layer's output err least:

    W~ = s clip(floor(W / s) + h(V)),  h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)    (equation 23)
    minimise ||W x - W~ x~||^2 + lambda sum(1 - |2 h(V) - 1|^beta)                (equations 24 and 25)

by Adam over V, which starts where h(V) is the fraction of W / s. In the first fifth of the steps lambda is 0; then
beta falls from 20 to 2 along a cosine, which lets weights settle at down or up (these three as in the authors' code,
after torch.ao.quantization.experimental, whose docstrings name the equations).

What differs from the paper: the error is a quadratic form of the weights in x~^T x~, so that a step costs nothing for
more images and needs no minibatches (hence no randomness: the same arguments give the same weights); each output's
error is divided by that of rounding to the nearest, so that one lambda suits all layers; and in the end an output keeps
its nearest rounding where learning did not beat it, so that the error on the samples never grows. The activation
behind the layer is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat, number_format
from cosearch.model.formats.base import Quantizer
from cosearch.model.formats.by_name import quantizer
from cosearch.model.formats.grids import code_range

__all__ = ["Rounded", "adaround"]

_ZETA, _GAMMA = 1.1, -0.1
"""Ends of the stretched sigmoid (equation 23)."""

_BETA_FIRST, _BETA_LAST, _WARM_START = 20.0, 2.0, 0.2

_LAMBDA, _LEARNING_RATE = 0.1, 0.1
"""Weight of the regulariser for a weight, against an output's error as a share of nearest rounding's, and Adam's rate.
Chosen here of 0.01 to 0.3 and 0.003 to 0.1 on random layers of 8 to 64 correlated inputs: with a few hundred steps less
of either leaves more error. The paper's figures belong to absolute errors and 10,000 steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """A layer's weights, rounded.

    Attributes:
        weight: values, shape (outputs, inputs); quantising them again changes nothing.
        codes: int32, likewise; at most 1 from those of rounding to the nearest.
        quantizer: holds the scales.
        nearest_error: squared error of the outputs with rounding to the nearest, summed over outputs, mean of rows.
        error: the same with these weights; never more.
    """

    weight: Tensor
    codes: Tensor
    quantizer: Quantizer
    nearest_error: float
    error: float


def adaround(
    layer: nn.Module,
    inputs: Tensor,
    format: NumberFormat | str,
    *,
    steps: int = 1000,
    targets: Tensor | None = None,
    scales: Quantizer | None = None,
) -> Rounded:
    """Returns the weights of a linear layer, rounded so that its outputs err least on ``inputs``.

    The layer is not changed.

    Args:
        layer: has ``weight`` (outputs, inputs) and ``bias`` (outputs,) or None.
        inputs: what reaches it, quantised if inputs are, shape (..., inputs).
        format: of the weights; an integer or ternary one.
        steps: of the optimiser.
        targets: outputs wanted, shape (..., outputs), such as the floating-point model's own; those of the layer's
            present weights on ``inputs`` if left out.
        scales: a calibrated quantiser of this format to take the scales from; each output's scale of least squared
            error if left out.

    Raises:
        SpecError: the format is neither integer nor ternary, or the shapes do not fit.
    """
    found = number_format(format) if isinstance(format, str) else format
    weight, bias = _linear(layer)
    low, high = _range(found)
    rows = inputs.detach().reshape(-1, inputs.shape[-1])
    if rows.shape[1] != weight.shape[1]:
        raise SpecError("inputs", f"are {rows.shape[1]} wide, but the layer takes {weight.shape[1]}", "give its inputs")
    if scales is None:
        scales = quantizer(found, channels=weight.shape[0], learned=False)
        scales.calibrate(weight)
    if scales.format != found:
        raise SpecError("scales", f"are of {scales.format.name}, not {found.name}", "give a quantiser of this format")
    problem = _problem(rows, weight, bias, targets)
    step = scales.decode(torch.ones_like(weight, dtype=torch.int32))
    nearest = scales.codes(weight)
    with torch.enable_grad():
        learned = _learn(weight / step, step, problem, nearest, (low, high), steps)
    nearest_error, error = problem.errors(nearest * step), problem.errors(learned * step)
    codes = torch.where((error < nearest_error).unsqueeze(1), learned, nearest)
    value = scales.decode(codes)
    return Rounded(
        weight=value,
        codes=codes,
        quantizer=scales,
        nearest_error=float(nearest_error.sum()),
        error=float(problem.errors(value).sum()),
    )


def _linear(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise SpecError("layer", "has no weight of shape (outputs, inputs)", "give a linear layer")
    return weight.detach(), None if bias is None else bias.detach()


def _range(found: NumberFormat) -> tuple[int, int]:
    if found.family == "ternary":
        return -1, 1
    if found.family == "integer":
        return code_range(found.bits, signed=found.signed)
    raise SpecError("format", f"is {found.name}", "learn the rounding of an integer or ternary format")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Problem:
    """Mean squared error of each output as a quadratic form: w G w^T - 2 w c^T + t, in double precision."""

    gram: Tensor
    cross: Tensor
    constant: Tensor

    def errors(self, weight: Tensor) -> Tensor:
        """Returns shape (outputs,)."""
        weight = weight.to(torch.float64)
        return ((weight @ self.gram - 2 * self.cross) * weight).sum(1) + self.constant


def _problem(rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor | None) -> _Problem:
    x, w = rows.to(torch.float64), weight.to(torch.float64)
    if targets is None:
        wanted = x @ w.T
    else:
        wanted = targets.detach().reshape(-1, targets.shape[-1]).to(torch.float64)
        if wanted.shape != (len(x), len(w)):
            raise SpecError("targets", f"are {tuple(wanted.shape)}", f"give one row for each input, {len(w)} wide")
        wanted = wanted if bias is None else wanted - bias
    n = len(x)
    return _Problem(gram=x.T @ x / n, cross=wanted.T @ x / n, constant=wanted.square().mean(0))


def _learn(
    scaled: Tensor, step: Tensor, problem: _Problem, nearest: Tensor, limits: tuple[int, int], steps: int
) -> Tensor:
    """Returns codes, int32, each the floor of ``scaled`` or one more, within the limits."""
    low, high = limits
    floor = scaled.floor()
    fraction = (scaled - floor).clamp(1e-4, 1 - 1e-4)
    v = torch.logit((fraction - _GAMMA) / (_ZETA - _GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=_LEARNING_RATE)
    least = problem.errors(nearest * step).clamp_min(1e-30).unsqueeze(1)
    for index in range(steps):
        up = (torch.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
        weight = (floor + up).clamp(low, high) * step
        loss = (problem.errors(weight).unsqueeze(1) / least).sum() + _regulariser(up, index / steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    up = torch.sigmoid(v.detach()) >= 0.5
    return (floor + up).clamp(low, high).to(torch.int32)


def _regulariser(up: Tensor, done: float) -> Tensor:
    """Returns lambda sum(1 - |2 h - 1|^beta), with beta for the share of the steps that is done."""
    if done < _WARM_START:
        return torch.zeros(())
    past = (done - _WARM_START) / (1 - _WARM_START)
    beta = _BETA_LAST + (_BETA_FIRST - _BETA_LAST) * (1 + math.cos(past * math.pi)) / 2
    return _LAMBDA * (1 - (2 * up - 1).abs().pow(beta)).sum()
