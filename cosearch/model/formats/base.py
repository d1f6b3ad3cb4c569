"""What every quantiser does, whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat

__all__ = ["Quantizer"]


class Quantizer(nn.Module, ABC):
    """Real values to values that a format can hold, as a module with straight-through gradients.

    ``forward`` gives the values as floating point, ``codes`` what a memory would hold in their place, ``decode`` the
    values of codes: ``decode(codes(x))`` is ``forward(x)``. Infinities saturate; NaN stays NaN in ``forward`` (so that
    a training that diverges is seen), and has a code only where the format has one.

    Attributes:
        format: the number format.
    """

    format: NumberFormat

    @abstractmethod
    def reset(self) -> None:
        """Forgets what calibration found, so that the next tensor sets it."""

    @abstractmethod
    def calibrate(self, samples: Tensor) -> None:
        """Sets the scales for values like ``samples``; nothing happens where a format has none."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Returns the codes of ``x``, int32, same shape.

        Integers and ternary values are their own codes; floating-point values, powers of two and elements of a block
        are bit patterns. What `cosearch.model.formats.mx` stores once for a block stands above the element's bits.

        Raises:
            SpecError: a value is NaN, and the format has no code for it.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of ``codes``, floating point, same shape."""


def refuse_nan(x: Tensor, name: str) -> None:
    """Raises SpecError if a value is NaN: the format called ``name`` has no code for it."""
    if bool(torch.isnan(x).any()):
        raise SpecError(
            "x", f"holds NaN, but {name} has no code for it", "find where the model's values stop being numbers"
        )
