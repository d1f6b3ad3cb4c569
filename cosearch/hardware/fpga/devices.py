"""FPGA devices, from their data sheets.

Counts of LUTs, flip-flops, DSPs and memories are those of the vendor's tables; where only a copy of the table could be
read, the source says so. Watts that a device draws before it computes are in no data sheet: they are assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DEVICES", "FpgaDevice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaDevice:
    """What a board offers a design.

    Attributes:
        part: the FPGA on it.
        dsp: DSP slices.
        dsp_kind: ``DSP48E1`` (25 x 18 bits), ``DSP48E2`` (27 x 18) or ``DSP58`` (27 x 24).
        lut: 6-input LUTs.
        ff: flip-flops.
        bram18: block RAMs of 18 Kbit; a 36-Kbit block is two.
        uram: UltraRAMs of 288 Kbit.
        dram_bytes_per_s: bandwidth of the memory beside it.
        hbm: whether that memory is HBM; otherwise it is DDR.
        static_w: watts that the device draws before it computes, its processors included (assumption).
        source: where the counts and the bandwidth come from.
    """

    part: str
    dsp: int
    dsp_kind: str
    lut: int
    ff: int
    bram18: int
    uram: int
    dram_bytes_per_s: float
    hbm: bool
    static_w: float
    source: str


DEVICES: Mapping[str, FpgaDevice] = MappingProxyType(
    {
        "pynq_z2": FpgaDevice(
            part="XC7Z020",
            dsp=220,
            dsp_kind="DSP48E1",
            lut=53_200,
            ff=106_400,
            bram18=280,
            uram=0,
            dram_bytes_per_s=2.1e9,
            hbm=False,
            static_w=1.5,
            source="Xilinx DS190, table of Z-7020 (read in a copy); DDR3-1050 of 16 bits (PYNQ-Z2 manual, from memory)",
        ),
        "zcu102": FpgaDevice(
            part="XCZU9EG",
            dsp=2520,
            dsp_kind="DSP48E2",
            lut=274_080,
            ff=548_160,
            bram18=1824,
            uram=0,
            dram_bytes_per_s=19.2e9,
            hbm=False,
            static_w=3.4,
            source="Xilinx DS891, table of ZU9EG (read in Vivado reports); DDR4-2400 of 64 bits (UG1182, from memory)",
        ),
        "u250": FpgaDevice(
            part="XCU250 (XCVU13P)",
            dsp=12_288,
            dsp_kind="DSP48E2",
            lut=1_728_000,
            ff=3_456_000,
            bram18=5376,
            uram=1280,
            dram_bytes_per_s=77e9,
            hbm=False,
            static_w=15.0,
            source="Xilinx DS890, table of XCVU13P (read in a copy); 77 GB/s: UG1393, of Alveo cards with DDR",
        ),
        "u280": FpgaDevice(
            part="XCU280 (XCVU37P)",
            dsp=9024,
            dsp_kind="DSP48E2",
            lut=1_303_680,
            ff=2_607_360,
            bram18=4032,
            uram=960,
            dram_bytes_per_s=460e9,
            hbm=True,
            static_w=15.0,
            source="Xilinx DS890, table of XCVU37P (read in a copy); 460 GB/s of HBM: UG1393",
        ),
        "vck5000": FpgaDevice(
            part="XCVC1902",
            dsp=1968,
            dsp_kind="DSP58",
            lut=899_840,
            ff=1_799_680,
            bram18=1934,
            uram=463,
            dram_bytes_per_s=102.4e9,
            hbm=False,
            static_w=15.0,
            source="Xilinx DS950, table of VC1902, AI engines left out; four DDR4-3200 of 64 bits (both from memory)",
        ),
    }
)
"""Every device by name."""
