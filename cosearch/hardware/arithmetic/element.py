"""Processing elements and patterns of sparsity: what there is, and what multiplies what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from cosearch.errors import SpecError, did_you_mean
from cosearch.formats import NumberFormat
from cosearch.hardware.widths import PE_BITS

__all__ = [
    "ACCUMULATORS",
    "FLOAT_WIDTHS",
    "PE_KINDS",
    "PE_WIDTHS",
    "Accumulator",
    "PeKind",
    "ProcessingElement",
    "Sparsity",
    "refusal",
    "supports",
]

PeKind = Literal[
    "bit_parallel",
    "stripes",
    "loom",
    "bismo",
    "bit_fusion",
    "float",
    "l_mul",
    "mx_float",
    "mx_integer",
    "ternary",
    "shift",
]
PE_KINDS: tuple[PeKind, ...] = get_args(PeKind)
"""Every kind of processing element."""

Accumulator = Literal["fp32", "fp16", "fixed"]
ACCUMULATORS: tuple[Accumulator, ...] = get_args(Accumulator)
"""How ``float`` and ``l_mul`` sum up: in binary32 or binary16, or exactly, in fixed point wide enough for any product
(Kulisch's accumulator; for exponents of at most 5 bits)."""

FLOAT_WIDTHS: Mapping[int, tuple[int, int]] = MappingProxyType(
    {4: (2, 1), 6: (3, 3), 8: (5, 3), 16: (8, 10), 32: (8, 23)}
)
"""Exponent and mantissa bits of a floating-point element by its ``bits``: wide enough for every format of that size."""

PE_WIDTHS: Mapping[PeKind, tuple[int, ...]] = MappingProxyType(
    {
        "bit_parallel": PE_BITS,
        "stripes": PE_BITS,
        "loom": (1,),
        "bismo": (1,),
        "bit_fusion": (8,),
        "float": tuple(FLOAT_WIDTHS),
        "l_mul": tuple(FLOAT_WIDTHS),
        "mx_float": (4, 6, 8),
        "mx_integer": (8,),
        "ternary": PE_BITS,
        "shift": PE_BITS,
    }
)
"""The operand widths that each kind comes in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingElement:
    """A multiply-accumulate unit.

    Attributes:
        kind: one of `PE_KINDS`.
        bits: operand width of its multiplier; 1 for ``loom`` and ``bismo``, 8 for ``bit_fusion`` and ``mx_integer``.
        accumulator: of ``float`` and ``l_mul``, one of `ACCUMULATORS`; others have their own.

    Raises:
        SpecError: there is no such element.
    """

    kind: PeKind = "bit_parallel"
    bits: int = 8
    accumulator: Accumulator = "fp32"

    def __post_init__(self) -> None:
        if self.kind not in PE_KINDS:
            raise SpecError("pe_kind", f"is {self.kind!r}, which is unknown", did_you_mean(str(self.kind), PE_KINDS))
        widths = PE_WIDTHS[self.kind]
        if isinstance(self.bits, bool) or self.bits not in widths:
            listed = ", ".join(str(width) for width in widths)
            raise SpecError("pe_bits", f"is {self.bits!r}, but a {self.kind} PE has {listed}", f"write one of {listed}")
        allowed: tuple[Accumulator, ...] = ("fp32",)
        if self.kind in ("float", "l_mul"):
            allowed += ("fp16",) if self.bits <= 16 else ()
            allowed += ("fixed",) if self.bits <= 8 and self.kind == "float" else ()
        if self.accumulator not in allowed:
            raise SpecError(
                "accumulator",
                f"is {self.accumulator!r}, which a {self.kind} PE of {self.bits} bits does not have",
                f"write one of {', '.join(allowed)}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """N:M structured sparsity of the right operand: at most ``kept`` of every ``of`` values are not zero.

    2:4 is that of NVIDIA's Ampere (Mishra et al. 2021, "Accelerating sparse deep neural networks").

    Raises:
        SpecError: there is no such pattern.
    """

    kept: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.of <= 32:
            raise SpecError("of", f"is {self.of}, but groups have 1 to 32 values", "write 1 to 32")
        if not 1 <= self.kept <= self.of:
            raise SpecError("kept", f"is {self.kept}, but a group has {self.of} values", f"write 1 to {self.of}")

    @property
    def density(self) -> float:
        """Share of the multiplications that remain."""
        return self.kept / self.of

    @property
    def metadata_bits(self) -> int:
        """Bits that say where in its group a kept value stood (2 for 2:4); 0 where all are kept."""
        return math.ceil(math.log2(self.of)) if self.kept < self.of else 0

    def storage_bits_per_value(self, values: NumberFormat) -> float:
        """Returns bits in memory for each value, counting those that are not kept."""
        return self.density * (values.storage_bits_per_value + self.metadata_bits)


def supports(pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> bool:
    """Returns whether ``pe`` multiplies ``a`` by ``b``."""
    if pe.kind in ("float", "l_mul"):
        return all(x.family == "float" and _fits(x, pe.bits) for x in (a, b))
    if pe.kind == "mx_float":
        return all(x.family == "mx" and x.is_float and _fits(x, pe.bits) for x in (a, b))
    if pe.kind == "mx_integer":
        return all(x.family == "mx" and not x.is_float for x in (a, b))
    if pe.kind == "shift":
        return {a.family, b.family} == {"integer", "power_of_two"}
    integers = all(x.family in ("integer", "ternary") for x in (a, b))
    return integers and (pe.kind != "ternary" or "ternary" in (a.family, b.family))


def _fits(x: NumberFormat, bits: int) -> bool:
    exponent, mantissa = FLOAT_WIDTHS[bits]
    return x.exponent_bits <= exponent and x.mantissa_bits <= mantissa


def refusal(pe: ProcessingElement, a: NumberFormat, b: NumberFormat) -> SpecError:
    """Returns the error that says which elements multiply ``a`` by ``b``."""
    able = {
        kind: [width for width in PE_WIDTHS[kind] if supports(ProcessingElement(kind=kind, bits=width), a, b)]
        for kind in PE_KINDS
    }
    listed = ", ".join(f"{kind} (pe_bits {' or '.join(map(str, widths))})" for kind, widths in able.items() if widths)
    remedy = f"choose pe_kind {listed}" if listed else "give both operands formats of one family, such as int8"
    if able[pe.kind]:
        field, problem = "pe_bits", f"is {pe.bits}, but a {pe.kind} PE of that width does not multiply"
    else:
        field, problem = "pe_kind", f"is {pe.kind}, which does not multiply"
    return SpecError(field, f"{problem} {a.name} by {b.name}", remedy)
