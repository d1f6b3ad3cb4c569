"""Floating point that torch itself has: fp32, fp16, bf16. No scale; nearest, ties to even, saturating."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from cosearch.formats import NumberFormat
from cosearch.model.formats.base import Quantizer

__all__ = ["CastQuantizer"]

_TYPES = {
    "fp32": (torch.float32, torch.int32),
    "fp16": (torch.float16, torch.int16),
    "bf16": (torch.bfloat16, torch.int16),
}


class CastQuantizer(Quantizer):
    """Rounds to a type of torch's and back; the gradient passes where nothing saturates.

    Codes are the type's bit patterns: 16 bits from 0 up; of fp32 as two's complement, as it fills an int32. Codes of
    infinities are read, but never written.

    Args:
        number_format: fp32, fp16 or bf16.
    """

    def __init__(self, number_format: NumberFormat) -> None:
        super().__init__()
        self.format = number_format
        self._type, self._bits = _TYPES[number_format.name]

    def reset(self) -> None:
        """Does nothing: there is no scale."""

    def calibrate(self, samples: Tensor) -> None:
        """Does nothing: there is no scale."""

    def codes(self, x: Tensor) -> Tensor:
        """Returns the bit patterns of ``x`` (int32, same shape)."""
        pattern = self._clipped(x.detach()).to(self._type).view(self._bits).to(torch.int32)
        return pattern if self._bits is torch.int32 else pattern & 0xFFFF

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of bit patterns."""
        return codes.to(self._bits).view(self._type).to(torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the nearest values that the format has."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return cast(Tensor, _Cast.apply(x, self._type, self.format.max_value))  # type: ignore[no-untyped-call]
        return self._clipped(x).to(self._type).to(torch.float32)

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-self.format.max_value, self.format.max_value)

    def extra_repr(self) -> str:
        """Returns what is shown between the brackets of the module's name."""
        return self.format.name


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, to: torch.dtype, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.most = most
        return x.clamp(-most, most).to(to).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= ctx.most), None, None
