"""What a multiply-accumulate costs on a processing element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cosearch.formats import NumberFormat
from cosearch.hardware.arithmetic import _float as floats
from cosearch.hardware.arithmetic import _integer as integers
from cosearch.hardware.arithmetic._dynamic import Dynamic
from cosearch.hardware.arithmetic.element import PeKind, ProcessingElement, Sparsity, refusal, supports
from cosearch.hardware.technology import Technology

__all__ = ["MacCost", "mac_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCost:
    """What one multiply-accumulate costs on a processing element.

    Attributes:
        pj: energy of its arithmetic, all passes together; registers and wires not counted.
        cycles_per_mac: cycles of the element: above 1 for passes and bit-serial elements, below 1 where it does several
            at once.
        a_bits_per_mac: bits of left operands that go through its operand register, again for each pass.
        b_bits_per_mac: bits of right operands, likewise.
        sum_bits_per_mac: bits of partial sums that its accumulator registers.
        um2: area of the element with its registers; does not depend on the formats.
        leak_w: watts that it leaks.
    """

    pj: float
    cycles_per_mac: float
    a_bits_per_mac: float
    b_bits_per_mac: float
    sum_bits_per_mac: float
    um2: float
    leak_w: float


@lru_cache(maxsize=1 << 16)
def mac_cost(
    technology: Technology,
    pe: ProcessingElement,
    a: NumberFormat,
    b: NumberFormat,
    sparsity: Sparsity | None = None,
) -> MacCost:
    """Returns what a multiply-accumulate costs on ``pe``.

    With ``sparsity`` it is the cost of one of all multiplications, kept or not: the kept share of a multiplication and
    of the multiplexer that picks its left operand from ``of`` of them.

    Args:
        technology: prices of the parts.
        pe: the processing element.
        a: format of the left operand: activations.
        b: format of the right operand: weights, or keys and values.
        sparsity: pattern of the right operand; dense where left out.

    Raises:
        SpecError: the element does not multiply these formats.
    """
    if not supports(pe, a, b):
        raise refusal(pe, a, b)
    dynamic = _DYNAMIC[pe.kind](technology, pe, a, b)
    um2 = _UM2[pe.kind](technology, pe)
    if pe.kind == "bit_parallel":
        leak_w = technology.mac_leak_w(pe.bits)
    else:  # like a bit-parallel element of 8 bits of the same area
        leak_w = technology.mac_leak_w(8) * (um2 / technology.mac_um2(8))
    pj, share = dynamic.pj, 1.0
    if sparsity is not None and sparsity.kept < sparsity.of:
        pick, share = sparsity.of - 1, sparsity.density
        pj = (pj + technology.shifter_pj(a.bits, pick)) * share
        extra = technology.shifter_um2(pe.bits, pick) + sparsity.metadata_bits * technology.register_um2_per_bit
        um2, leak_w = um2 + extra, leak_w * ((um2 + extra) / um2)
    return MacCost(
        pj=pj,
        cycles_per_mac=dynamic.cycles * share,
        a_bits_per_mac=dynamic.a_bits * share,
        b_bits_per_mac=dynamic.b_bits * share,
        sum_bits_per_mac=dynamic.sum_bits * share,
        um2=um2,
        leak_w=leak_w,
    )


_DYNAMIC: Mapping[PeKind, Callable[[Technology, ProcessingElement, NumberFormat, NumberFormat], Dynamic]] = (
    MappingProxyType(
        {
            "bit_parallel": integers.bit_parallel,
            "stripes": integers.stripes,
            "loom": integers.serial,
            "bismo": integers.serial,
            "bit_fusion": integers.bit_fusion,
            "float": floats.floating,
            "l_mul": floats.l_mul,
            "mx_float": floats.mx_float,
            "mx_integer": floats.mx_integer,
            "ternary": integers.ternary,
            "shift": integers.shift,
        }
    )
)
_UM2: Mapping[PeKind, Callable[[Technology, ProcessingElement], float]] = MappingProxyType(
    {
        "bit_parallel": integers.bit_parallel_um2,
        "stripes": integers.stripes_um2,
        "loom": integers.serial_um2,
        "bismo": integers.serial_um2,
        "bit_fusion": integers.bit_fusion_um2,
        "float": floats.floating_um2,
        "l_mul": floats.l_mul_um2,
        "mx_float": floats.mx_float_um2,
        "mx_integer": floats.mx_integer_um2,
        "ternary": integers.ternary_um2,
        "shift": integers.shift_um2,
    }
)
