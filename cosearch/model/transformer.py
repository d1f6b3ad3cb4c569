"""The vision transformer that every `cosearch.spec.ModelSpec` builds.

ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929), with a class
token, learned position embedding and pre-norm blocks (equations 1 to 4). Between attention and MLP a block may reduce
its tokens (`cosearch.model.tokens`). Operators agree one by one with `cosearch.workload.workload`: the operands of all
matrix products are quantised as the spec says; the residual stream, the scores before the softmax and the inputs of
LayerNorm and GELU, which the workload stores at 16 bits or more, stay in floating point here.

Weights are drawn from a normal distribution cut off at two deviations. Its deviation is 1 / sqrt(inputs) (LeCun et
al., "Efficient BackProp", 1998, section 4.6) rather than ViT's 0.02, which is far too small for a narrow model; the
layers that add to the residual stream get 1 / sqrt(2 * depth) of it, so that the stream's variance does not grow with
depth (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3). The embeddings and
the head have ViT's 0.02.
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

_EMBEDDING_STD = 0.02
_EPSILON = 1e-6
"""Added to the variance in LayerNorm, as in ViT's published code."""

_EXPLICIT_TOKENS = 64
"""Up to so many tokens two products and a softmax train faster on a CPU than the fused kernel (``bench/model``)."""


def build_model(spec: ModelSpec, seed: int = 0) -> VisionTransformer:
    """Returns the model that ``spec`` describes, in training mode, its weights drawn from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(spec)


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Sets every scale of a quantised model: weights' from the weights, activations' from ``images``.

    Each scale has the least squared error on what reaches it once all scales before it are set. A model that was not
    calibrated does the same with the first batch it sees.

    Args:
        model: any model; without quantisers nothing happens.
        images: a batch as the model takes it, shape (batch, channels, height, width).
    """
    quantizers = [module for module in model.modules() if isinstance(module, IntegerQuantizer)]
    if not quantizers:
        return
    for quantizer in quantizers:
        quantizer.reset()
    with torch.no_grad():
        model(images)


class Linear(nn.Module):
    """y = Q(x) Q(W)^T + b, with weights quantised per output and inputs per tensor.

    Args:
        inputs: length of an input row.
        outputs: length of an output row.
        rows: input rows of one image.
        bits: width of the weights and of the inputs.
        std: deviation of the initial weights; 1 / sqrt(inputs) times ``gain`` if left out.
        gain: factor on it.

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
        bits: tuple[int, int],
        std: float | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        deviation = gain / math.sqrt(inputs) if std is None else std
        self.weight = nn.Parameter(_normal(deviation, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_quantizer = _quantizer(bits[0], inputs, channels=outputs)
        self.input_quantizer = _quantizer(bits[1], rows * inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (..., outputs) for ``x`` of shape (..., inputs)."""
        return self.product(self.quantized_input(x))

    def quantized_input(self, x: Tensor) -> Tensor:
        """Returns Q(x)."""
        quantized: Tensor = x if self.input_quantizer is None else self.input_quantizer(x)
        return quantized

    def product(self, x: Tensor) -> Tensor:
        """Returns y for ``x`` that is quantised already."""
        weight = self.weight if self.weight_quantizer is None else self.weight_quantizer(self.weight)
        return F.linear(x, weight, self.bias)


