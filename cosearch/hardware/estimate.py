"""Latency, energy, area and traffic of a workload on systolic arrays.

One code path for one accelerator and for a million: `estimate` is `estimate_batch` of one, bit for bit. All steps
over accelerators are elementwise, and operators are summed one after another in their order, so a result does not
depend on what else is in the batch.

What is assumed, beside the closed forms in `cosearch.hardware.systolic`:

- Operators run one after another. Each takes the longer of its computation and its DRAM traffic (double buffering
  hides the shorter); the difference is its stall.
- Activations go to DRAM and come back between operators, weights are fetched for each image.
- The vector unit reads its inputs from and writes its outputs to DRAM, through the ofmap scratchpad.
- A multiplier spends energy by the widths of its operands, not its own (unused bits are gated: Moons et al. 2017).
- Idle PEs are clock-gated: registers cost energy only where a PE multiplies. In ``ws`` a moving input and a 32-bit
  partial sum are registered each time, in ``is`` a weight and the sum, in ``os`` both operands and the sum in place.
- A lane operation costs a 16-bit multiply-accumulate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.cost import BatchCost, Cost, OperatorCost
from cosearch.hardware.systolic import Products, fold, traffic
from cosearch.hardware.technology import Technology
from cosearch.hardware.templates import (
    ACCUMULATOR_BITS,
    DATAFLOWS,
    PE_BITS,
    SystolicArray,
    SystolicArrays,
)
from cosearch.hardware.vector import lane_operations
from cosearch.spec import FLOAT_BITS
from cosearch.workload import Operator, OperatorKind, Workload

__all__ = ["estimate", "estimate_batch"]

Floats = NDArray[np.float64]

_LANE_BITS = 16
_CHUNK = 1 << 15
"""Operators times accelerators worked on at once: temporaries of 256 KiB stay in the cache."""


def estimate(workload: Workload, accelerator: SystolicArray, technology: Technology) -> Cost:
    """Returns what ``workload`` costs on ``accelerator``, in total and per operator.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    groups = _Groups.of(workload)
    arrays = SystolicArrays.of([accelerator])
    prices = _Prices.of(arrays, technology)
    rows = _rows(groups, arrays, prices, accelerator.dataflow)
    total = _total(groups, arrays, prices, rows)
    values = {item.name: float(getattr(total, item.name)[0]) for item in fields(BatchCost)}
    return Cost(technology=technology.name, operators=_breakdown(workload, groups, accelerator, prices, rows), **values)


