"""What arithmetic and memories take of an FPGA.

Multipliers. A DSP of 27 x 18 bits makes two products of up to 8 bits that share an operand (Xilinx WP486), or four of
up to 4 bits, two operands times two (Xilinx WP521); a DSP58 adds three products of 8 bits (AM004, from memory). Wider
ones take a DSP each. A DSP48E1 has no room for four products (assumption: two). In LUTs, a multiplier with its adder
takes ``1.1 * w * a`` of them, and an engine 300 on top (FINN-R, Blott et al. 2018, as FINN's estimator has it).

Memories. A block RAM of 18 Kbit is 512 words of 36 bits, or 1024 of 18, and so on down to 16384 of one bit (UG573); an
UltraRAM 4096 words of 72 bits. Memories of up to 64 words are made of LUTs, 64 bits each (UG574). Where there is
UltraRAM, memories of 2048 words and more go there (assumption).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.design import Fpgas

__all__ = [
    "DSP_KINDS",
    "ENGINE_LUTS",
    "FF_PER_DSP",
    "LANE_LUTS",
    "LUT_PER_BIT2",
    "LUT_PER_DSP",
    "Blocks",
    "blocks",
    "in_luts",
    "shape_of_pack",
    "stream_pack",
    "urams",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DSP_KINDS = ("DSP48E1", "DSP48E2", "DSP58")

ENGINE_LUTS = 300.0
"""FINN-R: LUTs of an engine's control."""
LUT_PER_BIT2 = 1.1
"""FINN-R: LUTs of a multiply-accumulate for each product of its operands' bits."""
LUT_PER_DSP = 67.0
"""LUTs of a whole design for each of its DSPs: 123.4 thousand for 1850 in UbiMoE on a ZCU102 (Dong et al. 2025; read in
notes that quote its table). AMD's DPU B3136 on a KV260 has 83 (45433 for 548, Kria documentation)."""
FF_PER_DSP = 77.0
"""Flip-flops likewise: 142.6 thousand for 1850 in UbiMoE."""
LANE_LUTS = 300.0
"""LUTs of a lane of the vector unit, beside a DSP: shifter, comparator, polynomial of i-exp (assumption)."""

_SHAPES = ((16384.0, 1.0), (8192.0, 2.0), (4096.0, 4.0), (2048.0, 9.0), (1024.0, 18.0), (512.0, 36.0))
"""Words and bits of a block RAM of 18 Kbit."""
_LUTRAM_WORDS = 64.0
_URAM_WORDS, _URAM_BITS, _URAM_FROM = 4096.0, 72.0, 2048.0
_PACKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    # rows, reduction and columns that one DSP multiplies: at up to 4 bits, up to 8, and beyond
    "DSP48E1": ((1, 1, 2), (1, 1, 2), (1, 1, 1)),
    "DSP48E2": ((2, 1, 2), (1, 1, 2), (1, 1, 1)),
    "DSP58": ((2, 1, 2), (1, 3, 1), (1, 1, 1)),
}
_TABLE = np.array([_PACKS[kind] for kind in DSP_KINDS], dtype=np.float64)
# narrow operands may use what wider ones can: the most products without a second row, from the wide end
_STREAM = np.maximum.accumulate((_TABLE[:, :, 1] * _TABLE[:, :, 2])[:, ::-1], axis=1)[:, ::-1]


def _width_class(bits: Floats) -> NDArray[np.intp]:
    return (bits > 4).astype(np.intp) + (bits > 8).astype(np.intp)


def shape_of_pack(batch: Fpgas, bits: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns the rows, values of the reduction and columns that one DSP multiplies in a cycle.

    Args:
        batch: the designs.
        bits: the wider operand, of a shape that broadcasts to (layers, designs).
    """
    found = _TABLE[batch.codes("dsp_kind", DSP_KINDS), _width_class(bits)]
    return found[..., 0], found[..., 1], found[..., 2]


def stream_pack(batch: Fpgas, bits: Floats) -> Floats:
    """Returns the products of one DSP in an engine that takes one row at a time: no two rows share a weight."""
    found = _STREAM[batch.codes("dsp_kind", DSP_KINDS), _width_class(bits)]
    return np.asarray(found)


def in_luts(batch: Fpgas, a_bits: Floats, b_bits: Floats) -> Bools:
    """Returns whether products of these widths are made of LUTs, shape (layers, designs)."""
    chosen = batch.codes("multiplier", ("dsp", "lut", "auto"))
    narrow = (a_bits < 4) & (b_bits < 4)  # FINN: engines of fewer than 4 bits default to LUTs
    return np.asarray((chosen == 1) | ((chosen == 2) & narrow), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """What memories take; fields of one shape."""

    bram18: Floats
    uram: Floats
    lut: Floats


def blocks(width: Floats, words: Floats, has_uram: Bools) -> Blocks:
    """Returns what memories of ``words`` words of ``width`` bits take, each read whole words at a time."""
    small = words <= _LUTRAM_WORDS
    ultra = ~small & has_uram & (words >= _URAM_FROM)
    fewest = np.ceil(width / _SHAPES[0][1]) * np.ceil(words / _SHAPES[0][0])
    for deep, wide in _SHAPES[1:]:
        fewest = np.minimum(fewest, np.ceil(width / wide) * np.ceil(words / deep))
    return Blocks(
        bram18=np.where(small | ultra, 0.0, fewest),
        uram=np.where(ultra, urams(width, words), 0.0),
        lut=np.where(small, width, 0.0),
    )


def urams(width: Floats, words: Floats) -> Floats:
    """Returns the UltraRAMs that memories take if they go there."""
    return np.ceil(width / _URAM_BITS) * np.ceil(words / _URAM_WORDS)
