"""The protocol between the search and whatever proposes points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from cosearch.spec import Point, Result, Scalar

__all__ = ["Brief", "Sampler"]


class Brief(dict[str, Scalar]):
    """A point of which the sampler asks a cheap guess (`cosearch.evaluator.BriefEvaluator`), to decide by.

    It is told like any other point, with a `Result.share` below 1; it can be asked in full later.
    """


@runtime_checkable
class Sampler(Protocol):
    """Proposes points and learns from what came of them. Knows its space and what it was told, nothing else.

    A sampler is made as ``factory(space, objectives, seed, **options)``: the `cosearch.space.Space`, the number of
    objectives, a seed, and what the run file gives under ``options``. The same arguments and the same calls give the
    same points, in any process. The entry-point group is ``cosearch.samplers``; `cosearch.testing.SamplerContract`
    holds the tests that every sampler passes.
    """

    def ask(self, n: int) -> Sequence[Point]:
        """Returns the next points to evaluate, valid in the space (each violates no constraint).

        Args:
            n: how many models the caller can train now, at least 1. Points of one model count once, so a sampler may
                return many points that pair one model with many accelerators.

        Returns:
            At most ``n`` models' points; those that are `Brief` are evaluated briefly. Empty means "nothing before I am
            told more" while points are outstanding, and "nothing left" when none are.
        """
        ...

    def tell(self, results: Sequence[Result]) -> None:
        """Learns from results: each asked point once, in the order of asking, possibly over several calls."""
        ...
