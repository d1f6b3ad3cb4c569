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
from cosearch.formats import number_format
from cosearch.model.formats.base import Quantizer, refuse_nan
from cosearch.model.formats.calibration import (
    FIT_STEPS,
    FIT_VALUES,
    Calibration,
    calibrated_scale,
    check_calibration,
    thinned,
)
from cosearch.model.formats.grids import code_range, integer_grid

__all__ = ["IntegerQuantizer", "code_range", "codes", "fake_quantize", "fit_scale"]

_SMALLEST_SCALE = 1e-8
"""A learned scale may step to zero or below; it acts as this small one until its gradient brings it back."""

_FIT_AT_ONCE = 32768
"""Values that `fit_scale` rounds in one call."""


def codes(x: Tensor, scale: Tensor, bits: int, *, signed: bool = True) -> Tensor:
    """Returns the integer codes of ``x``, as int32 of the same shape.

    Args:
        x: values.
        scale: one scale, or one for each index of the first dimension of ``x``.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
    """
    low, high = code_range(bits, signed=signed)
    return (x / _steps(scale, x)).clamp(low, high).round().to(torch.int32)


def fake_quantize(x: Tensor, scale: Tensor, bits: int, *, signed: bool = True, values: int | None = None) -> Tensor:
    """Returns ``scale * codes(x)`` as floating point, with the gradients of the module's docstring.

    Args:
        x: values, shape (channels, ...) if there are several scales.
        scale: shape (1,), or (channels,) for one scale for each index of the first dimension of ``x``.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
        values: n of the gradient scale; the values of ``x`` for each scale if left out.
    """
    low, high = code_range(bits, signed=signed)
    n = x.numel() // scale.numel() if values is None else values
    return _apply(x, scale, low, high, 1.0 / math.sqrt(n * high))


def _steps(scale: Tensor, x: Tensor) -> Tensor:
    """Returns the scales, positive and shaped to multiply ``x``."""
    steps = scale.clamp_min(_SMALLEST_SCALE)
    return steps if steps.shape[0] == 1 else steps.view(-1, *[1] * (x.dim() - 1))


