"""The processing-in-memory template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosearch.errors import SpecError
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.widths import PE_BITS

__all__ = ["ATTENTIONS", "PIM", "adc_bits_needed"]

ATTENTIONS = ("digital", "crossbar")
"""Where products of two activations run: ``digital``, on CMOS multipliers beside the crossbars (as X-Former, Sridharan
et al. 2023, does); ``crossbar``, after the right operand was written into crossbars."""

_OWNER = "a processing-in-memory accelerator"
_RANGES: Mapping[str, Range] = {
    "crossbar_size": Range(8, 1024, "rows and columns"),
    "cell_bits": Range(1, 4, "bits a cell"),
    "dac_bits": Range(1, 4, "bits a cycle"),
    "adc_bits": Range(3, 12, "bits"),
    "columns_per_adc": Range(1, 1024, "columns"),
    "crossbars_per_tile": Range(1, 4096, "crossbars"),
    "tiles": Range(1, 1 << 16, "tiles"),
    "tile_buffer_kib": Range(1, 1 << 16, "KiB"),
    "digital_pes": Range(1, 1 << 20, "PEs"),
    "vector_lanes": Range(1, 1 << 16, "lanes"),
    "dram_bytes_per_s": Range(1e3, 1e15, "bytes/s", whole=False),
    "clock_hz": Range(1e3, 1e11, "Hz", whole=False),
}
_CHOICES: Mapping[str, tuple[str | int, ...]] = {"pe_bits": PE_BITS, "attention": ATTENTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class PIM:
    """Tiles of memristor crossbars that multiply where the weights lie, behind DACs and ADCs.

    ISAAC (Shafiee et al., ISCA 2016): a weight is cut into cells of a few bits side by side, an activation into pieces
    of a few bits that are driven one after another, and the sums of columns pass ADCs. The defaults are its best
    design, ISAAC-CE: 168 tiles of 12 x 8 crossbars of 128 x 128 cells of 2 bits, 1-bit DACs, an 8-bit ADC for each
    crossbar, 64 KiB and 1.2 GHz (checked in secondary sources). What transformers need beyond it is an assumption:
    the digital engine, the lanes and the DRAM behind.

    Attributes:
        crossbar_size: rows of a crossbar, and columns.
        cell_bits: bits of a weight in one cell.
        dac_bits: bits of an activation driven at once.
        adc_bits: resolution of an ADC; `adc_bits_needed` at least, so that sums are exact.
        columns_per_adc: columns that one ADC reads one after another.
        crossbars_per_tile: crossbars in a tile.
        tiles: how many there are.
        tile_buffer_kib: memory for activations in a tile, in KiB.
        attention: ``digital`` or ``crossbar``; see `ATTENTIONS`.
        digital_pes: multipliers of the digital engine, which exists where attention is digital.
        pe_bits: operand width of one of them; one of `PE_BITS`.
        vector_lanes: operations a cycle of the vector unit.
        dram_bytes_per_s: bandwidth to DRAM, reads and writes together.
        clock_hz: clock of the digital parts.

    Raises:
        SpecError: a field is out of its range, or an ADC cannot tell all sums of a column apart.
    """

    crossbar_size: int = 128
    cell_bits: int = 2
    dac_bits: int = 1
    adc_bits: int = 8
    columns_per_adc: int = 128
    crossbars_per_tile: int = 96
    tiles: int = 168
    tile_buffer_kib: int = 64
    attention: Literal["digital", "crossbar"] = "digital"
    digital_pes: int = 1024
    pe_bits: int = 8
    vector_lanes: int = 256
    dram_bytes_per_s: float = 25.6e9
    clock_hz: float = 1.2e9

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        for name, choices in _CHOICES.items():
            checked_choice(name, getattr(self, name), choices, _OWNER)
        need = adc_bits_needed(self.crossbar_size, self.cell_bits, self.dac_bits)
        if self.adc_bits < need:
            raise SpecError(
                "adc_bits",
                f"is {self.adc_bits}, but sums of {self.crossbar_size} cells of {self.cell_bits} bits driven by "
                f"{self.dac_bits} need {need} (ISAAC, section V)",
                f"write at least {need}, or use smaller crossbars, cells or DACs",
            )
        if self.columns_per_adc > self.crossbar_size:
            raise SpecError(
                "columns_per_adc",
                f"is {self.columns_per_adc}, but a crossbar has {self.crossbar_size} columns",
                f"write at most {self.crossbar_size}",
            )


def adc_bits_needed(rows: int, cell_bits: int, dac_bits: int) -> int:
    """Returns the ADC bits that tell all sums of a column apart.

    log2(rows) + v + w where both DAC (v) and cell (w) have more than one bit, else one less (as for the largest sum,
    rows * (2^v - 1) * (2^w - 1)); and one less again by ISAAC's encoding, which stores a column inverted where its sum
    could set the highest bit. 8 for ISAAC's own 128 rows, 2 bits and 1 bit.
    """
    whole = (rows - 1).bit_length() + cell_bits + dac_bits - (0 if cell_bits > 1 and dac_bits > 1 else 1)
    return whole - 1