class PatchStem(nn.Module):
    """Patches to tokens: a convolution with stride ``patch``; with ``stem_hidden``, a GELU and a linear layer after it.

    The kernel has ``patch + 2 * overlap`` pixels a side, zero-padded by ``overlap``. It is computed as a product with
    the unfolded patches (ordered by channel, row, column), which trains faster on a CPU than a convolution of so few
    pixels (``bench/model``). Pixels are quantised before they are unfolded.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.patch, self.overlap = spec.patch, spec.overlap
        self.rows, self.columns = (side // spec.patch for side in spec.task.image)
        pixels, edge = spec.task.channels * (spec.patch + 2 * spec.overlap) ** 2, (spec.edge_bits, spec.edge_bits)
        self.conv = Linear(pixels, spec.stem_hidden or spec.dim, rows=spec.patches, bits=edge)
        self.proj = Linear(spec.stem_hidden, spec.dim, rows=spec.patches, bits=edge) if spec.stem_hidden else None

    def forward(self, images: Tensor) -> Tensor:
        """Returns shape (batch, patches, dim) for images of shape (batch, channels, height, width)."""
        x = self.conv.product(self._patches(self.conv.quantized_input(images)))
        return x if self.proj is None else self.proj.product(self.proj.quantized_input(F.gelu(x)))

    def _patches(self, images: Tensor) -> Tensor:
        """Returns shape (batch, patches, pixels)."""
        if self.overlap:
            side = self.patch + 2 * self.overlap
            return F.unfold(images, side, padding=self.overlap, stride=self.patch).transpose(1, 2).contiguous()
        batch, channels = images.shape[:2]
        x = images.reshape(batch, channels, self.rows, self.patch, self.columns, self.patch)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.rows * self.columns, -1)


class Block(nn.Module):
    """Attention, token reduction if any, MLP; attention and MLP add to the residual stream (equations 2 and 3).

    Args:
        spec: the model's.
        block: this block's.
        tokens: tokens in its attention and in its MLP, with the class token.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, tokens: tuple[int, int]) -> None:
        super().__init__()
        dim, hidden, (before, after) = spec.dim, block.mlp_hidden, tokens
        self.heads, self.depth, self.tokens, self.kept = block.heads, dim // block.heads, before, after
        self.method = "none" if block.keep_tokens is None else spec.token_method
        width, bits = block.activation_bits, (block.weight_bits, block.activation_bits)
        gain = 1 / math.sqrt(2 * len(spec.blocks))
        self.norm1 = nn.LayerNorm(dim, eps=_EPSILON)
        self.qkv = Linear(dim, 3 * dim, rows=before, bits=bits)
        self.qkv_quantizer = _quantizer(width, before * dim, channels=3)
        self.softmax_quantizer = _quantizer(width, self.heads * before * before, signed=False)
        self.proj = Linear(dim, dim, rows=before, bits=bits, gain=gain)
        self.norm2 = nn.LayerNorm(dim, eps=_EPSILON)
        self.fc1 = Linear(dim, hidden, rows=after, bits=bits)
        self.fc2 = Linear(hidden, dim, rows=after, bits=bits, gain=gain)
        # choosing pairs has no gradient, so neither has the scale of what they are chosen by
        self.metric_quantizer = _quantizer(width, learned=False) if self.method == "merge" else None

    def forward(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the tokens, shape (batch, kept tokens, dim), and their sizes if any were merged.

        Args:
            x: tokens, shape (batch, tokens, dim).
            size: patches in each token, shape (batch, tokens); None where each is one.
        """
        context, keys, attention = self._attention(self.norm1(x), size)
        x = x + self.proj(context)
        if self.method == "merge":
            size = torch.ones_like(x[:, :, 0]) if size is None else size
            x, size = merge(x, size, self._metric(keys.detach()), self.kept - 1)
        elif attention is not None and self.method == "prune":
            x = prune(x, class_scores(attention), self.kept - 1)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)))), size

    def _attention(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the context, the keys and, where it was formed, the softmax.

        context = softmax(q k^T / sqrt(depth) + log size) v: equations 5 to 8 of ViT's appendix A; the size is that of
        ToMe's proportional attention (equation 1, https://arxiv.org/abs/2210.09461).

        Returns:
            Shapes (batch, tokens, dim), (batch, heads, tokens, depth) and (batch, heads, tokens, tokens).
        """
        batch, tokens = x.shape[0], self.tokens
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        bias = None if size is None else size.log().view(batch, 1, 1, tokens)
        if self.qkv_quantizer is None and self.method != "prune" and tokens > _EXPLICIT_TOKENS:
            q, k, v = qkv.unbind(0)
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            return context.transpose(1, 2).reshape(batch, tokens, -1), k, None
        qkv = qkv.contiguous()
        if self.qkv_quantizer is not None:
            qkv = self.qkv_quantizer(qkv)
        q, k, v = qkv.unbind(0)
        scores = torch.matmul(q, k.transpose(2, 3)) * (self.depth**-0.5)
        attention = (scores if bias is None else scores + bias).softmax(dim=3)
        if self.softmax_quantizer is not None:
            attention = self.softmax_quantizer(attention)
        return torch.matmul(attention, v).transpose(1, 2).reshape(batch, tokens, -1), k, attention

    def _metric(self, keys: Tensor) -> Tensor:
        """Returns the unit vectors by which image tokens are matched, shape (batch, tokens - 1, depth)."""
        metric = F.normalize(keys[:, :, 1:].mean(1), dim=2)
        return metric if self.metric_quantizer is None else self.metric_quantizer.forward(metric)


class VisionTransformer(nn.Module):
    """A vision transformer; made by `build_model`.

    Attributes:
        spec: what it was built from.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        edge = (spec.edge_bits, spec.edge_bits)
        self.stem = PatchStem(spec)
        self.class_token = nn.Parameter(_normal(_EMBEDDING_STD, spec.dim))
        self.position = nn.Parameter(_normal(_EMBEDDING_STD, spec.patches + 1, spec.dim))
        self.blocks = nn.ModuleList(
            Block(spec, block, tokens) for block, tokens in zip(spec.blocks, spec.tokens, strict=True)
        )
        self.norm = nn.LayerNorm(spec.dim, eps=_EPSILON)
        self.head = Linear(spec.dim, spec.task.labels * spec.task.classes, rows=1, bits=edge, std=_EMBEDDING_STD)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (batch, labels, classes) for images of shape (batch, channels, height, width)."""
        patches = self.stem(images)
        x = torch.cat((self.class_token.expand(patches.shape[0], 1, -1), patches), dim=1) + self.position
        size: Tensor | None = None
        for block in self.blocks:
            x, size = block(x, size)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits.view(-1, self.spec.task.labels, self.spec.task.classes)


def _normal(std: float, *shape: int) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(*shape), std=std, a=-2 * std, b=2 * std)


def _quantizer(
    bits: int, values: int = 1, *, signed: bool = True, channels: int = 1, learned: bool = True
) -> IntegerQuantizer | None:
    if bits == FLOAT_BITS:
        return None
    return IntegerQuantizer(bits, signed=signed, channels=channels, values=values, learned=learned)
