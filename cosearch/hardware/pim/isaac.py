"""What the parts of a crossbar tile cost: ISAAC's table of components, at 32 nm.

Powers and areas are those of ISAAC (Shafiee et al., ISCA 2016, table I) for a tile of 12 units of 8 crossbars of
128 x 128 cells, in which a read takes 100 ns. The paper was not at hand: ADC, DAC, shift-and-add, bus and router are
checked in hwcomponents-library (``isaac.py``), the crossbar in puma-simulator (``include/constants.py``); input and
output registers are not checked, but with them the parts add up to the totals that others quote (330 mW and 0.372 mm2
a tile; 41.3 TOPS, 0.48 TOPS/mm2 and 0.63 TOPS/W a chip: bench/hardware/pim.md). They stay at 32 nm whatever the
technology: converters and memristors do not scale as logic does. ISAAC's eDRAM is SRAM of the technology here.

Writing: puma-simulator gives 351/32 us and 676/32 nJ for a crossbar of 128 x 128 cells of 2 bits, written row by row;
NVSim's RRAM cell (``nvsim_RRAM.cell``) takes 0.6 pJ and 10 ns to set and as much to reset, without verification. The
number of bits in a cell does not change either here (assumption).
"""

from __future__ import annotations

import math

__all__ = [
    "BUS_J_PER_BIT",
    "BUS_MM2",
    "CELL_J",
    "CELL_MM2",
    "CROSSBARS_PER_UNIT",
    "DAC_J",
    "DAC_MM2",
    "READ_S",
    "REGISTER_IN_J_PER_BIT",
    "REGISTER_MM2_PER_ROW",
    "ROUTER_J_PER_BIT",
    "ROUTER_MM2",
    "SAMPLES_PER_S",
    "SAMPLE_J",
    "WRITE_CELL_J",
    "WRITE_ROW_S",
    "adc_j",
    "adc_mm2",
]

READ_S = 100e-9
"""Seconds of one read of a crossbar."""
SAMPLES_PER_S = 1.28e9
"""Conversions a second of an ADC: 128 columns in a read."""
CROSSBARS_PER_UNIT = 8
"""Crossbars that share input registers."""

CELL_J = 0.3e-3 * READ_S / (128 * 128)
"""Joules of a cell in a read: 2.4 mW for 8 crossbars."""
CELL_MM2 = 0.0002 / 8 / (128 * 128)
DAC_J = 4e-3 * READ_S / (8 * 128)
"""Joules of a 1-bit DAC in a read: 4 mW for 8 x 128; each bit more doubles it, and its area (hwcomponents)."""
DAC_MM2 = 0.00017 / (8 * 128)
SAMPLE_J = (0.01e-3 + 0.2e-3 + 0.23e-3) * READ_S / (8 * 128)
"""Joules beside each conversion: sample-and-hold, shift-and-add, output register, of 8 crossbars."""
REGISTER_IN_J_PER_BIT = 1.24e-3 * READ_S / (8 * 128)
"""Joules to take a bit from the input register, of 8 crossbars."""
REGISTER_MM2_PER_ROW = (0.00004 + 0.00024 + 0.0021 + 0.00077) / (8 * 128)
"""mm2 of sample-and-hold, shift-and-add and both registers, for each row of a crossbar."""
BUS_J_PER_BIT = 0.054e-12
"""Joules to move a bit inside a tile (hwcomponents, from 7 mW)."""
BUS_MM2 = 0.090
"""mm2 of the bus of a tile."""
ROUTER_J_PER_BIT = 20.74e-12 / 256
"""Joules to move a bit to another tile (hwcomponents, from 42 mW for four tiles)."""
ROUTER_MM2 = 0.151 / 4

WRITE_ROW_S = 351e-6 / 32 / 128
"""Seconds to write a row of a crossbar."""
WRITE_CELL_J = 676e-9 / 32 / (128 * 128)
"""Joules to write a cell."""

# pJ of a conversion and um2 of an ADC by bits, from 4: hwcomponents' scaling of ISAAC's by Saberi et al. 2011
_ADC_PJ = (0.79, 0.99, 1.20, 1.42, 1.67, 1.969078145, 2.379022742)
_ADC_UM2 = (361.04, 476.91, 626.91, 845.18, 1200.0, 1827.911647, 3002.008032)


def adc_j(bits: float) -> float:
    """Returns joules of a conversion: 2 mW at 1.28 GS/s for 8 bits, others in hwcomponents' ratio to it."""
    return 2e-3 / SAMPLES_PER_S * _at(bits, _ADC_PJ) / _at(8, _ADC_PJ)


def adc_mm2(bits: float) -> float:
    """Returns mm2 of an ADC: 0.0096 for eight of 8 bits, others in hwcomponents' ratio to it."""
    return 0.0096 / 8 * _at(bits, _ADC_UM2) / _at(8, _ADC_UM2)


def _at(bits: float, values: tuple[float, ...]) -> float:
    """Returns the row for ``bits``; beyond the rows, the ratio of the nearest two goes on (assumption)."""
    position = round(bits) - 4
    if position < 0:
        return values[0] * math.pow(values[0] / values[1], -position)
    last = len(values) - 1
    if position > last:
        return values[-1] * math.pow(values[-1] / values[-2], position - last)
    return values[position]
