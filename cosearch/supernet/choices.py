"""Which models of a space a supernet trains: the largest, the smallest, and random ones between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cosearch.space import Space
from cosearch.spec import ModelSpec, Point
from cosearch.workload import workload

__all__ = ["Choices", "Draw", "effort"]

_STARTS = 64
"""Random models that the search for the largest and the smallest begins with the best of."""

_MOST_MOVES = 1000

_DRAWS = 256
"""Random models that stand for all where there are no neighbours to climb to."""


def effort(spec: ModelSpec) -> float:
    """Returns how much a model computes: multiply-accumulates of an image, weighted by the mean bits of operands.

    Only the order matters here: more tokens, layers, units and bits are more.
    """
    bits = [block.weight_bits + block.activation_bits for block in spec.blocks] + [2 * spec.edge_bits]
    return float(workload(spec).macs) * sum(bits) / len(bits)


Draw = Callable[[np.random.Generator], ModelSpec]
"""Draws a random model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """The models that a supernet is for.

    Attributes:
        name: of the space.
        draw_one: draws one of them.
        largest: the one with the most `effort` that was found.
        smallest: likewise with the least.
    """

    name: str
    draw_one: Draw
    largest: ModelSpec
    smallest: ModelSpec

    @classmethod
    def of_space(cls, space: Space, seed: int = 0) -> Choices:
        """Returns the models of ``space``; its extremes are climbed to from neighbour to neighbour."""
        side, rng = space.side("model"), np.random.default_rng(seed)

        def extreme(sign: int) -> ModelSpec:
            def height(point: Point) -> float:
                return sign * effort(side.spec(point))

            here = max((side.sample(rng) for _ in range(_STARTS)), key=height)
            for _ in range(_MOST_MOVES):
                there = max(side.neighbours(here), key=height, default=here)
                if height(there) <= height(here):
                    break
                here = there
            return side.spec(here)

        return cls(
            name=space.name,
            draw_one=lambda rng: side.spec(side.sample(rng)),
            largest=extreme(1),
            smallest=extreme(-1),
        )

    @classmethod
    def of_draws(cls, name: str, draw: Draw, seed: int = 0) -> Choices:
        """Returns the models that ``draw`` draws; the extremes are those of a few hundred."""
        rng = np.random.default_rng(seed)
        found = sorted((draw(rng) for _ in range(_DRAWS)), key=effort)
        return cls(name=name, draw_one=draw, largest=found[-1], smallest=found[0])

    def draw(self, rng: np.random.Generator, of: int = 1) -> ModelSpec:
        """Returns the largest of ``of`` random models: with many, mostly large ones are drawn."""
        drawn = [self.draw_one(rng) for _ in range(of)]
        return max(drawn, key=effort) if of > 1 else drawn[0]
