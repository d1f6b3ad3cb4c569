"""What an estimate gives: totals for one accelerator or many, and a breakdown per operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchCost", "Cost", "OperatorCost"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """What one operator costs.

    Attributes:
        name: the operator's name.
        kind: what it does, such as ``matmul``.
        macs: multiply-accumulates.
        compute_cycles: cycles of the array; 0 for a vector operator.
        vector_cycles: cycles of the vector unit; 0 for a matrix product.
        stall_cycles: cycles in which either waits for DRAM.
        dram_bytes: bytes to and from DRAM.
        energy_j: energy, leakage while it runs included.
        utilisation: share of the array's PE-cycles that multiply.
    """

    name: str
    kind: str
    macs: int
    compute_cycles: float
    vector_cycles: float
    stall_cycles: float
    dram_bytes: float
    energy_j: float
    utilisation: float

    @property
    def cycles(self) -> float:
        """All cycles of the operator."""
        return self.compute_cycles + self.vector_cycles + self.stall_cycles


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a workload costs on an accelerator, for one image.

    Attributes:
        latency_s: seconds.
        cycles: all cycles; the sum of the next three.
        compute_cycles: cycles of the array.
        vector_cycles: cycles of the vector unit.
        stall_cycles: cycles in which either waits for DRAM.
        energy_j: joules; the sum of the parts below.
        mac_j: multipliers, adders and registers of the array.
        vector_j: the vector unit.
        sram_j: the scratchpads.
        dram_j: DRAM.
        leakage_j: leakage.
        area_mm2: PEs, vector unit and scratchpads.
        power_w: energy over latency.
        dram_bytes: bytes to and from DRAM.
        peak_onchip_bytes: most bytes that an operator holds in the scratchpads.
        utilisation: share of all PE-cycles that multiply.
        technology: name of the table that energy and area come from.
        operators: the same per operator, in order.
    """

    latency_s: float
    cycles: float
    compute_cycles: float
    vector_cycles: float
    stall_cycles: float
    energy_j: float
    mac_j: float
    vector_j: float
    sram_j: float
    dram_j: float
    leakage_j: float
    area_mm2: float
    power_w: float
    dram_bytes: float
    peak_onchip_bytes: float
    utilisation: float
    technology: str
    operators: tuple[OperatorCost, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchCost:
    """What a workload costs on many accelerators; fields as in `Cost`, each of shape (accelerators,).

    `cosearch.hardware.estimate_grid` gives them the shape (workloads, accelerators).
    """

    latency_s: Floats
    cycles: Floats
    compute_cycles: Floats
    vector_cycles: Floats
    stall_cycles: Floats
    energy_j: Floats
    mac_j: Floats
    vector_j: Floats
    sram_j: Floats
    dram_j: Floats
    leakage_j: Floats
    area_mm2: Floats
    power_w: Floats
    dram_bytes: Floats
    peak_onchip_bytes: Floats
    utilisation: Floats
