"""Which models of a space a supernet trains: the largest, the smallest, and random ones between."""

from __future__ import annotations

import numpy as np

from cosearch.space import Space
from cosearch.spec import ModelSpec, Point
from cosearch.workload import workload

__all__ = ["Choices", "effort"]

_STARTS = 64
"""Random models that the search for the largest and the smallest begins with the best of."""

_MOST_MOVES = 1000


def effort(spec: ModelSpec) -> float:
    """Returns how much a model computes: multiply-accumulates of an image, weighted by the mean bits of operands.

    Only the order matters here: more tokens, layers, units and bits are more.
    """
    bits = [block.weight_bits + block.activation_bits for block in spec.blocks] + [2 * spec.edge_bits]
    return float(workload(spec).macs) * sum(bits) / len(bits)


class Choices:
    """The models of a space.

    Args:
        space: its model side is drawn from.
        seed: of the search for the extremes.

    Attributes:
        largest: the model with the most `effort` that climbing from neighbour to neighbour finds.
        smallest: likewise with the least.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._side = space.side("model")
        rng = np.random.default_rng(seed)
        self.largest, self.smallest = self._extreme(rng, 1), self._extreme(rng, -1)

    def draw(self, rng: np.random.Generator, of: int = 1) -> ModelSpec:
        """Returns the largest of ``of`` random models: with many, mostly large ones are drawn."""
        drawn = [self._side.spec(self._side.sample(rng)) for _ in range(of)]
        return max(drawn, key=effort) if of > 1 else drawn[0]

    def _extreme(self, rng: np.random.Generator, sign: int) -> ModelSpec:
        def height(point: Point) -> float:
            return sign * effort(self._side.spec(point))

        here = max((self._side.sample(rng) for _ in range(_STARTS)), key=height)
        for _ in range(_MOST_MOVES):
            there = max(self._side.neighbours(here), key=height, default=here)
            if height(there) <= height(here):
                break
            here = there
        return self._side.spec(here)
