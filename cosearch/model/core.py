"""Core tokens: a few tokens that the blocks work on, and their exchange with all of the image's.

Each computes what `cosearch.workload` lists for it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction

import torch
from torch import Tensor, nn

from cosearch.model.linear import block_linear, operand
from cosearch.model.mixers import by_state, divided
from cosearch.model.norms import EPSILON
from cosearch.model.tokens import Stream
from cosearch.spec import BlockSpec, ModelSpec

__all__ = ["Exchange", "LookupExchange", "MemoryExchange", "core_grid", "core_tokens", "make_exchange"]


def core_grid(count: int, rows: int, columns: int) -> tuple[int, int]:
    """Returns rows and columns of ``count`` core tokens: the factors whose ratio is nearest to that of the image's.

    Of two that are as near, the one of fewer rows.
    """

    def distance(pair: tuple[int, int]) -> Fraction:  # as fractions: equal ones must be equal on every machine
        wide, high = pair[1] * rows, pair[0] * columns
        return Fraction(max(wide, high), min(wide, high))

    return min(((a, count // a) for a in range(1, count + 1) if count % a == 0), key=distance)


def core_tokens(image: Tensor, grid: tuple[int, int], core: tuple[int, int]) -> Tensor:
    """Returns the averages of image tokens over a coarser grid, shape (batch, core tokens, dim).

    A cell spans what adaptive average pooling gives it: rows floor(i R / r) to ceil((i + 1) R / r), columns likewise.

    Args:
        image: shape (batch, rows * columns, dim).
        grid: its rows and columns.
        core: rows and columns of the core tokens.
    """
    cells = image.view(image.shape[0], *grid, -1)
    spans = [[(i * n // c, -(-(i + 1) * n // c)) for i in range(c)] for n, c in zip(grid, core, strict=True)]
    return torch.stack([cells[:, a:b, c:d].mean((1, 2)) for a, b in spans[0] for c, d in spans[1]], dim=1)


class Exchange(nn.Module, ABC):
    """What core tokens take from the image's before a block, and give back after it."""

    @abstractmethod
    def read(self, stream: Stream) -> tuple[Stream, Tensor | None]:
        """Returns the stream with richer core tokens, and what `write` needs of it."""

    @abstractmethod
    def write(self, stream: Stream, kept: Tensor | None) -> Stream:
        """Returns the stream with richer image tokens."""


