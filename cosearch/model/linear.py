"""Linear layers: quantised, of low rank, with sparse weights."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.formats import number_format
from cosearch.model.formats import Quantizer, quantizer
from cosearch.spec import BlockSpec, layer_rank

__all__ = ["Linear", "LowRank", "block_linear", "keep_largest", "normal", "operand"]

_DENSE = (1, 1)

_RESISTANCE = 2e-4
"""How strongly weights that are masked are pulled to zero, relative to their own size (SR-STE, section 4.2)."""


def normal(std: float, *shape: int) -> Tensor:
    """Returns values of a normal distribution with deviation ``std``, cut off at two deviations."""
    return nn.init.trunc_normal_(torch.empty(*shape), std=std, a=-2 * std, b=2 * std)


def operand(
    name: str, values: int = 1, *, signed: bool = True, channels: int = 1, learned: bool = True, axis: int = -1
) -> Quantizer | None:
    """Returns a quantiser for an operand of a product, None where it stays in floating point.

    Args:
        name: a number format.
        values: values of one image that share a scale.
        signed: whether the values can be negative; integers are unsigned where they cannot.
        channels: scales, one for each index of the first dimension.
        learned: whether scales are trained.
        axis: dimension that the product sums over.
    """
    if name == "fp32":
        return None
    if number_format(name).family == "integer" and not signed:
        name = f"u{name}"
    return quantizer(name, channels=channels, learned=learned, values=values, axis=axis)


class Linear(nn.Module):
    """y = Q(x) Q(W)^T + b, with weights quantised per output and inputs per tensor.

    Args:
        inputs: length of an input row.
        outputs: length of an output row.
        rows: input rows of one image.
        formats: number formats of the weights and of the inputs.
        std: deviation of the initial weights; 1 / sqrt(inputs) times ``gain`` if left out.
        gain: factor on it.
        sparsity: (kept, of): of each ``of`` weights in a row only the ``kept`` largest count.

    Attributes:
        weight: shape (outputs, inputs).
        bias: shape (outputs,); not quantised.
        weight_quantizer: None where weights are floating point.
        input_quantizer: None where inputs are floating point.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rows: int,
        formats: tuple[str, str],
        std: float | None = None,
        gain: float = 1.0,
        sparsity: tuple[int, int] = _DENSE,
    ) -> None:
        super().__init__()
        deviation = gain / math.sqrt(inputs) if std is None else std
        self.weight = nn.Parameter(normal(deviation, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.sparsity = sparsity
        self.weight_quantizer = operand(formats[0], inputs, channels=outputs)
        self.input_quantizer = operand(formats[1], rows * inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (..., outputs) for ``x`` of shape (..., inputs)."""
        return self.product(self.quantized_input(x))

    def quantized_input(self, x: Tensor) -> Tensor:
        """Returns Q(x)."""
        quantized: Tensor = x if self.input_quantizer is None else self.input_quantizer(x)
        return quantized

    def product(self, x: Tensor) -> Tensor:
        """Returns y for ``x`` that is quantised already."""
        return F.linear(x, self.quantized_weight(), self.bias)

    def kept_weight(self) -> Tensor:
        """Returns W with the weights that do not count at zero, not quantised yet."""
        return self.weight if self.sparsity == _DENSE else keep_largest(self.weight, self.sparsity)

    def quantized_weight(self) -> Tensor:
        """Returns the weights that are multiplied."""
        weight = self.kept_weight()
        quantized: Tensor = weight if self.weight_quantizer is None else self.weight_quantizer(weight)
        return quantized


class LowRank(nn.Module):
    """Two linear layers in place of one that would hold more weights.

    MCUFormer (Liang et al. 2023, section 3.1, https://arxiv.org/abs/2310.16898) searches the rank of each layer.

    Attributes:
        down: to the rank.
        up: from it.
    """

    def __init__(self, down: Linear, up: Linear) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (..., outputs) for ``x`` of shape (..., inputs)."""
        out: Tensor = self.up(self.down(x))
        return out

    def quantized_input(self, x: Tensor) -> Tensor:
        """Returns Q(x)."""
        return self.down.quantized_input(x)

    def product(self, x: Tensor) -> Tensor:
        """Returns y for ``x`` that is quantised already."""
        out: Tensor = self.up(self.down.product(x))
        return out


def block_linear(block: BlockSpec, inputs: int, outputs: int, *, rows: int, gain: float = 1.0) -> Linear | LowRank:
    """Returns a linear layer as a block has them: its number formats, rank and sparsity."""
    formats, rank = (block.weights_in, block.activations_in), layer_rank(block.rank, inputs, outputs)
    if not rank:
        return Linear(inputs, outputs, rows=rows, formats=formats, gain=gain, sparsity=block.sparsity)
    return LowRank(
        Linear(inputs, rank, rows=rows, formats=formats, sparsity=block.sparsity),
        Linear(rank, outputs, rows=rows, formats=formats, gain=gain, sparsity=block.sparsity),
    )


def keep_largest(weight: Tensor, sparsity: tuple[int, int]) -> Tensor:
    """Returns ``weight`` with all but the largest of each group at zero; of equals the earlier stays.

    The gradient passes to all weights, and pulls those at zero towards it: SR-STE (Zhou et al., "Learning N:M
    Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021, equation 6,
    https://arxiv.org/abs/2102.04010).

    Args:
        weight: shape (outputs, inputs).
        sparsity: (kept, of); ``of`` divides the inputs.
    """
    return cast(Tensor, _KeepLargest.apply(weight, *sparsity))  # type: ignore[no-untyped-call]


class _KeepLargest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: int, of: int) -> Tensor:
        groups = weight.reshape(weight.shape[0], -1, of)
        order = torch.sort(groups.abs(), dim=2, descending=True, stable=True).indices[:, :, :kept]
        mask = torch.zeros_like(groups).scatter_(2, order, 1.0).view_as(weight)
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return grads[0] + _RESISTANCE * (1 - mask) * weight, None, None
