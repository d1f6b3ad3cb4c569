"""Several models of one shape as one: every tensor has a leading axis of models, every product is a batch of products.

On small models a step's time goes into calls, autograd's bookkeeping and passes over tensors that fit in a cache, not
into arithmetic; a stack makes the calls once for all its models. It computes what `cosearch.model.VisionTransformer`
computes, model by model, in the same order but for sums: a bias joins its product as before, but an affine LayerNorm
is two steps here, sums over images are taken in another order, and gradients of the pixels' scale are taken on patches
(where they need not be folded back). So results agree with those of a model alone to rounding, not bit for bit.

Models may differ in their bits: the range of codes is a tensor here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model import Block, VisionTransformer
from cosearch.model.formats import IntegerQuantizer
from cosearch.model.tokens import class_scores, merge, prune

__all__ = ["StackedTransformer"]

_SMALLEST_SCALE = 1e-8
"""As in `cosearch.model.formats.integer`."""


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
        for index, block in enumerate(one.blocks):
            x, size = self._block(f"blocks.{index}", cast(Block, block), x, size)
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
            patches = self._patches(images)
        else:
            scale = self.parameters["stem.conv.input_quantizer.scale"]
            pixels, _, error = _quantized(images.flatten(1), scale.detach(), found.low, found.high)
            shaped = (self._patches(tensor.view_as(images)) for tensor in (pixels, error))
            patches = cast(Tensor, _Known.apply(*shaped, scale, found.factor))  # type: ignore[no-untyped-call]
        x = self._product("stem.conv", patches)
        return x if stem.proj is None else self._linear("stem.proj", F.gelu(x))

    def _patches(self, images: Tensor) -> Tensor:
        """Returns shape (models, batch, patches, pixels), pixels by channel, row and column."""
        stem = self._one.stem
        side = stem.patch + 2 * stem.overlap
        if stem.overlap:
            images = F.pad(images, (stem.overlap,) * 4)
        windows = images.unfold(3, side, stem.patch).unfold(4, side, stem.patch)
        return windows.permute(0, 1, 3, 4, 2, 5, 6).reshape(*images.shape[:2], stem.rows * stem.columns, -1)

    def _block(self, name: str, block: Block, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns tokens (models, batch, kept, dim) and sizes (models * batch, kept); see `cosearch.model.Block`."""
        models, batch, _, dim = x.shape
        context, keys, attention = self._attention(name, block, self._norm(f"{name}.norm1", x), size)
        x = x + self._linear(f"{name}.proj", context)
        if block.method == "merge":
            flat = x.flatten(0, 1)
            size = torch.ones_like(flat[:, :, 0]) if size is None else size
            flat, size = merge(flat, size, self._metric(name, keys.detach()), block.kept - 1)
            x = flat.view(models, batch, -1, dim)
        elif block.method == "prune":
            x = prune(x.flatten(0, 1), class_scores(attention), block.kept - 1).view(models, batch, -1, dim)
        hidden = F.gelu(self._linear(f"{name}.fc1", self._norm(f"{name}.norm2", x)))
        return x + self._linear(f"{name}.fc2", hidden), size

    def _attention(self, name: str, block: Block, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the context and, with models and batch as one axis, the keys and the softmax."""
        models, batch, tokens, dim = x.shape
        heads, depth = block.heads, block.depth
        qkv = self._linear(f"{name}.qkv", x).view(models, batch, tokens, 3, heads, depth)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5).contiguous()
        qkv = self._fake(f"{name}.qkv_quantizer", qkv.view(3, models, -1), transposed=True)
        q, k, v = qkv.view(3, models * batch * heads, tokens, depth).unbind(0)
        scores = torch.baddbmm(x.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=depth**-0.5)
        if size is not None:
            bias = size.log().view(-1, 1, 1, tokens)
            scores = (scores.view(-1, heads, tokens, tokens) + bias).view_as(scores)
        attention = scores.softmax(dim=2)
        attention = self._fake(f"{name}.softmax_quantizer", attention.view(models, 1, -1)).view_as(attention)
        context = torch.bmm(attention, v).view(models, batch, heads, tokens, depth)
        context = context.transpose(2, 3).reshape(models, batch, tokens, dim)
        shape = (models * batch, heads, tokens)
        return context, k.view(*shape, depth), attention.view(*shape, tokens)

    def _metric(self, name: str, keys: Tensor) -> Tensor:
        """Returns unit vectors, shape (models * batch, tokens - 1, depth)."""
        metric, name = F.normalize(keys[:, :, 1:].mean(1), dim=2), f"{name}.metric_quantizer"
        if name not in self._ranges:
            return metric
        found = self._ranges[name]
        return _quantized(metric.view(len(self), -1), found.buffer, found.low, found.high)[0].view_as(metric)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.parameters[f"{name}.{part}"] for part in ("weight", "bias"))
        shape = (len(self), *[1] * (x.dim() - 2), -1)
        unit = F.layer_norm(x, x.shape[-1:], eps=cast(nn.LayerNorm, self._one.get_submodule(name)).eps)
        return torch.addcmul(bias.view(shape), unit, weight.view(shape))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        quantized = self._fake(f"{name}.input_quantizer", x.reshape(len(self), 1, -1))
        return self._product(name, quantized.view(x.shape))

    def _product(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        weight = self._fake(f"{name}.weight_quantizer", weight)
        product = torch.baddbmm(bias[:, None], x.reshape(len(self), -1, x.shape[-1]), weight.mT)
        return product.view(*x.shape[:-1], -1)

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
        return cast(Tensor, _Fake.apply(x, scale, *values))  # type: ignore[no-untyped-call]


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


def _quantized(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns Q(x), 1 where x is not clipped and 0 elsewhere, and the derivative of Q(x) by log(scale), shaped as x.

    Args:
        x: shape (models, ...).
        scale: shape (models, scales), or with ``x`` of three axes whatever stands before its last.
        low: as in `_Range`, to be broadcast against three axes.
        high: likewise.
    """
    steps = scale.clamp_min(_SMALLEST_SCALE)[:, :, None]
    values = x.reshape(steps.shape[0], steps.shape[1], -1)
    inside = values / steps
    y = torch.maximum(inside, low)
    torch.minimum(y, high, out=y)
    inside.eq_(y)
    y.round_().mul_(steps)
    error = torch.addcmul(y, inside, values, value=-1)
    return y.view_as(x), inside.view_as(x), error.view_as(x)


class _Fake(torch.autograd.Function):
    """LSQ as in `cosearch.model.formats.integer`, with one scale for each pair of the first two axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
        y, inside, error = _quantized(x, scale, low, high)
        ctx.save_for_backward(inside, error, scale, factor)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inside, error, scale, factor = ctx.saved_tensors
        dscale = _scale_gradient(grads[0], error, scale, factor)
        return grads[0] * inside, dscale, None, None, None


class _Known(torch.autograd.Function):
    """Quantised values that were computed before, as a function of their scale alone, shape (models, 1)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, error: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(error, scale, factor)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        error, scale, factor = ctx.saved_tensors
        flat = (tensor.reshape(len(scale), 1, -1) for tensor in (grads[0], error))
        return None, None, _scale_gradient(*flat, scale, factor), None


def _scale_gradient(dy: Tensor, error: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
    return (dy * error).sum(2).div_(scale.clamp_min(_SMALLEST_SCALE)).mul_(factor[:, :, 0])
