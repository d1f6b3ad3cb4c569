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

from cosearch.hardware.catalogue import TEMPLATES, Accelerator, build
from cosearch.hardware.cost import BatchCost, Cost, OperatorCost
from cosearch.hardware.estimate import estimate, estimate_batch
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.scalesim import ScaleSimCounts, scalesim_config, scalesim_counts, scalesim_topology
from cosearch.hardware.scalesim_memory import ScaleSimMemory, scalesim_memory
from cosearch.hardware.systolic import (
    ATTENTIONS,
    DATAFLOWS,
    MAPPINGS,
    OVERLAPS,
    SystolicArray,
    SystolicArrays,
)
from cosearch.hardware.technology import TECHNOLOGIES, Technology, technology
from cosearch.hardware.widths import PE_BITS

__all__ = [
    "ATTENTIONS",
    "DATAFLOWS",
    "MAPPINGS",
    "OVERLAPS",
    "PE_BITS",
    "TECHNOLOGIES",
    "TEMPLATES",
    "Accelerator",
    "BatchCost",
    "Cost",
    "Ledger",
    "OperatorCost",
    "ScaleSimCounts",
    "ScaleSimMemory",
    "SystolicArray",
    "SystolicArrays",
    "Technology",
    "build",
    "estimate",
    "estimate_batch",
    "scalesim_config",
    "scalesim_counts",
    "scalesim_memory",
    "scalesim_topology",
    "technology",
]
