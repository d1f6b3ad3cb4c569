"""Kinds of processing elements, and what a multiply-accumulate costs on each by the formats of its operands.

    >>> from cosearch.formats import number_format
    >>> from cosearch.hardware.technology import technology
    >>> int4, fusion = number_format("int4"), ProcessingElement(kind="bit_fusion", bits=8)
    >>> mac_cost(technology("horowitz_45nm"), fusion, int4, int4).cycles_per_mac
    0.25

Kinds, what they multiply, and where they come from:

- ``bit_parallel``: integers; a multiplier of ``bits`` x ``bits`` whose unused bits are gated (Moons et al. 2017,
  Envision), wider operands in passes (Umuroglu et al. 2018, BISMO).
- ``stripes``: integers; activations a bit a cycle, weights ``bits`` wide (Judd et al. 2016).
- ``loom``, ``bismo``: integers; both operands a bit a cycle (Sharify et al. 2018; Umuroglu et al. 2018).
- ``bit_fusion``: integers; 16 bricks of 2 x 2 bits, fused in space (Sharma et al. 2018).
- ``float``: floating point; significand multiplier, exponent adder, accumulator (Horowitz 2014 for the parts).
- ``l_mul``: floating point; an integer addition in place of the multiplication (Luo & Sun 2024).
- ``mx_float``, ``mx_integer``: MX blocks; sums in fixed point, the scales added once a block (OCP MX v1.0, 2023).
- ``ternary``: integers by -1, 0, 1; add, subtract or skip (Li & Liu 2016, TWN).
- ``shift``: integers by powers of two; a barrel shifter (Elhoushi et al. 2021, DeepShift).

Kinds for integers take ternary operands too, as two bits. Signed and unsigned integers of one width cost the same
(assumption: a mode bit). `Sparsity` cuts the multiplications to n of m.

What parts cost is the `Technology`'s; each kind's function states how it is put together from them. A composition is
an estimate: bench/hardware/technology.md holds it against published figures.
"""

from __future__ import annotations

from cosearch.hardware.arithmetic.cost import MacCost, mac_cost
from cosearch.hardware.arithmetic.element import (
    ACCUMULATORS,
    PE_KINDS,
    PE_WIDTHS,
    Accumulator,
    PeKind,
    ProcessingElement,
    Sparsity,
    refusal,
    supports,
)

__all__ = [
    "ACCUMULATORS",
    "PE_KINDS",
    "PE_WIDTHS",
    "Accumulator",
    "MacCost",
    "PeKind",
    "ProcessingElement",
    "Sparsity",
    "mac_cost",
    "refusal",
    "supports",
]
