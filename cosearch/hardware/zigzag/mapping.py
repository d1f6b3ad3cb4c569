"""A product, and what of it runs at once on the array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cosearch.errors import SpecError
from cosearch.hardware.zigzag.architecture import (
    IRRELEVANT,
    LOOPS,
    OPERANDS,
    RELEVANT,
    Loop,
    Operand,
    ZigZagArchitecture,
)

__all__ = ["Product", "Unrolling", "unroll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product of (m x k) by (k x n).

    Attributes:
        m: rows of the left operand.
        k: length of the sums.
        n: columns of the right operand.
        a_bits: bits of the left operand, and of the final outputs.
        w_bits: bits of the right operand.
        psum_bits: bits of outputs while their sums are unfinished.
    """

    m: int
    k: int
    n: int
    a_bits: int
    w_bits: int
    psum_bits: int

    def __post_init__(self) -> None:
        for name in ("m", "k", "n", "a_bits", "w_bits", "psum_bits"):
            if getattr(self, name) < 1:
                raise SpecError(name, f"is {getattr(self, name)}", "write 1 or more")

    def size(self, loop: Loop) -> int:
        """Returns the extent of ``loop``."""
        return {"m": self.m, "k": self.k, "n": self.n}[loop]

    def bits(self, operand: Operand, *, partial: bool = False) -> int:
        """Returns bits of an element; ``partial`` for outputs whose sums are unfinished."""
        if operand == "o":
            return self.psum_bits if partial else self.a_bits
        return self.a_bits if operand == "i" else self.w_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrolling:
    """What runs at once: of each operand, the loops unrolled below each memory.

    Attributes:
        at: for each operand, a mapping for each level: 0 is what the innermost memory serves, the last what none does.
    """

    at: Mapping[Operand, tuple[Mapping[Loop, float], ...]]

    def below(self, operand: Operand, level: int) -> float:
        """Returns how many elements of ``operand`` the loops unrolled below ``level`` need."""
        return _product(self.at[operand][:level], RELEVANT[operand])

    def unique(self, operand: Operand, level: int) -> float:
        """Returns how many instances at ``level`` hold data of their own."""
        return _product(self.at[operand][level:], RELEVANT[operand])

    def reused(self, operand: Operand, level: int) -> float:
        """Returns how many instances at ``level`` hold the same data, or add to the same output."""
        return _product(self.at[operand][level:], (IRRELEVANT[operand],))

    def instances(self, operand: Operand, level: int) -> int:
        """Returns how many instances there are at ``level``."""
        return round(round(_product(self.at[operand][level:], LOOPS), 3))

    def fan_out(self, operand: Operand, level: int) -> int:
        """Returns how many instances at ``level`` one instance of the level above feeds with data of their own."""
        if level + 1 == len(self.at[operand]):
            return 1
        return round(self.unique(operand, level) / self.unique(operand, level + 1))


def _product(levels: tuple[Mapping[Loop, float], ...], loops: tuple[Loop, ...]) -> float:
    return math.prod(size for level in levels for loop, size in level.items() if loop in loops)


def unroll(product: Product, architecture: ZigZagArchitecture, *, whole: bool) -> tuple[Unrolling, dict[Loop, int]]:
    """Returns the unrolled loops, and how often each loop is repeated in time.

    A loop that the array does not divide is spread evenly over its folds: 99 over 16 elements takes 7 folds of 99 / 7.
    The tool counts energy with that mean, and time with its whole part (``whole``).
    """
    sides: dict[str, tuple[Loop, float]] = {}
    iterations = {loop: product.size(loop) for loop in LOOPS}
    for axis in architecture.axes:
        size = product.size(axis.loop)
        folds = math.ceil(size / min(axis.size, size))
        sides[axis.name] = (axis.loop, size // folds if whole else size / folds)
        iterations[axis.loop] = folds
    at: dict[Operand, tuple[Mapping[Loop, float], ...]] = {}
    for operand in OPERANDS:
        left = dict(sides)
        levels = [
            dict(left.pop(name) for name in memory.serves if name in left) for memory in architecture.levels(operand)
        ]
        at[operand] = (*levels, dict(left.values()))
    return Unrolling(at=at), iterations
