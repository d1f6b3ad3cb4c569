"""Blocks of 32 values under one power of two: OCP Microscaling Formats (MX) specification v1.0, 2023.

For a block with largest magnitude a (section 6.3, as its authors' emulation library microxcaling and oneDNN's design
note on MX have it):

    shared = 2**(floor(log2 a) - emax),  emax the exponent of the element format's largest value
    x becomes shared * nearest(x / shared); ties to even, elements saturate

The shared scale is stored as E8M0: its exponent plus 127, 0 to 254; 255 is NaN. A block of zeros gets code 0. Blocks
run along the reduction dimension of the product; the last one may be short: it has fewer values and a scale of its own.

What the specification leaves open is settled as microxcaling does: a block that holds NaN or an infinity becomes NaN
as a whole (code 255). Gradients pass straight through; there is nothing to learn, as scales follow the values. The
largest element keeps its exponent, saturated or not, so that quantising twice changes nothing.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from cosearch.formats import NumberFormat
from cosearch.model.formats.base import Quantizer
from cosearch.model.formats.grids import Grid, grid_of, power_below

__all__ = ["MXQuantizer"]

_BIAS = 127
_LARGEST_POWER, _SMALLEST_POWER = 2.0**127, 2.0**-127
_NAN_CODE = 255


class MXQuantizer(Quantizer):
    """Fake quantisation to an MX format.

    Args:
        number_format: an MX format.
        axis: dimension along which blocks run; the reduction dimension of the product that follows.
    """

    def __init__(self, number_format: NumberFormat, *, axis: int = -1) -> None:
        super().__init__()
        self.format, self.axis, self.grid = number_format, axis, grid_of(number_format)
        self.block = number_format.block_size

    def reset(self) -> None:
        """Does nothing: scales follow the values."""

    def calibrate(self, samples: Tensor) -> None:
        """Does nothing: scales follow the values."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the nearest values under each block's scale."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return cast(Tensor, _StraightThrough.apply(x, self))  # type: ignore[no-untyped-call]
        return self.nearest(x)

    def nearest(self, x: Tensor) -> Tensor:
        """Returns what `forward` does, without a gradient of its own."""
        blocks = self._blocks(x)
        shared = _shared(blocks, self.grid)
        return self._joined(self.grid.nearest(blocks / shared) * shared, x)

    def codes(self, x: Tensor) -> Tensor:
        """Returns for each value the element's code below its block's E8M0 code, int32, same shape.

        `stored` gives what a memory holds: the block's code once. NaN and infinities give 255 for the block, with
        the elements' codes 0.
        """
        blocks = self._blocks(x.detach())
        shared = _shared(blocks, self.grid)
        bad = shared.isnan()
        elements = self.grid.encode(torch.where(bad, 0.0, self.grid.nearest(blocks / shared)))
        # frexp gives a mantissa of 1/2 to 1, hence one more than the exponent
        exponent = torch.frexp(torch.where(bad, 1.0, shared)).exponent - 1 + _BIAS
        scales = torch.where(bad, _NAN_CODE, exponent).to(torch.int32)
        return self._joined((elements & self._mask) | (scales << self.format.bits).expand_as(elements), x)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of codes as `codes` gives them."""
        scales, elements = codes >> self.format.bits, codes & self._mask
        powers = [2.0 ** (code - _BIAS) for code in range(_NAN_CODE)] + [math.nan]
        table = torch.tensor(powers, dtype=torch.float32, device=codes.device)
        return self.grid.decode(self._element(elements)) * table[scales.long()]

    def stored(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the elements' codes, same shape, and the E8M0 codes, one for each block along the axis."""
        moved = codes.movedim(self.axis, -1)
        scales = (moved[..., :: self.block] >> self.format.bits).movedim(-1, self.axis)
        return self._element(codes & self._mask), scales

    @property
    def _mask(self) -> int:
        return (1 << self.format.bits) - 1

    def _element(self, pattern: Tensor) -> Tensor:
        """Returns elements' codes from their bits: integers are two's complement."""
        if self.format.is_float:
            return pattern
        return pattern - ((pattern >> (self.format.bits - 1)) << self.format.bits)

    def _blocks(self, x: Tensor) -> Tensor:
        """Returns shape (..., blocks, block), zeros after the last value."""
        moved = x.movedim(self.axis, -1)
        count = -(-moved.shape[-1] // self.block)
        padded = F.pad(moved, (0, count * self.block - moved.shape[-1]))
        return padded.reshape(*moved.shape[:-1], count, self.block)

    def _joined(self, blocks: Tensor, x: Tensor) -> Tensor:
        """Returns blocks in the shape of ``x``."""
        length = x.shape[self.axis]
        return blocks.flatten(-2)[..., :length].movedim(-1, self.axis)

    def extra_repr(self) -> str:
        """Returns what is shown between the brackets of the module's name."""
        return f"{self.format.name}, axis={self.axis}"


def _shared(blocks: Tensor, grid: Grid) -> Tensor:
    """Returns the blocks' scales, shape (..., blocks, 1); NaN where a value is no number."""
    most = blocks.abs().amax(-1, keepdim=True)
    top = 2.0 ** (math.frexp(grid.high)[1] - 1)
    shared = (power_below(most) / top).clamp(_SMALLEST_POWER, _LARGEST_POWER)
    return torch.where(most < math.inf, shared, math.nan)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: MXQuantizer) -> Tensor:  # noqa: ARG004
        return quantizer.nearest(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None
