"""What the position embedding begins with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["wave_positions"]

_GOLDEN = (math.sqrt(5) - 1) / 2


def wave_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Returns an embedding of the places of a grid, shape (rows * columns, dim), of about unit variance.

    Sines and cosines of the column and of the row (Vaswani et al., "Attention Is All You Need", 2017, section 3.5; in
    two dimensions as in He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, appendix A.1), times
    sqrt 2. Frequencies lie between 1 and 1 / side, so that the longest wave covers the grid. They follow the golden
    ratio's sequence, so that the first columns of a wide embedding, which are a narrow one, have all wavelengths too:
    a narrow member of a weight-sharing network takes just these.
    """
    waves = -(-dim // 4)
    side = max(rows, columns)
    frequency = side ** -torch.remainder(torch.arange(waves, dtype=torch.float64) * _GOLDEN, 1.0)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    x, y = (place.flatten()[:, None].double() * frequency for place in (column, row))
    parts = torch.stack((x.sin(), x.cos(), y.sin(), y.cos()), dim=2).flatten(1)
    return (math.sqrt(2) * parts[:, :dim]).float()
