"""The fused-attention template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosearch.errors import SpecError
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS

__all__ = ["ATTENTIONS", "FuseMax"]

ATTENTIONS = ("unfused", "flat", "cascade", "architecture", "fusemax")
"""How an attention runs, in the order in which the paper's evaluation adds its ideas:

- ``unfused``: scores, softmax and context one after another; scores and softmax go through DRAM.
- ``flat``: scores of whole rows stay in the buffer, the 1D array normalises them while the 2D array multiplies (FLAT,
  Kao et al. 2023).
- ``cascade``: a single pass over keys and values with running maxima and denominators, softmax on the 1D array.
- ``architecture``: exponentials, maxima and sums of a tile on the PEs of the 2D array, one tile after another.
- ``fusemax``: likewise, with the steps of successive tiles interleaved so that both arrays are always busy."""

_OWNER = "a fused-attention array"
_RANGES: Mapping[str, Range] = {
    "rows": Range(1, 4096, "rows"),
    "cols": Range(1, 4096, "columns"),
    "lanes": Range(1, 1 << 16, "lanes"),
    "buffer_kib": Range(1, 1 << 22, "KiB"),
    "dram_bytes_per_s": Range(1e3, 1e15, "bytes/s", whole=False),
    "clock_hz": Range(1e3, 1e11, "Hz", whole=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseMax:
    """A 2D array of PEs for products and exponentials, a 1D array beside it, one buffer for all data, and DRAM.

    FuseMax (Nayak et al., MICRO 2024): queries across the columns, keys down the rows; each PE makes a score, its
    exponential by six multiply-adds, and its part of the context, which the column adds up; the 1D array holds running
    maxima, denominators and outputs, and corrects them. The defaults are the paper's cloud configuration, as in its
    artifact (github.com/FPSG-UIUC/micro24-fusemax-artifact, ``inputs/yamls/proposal/arch-2d.yaml``): 256 x 256 PEs of
    16 bits, 256 lanes, 16 MiB, 400 GiB/s, 940 MHz. The artifact's sweep of areas (figure 12) has square arrays of 16
    to 512 with as many lanes as columns; its FLAT and unfused baselines have 32 MiB at about the same area.

    Operands wider than the multiplier take ``ceil(w / pe_bits) * ceil(a / pe_bits)`` passes.

    Attributes:
        rows: PEs down the 2D array.
        cols: PEs across the 2D array.
        lanes: PEs of the 1D array, 16 bits each.
        buffer_kib: the global buffer, in KiB.
        dram_bytes_per_s: bandwidth to DRAM, reads and writes together.
        clock_hz: clock of arrays and buffer.
        pe_bits: operand width of one multiplier of the 2D array; one of `PE_BITS`.
        attention: how attentions run; one of `ATTENTIONS`.

    Raises:
        SpecError: a field is out of its range, or the buffer cannot feed the array.
    """

    rows: int = 256
    cols: int = 256
    lanes: int = 256
    buffer_kib: int = 16384
    dram_bytes_per_s: float = 400.0 * 2**30
    clock_hz: float = 940e6
    pe_bits: int = 16
    attention: Literal["unfused", "flat", "cascade", "architecture", "fusemax"] = "fusemax"

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        checked_choice("pe_bits", self.pe_bits, PE_BITS, _OWNER)
        checked_choice("attention", self.attention, ATTENTIONS, _OWNER)
        need = 2 * (self.rows + self.cols) + self.cols * ACCUMULATOR_BITS // 8
        if self.buffer_kib * 512 < need:
            raise SpecError(
                "buffer_kib",
                f"is {self.buffer_kib}, but half of it ({self.buffer_kib * 512} bytes) must hold a vector for the rows "
                f"and the columns of the {self.rows} x {self.cols} array and a row of sums ({need} bytes)",
                f"write at least {math.ceil(need / 512)}, or make the array smaller",
            )
