"""The vision transformer that every `cosearch.spec.ModelSpec` builds.

ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929), with a class
token, learned position embedding and pre-norm blocks (equations 1 to 4). Between attention and MLP a block may reduce
its tokens (`cosearch.model.tokens`). Operators agree one by one with `cosearch.workload.workload`. The residual stream
and the accumulators stay in floating point; the operands of all matrix products are quantised as the spec says.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model.formats import IntegerQuantizer
from cosearch.model.tokens import class_scores, merge, prune
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec

__all__ = ["Block", "Linear", "PatchStem", "VisionTransformer", "build_model", "calibrate"]


def build_model(spec: ModelSpec, seed: int = 0) -> VisionTransformer:
    """Returns the model that ``spec`` describes, in training mode, its weights drawn from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(spec)


def calibrate(model: VisionTransformer, images: Tensor) -> None:
    """Sets every scale of a quantised model: weights' from the weights, activations' from ``images``.

    Each scale has the least squared error on what reaches it, all scales before it being set already.

    Args:
        model: any model; without quantisers nothing happens.
        images: a batch as the model takes it, shape (batch, channels, height, width).
    """
    quantizers = [module for module in model.modules() if isinstance(module, IntegerQuantizer)]
    if not quantizers:
        return
    for quantizer in quantizers:
        quantizer.reset()
    training = model.training
    with torch.no_grad():
        model.eval()(images)
    model.train(training)


def _quantizer(bits: int, *, signed: bool = True, channels: int = 1) -> IntegerQuantizer | None:
    return None if bits == FLOAT_BITS else IntegerQuantizer(bits, signed=signed, channels=channels)