def _apply(x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return cast(Tensor, _FakeQuantize.apply(x, scale, low, high, factor))  # type: ignore[no-untyped-call]
    steps = _steps(scale, x)
    return (x / steps).clamp(low, high).round() * steps


class _FakeQuantize(torch.autograd.Function):
    """One buffer and four passes forwards; backwards one pass for dx and two inner products for dscale.

    With y = scale * code and dx as in the module's docstring, dscale = g * (sum(dy * y) - sum(dx * x)) / scale: no
    tensor of the codes or of the rounding error is needed, only the input, which is alive anyway, and the output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
        steps = _steps(scale, x)
        y = (x / steps).clamp_(low, high).round_().mul_(steps)
        ctx.save_for_backward(x, y, steps)
        ctx.low, ctx.high, ctx.factor = low, high, factor
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, y, steps = ctx.saved_tensors
        dy = grads[0]
        if steps.dim() == 1 and x.device.type == "cpu":
            step = steps.item()
            dx = torch.ops.aten.hardtanh_backward(dy, x, ctx.low * step, ctx.high * step)
        else:  # one bound for each channel; on other devices reading the scale would make them wait
            dx = torch.ops.aten.hardtanh_backward(dy, x / steps, ctx.low, ctx.high)
        if not ctx.needs_input_grad[1]:
            return dx, None, None, None, None
        if steps.dim() == 1:
            inner = torch.dot(dy.reshape(-1), y.reshape(-1)) - torch.dot(dx.reshape(-1), x.reshape(-1))
            dscale = inner / steps * ctx.factor
        else:
            inner = (dy * y).addcmul_(dx, x, value=-1).flatten(1).sum(1)
            dscale = inner.div_(steps.flatten()).mul_(ctx.factor)
        return dx, dscale, None, None, None


def fit_scale(x: Tensor, bits: int, *, signed: bool = True, channels: int = 1) -> Tensor:
    """Returns the scales, shape (channels,), with the least mean squared error of quantising ``x``.

    Tries evenly spaced scales up to the one that clips nothing (Choukroun et al., "Low-bit Quantization of Neural
    Networks for Efficient Inference", 2019, section 3, https://arxiv.org/abs/1902.06822).

    Args:
        x: values, shape (channels, ...) if there are several channels.
        bits: width of a code, 2 to 16.
        signed: two's complement, or unsigned.
        channels: scales to find.
    """
    low, high = code_range(bits, signed=signed)
    with torch.no_grad():
        rows = x.detach().reshape(channels, -1)
        rows = thinned(rows, FIT_VALUES)
        reach = torch.maximum(rows.amax(1, keepdim=True) / high, rows.amin(1, keepdim=True) / min(low, -1))
        shares = torch.arange(1, FIT_STEPS + 1, dtype=torch.float64).div_(FIT_STEPS).float()
        steps = shares.to(rows.device).view(-1, 1, 1) * reach.clamp_min(1e-6)
        errors = torch.cat([_squares(rows, some, low, high) for some in torch.split(steps, _at_once(rows.numel()))])
        return steps[:, :, 0].gather(0, errors.argmin(0, keepdim=True)).squeeze(0)


def _at_once(values: int) -> int:
    """Returns how many scales are tried at a time: few calls, on what stays in the caches."""
    return max(1, _FIT_AT_ONCE // max(values, 1))


def _squares(rows: Tensor, steps: Tensor, low: int, high: int) -> Tensor:
    """Returns the squared errors of rounding ``rows`` by ``steps``, shape (scales, channels, 1): (scales, channels)."""
    return (rows / steps).clamp_(low, high).round_().mul_(steps).sub_(rows).square_().sum(2)


class IntegerQuantizer(Quantizer):
    """Fake quantisation with scales of its own.

    A scale of 0 means "not set yet": the first tensor that passes sets it.

    Args:
        bits: width of a code.
        signed: two's complement, or unsigned.
        channels: number of scales, one for each index of the input's first dimension.
        values: values that share a scale (of one image, for activations); sets the gradient's scale.
        learned: whether the scale is a parameter; otherwise it is a buffer.
        calibration: how samples set the scale; ``mse`` is `fit_scale`.

    Attributes:
        scale: the scales, shape (channels,).
    """

    scale: Tensor

    def __init__(
        self,
        bits: int,
        *,
        signed: bool = True,
        channels: int = 1,
        values: int = 1,
        learned: bool = True,
        calibration: Calibration = "mse",
    ) -> None:
        super().__init__()
        check_calibration(calibration, ternary=False)
        self.calibration = calibration
        self.bits, self.signed, self.channels = bits, signed, channels
        self.low, self.high = code_range(bits, signed=signed)
        self.format = number_format(f"{'' if signed else 'u'}int{bits}")
        self.gradient_scale = 1.0 / math.sqrt(values * self.high)
        if learned:
            self.scale = nn.Parameter(torch.zeros(channels))
        else:
            self.register_buffer("scale", torch.zeros(channels))
        self._ready = False

    def reset(self) -> None:
        """Forgets the scales, so that the next tensor sets them."""
        with torch.no_grad():
            self.scale.zero_()
        self._ready = False

    def fit(self, x: Tensor) -> None:
        """Sets the scales for values like ``x``."""
        self.calibrate(x)

    def calibrate(self, samples: Tensor) -> None:
        """Sets the scales for values like ``samples``, of shape (channels, ...) if there are several."""
        with torch.no_grad():
            if self.calibration == "mse":
                scale = fit_scale(samples, self.bits, signed=self.signed, channels=self.channels)
            else:
                grid = integer_grid(self.low, self.high)
                scale = calibrated_scale(samples, grid, self.calibration, channels=self.channels)
            self.scale.copy_(scale)
        self._ready = True

    def codes(self, x: Tensor) -> Tensor:
        """Returns the integer codes of ``x`` (int32, same shape).

        Raises:
            SpecError: a value is NaN.
        """
        refuse_nan(x, self.format.name)
        return codes(x, self.scale.detach(), self.bits, signed=self.signed)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns ``scale * codes``."""
        return codes * _steps(self.scale.detach(), codes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``scale * codes(x)``.

        Raises:
            SpecError: the model is being exported or compiled, and no tensor has set the scale yet.
        """
        if not self._ready:
            if torch.compiler.is_compiling():
                raise SpecError("scale", "is not set", "run `calibrate` on some images before you export the model")
            self.fit(x)
        return _apply(x, self.scale, self.low, self.high, self.gradient_scale)

    def extra_repr(self) -> str:
        """Returns what is shown between the brackets of the module's name."""
        return f"bits={self.bits}, signed={self.signed}, channels={self.channels}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._ready = bool((self.scale != 0).any())
