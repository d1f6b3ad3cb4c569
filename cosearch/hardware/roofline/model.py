"""Processors and GPUs as rooflines: each operator takes the longer of arithmetic and memory, and a launch.

The roofline is Williams, Waterman & Patterson 2009. What is stated beside it:

- **Operators run one after another**, each started by a launch of its own: nothing is fused. Launches are counted as
  stalls, next to the time in which arithmetic waits for memory. A "cycle" is a nanosecond.
- **Tiles.** The output of a product is cut into tiles, dealt out to multiprocessors or cores in waves; a tile or a wave
  that is not full takes as long as a full one (NVIDIA, "Matrix Multiplication Background User's Guide": tile and wave
  quantisation). The best of the device's tile sizes is taken. Sums are not split over units.
- **Arithmetic by width.** Integers of up to 4 or 8 bits take the fastest unit that holds them exactly: int4, int8,
  half precision or tf32 (11-bit significands), single precision. Wider integers run in single precision. Floating point
  runs as ``float_as`` says, or wider where the device has nothing else; bfloat16 runs as half precision. Other formats
  and sparse weights are refused. Everything but products runs elementwise at the
  rate of the vector units, with the operations that `cosearch.hardware.vector` counts.
- **Storage.** Values take 4, 8, 16 or 32 bits in memory, the next that holds them. Half precision halves floats.
- **Last-level cache.** Activations stay in it while all that are alive, and the operator's weights, fit; otherwise the
  operator's go to memory and come back. Weights stay in it from image to image where all of them fit beside the most
  activations alive at once. The cache itself is never the limit (no roof of its own; assumption).
- **Energy** comes from the device's own power, not from a technology table: it draws its thermal design power while
  arithmetic or memory runs at peak, and a share of it (``idle_share``) while it waits (assumption, as is the share).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.groups import Groups
from cosearch.hardware.ledger import Ledger
from cosearch.hardware.roofline.template import RATES, Rooflines
from cosearch.hardware.technology import Technology
from cosearch.spec import FLOAT_BITS
from cosearch.workload import Operator, OperatorKind, Workload, format_of

__all__ = ["roofline_ledger"]

Floats = NDArray[np.float64]

CYCLES_PER_S = 1e9
"""A cycle of the ledger is a nanosecond: devices have clocks of their own that rates already hold."""

STORED_BITS = (4, 8, 16, 32)
"""Widths of values in memory."""

_HALVES = ("fp16", "bf16")

_ENGINES: Mapping[str, tuple[str, ...]] = {
    "int4": ("int4", "int8", "fp16", "tf32", "fp32"),
    "int8": ("int8", "fp16", "tf32", "fp32"),
    "int16": ("fp32",),
    "fp16": ("fp16", "tf32", "fp32"),
    "tf32": ("tf32", "fp32"),
    "fp32": ("fp32",),
}
"""What may multiply operands of each class without losing bits of them."""


def roofline_ledger(workload: Workload, batch: Rooflines, technology: Technology) -> Ledger:  # noqa: ARG001
    """Returns what ``workload`` costs on ``batch``, all of one kind (`Rooflines.kinds`).

    Args:
        workload: one image through a model.
        batch: the devices.
        technology: not used; a device's power is its own.

    Raises:
        SpecError: a device has no arithmetic for the operands of a product, or they are in formats or sparse in a way
            that no device here multiplies.
    """
    _refuse_formats(workload)
    devices = _Devices.of(batch)
    rows = _Rows.of(workload, batch.items[0].float_as)
    rates = np.stack([devices.rate(name) for name in rows.classes]).reshape(-1, len(batch))
    _refuse_missing(workload, rows, rates)
    busy_s = np.concatenate((rows.groups.macs / rates, rows.groups.lane_operations / devices.vector_ops_per_s))
    compute_s = np.concatenate((_tiled_s(rows.groups, rates, devices), busy_s[len(rows.classes) :]))
    dram_bytes = rows.dram_bytes(devices.cache_bytes)
    memory_s = dram_bytes / devices.dram_bytes_per_s
    stall_s = np.maximum(memory_s - compute_s, 0.0) + devices.launch_s
    products = len(rows.classes)
    none_p, none_v = np.zeros((products, len(batch))), np.zeros((rows.groups.size - products, len(batch)))
    active_w = (1.0 - devices.idle_share) * devices.tdp_w
    multipliers = devices.best_rate / CYCLES_PER_S
    return Ledger(
        members=rows.groups.members,
        compute_cycles=np.concatenate((compute_s[:products], none_v)) * CYCLES_PER_S,
        vector_cycles=np.concatenate((none_p, compute_s[products:])) * CYCLES_PER_S,
        stall_cycles=stall_s * CYCLES_PER_S,
        dram_bytes=dram_bytes,
        mac_j=np.concatenate((busy_s[:products], none_v)) * active_w,
        vector_j=np.concatenate((none_p, busy_s[products:])) * active_w,
        sram_j=np.zeros_like(busy_s),
        dram_j=np.maximum(memory_s - busy_s, 0.0) * active_w,
        held_bits=np.minimum(8.0 * (rows.activation_bytes + rows.weight_bytes), 8.0 * devices.cache_bytes),
        busy=np.concatenate((busy_s[:products], none_v)) * CYCLES_PER_S * multipliers,
        multipliers=multipliers,
        clock_hz=np.full(len(batch), CYCLES_PER_S),
        area_mm2=devices.area_mm2,
        leak_w=devices.idle_share * devices.tdp_w,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Devices:
    """Numbers of each device, shape (accelerators,); ``tiles`` has a pair of arrays for each size."""

    rates: Mapping[str, Floats]
    vector_ops_per_s: Floats
    dram_bytes_per_s: Floats
    cache_bytes: Floats
    units: Floats
    tiles: tuple[tuple[Floats, Floats], ...]
    launch_s: Floats
    tdp_w: Floats
    idle_share: Floats
    area_mm2: Floats

    @classmethod
    def of(cls, batch: Rooflines) -> _Devices:
        devices = [item.resolved() for item in batch.items]

        def column(name: str) -> Floats:
            return np.array([getattr(device, name) for device in devices], dtype=np.float64)

        sizes = np.array([device.tiles for device in devices], dtype=np.float64)
        return cls(
            rates={rate: column(f"{rate}_macs_per_s") for rate in RATES},
            vector_ops_per_s=column("vector_ops_per_s"),
            dram_bytes_per_s=column("dram_bytes_per_s"),
            cache_bytes=column("cache_kib") * 1024.0,
            units=column("units"),
            tiles=tuple((sizes[:, i, 0], sizes[:, i, 1]) for i in range(sizes.shape[1])),
            launch_s=column("launch_s"),
            tdp_w=column("tdp_w"),
            idle_share=np.array([item.idle_share for item in batch.items]),
            area_mm2=column("area_mm2"),
        )

    def rate(self, operands: str) -> Floats:
        """Returns the best rate for operands of a class; 0 where a device has none."""
        return _largest([self.rates[engine] for engine in _ENGINES[operands]])

    @property
    def best_rate(self) -> Floats:
        return _largest(list(self.rates.values()))


def _largest(values: Sequence[Floats]) -> Floats:
    return np.asarray(np.maximum.reduce(values))


def _tiled_s(groups: Groups, rates: Floats, devices: _Devices) -> Floats:
    """Returns seconds of each product, unfilled tiles and waves included: shape (products, accelerators)."""
    p, best = groups.products, np.full(rates.shape, np.inf)
    for rows, cols in devices.tiles:
        tiles = np.ceil(p.m / rows) * np.ceil(p.n / cols) * p.count
        waves = np.ceil(tiles / devices.units)
        best = np.minimum(best, waves * (rows * cols * devices.units) * p.k / rates)
    return best


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The distinct operators, as they are stored on the device.

    Attributes:
        groups: the rows; operators with other tensors alive, or other operand classes, are apart.
        classes: operand class of each product.
        activation_bytes: activations that each row reads and writes, shape (rows, 1).
        weight_bytes: parameters that it reads, likewise.
        alive_bytes: activations alive while it runs, likewise.
        all_weight_bytes: of the whole model.
        peak_bytes: most activations alive at once.
    """

    groups: Groups
    classes: tuple[str, ...]
    activation_bytes: Floats
    weight_bytes: Floats
    alive_bytes: Floats
    all_weight_bytes: int
    peak_bytes: int

    @classmethod
    def of(cls, workload: Workload, float_as: str) -> _Rows:
        stored = _stored(workload, float_as)
        alive = stored.live_activation_bytes()
        marks = [(_class(op, float_as), op.weights, live) for op, live in zip(workload.operators, alive, strict=True)]
        groups = Groups.of_operators(stored, stored.operators, marks)
        first = [marks[position] for position in groups.first]
        products = groups.macs.shape[0]
        p = groups.products
        weights = np.array([[mark[1]] for mark in first[:products]], dtype=np.float64).reshape(-1, 1)
        a, b, out = (
            x * y * p.count * bits / 8.0
            for x, y, bits in ((p.m, p.k, p.a_bits), (p.k, p.n, p.b_bits), (p.m, p.n, p.out_bits))
        )
        none = np.zeros_like(groups.read_bits)
        return cls(
            groups=groups,
            classes=tuple(mark[0] for mark in first[:products]),
            activation_bytes=np.concatenate((a + out + b * (1.0 - weights), groups.vector_bits / 8.0)),
            weight_bytes=np.concatenate((b * weights, none)),
            alive_bytes=np.array([[mark[2]] for mark in first], dtype=np.float64),
            all_weight_bytes=stored.weight_bytes,
            peak_bytes=stored.peak_activation_bytes,
        )

    def dram_bytes(self, cache_bytes: Floats) -> Floats:
        """Returns bytes to and from memory, shape (rows, accelerators)."""
        kept = self.alive_bytes + self.weight_bytes <= cache_bytes
        weights_kept = self.all_weight_bytes + self.peak_bytes <= cache_bytes
        moved = np.where(kept, 0.0, self.activation_bytes) + np.where(weights_kept, 0.0, self.weight_bytes)
        return np.asarray(np.ceil(moved))