def estimate_batch(
    workload: Workload, accelerators: Sequence[SystolicArray] | SystolicArrays, technology: Technology
) -> BatchCost:
    """Returns what ``workload`` costs on each of ``accelerators``, without the breakdown per operator.

    Args:
        workload: one image through a model.
        accelerators: objects, or their fields as arrays; any number, worked on in chunks of bounded memory.
        technology: prices of energy and area.

    Raises:
        SpecError: a matrix product has floating-point operands.
    """
    arrays = accelerators if isinstance(accelerators, SystolicArrays) else SystolicArrays.of(accelerators)
    groups = _Groups.of(workload)
    out = {item.name: np.empty(len(arrays)) for item in fields(BatchCost)}
    step = max(1, _CHUNK // groups.size)
    prices = _Prices.of(arrays, technology)
    for code, dataflow in enumerate(DATAFLOWS):  # the closed forms differ, so one dataflow at a time
        same = np.flatnonzero(arrays.dataflow == code)
        for start in range(0, same.size, step):
            chosen = same[start : start + step]
            part, price = arrays.pick(chosen), prices.pick(chosen)
            cost = _total(groups, part, price, _rows(groups, part, price, dataflow))
            for name, values in out.items():
                values[chosen] = getattr(cost, name)
    return BatchCost(**out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Groups:
    """The distinct operators of a workload: matrix products first, then vector operators.

    ``members[i]`` is the group of operator i; ``times`` counts members. Other fields have shape (groups of their
    kind, 1).
    """

    members: tuple[int, ...]
    times: tuple[int, ...]
    products: Products
    macs: Floats
    lane_operations: Floats
    vector_bits: Floats

    @property
    def size(self) -> int:
        return len(self.times)

    @classmethod
    def of(cls, workload: Workload) -> _Groups:
        bits = {tensor.name: 8 * tensor.bytes for tensor in workload.tensors}
        products: dict[tuple[int, ...], int] = {}
        vectors: dict[tuple[int, ...], int] = {}
        found: list[tuple[bool, int]] = []
        for op in workload.operators:
            if op.kind is OperatorKind.MATMUL:
                _check_integer(op)
                key = (op.m, op.k, op.n, op.count, op.a_bits, op.b_bits, op.out_bits)
                found.append((True, products.setdefault(key, len(products))))
            else:
                moved = sum(bits[name] for name in op.inputs) + bits[op.output]
                found.append((False, vectors.setdefault((lane_operations(op), moved), len(vectors))))
        members = tuple(index if matmul else index + len(products) for matmul, index in found)
        times = [0] * (len(products) + len(vectors))
        for member in members:
            times[member] += 1
        names = ("m", "k", "n", "count", "a_bits", "b_bits", "out_bits")
        table = np.array(list(products), dtype=np.float64).reshape(-1, len(names))
        lanes = np.array(list(vectors), dtype=np.float64).reshape(-1, 2)
        p = Products(**{name: table[:, [column]] for column, name in enumerate(names)})
        return cls(
            members=members,
            times=tuple(times),
            products=p,
            macs=p.m * p.k * p.n * p.count,
            lane_operations=lanes[:, [0]],
            vector_bits=lanes[:, [1]],
        )


def _check_integer(op: Operator) -> None:
    if FLOAT_BITS in (op.a_bits, op.b_bits):
        raise SpecError(
            op.name,
            f"multiplies {op.a_bits}- by {op.b_bits}-bit floating-point operands, but a systolic array multiplies "
            "integers of 2 to 16 bits",
            "quantise the model (weight_bits, activation_bits and edge_bits of 2 to 16)",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prices:
    """What things cost on each array; fields of shape (accelerators,), in joules, mm2 and watts.

    Scratchpads have a pair: joules to read a bit, joules to write one.
    """

    technology: Technology
    ifmap: tuple[Floats, Floats]
    filter: tuple[Floats, Floats]
    ofmap: tuple[Floats, Floats]
    area_mm2: Floats
    leak_w: Floats

    @classmethod
    def of(cls, arrays: SystolicArrays, technology: Technology) -> _Prices:
        sram = technology.sram
        sizes = (arrays.ifmap_kib, arrays.filter_kib, arrays.ofmap_kib)
        reads = [1e-12 * _each(size, sram.read_pj) for size in sizes]
        writes = [1e-12 * _each(size, sram.write_pj) for size in sizes]
        pes, lanes = arrays.rows * arrays.cols, arrays.vector_lanes
        area = pes * _each(arrays.pe_bits, lambda bits: technology.mac_um2(int(bits)))
        leak = pes * _each(arrays.pe_bits, lambda bits: technology.mac_leak_w(int(bits)))
        area = 1e-6 * (area + lanes * technology.mac_um2(_LANE_BITS))
        leak = leak + lanes * technology.mac_leak_w(_LANE_BITS)
        for size in sizes:
            area = area + _each(size, sram.area_mm2)
            leak = leak + _each(size, sram.leak_w)
        return cls(
            technology=technology,
            ifmap=(reads[0], writes[0]),
            filter=(reads[1], writes[1]),
            ofmap=(reads[2], writes[2]),
            area_mm2=area,
            leak_w=leak,
        )

    def pick(self, positions: NDArray[np.intp]) -> _Prices:
        return _Prices(
            technology=self.technology,
            ifmap=(self.ifmap[0][positions], self.ifmap[1][positions]),
            filter=(self.filter[0][positions], self.filter[1][positions]),
            ofmap=(self.ofmap[0][positions], self.ofmap[1][positions]),
            area_mm2=self.area_mm2[positions],
            leak_w=self.leak_w[positions],
        )


def _each(values: Floats, price: Callable[[float], float]) -> Floats:
    """Returns ``price`` of each value, computed once per distinct one.

    Powers and logarithms stay in scalar code: their vector forms may round differently from one batch to another.
    """
    distinct, position = np.unique(values, return_inverse=True)
    return np.array([price(float(value)) for value in distinct], dtype=np.float64)[position]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Costs per group and array, each of shape (groups, accelerators): products first, then vector operators."""

    compute: Floats
    vector: Floats
    stall: Floats
    dram_bytes: Floats
    mac_j: Floats
    vector_j: Floats
    sram_j: Floats
    held_bits: Floats
    busy: Floats


def _rows(groups: _Groups, arrays: SystolicArrays, prices: _Prices, dataflow: str) -> _Rows:
    p = groups.products
    folding = fold(p, arrays, dataflow)
    moved = traffic(p, arrays, dataflow, folding)
    passes = folding.a_passes * folding.b_passes
    bytes_per_cycle = arrays.dram_bytes_per_s / arrays.clock_hz
    product_bytes = np.ceil(moved.dram_bits / 8.0)
    product_stall = np.maximum(np.ceil(product_bytes / bytes_per_cycle) - folding.cycles, 0.0)
    product_sram = (
        moved.ifmap_reads * prices.ifmap[0]
        + moved.ifmap_writes * prices.ifmap[1]
        + moved.filter_reads * prices.filter[0]
        + moved.filter_writes * prices.filter[1]
        + moved.ofmap_reads * prices.ofmap[0]
        + moved.ofmap_writes * prices.ofmap[1]
    )
    lane_cycles = np.ceil(groups.lane_operations / arrays.vector_lanes)
    vector_bytes = np.ceil(groups.vector_bits / 8.0) + np.zeros_like(arrays.rows)
    vector_stall = np.maximum(np.ceil(vector_bytes / bytes_per_cycle) - lane_cycles, 0.0)
    lane_j = 1e-12 * prices.technology.mac_pj(_LANE_BITS, _LANE_BITS)
    busy = groups.macs * passes
    none_p, none_v = np.zeros_like(busy), np.zeros_like(lane_cycles)
    return _Rows(
        compute=np.concatenate((folding.cycles, none_v)),
        vector=np.concatenate((none_p, lane_cycles)),
        stall=np.concatenate((product_stall, vector_stall)),
        dram_bytes=np.concatenate((product_bytes, vector_bytes)),
        mac_j=np.concatenate((busy * _pass_j(p, arrays, dataflow, prices.technology), none_v)),
        vector_j=np.concatenate((none_p, groups.lane_operations * lane_j + none_v)),
        sram_j=np.concatenate((product_sram, groups.vector_bits * (prices.ofmap[0] + prices.ofmap[1]))),
        held_bits=np.concatenate((moved.held_bits, np.minimum(groups.vector_bits, arrays.ofmap_kib * 8192.0))),
        busy=np.concatenate((busy, none_v)),
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


def _total(groups: _Groups, arrays: SystolicArrays, prices: _Prices, rows: _Rows) -> BatchCost:
    def over_operators(values: Floats) -> Floats:
        # in order, one by one: numpy's own sum groups the terms by the shape of the batch
        total = np.zeros(len(arrays))
        for times, row in zip(groups.times, values, strict=True):
            total = total + times * row
        return total

    compute, vector, stall = over_operators(rows.compute), over_operators(rows.vector), over_operators(rows.stall)
    cycles = compute + vector + stall
    latency = cycles / arrays.clock_hz
    dram_bytes = over_operators(rows.dram_bytes)
    mac_j, vector_j, sram_j = over_operators(rows.mac_j), over_operators(rows.vector_j), over_operators(rows.sram_j)
    dram_j = dram_bytes * (8e-12 * prices.technology.dram_pj_per_bit)
    leakage_j = prices.leak_w * latency
    energy = mac_j + vector_j + sram_j + dram_j + leakage_j
    return BatchCost(
        latency_s=latency,
        cycles=cycles,
        compute_cycles=compute,
        vector_cycles=vector,
        stall_cycles=stall,
        energy_j=energy,
        mac_j=mac_j,
        vector_j=vector_j,
        sram_j=sram_j,
        dram_j=dram_j,
        leakage_j=leakage_j,
        area_mm2=prices.area_mm2,
        power_w=energy / latency,
        dram_bytes=dram_bytes,
        peak_onchip_bytes=np.ceil(np.max(rows.held_bits, axis=0) / 8.0),
        utilisation=over_operators(rows.busy) / (arrays.rows * arrays.cols * cycles),
    )


def _breakdown(
    workload: Workload, groups: _Groups, accelerator: SystolicArray, prices: _Prices, rows: _Rows
) -> tuple[OperatorCost, ...]:
    pes = accelerator.rows * accelerator.cols
    dram = 8e-12 * prices.technology.dram_pj_per_bit
    out = []
    for op, group in zip(workload.operators, groups.members, strict=True):
        compute, vector, stall = (float(part[group, 0]) for part in (rows.compute, rows.vector, rows.stall))
        cycles = compute + vector + stall
        dram_bytes = float(rows.dram_bytes[group, 0])
        dynamic = sum(float(part[group, 0]) for part in (rows.mac_j, rows.vector_j, rows.sram_j))
        leakage = float(prices.leak_w[0]) * cycles / accelerator.clock_hz
        out.append(
            OperatorCost(
                name=op.name,
                kind=op.kind.value,
                macs=op.macs,
                compute_cycles=compute,
                vector_cycles=vector,
                stall_cycles=stall,
                dram_bytes=dram_bytes,
                energy_j=dynamic + dram_bytes * dram + leakage,
                utilisation=float(rows.busy[group, 0]) / (pes * cycles),
            )
        )
    return tuple(out)