class Linear(nn.Module):
    """y = Q(x) Q(W)^T + b, with weights quantised per output and inputs per tensor.

    Attributes:
        weight: shape (outputs, inputs).
        bias: shape (outputs,); never quantised.
    """

    def __init__(
        self, inputs: int, outputs: int, weight_bits: int = FLOAT_BITS, input_bits: int = FLOAT_BITS, std: float = 0.02
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_quantizer = _quantizer(weight_bits, channels=outputs)
        self.input_quantizer = _quantizer(input_bits)
        if self.weight_quantizer is not None:
            self.weight_quantizer.fit(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (..., outputs) for ``x`` of shape (..., inputs)."""
        weight = self.weight
        if self.weight_quantizer is not None:
            weight = self.weight_quantizer(weight)
        if self.input_quantizer is not None:
            x = self.input_quantizer(x, math.prod(x.shape[1:]))
        return F.linear(x, weight, self.bias)


class PatchStem(nn.Module):
    """Patches to tokens: a convolution with stride ``patch``; with ``stem_hidden``, a GELU and a linear layer after it.

    The convolution's kernel has ``patch + 2 * overlap`` pixels a side and is kept as a matrix, so that it is
    quantised as every linear layer is.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.patch, self.overlap, self.channels = spec.patch, spec.overlap, spec.task.channels
        self.side = spec.patch + 2 * spec.overlap
        pixels, edge = self.channels * self.side**2, spec.edge_bits
        width = spec.stem_hidden or spec.dim
        self.conv = Linear(pixels, width, edge, edge, std=1 / math.sqrt(pixels))
        self.proj = (
            Linear(spec.stem_hidden, spec.dim, edge, edge, std=1 / math.sqrt(spec.stem_hidden))
            if spec.stem_hidden
            else None
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns shape (batch, patches, dim) for images of shape (batch, channels, height, width)."""
        conv = self.conv
        weight = conv.weight
        if conv.weight_quantizer is not None:
            weight = conv.weight_quantizer(weight)
        if conv.input_quantizer is not None:
            images = conv.input_quantizer(images, math.prod(images.shape[1:]))
        kernel = weight.view(-1, self.channels, self.side, self.side)
        x = F.conv2d(images, kernel, conv.bias, stride=self.patch, padding=self.overlap)
        x = x.flatten(2).transpose(1, 2)
        return x if self.proj is None else self.proj(F.gelu(x))


class Block(nn.Module):
    """Attention, token reduction if any, MLP; each of the two layers adds to the residual stream (equations 2, 3)."""

    def __init__(self, spec: ModelSpec, block: BlockSpec) -> None:
        super().__init__()
        dim, weight_bits, bits = spec.dim, block.weight_bits, block.activation_bits
        self.heads, self.depth = block.heads, dim // block.heads
        self.method = "none" if block.keep_tokens is None else spec.token_method
        self.keep = block.keep_tokens or 0
        residual = 1 / math.sqrt(2 * len(spec.blocks))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = Linear(dim, 3 * dim, weight_bits, bits, std=1 / math.sqrt(dim))
        self.qkv_quantizer = _quantizer(bits, channels=3)
        self.softmax_quantizer = _quantizer(bits, signed=False)
        self.proj = Linear(dim, dim, weight_bits, bits, std=residual / math.sqrt(dim))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = Linear(dim, block.mlp_hidden, weight_bits, bits, std=1 / math.sqrt(dim))
        self.fc2 = Linear(block.mlp_hidden, dim, weight_bits, bits, std=residual / math.sqrt(block.mlp_hidden))
        self.metric_quantizer = _quantizer(bits) if self.method == "merge" else None

    def forward(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the tokens, shape (batch, kept tokens, dim), and their sizes if any were merged.

        Args:
            x: tokens, shape (batch, tokens, dim).
            size: patches in each token, shape (batch, tokens); None where each is one.
        """
        context, keys, attention = self._attention(self.norm1(x), size)
        x = x + self.proj(context)
        if self.method == "prune":
            assert attention is not None
            x = prune(x, class_scores(attention), self.keep)
        elif self.method == "merge":
            metric = F.normalize(keys[:, :, 1:].mean(1), dim=2)
            if self.metric_quantizer is not None:
                metric = self.metric_quantizer(metric.detach())
            x, size = merge(x, torch.ones_like(x[:, :, 0]) if size is None else size, metric.detach(), self.keep)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)))), size

    def _attention(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns context (batch, tokens, dim), keys (batch, heads, tokens, depth), softmax if it was needed.

        softmax(q k^T / sqrt(depth) + log size) v: equations 5 to 7 of ViT's appendix A; the size term is ToMe's
        proportional attention (section 3, equation 1).
        """
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        bias = None if size is None else size.log()[:, None, None, :]
        if self.qkv_quantizer is None and self.method != "prune":
            q, k, v = qkv.unbind(0)
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            return context.transpose(1, 2).reshape(batch, tokens, dim), k, None
        if self.qkv_quantizer is not None:
            qkv = self.qkv_quantizer(qkv, tokens * dim)
        q, k, v = qkv.unbind(0)
        scores = torch.matmul(q, k.transpose(2, 3)) * (self.depth**-0.5)
        attention = (scores if bias is None else scores + bias).softmax(dim=3)
        if self.softmax_quantizer is not None:
            attention = self.softmax_quantizer(attention, self.heads * tokens * tokens)
        context = torch.matmul(attention, v)
        return context.transpose(1, 2).reshape(batch, tokens, dim), k, attention


class VisionTransformer(nn.Module):
    """A vision transformer.

    Attributes:
        spec: what it was built from.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = PatchStem(spec)
        self.class_token = nn.Parameter(torch.empty(spec.dim))
        self.position = nn.Parameter(torch.empty(spec.patches + 1, spec.dim))
        self.blocks = nn.ModuleList(Block(spec, block) for block in spec.blocks)
        self.norm = nn.LayerNorm(spec.dim, eps=1e-6)
        self.head = Linear(spec.dim, spec.task.labels * spec.task.classes, spec.edge_bits, spec.edge_bits)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.position, std=0.2, a=-0.4, b=0.4)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (batch, labels, classes) for images of shape (batch, channels, height, width)."""
        patches = self.stem(images)
        first = self.class_token.expand(patches.shape[0], 1, -1)
        x = torch.cat((first, patches), dim=1) + self.position
        size: Tensor | None = None
        for block in self.blocks:
            x, size = block(x, size)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits.view(-1, self.spec.task.labels, self.spec.task.classes)