def _class(op: Operator, float_as: str) -> str:
    bits = max(op.a_bits, op.b_bits)
    if bits == FLOAT_BITS:
        return float_as
    halves = [format_of(width, name).name in _HALVES for width, name in _operands(op)]
    if any(halves):  # with wider integers they meet in single precision
        exact = all(half or width <= 8 for half, (width, _) in zip(halves, _operands(op), strict=True))
        return "fp16" if exact else "int16"
    return "int4" if bits <= 4 else "int8" if bits <= 8 else "int16"


def _stored(workload: Workload, float_as: str) -> Workload:
    """Returns ``workload`` with the widths that its values take in memory."""

    def width(bits: int) -> int:
        if bits == FLOAT_BITS and float_as == "fp16":
            return 16
        return next(stored for stored in STORED_BITS if bits <= stored)

    operators = tuple(
        replace(
            op,
            a_bits=width(op.a_bits),
            b_bits=width(op.b_bits),
            out_bits=width(op.out_bits),
            a_format="",
            b_format="",
            out_format="",
        )
        for op in workload.operators
    )
    return Workload(
        operators, tuple(replace(tensor, bits=width(tensor.bits), format="") for tensor in workload.tensors)
    )


def _operands(op: Operator) -> tuple[tuple[int, str], tuple[int, str]]:
    return (op.a_bits, op.a_format), (op.b_bits, op.b_format)


