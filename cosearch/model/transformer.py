"""The vision transformer that every `cosearch.spec.ModelSpec` builds.

ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929), with a class
token, learned position embedding and pre-norm blocks (equations 1 to 4). Between mixer and MLP a block may reduce its
tokens (`cosearch.model.tokens`). Operators agree one by one with `cosearch.workload.workload`: the operands of all
matrix products are quantised as the spec says; the residual stream, the scores before the softmax and the inputs of
normalisation and GELU, which the workload stores at 16 bits or more, stay in floating point here.

Weights are drawn from a normal distribution cut off at two deviations. Its deviation is 1 / sqrt(inputs) (LeCun et
al., "Efficient BackProp", 1998, section 4.6) rather than ViT's 0.02, which is far too small for a narrow model; the
layers that add to the residual stream get 1 / sqrt(2 * depth) of it, so that the stream's variance does not grow with
depth (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3). The head has ViT's
0.02. What is added to the embedded patches, whose variance is about 1, is as large as they are, or a model spends most
of a short training on learning where its tokens lie: the position embedding begins as waves (`wave_positions`), the
class token as a draw of deviation 1 (``bench/train/start.md`` compares).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from cosearch.model.core import core_grid, core_tokens, make_exchange
from cosearch.model.formats import Quantizer
from cosearch.model.linear import Linear, normal
from cosearch.model.mixers import Mixed, make_mixer
from cosearch.model.mlp import MLP
from cosearch.model.norms import ProgressiveBatchNorm, make_norm
from cosearch.model.pooling import make_pool
from cosearch.model.positions import wave_positions
from cosearch.model.stem import PatchStem, patches_of
from cosearch.model.tokens import Stream, make_reduction
from cosearch.spec import ModelSpec

__all__ = ["Block", "VisionTransformer", "build_model", "calibrate"]

_HEAD_STD = 0.02


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
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    if not quantizers:
        return
    for quantizer in quantizers:
        quantizer.reset()
    with torch.no_grad():
        model(images)


class Block(nn.Module):
    """Mixer, token reduction if any, MLP; mixer and MLP add to the residual stream (equations 2 and 3).

    Args:
        spec: the model's.
        index: which of its blocks.
    """

    def __init__(self, spec: ModelSpec, index: int) -> None:
        super().__init__()
        block, (before, after) = spec.blocks[index], spec.tokens[index]
        mixer = make_mixer(spec, block, before)
        self.norm1 = make_norm(spec.norm, spec.dim) if mixer is not None else None
        self.mixer = mixer
        self.reduction = make_reduction(spec, index)
        self.norm2 = make_norm(spec.norm, spec.dim) if block.mlp != "none" else None
        self.mlp = MLP(spec, block, after) if block.mlp != "none" else None
        self.exchange = make_exchange(spec, index)
        self.writes = index < len(spec.blocks) - 1

    def forward(self, stream: Stream, *, reducing: bool = True) -> Stream:
        """Returns the stream after the block; with ``reducing`` off, all its tokens."""
        kept = None
        if self.exchange is not None:
            stream, kept = self.exchange.read(stream)
        if self.mixer is not None and self.norm1 is not None:
            mixed: Mixed = self.mixer(self.norm1(stream.x), stream.size)
            stream = stream._replace(x=stream.x + mixed.out)
            if self.reduction is not None and reducing:
                stream = self.reduction(stream, mixed)
        if self.mlp is not None and self.norm2 is not None:
            stream = stream._replace(x=stream.x + self.mlp(self.norm2(stream.x)))
        return self.exchange.write(stream, kept) if self.exchange is not None and self.writes else stream


class VisionTransformer(nn.Module):
    """A vision transformer; made by `build_model`.

    Attributes:
        spec: what it was built from.
        reducing: whether blocks reduce their tokens as the spec says. A training may leave it off for a while, where
            the method needs nothing that is trained with it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec, self.reducing = spec, True
        edge = (spec.edges_in, spec.edges_in)
        self.stem = PatchStem(spec)
        self.class_token = nn.Parameter(normal(1.0, spec.dim))
        places = wave_positions(*spec.grid, spec.dim)
        self.position = nn.Parameter(torch.cat((torch.zeros(1, spec.dim), places)))
        self.blocks = nn.ModuleList(Block(spec, index) for index in range(len(spec.blocks)))
        self.pool = make_pool(spec.pool, spec.dim)
        self.norm = make_norm(spec.norm, spec.dim)
        outputs = spec.task.labels * spec.task.classes
        self.head = Linear(spec.dim, outputs, rows=1, formats=edge, std=_HEAD_STD)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (batch, labels, classes) for images of shape (batch, channels, height, width)."""
        stream = self._embedded(images)
        for block in self.blocks:
            stream = cast(Block, block)(stream, reducing=self.reducing)
        logits: Tensor = self.head(self._normed(self.pool(stream.x)))
        return logits.view(-1, self.spec.task.labels, self.spec.task.classes)

    def progress(self, done: float) -> None:
        """Tells the parts that change in the course of a training what share of it is done."""
        if self.spec.norm == "batchnorm":
            for module in self.modules():
                if isinstance(module, ProgressiveBatchNorm):
                    module.progress(done)

    def _embedded(self, images: Tensor) -> Stream:
        spec, patches = self.spec, self.stem(images)
        x = torch.cat((self.class_token.expand(patches.shape[0], 1, -1), patches), dim=1) + self.position
        if spec.token_method == "detail":
            return Stream(x, image=patches_of(images, spec.patch))
        if spec.core_tokens is None:
            return Stream(x)
        image = x[:, 1:]
        core = core_tokens(image, spec.grid, core_grid(spec.core_tokens, *spec.grid))
        return Stream(torch.cat((x[:, :1], core), dim=1), image=image)

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed
