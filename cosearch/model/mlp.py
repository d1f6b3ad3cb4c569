"""What a block does to each token: two linear layers, or a gated pair."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model.linear import block_linear
from cosearch.spec import BlockSpec, ModelSpec

__all__ = ["MLP"]


class MLP(nn.Module):
    """fc2(gelu(fc1(x))), or with a gate fc2(gelu(a) b) where fc1 gives a and b.

    GLU: Shazeer, "GLU Variants Improve Transformer", 2020, equation 5 (GEGLU), https://arxiv.org/abs/2002.05202.

    Args:
        spec: the model's.
        block: the block's.
        tokens: tokens, with the class token.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, tokens: int) -> None:
        super().__init__()
        dim, hidden, self.gated = spec.dim, block.mlp_hidden, block.mlp == "glu"
        gain = 1 / math.sqrt(2 * len(spec.blocks))
        self.fc1 = block_linear(block, dim, hidden * (2 if self.gated else 1), rows=tokens)
        self.fc2 = block_linear(block, hidden, dim, rows=tokens, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the stream, shape (batch, tokens, dim), for normalised tokens of that shape."""
        hidden = self.fc1(x)
        gate, value = hidden.chunk(2, dim=-1) if self.gated else (hidden, None)
        active = F.gelu(gate)
        out: Tensor = self.fc2(active if value is None else active * value)
        return out
