"""From pixels to tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model.linear import Linear
from cosearch.spec import ModelSpec

__all__ = ["PatchStem", "patches_of"]


def patches_of(images: Tensor, patch: int, overlap: int = 0) -> Tensor:
    """Returns patches, shape (batch, patches, pixels), their pixels ordered by channel, row, column.

    Args:
        images: shape (batch, channels, height, width); ``patch`` divides both sides.
        patch: side of a patch and stride.
        overlap: pixels by which a patch reaches further on each side; beyond the image they are 0.
    """
    if overlap:
        side = patch + 2 * overlap
        return F.unfold(images, side, padding=overlap, stride=patch).transpose(1, 2).contiguous()
    batch, channels, height, width = images.shape
    x = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // patch) * (width // patch), -1)


class PatchStem(nn.Module):
    """Patches to tokens: a convolution with stride ``patch``; with ``stem_hidden``, a GELU and a linear layer after it.

    The kernel has ``patch + 2 * overlap`` pixels a side, zero-padded by ``overlap``. It is computed as a product with
    the unfolded patches, which trains faster on a CPU than a convolution of so few pixels (``bench/model``). Pixels are
    quantised before they are unfolded. With the token method ``detail`` it sees the image at half its resolution.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.rows, self.columns = spec.grid
        self.halved = spec.token_method == "detail"
        self.patch, self.overlap = (
            (spec.patch, spec.overlap) if not self.halved else (spec.patch // 2, spec.overlap // 2)
        )
        pixels = spec.task.channels * (self.patch + 2 * self.overlap) ** 2
        formats = (spec.edges_in, spec.edges_in)
        self.conv = Linear(pixels, spec.stem_hidden or spec.dim, rows=spec.patches, formats=formats)
        hidden = spec.stem_hidden
        self.proj = Linear(hidden, spec.dim, rows=spec.patches, formats=formats) if hidden else None

    def forward(self, images: Tensor) -> Tensor:
        """Returns shape (batch, patches, dim) for images of shape (batch, channels, height, width)."""
        if self.halved:
            images = F.avg_pool2d(images, 2)
        x = self.conv.product(patches_of(self.conv.quantized_input(images), self.patch, self.overlap))
        return x if self.proj is None else self.proj.product(self.proj.quantized_input(F.gelu(x)))
