"""Number formats as plain data: how a value is stored, and how wide a multiplier it needs.

`number_format` gives a format by its name:

    >>> number_format("mxfp4").storage_bits_per_value
    4.25
    >>> number_format("fp8_e4m3").max_value
    448.0

Names: ``int2`` to ``int16`` and ``uint2`` to ``uint16``; ``fp32``, ``fp16``, ``bf16``; ``fp8_e4m3``, ``fp8_e5m2``,
``fp6_e3m2``, ``fp6_e2m3``, ``fp4_e2m1``; ``mxfp8_e4m3``, ``mxfp8_e5m2``, ``mxfp6_e3m2``, ``mxfp6_e2m3``, ``mxfp4``,
``mxint8``; ``ternary``, ``ternary_packed``; ``pow2_2`` to ``pow2_5``.

Sources:

- IEEE 754 (binary32, binary16); Wang & Kanwar 2019, Google Cloud blog (bfloat16).
- *OCP 8-bit floating point specification*, revision 1.0, 2023: E4M3 without infinities, E5M2 with them.
- *OCP MX*: Microscaling Formats specification v1.0, 2023: blocks of 32 elements share a power of two, E8M0.
- *TWN*: Li & Liu 2016, ternary weight networks; *BitNet b1.58*: Ma et al. 2024. The values -1, 0 and 1 times a scale.
- *INQ*: Zhou et al. 2017; *DeepShift*: Elhoushi et al. 2021. Zero or a signed power of two; multiplying is shifting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cosearch.errors import NotFoundError, did_you_mean

__all__ = ["NUMBER_FORMATS", "Family", "NumberFormat", "integer_format", "number_format"]

Family = Literal["integer", "float", "mx", "ternary", "power_of_two"]
Special = Literal["ieee", "nan", "none"]

_MX = "OCP Microscaling Formats (MX) specification v1.0, 2023"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """One way to write a number down.

    Attributes:
        name: as in `NUMBER_FORMATS`.
        family: what kind of arithmetic it takes.
        bits: width of one value (of one element of an MX block), as a processing element sees it.
        signed: whether negative values exist.
        exponent_bits: of a floating-point value or element; of a power of two, the width of its exponent code.
        mantissa_bits: stored fraction of a floating-point value, without the leading one.
        special: which codes are no numbers: ``ieee`` (the top exponent holds infinities and NaN), ``nan`` (one
            mantissa of the top exponent is NaN), ``none``.
        block_size: values that share a scale which is stored with them; 1 without one.
        shared_bits: width of that scale.
        packed_bits: bits that a value takes in memory, shared scale aside.
        source: who defined it.
    """

    name: str
    family: Family
    bits: int
    signed: bool = True
    exponent_bits: int = 0
    mantissa_bits: int = 0
    special: Special = "none"
    block_size: int = 1
    shared_bits: int = 0
    packed_bits: float
    source: str

    @property
    def storage_bits_per_value(self) -> float:
        """Bits that a value takes in memory, with its share of the block's scale."""
        return self.packed_bits + self.shared_bits / self.block_size

    @property
    def is_float(self) -> bool:
        """Whether values, or the elements of a block, carry an exponent of their own beside a mantissa."""
        return self.family in ("float", "mx") and self.exponent_bits > 0

    @property
    def significand_bits(self) -> int:
        """Operand width of the integer multiplier inside: the mantissa with its leading one, or all of an integer."""
        if self.is_float:
            return self.mantissa_bits + 1
        return 1 if self.family in ("ternary", "power_of_two") else self.bits

    @property
    def max_value(self) -> float:
        """The largest value, before any scale (of a block, of a tensor).

        A power of two is at most 1: its exponents count down from the tensor's largest power, which is its scale.
        MXINT8 elements carry an implied scale of 2**-6.
        """
        if self.is_float:
            bias, top = (1 << self.exponent_bits - 1) - 1, (1 << self.exponent_bits) - 1
            ulp = 2.0**-self.mantissa_bits
            if self.special == "ieee":
                return (2 - ulp) * 2.0 ** (top - 1 - bias)
            return (2 - (2 if self.special == "nan" else 1) * ulp) * 2.0 ** (top - bias)
        if self.family in ("ternary", "power_of_two"):
            return 1.0
        whole = 2.0 ** (self.bits - self.signed) - 1
        return whole * 2.0**-6 if self.family == "mx" else whole

    @property
    def max_shift(self) -> int:
        """The longest shift that a power of two asks for: its exponent codes, less one for zero, counted from 0."""
        return (1 << self.exponent_bits) - 2 if self.family == "power_of_two" else 0


