"""What hardware a candidate needs and what running a workload on it costs.

    >>> from cosearch.hardware import SystolicArray, estimate, technology
    >>> array = SystolicArray(
    ...     rows=16, cols=16, dataflow="ws", ifmap_kib=64, filter_kib=64, ofmap_kib=64,
    ...     dram_bytes_per_s=4e9, clock_hz=500e6,
    ... )
    >>> technology("horowitz_45nm").node_nm
    45

`estimate` gives one `Cost` with a breakdown per operator, `estimate_batch` the totals for any number of accelerators;
both are pure. Formulas are in the modules' texts, each with its source.
"""

from __future__ import annotations

from cosearch.hardware.arithmetic import PE_KINDS, MacCost, ProcessingElement, Sparsity, mac_cost, supports
from cosearch.hardware.catalogue import TEMPLATES, Accelerator, build, fits, trust
from cosearch.hardware.cost import BatchCost, Cost, OperatorCost
from cosearch.hardware.estimate import estimate, estimate_batch, estimate_grid
from cosearch.hardware.fpga import Fpga, FpgaResources, Fpgas, fpga_resources
from cosearch.hardware.fusemax import FuseMax
from cosearch.hardware.gemmini import GemminiArray, GemminiArrays, gemmini_cycles, gemmini_tiles
from cosearch.hardware.heterogeneous import HeterogeneousASIC, heterogeneous_assignment
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.memory import (
    Allocation,
    PeakMemory,
    Placement,
    ResidentTraffic,
    Spill,
    allocate,
    best_schedule,
    live_bytes,
    peak_sram_bytes,
    resident_traffic,
)
from cosearch.hardware.microcontroller import Microcontroller, MicrocontrollerMemory, microcontroller_memory
from cosearch.hardware.pim import PIM, adc_bits_needed
from cosearch.hardware.roofline import Roofline, Rooflines
from cosearch.hardware.scalesim import ScaleSimCounts, scalesim_config, scalesim_counts, scalesim_topology
from cosearch.hardware.scalesim_memory import ScaleSimMemory, scalesim_memory
from cosearch.hardware.systolic import (
    ATTENTIONS,
    DATAFLOWS,
    MAPPINGS,
    OVERLAPS,
    SPARSITIES,
    SystolicArray,
    SystolicArrays,
)
from cosearch.hardware.technology import (
    DRAMS,
    TECHNOLOGIES,
    Technology,
    dram,
    scale,
    technology,
    with_dram,
)
from cosearch.hardware.vitcod import ViTCoD
from cosearch.hardware.widths import PE_BITS

__all__ = [
    "ATTENTIONS",
    "DATAFLOWS",
    "DRAMS",
    "MAPPINGS",
    "OVERLAPS",
    "PE_BITS",
    "PE_KINDS",
    "PIM",
    "SPARSITIES",
    "TECHNOLOGIES",
    "TEMPLATES",
    "Accelerator",
    "Allocation",
    "BatchCost",
    "Cost",
    "Fpga",
    "FpgaResources",
    "Fpgas",
    "FuseMax",
    "GemminiArray",
    "GemminiArrays",
    "HeterogeneousASIC",
    "Ledger",
    "MacCost",
    "Microcontroller",
    "MicrocontrollerMemory",
    "OperatorCost",
    "PeakMemory",
    "Placement",
    "ProcessingElement",
    "ResidentTraffic",
    "Roofline",
    "Rooflines",
    "ScaleSimCounts",
    "ScaleSimMemory",
    "Sparsity",
    "Spill",
    "SystolicArray",
    "SystolicArrays",
    "Technology",
    "ViTCoD",
    "adc_bits_needed",
    "allocate",
    "best_schedule",
    "build",
    "dram",
    "estimate",
    "estimate_batch",
    "estimate_grid",
    "fits",
    "fpga_resources",
    "gemmini_cycles",
    "gemmini_tiles",
    "heterogeneous_assignment",
    "live_bytes",
    "mac_cost",
    "microcontroller_memory",
    "peak_sram_bytes",
    "resident_traffic",
    "scale",
    "scalesim_config",
    "scalesim_counts",
    "scalesim_memory",
    "scalesim_topology",
    "supports",
    "technology",
    "trust",
    "with_dram",
]
