"""Elements behind a scale that many values share: FP8, FP6, FP4, ternary, powers of two.

A value x becomes ``scale * nearest(x / scale)``. Gradients are those of LSQ (`cosearch.model.formats.integer`), which
hold for any set of values between two limits: dx = dy inside the limits, else 0, and
dscale = g * (sum(dy * y) - sum(dx * x)) / scale, g = 1 / sqrt(n * positive values).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat
from cosearch.model.formats.base import Quantizer, refuse_nan
from cosearch.model.formats.calibration import Calibration, calibrated_scale, check_calibration
from cosearch.model.formats.grids import Grid, grid_of, power_below

__all__ = ["ScaledQuantizer", "fake_quantize_to", "nearest_power"]

_SMALLEST_SCALE = 1e-8
"""A learned scale may step to zero or below; it acts as this small one until its gradient brings it back."""


def nearest_power(scale: Tensor) -> Tensor:
    """Returns the power of two nearest to each of ``scale`` on a logarithmic axis."""
    below = power_below(scale)
    return torch.where(scale > below * math.sqrt(2), 2 * below, below)


def fake_quantize_to(x: Tensor, scale: Tensor, grid: Grid, *, values: int | None = None) -> Tensor:
    """Returns ``scale * nearest(x / scale)``, with the gradients of the module's docstring.

    Where the grid asks for it, the scale acts as the nearest power of two; its gradient passes straight through that.

    Args:
        x: values, shape (channels, ...) if there are several scales.
        scale: shape (1,), or (channels,) for one scale for each index of the first dimension of ``x``.
        grid: the values to round to.
        values: n of the gradient scale; the values of ``x`` for each scale if left out.
    """
    n = x.numel() // scale.numel() if values is None else values
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        factor = 1.0 / math.sqrt(n * grid.positive)
        return cast(Tensor, _FakeQuantize.apply(x, scale, grid, factor))  # type: ignore[no-untyped-call]
    steps = _steps(scale, x, grid)
    return grid.nearest(x / steps) * steps


def _shaped(scale: Tensor, x: Tensor) -> Tensor:
    return scale if scale.shape[0] == 1 else scale.view(-1, *[1] * (x.dim() - 1))


def _steps(scale: Tensor, x: Tensor, grid: Grid) -> Tensor:
    """Returns the scales, positive and shaped to multiply ``x``."""
    positive = scale.clamp_min(_SMALLEST_SCALE)
    return _shaped(nearest_power(positive) if grid.power_scales else positive, x)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, grid: Grid, factor: float) -> Tensor:
        steps = _steps(scale, x, grid)
        y = grid.nearest(x / steps) * steps
        ctx.save_for_backward(x, y, steps, scale)
        ctx.low, ctx.high, ctx.factor = grid.low, grid.high, factor
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, y, steps, scale = ctx.saved_tensors
        dy = grads[0]
        dx = torch.ops.aten.hardtanh_backward(dy, x / steps, ctx.low, ctx.high)
        if not ctx.needs_input_grad[1]:
            return dx, None, None, None
        # one step of the logarithm is one of the power's, so the divisor is the scale itself and not its power
        inner = (dy * y - dx * x).reshape(scale.numel(), -1).sum(1)
        return dx, inner / scale.clamp_min(_SMALLEST_SCALE) * ctx.factor, None, None


class ScaledQuantizer(Quantizer):
    """Fake quantisation of a format whose values share a scale.

    A scale of 0 means "not set yet": the first tensor that passes sets it.

    Args:
        number_format: a floating-point format of at most 8 bits, a ternary one or powers of two.
        channels: number of scales, one for each index of the input's first dimension.
        learned: whether the scale is a parameter; otherwise it is a buffer.
        calibration: how samples set the scale.
        values: values that share a scale (of one image, for activations); sets the gradient's scale.

    Attributes:
        scale: the scales, shape (channels,).
        grid: the values of one element.
    """

    scale: Tensor

    def __init__(
        self,
        number_format: NumberFormat,
        *,
        channels: int = 1,
        learned: bool = True,
        calibration: Calibration = "mse",
        values: int = 1,
    ) -> None:
        super().__init__()
        check_calibration(calibration, ternary=number_format.family == "ternary")
        self.format, self.grid = number_format, grid_of(number_format)
        self.channels, self.calibration, self.values = channels, calibration, values
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

    def calibrate(self, samples: Tensor) -> None:
        """Sets the scales for values like ``samples``, of shape (channels, ...) if there are several."""
        with torch.no_grad():
            self.scale.copy_(calibrated_scale(samples, self.grid, self.calibration, channels=self.channels))
        self._ready = True

    def codes(self, x: Tensor) -> Tensor:
        """Returns the codes of ``x`` (int32, same shape).

        Raises:
            SpecError: a value is NaN, and the format has no code for it.
        """
        if not self.grid.nan:
            refuse_nan(x, self.format.name)
        x = x.detach()
        return self.grid.encode(self.grid.nearest(x / _steps(self.scale.detach(), x, self.grid)))

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of ``codes``."""
        return self.grid.decode(codes) * _steps(self.scale.detach(), codes, self.grid)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the nearest values that the format has.

        Raises:
            SpecError: the model is being exported or compiled, and no tensor has set the scale yet.
        """
        if not self._ready:
            if torch.compiler.is_compiling():
                raise SpecError("scale", "is not set", "run `calibrate` on some images before you export the model")
            self.calibrate(x)
        return fake_quantize_to(x, self.scale, self.grid, values=self.values)

    def extra_repr(self) -> str:
        """Returns what is shown between the brackets of the module's name."""
        return f"{self.format.name}, channels={self.channels}, calibration={self.calibration}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._ready = bool((self.scale != 0).any())
