"""What a kind of processing element says of one multiply-accumulate."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dynamic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """The part of `MacCost` that depends on the formats; fields as there."""

    pj: float
    cycles: float = 1.0
    a_bits: float
    b_bits: float
    sum_bits: float