class LookupExchange(Exchange):
    """LookupViT: cross-attention to the image tokens, and back by the same scores, normalised the other way.

    Koner et al., "LookupViT: Compressing Visual Information to a Limited Number of Tokens", ECCV 2024, section 3,
    https://arxiv.org/abs/2407.12753. Left out: the small MLP on image tokens. As nothing but the grid of the core
    tokens depends on their number, one set of weights serves several numbers.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, tokens: int, *, writes: bool) -> None:
        super().__init__()
        dim, rows, name = spec.dim, spec.patches, block.activations_in
        self.heads, self.depth = block.heads, dim // block.heads
        gain = 1 / math.sqrt(4 * len(spec.blocks))
        self.ask, self.tell = nn.LayerNorm(dim, eps=EPSILON), nn.LayerNorm(dim, eps=EPSILON)
        self.q = block_linear(block, dim, dim, rows=tokens)
        self.kv = block_linear(block, dim, 2 * dim, rows=rows)
        self.proj = block_linear(block, dim, dim, rows=tokens, gain=gain)
        self.q_quantizer = operand(name, tokens * dim)
        self.k_quantizer = operand(name, rows * dim)
        self.read_v_quantizer = operand(name, rows * dim, axis=-2)
        self.read_quantizer = operand(name, self.heads * tokens * rows, signed=False)
        if not writes:
            return
        self.back = nn.LayerNorm(dim, eps=EPSILON)
        self.v = block_linear(block, dim, dim, rows=tokens)
        self.out = block_linear(block, dim, dim, rows=rows, gain=gain)
        self.write_v_quantizer = operand(name, tokens * dim, axis=-2)
        self.write_quantizer = operand(name, self.heads * tokens * rows, signed=False)

    def read(self, stream: Stream) -> tuple[Stream, Tensor]:
        """Returns the stream with richer core tokens, and the scores."""
        assert stream.image is not None
        q = self._split(self.q(self.ask(stream.x)))
        k, v = (self._split(part) for part in self.kv(self.tell(stream.image)).chunk(2, dim=2))
        q, k, v = _apply(self.q_quantizer, q), _apply(self.k_quantizer, k), _apply(self.read_v_quantizer, v)
        scores = torch.matmul(q, k.transpose(2, 3)) * (self.depth**-0.5)
        attention = _apply(self.read_quantizer, scores.softmax(dim=3))
        context = torch.matmul(attention, v).transpose(1, 2).flatten(2)
        return stream._replace(x=stream.x + self.proj(context)), scores

    def write(self, stream: Stream, kept: Tensor | None) -> Stream:
        """Returns the stream with richer image tokens."""
        assert stream.image is not None
        assert kept is not None
        v = _apply(self.write_v_quantizer, self._split(self.v(self.back(stream.x))))
        attention = _apply(self.write_quantizer, kept.transpose(2, 3).softmax(dim=3))
        context = torch.matmul(attention, v).transpose(1, 2).flatten(2)
        return stream._replace(image=stream.image + self.out(context))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.depth).transpose(1, 2)


class MemoryExchange(Exchange):
    """Vision Token Turing Machines: process tokens read from memory tokens and write to them, by linear attention.

    Jajal et al., "Token Turing Machines are Efficient Vision Models", 2024, section 3, https://arxiv.org/abs/2409.07613:
    reads and writes are linear attention, what is read or written is added. Process tokens are averages of the memory's
    here, not patches of their own.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, tokens: int, *, writes: bool) -> None:
        super().__init__()
        self.reader = _Linear(spec, block, asking=tokens, asked=spec.patches)
        if writes:
            self.writer = _Linear(spec, block, asking=spec.patches, asked=tokens)

    def read(self, stream: Stream) -> tuple[Stream, None]:
        """Returns the stream with richer process tokens."""
        assert stream.image is not None
        return stream._replace(x=stream.x + self.reader(stream.x, stream.image)), None

    def write(self, stream: Stream, kept: Tensor | None) -> Stream:  # noqa: ARG002 - nothing is kept
        """Returns the stream with a richer memory."""
        assert stream.image is not None
        return stream._replace(image=stream.image + self.writer(stream.image, stream.x))


class _Linear(nn.Module):
    """Linear attention of some tokens over others, whose normalised values it averages."""

    def __init__(self, spec: ModelSpec, block: BlockSpec, *, asking: int, asked: int) -> None:
        super().__init__()
        dim, name = spec.dim, block.activations_in
        self.ask, self.tell = nn.LayerNorm(dim, eps=EPSILON), nn.LayerNorm(dim, eps=EPSILON)
        self.q = block_linear(block, dim, dim, rows=asking)
        self.k = block_linear(block, dim, dim, rows=asked)
        self.q_quantizer = operand(name, asking * dim, signed=False)
        self.k_quantizer = operand(name, asked * dim, signed=False, axis=-2)
        self.state_quantizer = operand(name, dim * (dim + 1), axis=-2)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """Returns what each token of ``x`` reads, shape of ``x``."""
        told = self.k.quantized_input(self.tell(others))
        q = _apply(self.q_quantizer, self.q(self.ask(x)).relu()).unsqueeze(1)
        k = _apply(self.k_quantizer, self.k.product(told).relu()).unsqueeze(1)
        return divided(by_state(q, k, told.unsqueeze(1), self.state_quantizer))


def make_exchange(spec: ModelSpec, index: int) -> Exchange | None:
    """Returns what core tokens exchange around block ``index``; None where there are none.

    After the last block nothing is written, as nobody reads the image's tokens any more.
    """
    if spec.core_tokens is None:
        return None
    kind = LookupExchange if spec.token_method == "lookup" else MemoryExchange
    return kind(spec, spec.blocks[index], spec.tokens[index][0], writes=index < len(spec.blocks) - 1)


def _apply(quantizer: nn.Module | None, x: Tensor) -> Tensor:
    quantized: Tensor = x if quantizer is None else quantizer(x.contiguous())
    return quantized
