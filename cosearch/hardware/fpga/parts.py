"""What both styles work out, for the model to make a ledger and a list of resources of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.design import Fpgas
from cosearch.hardware.fpga.packing import FF_PER_DSP, LANE_LUTS, LUT_PER_DSP, Blocks

__all__ = ["DEPTH", "DSP_CYCLE_J", "LUT_CYCLE_J", "Parts", "Resources", "resources"]

Floats = NDArray[np.float64]

DEPTH = 16.0
"""Cycles from an engine's input to its output beside those of its products: registers of DSPs, adder tree, rescaling
(assumption)."""

DSP_CYCLE_J = 14e-12
"""Joules of a design for each of its DSPs in each cycle that it multiplies, with the LUTs, flip-flops, block RAM and
clock around it. UbiMoE on a ZCU102: (11.5 W - 3.4 W) / (1850 * 300 MHz) = 14.6 pJ; AMD's DPU B3136 on a KV260: (7.9 W -
3.4 W) / (548 * 600 MHz) = 13.7 pJ (its DSPs run at twice the clock). The 3.4 W that the devices draw anyway are an
assumption."""

LUT_CYCLE_J = 0.1e-12
"""Joules of a LUT likewise (assumption: half of a DSP's share goes to the 67 LUTs around it)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resources:
    """What designs need of their devices; fields of shape (designs,), whole numbers."""

    dsp: Floats
    lut: Floats
    ff: Floats
    bram18: Floats
    uram: Floats


def resources(*, dsps: Floats, lanes: Floats, luts: Floats, memories: Blocks) -> Resources:
    """Returns the resources of designs.

    Args:
        dsps: that multiply, shape (designs,).
        lanes: of vector units, a DSP each, likewise.
        luts: that multiply, likewise.
        memories: of the whole design, likewise.
    """
    dsp = dsps + lanes
    return Resources(
        dsp=dsp,
        lut=np.ceil(dsp * LUT_PER_DSP + lanes * LANE_LUTS + luts + memories.lut),
        ff=np.ceil(dsp * FF_PER_DSP + luts),  # a flip-flop behind each LUT that multiplies (assumption)
        bram18=memories.bram18,
        uram=memories.uram,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """Costs of the distinct operators on designs of one style; fields have shapes that broadcast to (rows, designs).

    Attributes:
        cycles: what each adds to the latency, waiting for DRAM left out.
        dram_bits: bits to and from DRAM.
        product_j: joules of its products.
        held_bits: bits that it holds on the chip.
        busy: products made, a wide one counted once for each pass.
        multipliers: products that the design can make in a cycle, shape (designs,).
    """

    cycles: Floats
    dram_bits: Floats
    product_j: Floats
    held_bits: Floats
    busy: Floats
    multipliers: Floats


def has_uram(batch: Fpgas) -> NDArray[np.bool_]:
    """Returns whether each design's device has UltraRAM, shape (designs,)."""
    return batch.of_device("uram") > 0
