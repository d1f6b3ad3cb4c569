"""Costs of a workload on systolic arrays, as the rows of a ledger.

What is assumed, beside the closed forms in `folding`, `traffic` and `tiling`:

- Operators run one after another. Each takes the longer of its computation and its DRAM traffic (double buffering
  hides the shorter); the difference is its stall.
- Activations go to DRAM and come back between operators, but for those that the memory for activations holds.
  Weights are fetched for each image, but for those that the memory for weights holds.
- The vector unit reads its inputs from and writes its outputs to memory, through the ofmap scratchpad.
- A multiplier spends energy by the widths of its operands, not its own (unused bits are gated: Moons et al. 2017).
- Idle PEs are clock-gated: registers cost energy only where a PE multiplies. In ``ws`` a moving input and a 32-bit
  partial sum are registered each time, in ``is`` a weight and the sum, in ``os`` both operands and the sum in place.
- A lane operation costs a 16-bit multiply-accumulate.
- Memories on the chip keep up with the array, as SCALE-Sim assumes of its scratchpads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Groups, Products, require_integers
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.systolic.array import DATAFLOWS, SystolicArrays
from cosearch.hardware.systolic.folding import fold
from cosearch.hardware.systolic.prices import Prices
from cosearch.hardware.systolic.residency import Residency
from cosearch.hardware.systolic.traffic import Traffic, fold_fills, traffic
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS
from cosearch.workload import Workload

__all__ = ["systolic_ledger"]

Floats = NDArray[np.float64]


def systolic_ledger(workload: Workload, arrays: SystolicArrays, technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on ``arrays``, all of one dataflow.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    require_integers(workload, "a systolic array")
    dataflow = DATAFLOWS[int(arrays.dataflow[0])]
    prices = Prices.of(arrays, technology)
    residency = Residency.of(workload, arrays)
    groups = Groups.of(workload, residency.marks)
    p = groups.products
    folding = fold(p, arrays, dataflow)
    moved = traffic(p, arrays, dataflow, folding, fold_fills(p, arrays, dataflow, folding))
    from_dram = residency.shares(groups)

    spills = 2.0 * moved.spilled
    product_bits = moved.a_fill * from_dram.a + moved.b_fill * from_dram.b + spills + moved.out_bits * from_dram.out
    vector_bits = from_dram.read_bits + groups.write_bits * from_dram.vector_out
    dram_bytes = np.ceil(np.concatenate((product_bits, vector_bits + np.zeros_like(arrays.rows))) / 8.0)
    lane_cycles = np.ceil(groups.lane_operations / arrays.vector_lanes)
    compute = np.concatenate((folding.cycles, np.zeros_like(lane_cycles)))
    vector = np.concatenate((np.zeros_like(folding.cycles), lane_cycles))
    transfer = np.ceil(dram_bytes / (arrays.dram_bytes_per_s / arrays.clock_hz))

    onchip_j = (
        (moved.a_fill * (1.0 - from_dram.a) + moved.b_fill * from_dram.b_activation) * prices.activation_read
        + moved.b_fill * from_dram.b_pinned * prices.weight_read
        + moved.out_bits * (1.0 - from_dram.out) * prices.activation_write
    )
    vector_onchip_j = (groups.read_bits - from_dram.read_bits) * prices.activation_read + (
        groups.write_bits * (1.0 - from_dram.vector_out) * prices.activation_write
    )
    busy = groups.macs * folding.a_passes * folding.b_passes
    none_p, none_v = np.zeros_like(busy), np.zeros_like(lane_cycles)
    lane_j = 1e-12 * technology.mac_pj(LANE_BITS, LANE_BITS)
    vector_sram = groups.vector_bits * (prices.ofmap_read + prices.ofmap_write) + vector_onchip_j
    held = np.minimum(groups.vector_bits, arrays.ofmap_kib * 8192.0)
    return Ledger(
        members=groups.members,
        compute_cycles=compute,
        vector_cycles=vector,
        stall_cycles=np.maximum(transfer - compute - vector, 0.0),
        dram_bytes=dram_bytes,
        mac_j=np.concatenate((busy * _pass_j(p, arrays, dataflow, technology), none_v)),
        vector_j=np.concatenate((none_p, groups.lane_operations * lane_j + none_v)),
        sram_j=np.concatenate((_scratchpad_j(moved, prices) + onchip_j, vector_sram)),
        dram_j=dram_bytes * (8e-12 * technology.dram_pj_per_bit),
        held_bits=np.concatenate((moved.held_bits + none_p, held)) + residency.held_bits,
        busy=np.concatenate((busy, none_v)),
        multipliers=arrays.rows * arrays.cols,
        clock_hz=arrays.clock_hz,
        area_mm2=prices.area_mm2,
        leak_w=prices.leak_w,
    )


def _scratchpad_j(moved: Traffic, prices: Prices) -> Floats:
    """Returns joules of the three scratchpads; what was fetched is written to them once."""
    return (
        moved.ifmap_reads * prices.ifmap_read
        + moved.a_fill * prices.ifmap_write
        + moved.filter_reads * prices.filter_read
        + moved.b_fill * prices.filter_write
        + moved.ofmap_moves * prices.ofmap_read
        + moved.ofmap_moves * prices.ofmap_write
    )


def _pass_j(p: Products, arrays: SystolicArrays, dataflow: str, technology: Technology) -> Floats:
    """Returns joules of one multiply-accumulate of one pass, registers included: shape (products, accelerators)."""
    table = np.empty((p.m.shape[0], len(PE_BITS)))
    for row, (a, b) in enumerate(zip(p.a_bits[:, 0], p.b_bits[:, 0], strict=True)):
        for column, width in enumerate(PE_BITS):
            a_chunk, b_chunk = min(int(a), width), min(int(b), width)
            moving = {"os": a_chunk + b_chunk, "ws": a_chunk, "is": b_chunk}[dataflow] + ACCUMULATOR_BITS
            table[row, column] = technology.mac_pj(a_chunk, b_chunk) + moving * technology.register_pj_per_bit
    return 1e-12 * table[:, np.searchsorted(PE_BITS, arrays.pe_bits)]