def _integer(bits: int, *, signed: bool) -> NumberFormat:
    name = f"{'' if signed else 'u'}int{bits}"
    return NumberFormat(
        name=name, family="integer", bits=bits, signed=signed, packed_bits=bits, source="two's complement or binary"
    )


def _float(
    name: str, exponent: int, mantissa: int, special: Literal["ieee", "nan", "none"], source: str
) -> NumberFormat:
    bits = 1 + exponent + mantissa
    return NumberFormat(
        name=name,
        family="float",
        bits=bits,
        exponent_bits=exponent,
        mantissa_bits=mantissa,
        special=special,
        packed_bits=bits,
        source=source,
    )


def _mx(name: str, element: NumberFormat) -> NumberFormat:
    """Returns blocks of 32 of ``element`` under one E8M0 scale (OCP MX v1.0, concrete formats)."""
    return NumberFormat(
        name=name,
        family="mx",
        bits=element.bits,
        exponent_bits=element.exponent_bits,
        mantissa_bits=element.mantissa_bits,
        special=element.special,
        block_size=32,
        shared_bits=8,
        packed_bits=element.bits,
        source=_MX,
    )


def _ternary(name: str, packed_bits: float, how: str) -> NumberFormat:
    source = f"TWN, Li & Liu 2016; BitNet b1.58, Ma et al. 2024; {how}"
    return NumberFormat(name=name, family="ternary", bits=2, packed_bits=packed_bits, source=source)


def _power_of_two(bits: int) -> NumberFormat:
    return NumberFormat(
        name=f"pow2_{bits}",
        family="power_of_two",
        bits=bits,
        exponent_bits=bits - 1,
        packed_bits=bits,
        source="INQ, Zhou et al. 2017 (2 to 5 bits, one code is zero); DeepShift, Elhoushi et al. 2021",
    )


def _all() -> Mapping[str, NumberFormat]:
    ocp8 = "OCP 8-bit floating point specification, revision 1.0, 2023"
    e4m3, e5m2 = _float("fp8_e4m3", 4, 3, "nan", ocp8), _float("fp8_e5m2", 5, 2, "ieee", ocp8)
    e3m2, e2m3 = _float("fp6_e3m2", 3, 2, "none", _MX), _float("fp6_e2m3", 2, 3, "none", _MX)
    e2m1 = _float("fp4_e2m1", 2, 1, "none", _MX)
    formats = [
        *(_integer(bits, signed=signed) for signed in (True, False) for bits in range(2, 17)),
        _float("fp32", 8, 23, "ieee", "IEEE 754 binary32"),
        _float("fp16", 5, 10, "ieee", "IEEE 754 binary16"),
        _float("bf16", 8, 7, "ieee", "bfloat16, Wang & Kanwar 2019"),
        *(e4m3, e5m2, e3m2, e2m3, e2m1),
        _mx("mxfp8_e4m3", e4m3),
        _mx("mxfp8_e5m2", e5m2),
        _mx("mxfp6_e3m2", e3m2),
        _mx("mxfp6_e2m3", e2m3),
        _mx("mxfp4", e2m1),
        _mx("mxint8", _integer(8, signed=True)),
        _ternary("ternary", 2.0, "two bits a value, which need no decoder"),
        _ternary("ternary_packed", 1.6, "five values to a byte (3**5 = 243 codes), decoded by a table"),
        *(_power_of_two(bits) for bits in range(2, 6)),
    ]
    return MappingProxyType({item.name: item for item in formats})


NUMBER_FORMATS: Mapping[str, NumberFormat] = _all()
"""Every number format by name."""


def number_format(name: str) -> NumberFormat:
    """Returns the number format called ``name``.

    Raises:
        NotFoundError: there is none.
    """
    found = NUMBER_FORMATS.get(name)
    if found is None:
        raise NotFoundError(f"number format {name!r} is unknown; {did_you_mean(name, NUMBER_FORMATS)}")
    return found


def integer_format(bits: int) -> NumberFormat:
    """Returns the signed integer of ``bits``.

    Raises:
        NotFoundError: there is none of that width.
    """
    return number_format(f"int{bits}")