def _refuse_formats(workload: Workload) -> None:
    for op in workload.operators:
        if op.kind is not OperatorKind.MATMUL:
            continue
        for width, name in _operands(op):
            found = format_of(width, name)
            if found.family != "integer" and found.name not in (*_HALVES, "fp32"):
                raise SpecError(
                    op.name,
                    f"multiplies {found.name}, but the roofline knows rates of integers, fp32, fp16 and bf16",
                    "give one of these formats, or choose a systolic array with a pe_kind that multiplies it",
                )
        if op.sparsity[0] < op.sparsity[1]:
            raise SpecError(
                op.name,
                f"has weights of which {op.sparsity[0]} in {op.sparsity[1]} are kept, but all rates here are dense",
                "leave the sparsity out, or choose a systolic array, which can skip zeros",
            )


def _refuse_missing(workload: Workload, rows: _Rows, rates: Floats) -> None:
    missing = np.argwhere(rates == 0.0)
    if missing.size == 0:
        return
    row = int(missing[0][0])
    op, operands = workload.operators[rows.groups.first[row]], rows.classes[row]
    assert op.kind is OperatorKind.MATMUL
    names = ", ".join(f"{engine}_macs_per_s" for engine in _ENGINES[operands])
    raise SpecError(
        op.name,
        f"multiplies {op.a_bits}- by {op.b_bits}-bit operands, for which this device has no arithmetic",
        f"write one of {names}, or give the model other widths",
    )
