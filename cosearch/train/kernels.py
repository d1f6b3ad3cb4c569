"""What a stack of models computes with calls of its own: quantising, normalising, the stem's product.

Each is one node for autograd, whatever number of models; the leading axis is theirs. Nothing here mixes models, so no
model's values depend on which others share the stack.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["fake_quantize", "layer_norm", "rounded", "stem_product", "steps_of"]

_SMALLEST_SCALE = 1e-8
"""As in `cosearch.model.formats.integer`."""


def steps_of(scale: Tensor) -> Tensor:
    """Returns the scales, positive and with an axis for values: shape (models, scales, 1)."""
    return scale.clamp_min(_SMALLEST_SCALE).unsqueeze(2)


def rounded(x: Tensor, steps: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Returns Q(x) and 1 where x is not clipped, 0 elsewhere, in floating point, which multiplies fastest.

    Args:
        x: shape (models, scales, values).
        steps: as from `steps_of`.
        low: just inside the smallest code, shape (models, 1, 1): values are clipped where they reach it.
        high: likewise the greatest.
    """
    inside = x / steps
    y = torch.maximum(inside, low)
    torch.minimum(y, high, out=y)
    inside.eq_(y)
    return y.round_().mul_(steps), inside


def fake_quantize(x: Tensor, scale: Tensor, low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
    """Returns Q(x) with the gradients of `cosearch.model.formats.integer` (LSQ).

    Args:
        x: shape (models, scales, values), or (scales, models, values).
        scale: shape (models, scales), likewise.
        low: as in `rounded`.
        high: as in `rounded`.
        factor: on the gradient of a scale, shaped like ``low``.
    """
    return cast(Tensor, _Fake.apply(x, scale, low, high, factor))  # type: ignore[no-untyped-call]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Returns LayerNorm of the last axis, with a weight and a bias for each model.

    Args:
        x: shape (models, rows, dim).
        weight: shape (models, dim).
        bias: shape (models, dim).
        epsilon: added to the variance.
    """
    return cast(Tensor, _Normalise.apply(x, weight, bias, epsilon))  # type: ignore[no-untyped-call]


def stem_product(windows: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
    """Returns the product of quantised pixels with a matrix, shape (models, rows, outputs).

    Pixels need no gradient but their scale does. With E what quantising added to the pixels (all of a clipped pixel)
    and dY the gradient of the product, it is sum((dY W) * E) = sum(W * (dY^T E)): the second form needs no matrix of
    the pixels' shape, and one product gives both the weights' gradient and it.

    Args:
        windows: quantised pixels, and E after them: shape (models, rows, 2 * pixels).
        weight: shape (models, outputs, pixels).
        bias: shape (models, outputs).
        scale: of the pixels, shape (models, 1).
        factor: on its gradient, shape (models, 1, 1).
    """
    return cast(Tensor, _Stem.apply(windows, weight, bias, scale, factor))  # type: ignore[no-untyped-call]


class _Fake(torch.autograd.Function):
    """Keeps what is not clipped and Q(x) less it: the derivatives by x and, times the scale, by the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
        steps = steps_of(scale)
        y, inside = rounded(x, steps, low, high)
        ctx.save_for_backward(inside, torch.addcmul(y, inside, x, value=-1), steps, factor)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside, error, steps, factor), dy = ctx.saved_tensors, grads[0]
        inner = torch.mul(dy, error).sum(2, keepdim=True)
        return torch.mul(dy, inside), inner.div_(steps).mul_(factor).squeeze(2), None, None, None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        unit, mean, deviation = torch.ops.aten.native_layer_norm(x, x.shape[2:], None, None, epsilon)
        ctx.save_for_backward(x, unit, mean, deviation, weight)
        return torch.addcmul(bias[:, None], unit, weight[:, None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, unit, mean, deviation, weight), dy = ctx.saved_tensors, grads[0]
        dweight, dbias = torch.mul(dy, unit).sum(1), dy.sum(1)
        dx, _, _ = torch.ops.aten.native_layer_norm_backward(
            dy * weight[:, None], x, x.shape[2:], mean, deviation, None, None, [True, False, False]
        )
        return dx, dweight, dbias, None


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, windows: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(windows, weight, scale, factor)
        return torch.baddbmm(bias[:, None], windows[..., : weight.shape[2]], weight.mT)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (windows, weight, scale, factor), dy = ctx.saved_tensors, grads[0]
        pixels = weight.shape[2]
        both = torch.bmm(dy.mT, windows)
        inner = (both[..., pixels:] * weight).flatten(1).sum(1, keepdim=True)
        dscale = inner.div_(scale.clamp_min(_SMALLEST_SCALE)).mul_(factor[:, 0])
        return None, both[..., :pixels], dy.sum(1), dscale, None
