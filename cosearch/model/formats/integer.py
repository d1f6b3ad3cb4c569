"""Integers with a learned scale: uniform, symmetric fake quantisation with straight-through gradients.

A value x becomes ``scale * code`` with ``code = round(clip(x / scale, low, high))``, ties to even. Codes are two's
complement (-2^(b-1) to 2^(b-1) - 1) or unsigned (0 to 2^b - 1). There is no zero point, so a product of two quantised
tensors is an integer product times the product of their scales.

Gradients follow LSQ (Esser et al., "Learned Step Size Quantization", ICLR 2020, https://arxiv.org/abs/1902.08153):

    dx = dy where low < x / scale < high, else 0
    dscale = g * sum(dy * (code - x / scale where low < x / scale < high, else code)),  g = 1 / sqrt(n * high)

with n the number of values that share the scale (section 2.2; for activations, those of one image).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from cosearch.errors import SpecError

__all__ = ["IntegerQuantizer", "code_range", "codes", "fake_quantize", "fit_scale"]

_SMALLEST_SCALE = 1e-8
"""A learned scale may step to zero or below; it acts as this small one until its gradient brings it back."""

_FIT_VALUES = 32768
"""Values that `fit_scale` looks at, spread evenly over a larger tensor."""

_FIT_STEPS = 64
"""Scales that `fit_scale` tries between nothing and the largest value."""


def code_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Returns the smallest and the largest code of a ``bits`` wide integer.

    Raises:
        SpecError: ``bits`` is not 2 to 16.
    """
    if not 2 <= bits <= 16:
        raise SpecError("bits", f"is {bits}, but integers have 2 to 16 bits", "write 2 to 16")
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _quotient(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x in units of its scale, and the scale shaped to multiply x: one, or one for each index of dim 0."""
    step = scale.clamp_min(_SMALLEST_SCALE)
    if step.numel() > 1:
        step = step.view(-1, *[1] * (x.dim() - 1))
    return x / step, step


def codes(x: Tensor, scale: Tensor, bits: int, *, signed: bool = True) -> Tensor:
    """Returns the integer codes of ``x``, as int32 of the same shape.

    Args:
        x: values.
        scale: one scale, or one for each index of the first dimension of ``x``.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
    """
    low, high = code_range(bits, signed=signed)
    return _quotient(x, scale)[0].clamp(low, high).round().to(torch.int32)


def fake_quantize(x: Tensor, scale: Tensor, bits: int, *, signed: bool = True, sharing: int | None = None) -> Tensor:
    """Returns ``scale * codes(x)`` as floating point, with the gradients of the module's docstring.

    Args:
        x: values.
        scale: one scale, or one for each index of the first dimension of ``x``.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
        sharing: n of the gradient scale; the values of ``x`` for each scale if left out.
    """
    low, high = code_range(bits, signed=signed)
    if not torch.is_grad_enabled():
        quotient, step = _quotient(x, scale)
        return quotient.clamp(low, high).round() * step
    factor = 1.0 / math.sqrt((sharing or x.numel() // scale.numel()) * high)
    return cast(Tensor, _FakeQuantize.apply(x, scale, low, high, factor))  # type: ignore[no-untyped-call]


class _FakeQuantize(torch.autograd.Function):
    """Four passes forwards; backwards one for dx and one for each of the two inner products of dscale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
        quotient, step = _quotient(x, scale)
        y = quotient.clamp(low, high).round_().mul_(step)
        ctx.save_for_backward(quotient, y, step)
        ctx.low, ctx.high, ctx.factor, ctx.shape = low, high, factor, scale.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        quotient, y, step = ctx.saved_tensors
        dy = grads[0]
        dx = torch.ops.aten.hardtanh_backward(dy, quotient, ctx.low, ctx.high)
        dscale = None
        if ctx.needs_input_grad[1]:
            dscale = (_inner(dy, y, step) / step.flatten() - _inner(dx, quotient, step)) * ctx.factor
            dscale = dscale.view(ctx.shape)
        return dx, dscale, None, None, None


def _inner(a: Tensor, b: Tensor, step: Tensor) -> Tensor:
    """Returns the inner product of a and b for each scale."""
    if step.numel() == 1:
        return torch.dot(a.reshape(-1), b.reshape(-1)).view(1)
    return (a * b).flatten(1).sum(1)


def fit_scale(x: Tensor, bits: int, *, signed: bool = True, channels: int = 1) -> Tensor:
    """Returns the scales, shape (channels,), with the least mean squared error of quantising ``x``.

    Tries evenly spaced scales up to the one that clips nothing (the search of LAPQ and OMSE: Choukroun et al.,
    "Low-bit Quantization of Neural Networks for Efficient Inference", 2019, https://arxiv.org/abs/1902.06822).

    Args:
        x: values; its first dimension is split into ``channels``.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
        channels: scales to find.
    """
    low, high = code_range(bits, signed=signed)
    with torch.no_grad():
        rows = x.detach().reshape(channels, -1)
        rows = rows[:, :: max(1, rows.numel() // _FIT_VALUES)] if channels < 8 else rows
        reach = rows.abs().amax(1, keepdim=True).clamp_min(1e-5) / max(high, 1)
        best, least = reach.clone(), torch.full_like(reach, math.inf)
        for index in range(1, _FIT_STEPS + 1):
            step = reach * (index / _FIT_STEPS)
            error = ((rows / step).clamp(low, high).round() * step - rows).square().mean(1, keepdim=True)
            better = error < least
            best, least = torch.where(better, step, best), torch.where(better, error, least)
        return best.squeeze(1)


class IntegerQuantizer(nn.Module):
    """Fake quantisation with scales of its own.

    A scale of 0 means "not set yet": the first tensor that passes sets it (`fit_scale`).

    Attributes:
        bits: width of a code.
        signed: two's complement, or unsigned.
        scale: learned scales, shape (channels,).
    """

    def __init__(self, bits: int, *, signed: bool = True, channels: int = 1) -> None:
        super().__init__()
        self.low, self.high = code_range(bits, signed=signed)
        self.bits, self.signed = bits, signed
        self.scale = nn.Parameter(torch.zeros(channels))
        self._ready = False

    def reset(self) -> None:
        """Forgets the scales, so that the next tensor sets them."""
        with torch.no_grad():
            self.scale.zero_()
        self._ready = False

    def fit(self, x: Tensor) -> None:
        """Sets the scales for values like ``x``, whose first dimension is the channels' if there are several."""
        with torch.no_grad():
            self.scale.copy_(fit_scale(x, self.bits, signed=self.signed, channels=self.scale.numel()))
        self._ready = True

    def codes(self, x: Tensor) -> Tensor:
        """Returns the integer codes of ``x`` (int32, same shape)."""
        return codes(x, self.scale.detach(), self.bits, signed=self.signed)

    def forward(self, x: Tensor, sharing: int | None = None) -> Tensor:
        """Returns ``scale * codes(x)``; ``sharing`` as in `fake_quantize`."""
        if not self._ready and not torch.compiler.is_compiling():
            if not bool((self.scale > 0).all()):
                self.fit(x)
            self._ready = True
        return fake_quantize(x, self.scale, self.bits, signed=self.signed, sharing=sharing)
