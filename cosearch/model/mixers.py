"""Token mixers: attention with softmax or sigmoid, linear and hashed attention, pooling.

Each computes what `cosearch.workload` lists for it. ``Mixed`` is what a mixer hands on: what is added to the residual
stream, and what token reduction may read.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.formats import number_format
from cosearch.model.formats import Quantizer
from cosearch.model.linear import Linear, block_linear, operand
from cosearch.spec import TOKEN_METHODS, BlockSpec, ModelSpec

__all__ = ["Attention", "HashedAttention", "LinearAttention", "Mixed", "Pooling", "make_mixer"]

_EXPLICIT_TOKENS = 64
"""Up to so many tokens two products and a softmax train faster on a CPU than the fused kernel (``bench/model``)."""

_LEAST_SUM = 1e-2
"""Added to what linear attention divides by, which is about 1: few bits can round it to nothing (assumption)."""


class Mixed(NamedTuple):
    """What a mixer hands on.

    Attributes:
        out: what is added to the residual stream, shape (batch, tokens, dim).
        map: attention map, shape (batch, heads, tokens, tokens); None where none was formed.
        keys: shape (batch, heads, tokens, depth); None where there are none.
        values: likewise.
    """

    out: Tensor
    map: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None


def make_mixer(spec: ModelSpec, block: BlockSpec, tokens: int) -> nn.Module | None:
    """Returns the mixer of a block, None for ``identity``; ``tokens`` counts the class token."""
    gain = 1 / math.sqrt(2 * len(spec.blocks))
    if block.mixer in ("softmax", "sigmoid"):
        reads = "" if block.keep_tokens is None else TOKEN_METHODS[spec.token_method].needs
        return Attention(spec.dim, block, tokens, gain=gain, needs_map=reads == "map")
    merged = spec.token_method in ("merge", "cluster") and tokens <= spec.patches
    if block.mixer == "linear":
        return LinearAttention(spec.dim, block, tokens, gain=gain, merged=merged)
    if block.mixer == "hashed":
        return HashedAttention(spec.dim, block, tokens, gain=gain, merged=merged)
    return Pooling(spec.grid) if block.mixer == "pool" else None


class _Heads(nn.Module):
    """Queries, keys and values, quantised: one scale each, MX blocks along what the products sum over."""

    def __init__(self, dim: int, block: BlockSpec, tokens: int) -> None:
        super().__init__()
        self.depth, self.asked = dim // block.heads, block.query_heads or block.heads
        self.shared = block.kv_heads or self.asked
        self.qkv = block_linear(block, dim, (self.asked + 2 * self.shared) * self.depth, rows=tokens)
        name = block.activations_in
        self.alike = self.asked == self.shared and number_format(name).family != "mx"
        rows = tokens * self.depth
        if self.alike:
            self.qkv_quantizer = operand(name, self.asked * rows, channels=3)
        else:
            self.q_quantizer = operand(name, self.asked * rows)
            # linear attention multiplies keys by values first, which sums over tokens
            self.k_quantizer = operand(name, self.shared * rows, axis=-2 if block.mixer == "linear" else -1)
            self.v_quantizer = operand(name, self.shared * rows, axis=-2)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, shape (batch, heads, tokens, depth), keys and values as often as asked."""
        batch, tokens, depth = x.shape[0], x.shape[1], self.depth
        qkv: Tensor = self.qkv(x)
        if self.alike:
            parts = qkv.view(batch, tokens, 3, self.asked, depth).permute(2, 0, 3, 1, 4)
            if self.qkv_quantizer is not None:
                parts = self.qkv_quantizer(parts.contiguous())
            q, k, v = parts.unbind(0)
            return q, k, v
        parts = qkv.view(batch, tokens, self.asked + 2 * self.shared, depth).transpose(1, 2)
        split = [self.asked, self.shared, self.shared]
        q, k, v = torch.split(parts, split, dim=1)
        q, k, v = _through(self.q_quantizer, q), _through(self.k_quantizer, k), _through(self.v_quantizer, v)
        if self.asked != self.shared:
            times = self.asked // self.shared
            k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
        return q, k, v


def _through(quantizer: Quantizer | None, x: Tensor) -> Tensor:
    quantized: Tensor = x if quantizer is None else quantizer(x.contiguous())
    return quantized


