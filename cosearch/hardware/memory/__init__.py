"""On-chip memory over a whole network.

Cost models use the vectorised entry:

    resident_traffic(workload, capacities) -> ResidentTraffic

``capacities``, bytes left for activations between operators, is an array of shape (capacities,). The result has
``reads_avoided`` of shape (operators, most operands, capacities), by position of the operand in `Operator.inputs`,
``writes_avoided`` of shape (operators, capacities) by position of the operator that writes, and ``dram_bytes`` and
``peak_bytes`` of shape (capacities,). It is the answer that `allocate` gives: monotone (more capacity never moves more
bytes), deterministic, the same alone as in a batch. Plans are kept for the workloads asked for last (by identity).

For microcontrollers, `peak_sram_bytes` tells what a network needs under fusion, patches and overwriting, and
`best_schedule` finds the schedule for a given SRAM.
"""

from __future__ import annotations

from cosearch.hardware.memory.allocation import Allocation, Placement, Spill, allocate
from cosearch.hardware.memory.liveness import Lifetime, lifetimes, live_bytes
from cosearch.hardware.memory.planner import Buffer, PeakMemory, Stage
from cosearch.hardware.memory.resident import ResidentTraffic, resident_traffic
from cosearch.hardware.memory.schedule import best_schedule, peak_sram_bytes

__all__ = [
    "Allocation",
    "Buffer",
    "Lifetime",
    "PeakMemory",
    "Placement",
    "ResidentTraffic",
    "Spill",
    "Stage",
    "allocate",
    "best_schedule",
    "lifetimes",
    "live_bytes",
    "peak_sram_bytes",
    "resident_traffic",
]
