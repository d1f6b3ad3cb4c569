"""Widths that all templates share."""

from __future__ import annotations

__all__ = ["ACCUMULATOR_BITS", "PE_BITS"]

PE_BITS = (2, 4, 8, 16)
"""Operand widths that the multiplier of a PE comes in."""

ACCUMULATOR_BITS = 32
"""Width of partial sums, in the array and in the memory of outputs (as in Gemmini, Genc et al. 2021)."""