class Attention(_Heads):
    """context = map v, map = softmax(q k^T / sqrt(depth) + log size): equations 5 to 8 of ViT's appendix A.

    The size is that of ToMe's proportional attention (equation 1, https://arxiv.org/abs/2210.09461). With sigmoid
    attention the map is sigmoid(q k^T / sqrt(depth) + log size - log n) for n tokens (Ramapuram et al. 2024, section 3,
    https://arxiv.org/abs/2409.04431). Fewer query heads than heads: SQA; keys and values shared by query heads: GQA.

    Args:
        dim: width of a token.
        block: the block's spec.
        tokens: tokens, with the class token.
        gain: on the initial weights of the last layer.
        needs_map: whether the map is read afterwards.
    """

    def __init__(self, dim: int, block: BlockSpec, tokens: int, *, gain: float, needs_map: bool) -> None:
        super().__init__(dim, block, tokens)
        self.sigmoid, self.needs_map = block.mixer == "sigmoid", needs_map
        self.softmax_quantizer = operand(block.activations_in, self.asked * tokens * tokens, signed=False)
        self.proj = block_linear(block, self.asked * self.depth, dim, rows=tokens, gain=gain)

    def forward(self, x: Tensor, size: Tensor | None) -> Mixed:
        """Returns what is added to the stream, and map, keys and values.

        Args:
            x: normalised tokens, shape (batch, tokens, dim).
            size: patches in each token, shape (batch, tokens); None where each is one.
        """
        batch, tokens = x.shape[:2]
        q, k, v = self.split(x)
        bias = None if size is None else size.log().view(batch, 1, 1, tokens)
        if self._fused(tokens):
            context, attention = F.scaled_dot_product_attention(q, k, v, attn_mask=bias), None
        else:
            scores = torch.matmul(q, k.transpose(2, 3)) * (self.depth**-0.5)
            scores = scores if bias is None else scores + bias
            attention = (scores - math.log(tokens)).sigmoid() if self.sigmoid else scores.softmax(dim=3)
            attention = _through(self.softmax_quantizer, attention)
            context = torch.matmul(attention, v)
        out = self.proj(context.transpose(1, 2).reshape(batch, tokens, -1))
        return Mixed(out, attention, k, v)

    def _fused(self, tokens: int) -> bool:
        return not (self.sigmoid or self.needs_map or self.softmax_quantizer is not None) and tokens > _EXPLICIT_TOKENS


class LinearAttention(_Heads):
    """context = q' (k'^T v) / q' (k'^T 1), with q' and k' rectified: time linear in the tokens.

    SLAB's simplified linear attention (Guo et al., ICML 2024, section 3.3, https://arxiv.org/abs/2405.11582), without
    its depth-wise convolution of the values, which needs all tokens in their places. Sums over tokens are means, which
    cancels; merged tokens count as often as they have patches: their keys are multiplied by that.
    """

    def __init__(self, dim: int, block: BlockSpec, tokens: int, *, gain: float, merged: bool = False) -> None:
        super().__init__(dim, block, tokens)
        self.weigh_quantizer = _weighed(block, self.asked * tokens * self.depth, merged=merged, signed=False)
        self.state_quantizer = operand(block.activations_in, self.asked * self.depth * (self.depth + 1), axis=-2)
        self.proj = block_linear(block, self.asked * self.depth, dim, rows=tokens, gain=gain)

    def forward(self, x: Tensor, size: Tensor | None) -> Mixed:
        """Returns what is added to the stream, and keys and values; shapes as in `Attention`."""
        q, k, v = self.split(x)
        queries, keys = q.relu(), k.relu()
        if size is not None:
            keys = _through(self.weigh_quantizer, keys * size.view(x.shape[0], 1, -1, 1))
        context = by_state(queries, keys, v, self.state_quantizer)
        return Mixed(self.proj(divided(context)), None, k, v)


