"""The template with denser and sparser engines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosearch.errors import SpecError
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.spec import Scalar

__all__ = ["ALLOCATIONS", "ENCODERS", "ENGINES", "ViTCoD"]

ENGINES = ("none", "sparser", "both")
"""Which engines work on attention: ``none`` computes every score, whatever the mask; ``sparser`` fetches a query for
each score that is left; ``both`` has a denser engine for the columns that most queries attend to, which passes its
queries on to the sparser one."""

ALLOCATIONS = ("dynamic", "even")
"""How the MAC lines are shared between two engines: by their work, or half and half."""

ENCODERS = ("off", "on")
"""Whether queries and keys cross DRAM compressed over the heads."""

_OWNER = "a ViTCoD accelerator"
_RANGES: Mapping[str, Range] = {
    "mac_lines": Range(2, 1 << 16, "MAC lines"),
    "macs_per_line": Range(1, 4096, "multipliers a line"),
    "operand_kib": Range(1, 1 << 20, "KiB"),
    "index_kib": Range(1, 1 << 20, "KiB"),
    "output_kib": Range(1, 1 << 20, "KiB"),
    "dram_bytes_per_s": Range(1e3, 1e15, "bytes/s", whole=False),
    "clock_hz": Range(1e3, 1e11, "Hz", whole=False),
    "vector_lanes": Range(1, 1 << 16, "lanes"),
    "attention_density": Range(1e-3, 1.0, "of all scores", whole=False),
    "dense_share": Range(0.0, 1.0, "of the scores that are left", whole=False),
    "compressed_share": Range(1e-3, 1.0, "of the heads", whole=False),
}
_CHOICES: Mapping[str, tuple[Scalar, ...]] = {
    "pe_bits": PE_BITS,
    "engines": ENGINES,
    "allocation": ALLOCATIONS,
    "encoder": ENCODERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTCoD:
    """Lines of multipliers that two engines share, buffers for operands, mask indices and outputs, and DRAM.

    ViTCoD (You et al., HPCA 2023) prunes attention maps to fixed masks and reorders them into columns that are dense
    and a rest that is sparse; a denser and a sparser engine work on them at the same time, and an encoder and decoder
    over the heads compress queries and keys on their way through DRAM.

    **The mask and the encoder belong to the model, and no model of this project is trained with them.** A density
    below 1, or the encoder, claims savings that training has yet to earn: the accuracy beside such a cost is that of
    the dense model. Both are off by default. The paper reports masks of up to 90 % zeros (a density of 0.1) within
    1.5 % of the accuracy.

    Defaults are those of the released simulator (github.com/GATECH-EIC/ViTCoD, ``Hardware/Simulator``): 64 lines of 8
    multipliers, 500 MHz, 76.8 GB/s, 20 KiB for indices, 108 KiB for outputs. The simulator has 53 KiB each for queries,
    keys and values; ``operand_kib`` rounds them up so that all buffers make 320 KiB, which is taken to be the paper's
    total (not verified). ``dense_share`` is that of its masks for DeiT-Tiny at 95 % zeros, reordered as it does: 0.58,
    where 0.067 of all scores are computed. ``vector_lanes`` is an assumption: the simulator leaves softmax out.

    Attributes:
        mac_lines: lines, each of which computes one score or one part of an output row at a time.
        macs_per_line: multipliers of a line.
        operand_kib: buffer of queries, keys, values, activations and weights, both halves, in KiB.
        index_kib: buffer of the mask's indices, in KiB.
        output_kib: buffer of scores and outputs, both halves, in KiB.
        dram_bytes_per_s: bandwidth to DRAM, reads and writes together.
        clock_hz: clock of engines and buffers.
        pe_bits: operand width of one multiplier; one of `PE_BITS`.
        vector_lanes: operations a cycle of the vector unit.
        engines: one of `ENGINES`.
        allocation: one of `ALLOCATIONS`.
        encoder: one of `ENCODERS`; ``on`` needs a model trained with it.
        attention_density: share of all scores that are computed, zeros within the dense columns included; 1 is the
            attention that models are trained with.
        dense_share: share of the computed scores in the dense columns; read where the density is below 1.
        compressed_share: share of the heads that the encoder leaves, rounded up to whole heads; read where it is on.

    Raises:
        SpecError: a field is out of its range, or a buffer cannot feed the lines.
    """

    mac_lines: int = 64
    macs_per_line: int = 8
    operand_kib: int = 192
    index_kib: int = 20
    output_kib: int = 108
    dram_bytes_per_s: float = 76.8e9
    clock_hz: float = 500e6
    pe_bits: int = 8
    vector_lanes: int = 64
    engines: Literal["none", "sparser", "both"] = "both"
    allocation: Literal["dynamic", "even"] = "dynamic"
    encoder: Literal["off", "on"] = "off"
    attention_density: float = 1.0
    dense_share: float = 0.58
    compressed_share: float = 0.5

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        for name, choices in _CHOICES.items():
            checked_choice(name, getattr(self, name), choices, _OWNER)
        needs = {
            "operand_kib": (2 * self.macs_per_line * 2, "a vector of 16-bit operands for a line, left and right"),
            "output_kib": (self.mac_lines * ACCUMULATOR_BITS // 8, f"a sum for each of {self.mac_lines} lines"),
        }
        for name, (need, what) in needs.items():
            kib = getattr(self, name)
            if kib * 512 < need:
                raise SpecError(
                    name,
                    f"is {kib}, but half of it ({kib * 512} bytes) must hold {what} ({need} bytes)",
                    f"write at least {math.ceil(need / 512)}, or use fewer or shorter lines",
                )
