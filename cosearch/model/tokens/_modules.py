"""Token reduction as modules: tokens and what a mixer hands on go in, fewer tokens come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosearch.model.linear import Linear, operand
from cosearch.model.mixers import Mixed
from cosearch.model.tokens._methods import cluster, contributions, detailed, hired, merge, prune
from cosearch.model.tokens._rows import Stream, best_first, class_scores, rows
from cosearch.spec import BlockSpec, ModelSpec

__all__ = ["Reduction", "make_reduction"]

_PARTS = 2
"""Parts of the image along each side that share the budget in HiRED (four, as its partitions of a square image)."""


class Reduction(nn.Module, ABC):
    """Takes a stream to ``keep`` image tokens.

    Args:
        spec: the model's.
        block: the block's.
        keep: image tokens that are left.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, keep: int) -> None:  # noqa: ARG002 - what methods may need
        super().__init__()
        self.keep = keep

    @abstractmethod
    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns the stream with fewer tokens."""


class Prune(Reduction):
    """`cosearch.model.tokens.prune`."""

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns the best tokens and one fused of the others."""
        return stream._replace(x=prune(stream.x, class_scores(_map(mixed)), self.keep))


class _Joining(Reduction):
    """Methods that compare tokens by their keys and join those that are alike."""

    def __init__(self, spec: ModelSpec, block: BlockSpec, keep: int) -> None:
        super().__init__(spec, block, keep)
        # choosing pairs has no gradient, so neither has the scale of what they are chosen by
        self.metric_quantizer = operand(block.activations_in, learned=False)

    def metric(self, mixed: Mixed) -> Tensor:
        """Returns the unit vectors by which image tokens are compared, shape (batch, tokens - 1, depth)."""
        assert mixed.keys is not None
        metric = F.normalize(mixed.keys.detach()[:, :, 1:].mean(1), dim=2)
        return metric if self.metric_quantizer is None else self.metric_quantizer.forward(metric)


class Merge(_Joining):
    """`cosearch.model.tokens.merge`."""

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns tokens with the most similar pairs averaged."""
        x, size = merge(stream.x, _size(stream), self.metric(mixed), self.keep)
        return stream._replace(x=x, size=size)


class Cluster(_Joining):
    """`cosearch.model.tokens.cluster`."""

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns one token for each semantic unit."""
        x, size = cluster(stream.x, _size(stream), self.metric(mixed), class_scores(_map(mixed)), self.keep)
        return stream._replace(x=x, size=size)


class Hired(Reduction):
    """`cosearch.model.tokens.hired`, with the image in 2 x 2 parts."""

    part: Tensor

    def __init__(self, spec: ModelSpec, block: BlockSpec, keep: int) -> None:
        super().__init__(spec, block, keep)
        height, width = spec.grid
        row = torch.arange(height) * _PARTS // height
        column = torch.arange(width) * _PARTS // width
        self.register_buffer("part", (row[:, None] * _PARTS + column).flatten(), persistent=False)

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns the best tokens of each part."""
        batch = stream.x.shape[0]
        place = _places(stream)
        part = self.part.expand(batch, -1).gather(1, place)
        picked = hired(class_scores(_map(mixed)), part, _PARTS**2, self.keep)
        return _only(stream, picked)._replace(place=place.gather(1, picked))


class Contribution(Reduction):
    """Drops the tokens that contribute least, by `cosearch.model.tokens.contributions`."""

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns the tokens that contribute most."""
        assert mixed.values is not None
        scores = contributions(_map(mixed), mixed.values)
        return _only(stream, best_first(scores)[:, : self.keep].sort(dim=1).values)


class Detail(Reduction):
    """Keeps what the class token attends to, and gives it the detail that the stem did not see.

    Incremental resolution (IRET): the image enters at half its resolution; where tokens are dropped first, a learnt
    lifting of the full-resolution patch is added to each that is kept. The detail of dropped tokens is never computed.
    """

    def __init__(self, spec: ModelSpec, block: BlockSpec, keep: int, *, first: bool) -> None:
        super().__init__(spec, block, keep)
        pixels, formats = spec.task.channels * spec.patch**2, (spec.edges_in, spec.edges_in)
        self.lift = Linear(pixels, spec.dim, rows=keep, formats=formats) if first else None

    def forward(self, stream: Stream, mixed: Mixed) -> Stream:
        """Returns the most attended tokens, refined where that is still to be done."""
        picked = best_first(class_scores(_map(mixed)))[:, : self.keep].sort(dim=1).values
        stream = _only(stream, picked)
        if self.lift is None or stream.image is None:
            return stream
        return stream._replace(x=detailed(stream.x, self.lift(rows(stream.image, picked))), image=None)


def make_reduction(spec: ModelSpec, index: int) -> Reduction | None:
    """Returns how block ``index`` reduces its tokens; None where it does not."""
    block = spec.blocks[index]
    keep = block.keep_tokens
    if keep is None or spec.core_tokens is not None:
        return None
    if spec.token_method == "detail":
        first = all(before.keep_tokens is None for before in spec.blocks[:index])
        return Detail(spec, block, keep, first=first)
    kinds: dict[str, Callable[[ModelSpec, BlockSpec, int], Reduction]] = {
        "prune": Prune,
        "merge": Merge,
        "cluster": Cluster,
        "hired": Hired,
        "contribution": Contribution,
    }
    return kinds[spec.token_method](spec, block, keep)


def _map(mixed: Mixed) -> Tensor:
    assert mixed.map is not None, "the mixer was not told that its map is needed"
    return mixed.map


def _size(stream: Stream) -> Tensor:
    return torch.ones_like(stream.x[:, :, 0]) if stream.size is None else stream.size


def _places(stream: Stream) -> Tensor:
    if stream.place is not None:
        return stream.place
    count = stream.x.shape[1] - 1
    return torch.arange(count, device=stream.x.device).expand(stream.x.shape[0], -1)


def _only(stream: Stream, picked: Tensor) -> Stream:
    return stream._replace(x=torch.cat((stream.x[:, :1], rows(stream.x, picked + 1)), dim=1))