class HashedAttention(_Heads):
    """Linear attention whose kernel is how many bits the codes of a query and a key share.

    EcoFormer (Liu et al., "EcoFormer: Energy-Saving Attention with Linear Complexity", NeurIPS 2022,
    https://arxiv.org/abs/2209.09004): queries and keys become binary codes, so that products with them are additions.
    The hash functions are one projection that all heads share, trained through its signs (straight-through where the
    projection lies between -1 and 1), in place of the paper's kernelised hash functions learnt layer by layer. Codes of
    ``depth`` bits, c and c', have the kernel 1 + c c' / depth, which is never negative.
    """

    def __init__(self, dim: int, block: BlockSpec, tokens: int, *, gain: float, merged: bool = False) -> None:
        super().__init__(dim, block, tokens)
        depth = self.depth
        self.weigh_quantizer = _weighed(block, self.asked * tokens * depth, merged=merged, signed=True)
        self.hash = Linear(depth, depth, rows=2 * tokens * self.asked, formats=(block.weights_in, "fp32"))
        self.state_quantizer = operand(block.activations_in, self.asked * depth * (depth + 1), axis=-2)
        self.proj = block_linear(block, self.asked * depth, dim, rows=tokens, gain=gain)

    def forward(self, x: Tensor, size: Tensor | None) -> Mixed:
        """Returns what is added to the stream, and keys and values; shapes as in `Attention`."""
        q, k, v = self.split(x)
        queries, keys = _signs(self.hash(torch.stack((q, k)))).unbind(0)
        weights = None if size is None else size.view(x.shape[0], 1, -1, 1)
        counted = keys if weights is None else _through(self.weigh_quantizer, keys * weights)
        ones = torch.ones_like(v[..., :1])
        whole = torch.cat((v, ones), dim=3) if weights is None else torch.cat((v, ones), dim=3) * weights
        context = by_state(queries, counted, v, self.state_quantizer) / self.depth + whole.mean(2, keepdim=True)
        return Mixed(self.proj(divided(context)), None, k, v)


def _weighed(block: BlockSpec, values: int, *, merged: bool, signed: bool) -> Quantizer | None:
    """Returns a quantiser of keys times sizes, which a product sums over tokens; None where all sizes are 1."""
    return operand(block.activations_in, values, signed=signed, axis=-2) if merged else None


def by_state(queries: Tensor, keys: Tensor, values: Tensor, quantizer: Quantizer | None) -> Tensor:
    """Returns queries (keys^T [values, 1]) / tokens, shape (batch, heads, queries, depth + 1).

    Args:
        queries: shape (batch, heads, queries, width).
        keys: shape (batch, heads, tokens, width).
        values: shape (batch, heads, tokens, depth).
        quantizer: of what is between the products; None where it stays in floating point.
    """
    ones = torch.ones_like(values[..., :1])
    state = torch.matmul(keys.transpose(2, 3), torch.cat((values, ones), dim=3)) / keys.shape[2]
    return torch.matmul(queries, _through(quantizer, state))


def divided(context: Tensor) -> Tensor:
    """Returns all columns but the last, divided by it, heads side by side: shape (batch, tokens, heads * depth)."""
    batch, _, tokens, _ = context.shape
    rows = context[..., :-1] / (context[..., -1:].relu() + _LEAST_SUM)
    return rows.transpose(1, 2).reshape(batch, tokens, -1)


def _signs(x: Tensor) -> Tensor:
    """Returns 1 where x is 0 or more and -1 elsewhere; the gradient passes where x is between -1 and 1."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return cast(Tensor, _Signs.apply(x))  # type: ignore[no-untyped-call]
    return torch.where(x >= 0, 1.0, -1.0)


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        inside: Tensor = ctx.saved_tensors[0].abs() <= 1
        return grads[0] * inside


class Pooling(nn.Module):
    """The average of the 3 x 3 tokens around each, less itself; for the class token, that of all, less itself.

    PoolFormer (Yu et al., "MetaFormer Is Actually What You Need for Vision", CVPR 2022, section 3.2). There is no class
    token there; here it must hear of the others.

    Args:
        grid: rows and columns of the patches.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor, size: Tensor | None) -> Mixed:  # noqa: ARG002 - all tokens are single patches here
        """Returns what is added to the stream; shapes as in `Attention`."""
        batch, _, dim = x.shape
        image = x[:, 1:].transpose(1, 2).reshape(batch, dim, *self.grid)
        pooled = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
        rows = torch.cat((x[:, 1:].mean(1, keepdim=True), pooled.flatten(2).transpose(1, 2)), dim=1)
        return Mixed(rows - x)
