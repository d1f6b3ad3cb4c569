"""Several models of one shape as one: every tensor has a leading axis of models, every product is a batch of products.

A step of a small model spends most of its time on calls and on autograd's bookkeeping; a stack makes the calls once for
all its models. It computes what `cosearch.model.VisionTransformer` computes, model by model. Values are the same but
for rounding: sums (of a scale's gradient, of a bias's) are taken in another order, products are batched, and the
gradient of the pixels' scale is taken on patches, where it need not be folded back. In floating point a training ends
within about 1e-6 of the model trained alone; in low bits a value that lies between two codes may fall to either side,
and from there the two trainings part as those of two seeds do, only later.

Models may differ in their bits: the range of codes is a tensor here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model import VisionTransformer
from cosearch.model.formats import IntegerQuantizer
from cosearch.model.tokens import class_scores, merge, prune
from cosearch.spec import BlockSpec
from cosearch.train.kernels import fake_quantize, layer_norm, rounded, stem_product, steps_of

__all__ = ["StackedTransformer"]


class StackedTransformer:
    """Models of one shape, trained together; made from calibrated models, whose values it copies.

    Args:
        models: alike in everything but bits, and in the widths at which they are not quantised.

    Attributes:
        parameters: by the name that they have in a model, shape (models, ...).
    """

    def __init__(self, models: Sequence[VisionTransformer]) -> None:
        self._models = list(models)
        self._one = models[0]
        rows = [dict(model.named_parameters()) for model in models]
        self.parameters = {name: nn.Parameter(torch.stack([row[name].detach() for row in rows])) for name in rows[0]}
        self._ranges = {
            name: _Range([model.get_submodule(name) for model in models])
            for name, module in self._one.named_modules()
            if isinstance(module, IntegerQuantizer)
        }

    def __len__(self) -> int:
        return len(self._models)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns logits of shape (models, batch, labels, classes).

        Args:
            images: a batch for each model, shape (models, batch, channels, height, width).
        """
        one, parameters = self._one, self.parameters
        count, batch = images.shape[:2]
        patches = self._stem(images)
        token = parameters["class_token"][:, None, None].expand(-1, batch, -1, -1)
        x = torch.cat((token, patches), dim=2) + parameters["position"][:, None]
        size: Tensor | None = None
        for index, block in enumerate(one.spec.blocks):
            x, size = self._block(f"blocks.{index}", block, x, size)
        logits = self._linear("head", self._norm("norm", x[:, :, 0]))
        return logits.view(count, batch, one.spec.task.labels, one.spec.task.classes)

    @torch.no_grad()
    def unstack(self) -> None:
        """Copies every model's values back to the model that it came from."""
        for index, model in enumerate(self._models):
            for name, parameter in model.named_parameters():
                parameter.copy_(self.parameters[name][index])

    def _stem(self, images: Tensor) -> Tensor:
        """Returns shape (models, batch, patches, dim); see `cosearch.model.PatchStem`."""
        stem, found = self._one.stem, self._ranges.get("stem.conv.input_quantizer")
        if found is None:
            x = self._product("stem.conv", self._patches(images))
        else:
            scale = self.parameters["stem.conv.input_quantizer.scale"]
            pixels = images.reshape(len(self), 1, -1)
            y, inside = rounded(pixels, steps_of(scale.detach()), found.low, found.high)
            error = torch.addcmul(y, inside, pixels, value=-1)
            # as more channels, so that they are unfolded together
            windows = self._patches(torch.cat([part.view_as(images) for part in (y, error)], dim=2))
            rows = windows.view(len(self), -1, windows.shape[3])
            x = stem_product(rows, *self._weights("stem.conv"), scale, found.factor)
            x = x.view(*windows.shape[:3], -1)
        return x if stem.proj is None else self._linear("stem.proj", F.gelu(x))

    def _patches(self, images: Tensor) -> Tensor:
        """Returns shape (models, batch, patches, pixels), pixels by channel, row and column."""
        stem = self._one.stem
        side = stem.patch + 2 * stem.overlap
        if stem.overlap:
            images = F.pad(images, (stem.overlap,) * 4)
        windows = images.unfold(3, side, stem.patch).unfold(4, side, stem.patch)
        return windows.permute(0, 1, 3, 4, 2, 5, 6).reshape(*images.shape[:2], stem.rows * stem.columns, -1)

    def _block(self, name: str, block: BlockSpec, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns tokens (models, batch, kept, dim) and sizes (models * batch, kept); see `cosearch.model.Block`."""
        models, batch, _, dim = x.shape
        mixed, keys, attention = self._attention(f"{name}.mixer", block, self._norm(f"{name}.norm1", x), size)
        x = x + mixed
        if block.keep_tokens is not None:
            flat = x.flatten(0, 1)
            if self._one.spec.token_method == "merge":
                size = torch.ones_like(flat[:, :, 0]) if size is None else size
                metric = self._metric(f"{name}.reduction", keys.detach())
                flat, size = merge(flat, size, metric, block.keep_tokens)
            else:
                flat = prune(flat, class_scores(attention), block.keep_tokens)
            x = flat.view(models, batch, -1, dim)
        hidden = F.gelu(self._linear(f"{name}.mlp.fc1", self._norm(f"{name}.norm2", x)))
        return x + self._linear(f"{name}.mlp.fc2", hidden), size

    def _attention(self, name: str, block: BlockSpec, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what is added to the stream and, with models and batch as one axis, the keys and the softmax."""
        models, batch, tokens, dim = x.shape
        heads, depth = block.heads, dim // block.heads
        qkv = self._linear(f"{name}.qkv", x).view(models, batch, tokens, 3, heads, depth)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5).contiguous()
        qkv = self._fake(f"{name}.qkv_quantizer", qkv.view(3, models, -1), transposed=True)
        q, k, v = qkv.view(3, models * batch * heads, tokens, depth).unbind(0)
        # keys before queries: with few tokens a softmax of columns is several times faster than one of rows
        scores = torch.baddbmm(x.new_zeros(1, 1, 1), k, q.mT, beta=0, alpha=depth**-0.5)
        if size is not None:
            bias = size.log().view(-1, 1, tokens, 1)
            scores = (scores.view(-1, heads, tokens, tokens) + bias).view_as(scores)
        attention = scores.softmax(dim=1)
        attention = self._fake(f"{name}.softmax_quantizer", attention.view(models, 1, -1)).view_as(attention)
        context = torch.bmm(attention.mT, v).view(models, batch, heads, tokens, depth)
        context = context.transpose(2, 3).reshape(models, batch, tokens, dim)
        shape = (models * batch, heads, tokens)
        return self._linear(f"{name}.proj", context), k.view(*shape, depth), attention.view(*shape, tokens).mT

    def _metric(self, name: str, keys: Tensor) -> Tensor:
        """Returns unit vectors, shape (models * batch, tokens - 1, depth)."""
        metric, name = F.normalize(keys[:, :, 1:].mean(1), dim=2), f"{name}.metric_quantizer"
        if name not in self._ranges:
            return metric
        found = self._ranges[name]
        rows = metric.reshape(len(self), 1, -1)
        return rounded(rows, steps_of(found.buffer), found.low, found.high)[0].view_as(metric)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.parameters[f"{name}.{part}"] for part in ("weight", "bias"))
        epsilon = cast(nn.LayerNorm, self._one.get_submodule(name)).eps
        rows = x.reshape(len(self), -1, x.shape[-1])
        return layer_norm(rows, weight, bias, epsilon).view(x.shape)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        quantized = self._fake(f"{name}.input_quantizer", x.reshape(len(self), 1, -1))
        return self._product(name, quantized.view(x.shape))

    def _product(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights(name)
        product = torch.baddbmm(bias[:, None], x.reshape(len(self), -1, x.shape[-1]), weight.mT)
        return product.view(*x.shape[:-1], -1)

    def _weights(self, name: str) -> tuple[Tensor, Tensor]:
        """Returns the quantised weights and the bias of a layer."""
        weight = self._fake(f"{name}.weight_quantizer", self.parameters[f"{name}.weight"])
        return weight, self.parameters[f"{name}.bias"]

    def _fake(self, name: str, x: Tensor, *, transposed: bool = False) -> Tensor:
        """Returns Q(x), or x where the quantiser is not there.

        Args:
            name: the quantiser's.
            x: shape (models, scales, values); (scales, models, values) if ``transposed``.
            transposed: which axis is which.
        """
        found = self._ranges.get(name)
        if found is None:
            return x
        scale, values = self.parameters[f"{name}.scale"], (found.low, found.high, found.factor)
        if transposed:
            scale, values = scale.t(), tuple(value.transpose(0, 1) for value in values)  # type: ignore[assignment]
        return fake_quantize(x, scale, *values)


class _Range:
    """The codes of one quantiser of every model.

    Attributes:
        low: shape (models, 1, 1), just inside the smallest code: values are clipped where they reach it.
        high: likewise the greatest.
        factor: on the gradient of a scale, shape (models, 1, 1).
        buffer: scales that are not learned, shape (models, scales).
    """

    def __init__(self, quantizers: Sequence[nn.Module]) -> None:
        found = [module for module in quantizers if isinstance(module, IntegerQuantizer)]
        up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)

        # rounding takes what is just inside to the code itself; the smallest normal number stands for "above 0"
        low = column([module.low for module in found])
        self.low = torch.where(low == 0, torch.finfo(torch.float32).tiny, low.nextafter(up))
        self.high = column([module.high for module in found]).nextafter(down)
        self.factor = column([module.gradient_scale for module in found])
        self.buffer = torch.stack([module.scale.detach() for module in found])
