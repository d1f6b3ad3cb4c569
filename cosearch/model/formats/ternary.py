"""Five ternary values to a byte (3**5 = 243 codes), as ``ternary_packed`` stores them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cosearch.errors import SpecError

__all__ = ["VALUES_PER_BYTE", "pack_ternary", "unpack_ternary"]

VALUES_PER_BYTE = 5


def pack_ternary(codes: Tensor) -> Tensor:
    """Returns bytes, uint8, one for each five values in order; the last is filled up with zeros.

    A byte is the number whose base-3 digits are the values plus 1, the first value the lowest digit.

    Args:
        codes: -1, 0 or 1, any shape.
    """
    flat = codes.reshape(-1).to(torch.int32)
    if bool((flat.abs() > 1).any()):
        raise SpecError("codes", "hold values other than -1, 0 and 1", "pack the codes of a ternary quantiser")
    fill = -len(flat) % VALUES_PER_BYTE
    digits = torch.nn.functional.pad(flat, (0, fill)).view(-1, VALUES_PER_BYTE) + 1
    return (digits * _weights(codes)).sum(1).to(torch.uint8)


def unpack_ternary(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns codes of ``shape``, int32, from what `pack_ternary` gave."""
    digits = packed.to(torch.int32).unsqueeze(1) // _weights(packed) % 3 - 1
    return digits.reshape(-1)[: math.prod(shape)].view(shape)


def _weights(like: Tensor) -> Tensor:
    return torch.tensor([3**place for place in range(VALUES_PER_BYTE)], dtype=torch.int32, device=like.device)
