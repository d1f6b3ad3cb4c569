"""The heterogeneous template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosearch.errors import SpecError
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.widths import PE_BITS

__all__ = ["ASSIGNS", "CLUSTER", "DATAFLOWS", "SLOTS", "HeterogeneousASIC", "Sub", "array_of"]

DATAFLOWS = ("nvdla", "shidiannao", "row_stationary")
"""What stays in the PEs: weights, with input and output channels side by side (NVDLA); outputs (ShiDianNao, Du et al.
2015); rows of weights and of partial sums (Eyeriss, Chen et al. 2016)."""

ASSIGNS = ("latency", "energy")
"""What the assignment of operators to sub-accelerators minimises: ``latency``, and energy among the assignments that
are as fast; or ``energy``, without leakage."""

CLUSTER = 64
"""PEs that add up a sum over input channels in the NVDLA-like dataflow (MAESTRO's ``kcp_ws`` mappings)."""

SLOTS = (1, 2, 3, 4)
"""Numbers of the sub-accelerators."""

_OWNER = "a heterogeneous ASIC"
_RANGES: Mapping[str, Range] = {
    "dram_bytes_per_s": Range(1e3, 1e15, "bytes/s", whole=False),
    "clock_hz": Range(1e3, 1e11, "Hz", whole=False),
    "vector_lanes": Range(1, 1 << 16, "lanes"),
}
_SUB_RANGES: Mapping[str, Range] = {
    "pes": Range(1, 1 << 16, "PEs"),
    "buffer_kib": Range(1, 1 << 20, "KiB"),
    "bandwidth_share": Range(1e-3, 1.0, "of the bandwidth", whole=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sub:
    """One sub-accelerator.

    Attributes:
        dataflow: one of `DATAFLOWS`.
        pes: processing elements.
        buffer_kib: its buffer, in KiB.
        bandwidth_share: its part of the bandwidth, over the sum of all parts.
    """

    dataflow: str
    pes: int
    buffer_kib: int
    bandwidth_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeterogeneousASIC:
    """Up to four sub-accelerators, each with a dataflow, PEs, a buffer and a part of one bandwidth to DRAM.

    The template of NASAIC (Yang et al., DAC 2020, arXiv 2002.04116) and of the heterogeneous dataflow accelerators of
    Herald (Kwon et al., HPCA 2021, arXiv 1909.07437), which both take the dataflows from MAESTRO (Kwon et al., MICRO
    2019). NASAIC's space goes to 4096 PEs and 64 GB/s, shared by all sub-accelerators: the defaults use them up, in
    equal halves (the limits as this project's requirements state them; the paper's text was not at hand). Buffers,
    clock and lanes are assumptions.

    A third and a fourth sub-accelerator exist where their dataflow is not ``none``; so does the second, and with only
    the first this is a monolithic accelerator, to which a heterogeneous one is compared. Other fields of absent ones
    are checked, but do not count.

    Attributes:
        sub1_dataflow: ``nvdla``, ``shidiannao`` or ``row_stationary``; see `DATAFLOWS`.
        sub1_pes: its processing elements.
        sub1_buffer_kib: its buffer for operands and partial sums, in KiB.
        sub1_bandwidth_share: its part of ``dram_bytes_per_s``, over the sum of the parts of those that exist.
        sub2_dataflow: likewise, or ``none``.
        sub2_pes: likewise.
        sub2_buffer_kib: likewise.
        sub2_bandwidth_share: likewise.
        sub3_dataflow: likewise.
        sub3_pes: likewise.
        sub3_buffer_kib: likewise.
        sub3_bandwidth_share: likewise.
        sub4_dataflow: likewise.
        sub4_pes: likewise.
        sub4_buffer_kib: likewise.
        sub4_bandwidth_share: likewise.
        dram_bytes_per_s: bandwidth of network and DRAM, reads and writes together; the vector unit has all of it.
        clock_hz: clock of all parts.
        pe_bits: operand width of one multiplier; one of `PE_BITS`.
        vector_lanes: operations a cycle of the vector unit.
        assign: ``latency`` or ``energy``; see `ASSIGNS`.

    Raises:
        SpecError: a field is out of its range, or a buffer cannot feed its PEs.
    """

    sub1_dataflow: Literal["nvdla", "shidiannao", "row_stationary"] = "nvdla"
    sub1_pes: int = 2048
    sub1_buffer_kib: int = 256
    sub1_bandwidth_share: float = 0.5
    sub2_dataflow: Literal["nvdla", "shidiannao", "row_stationary", "none"] = "shidiannao"
    sub2_pes: int = 2048
    sub2_buffer_kib: int = 256
    sub2_bandwidth_share: float = 0.5
    sub3_dataflow: Literal["nvdla", "shidiannao", "row_stationary", "none"] = "none"
    sub3_pes: int = 1024
    sub3_buffer_kib: int = 256
    sub3_bandwidth_share: float = 0.25
    sub4_dataflow: Literal["nvdla", "shidiannao", "row_stationary", "none"] = "none"
    sub4_pes: int = 1024
    sub4_buffer_kib: int = 256
    sub4_bandwidth_share: float = 0.25
    dram_bytes_per_s: float = 64e9
    clock_hz: float = 1e9
    pe_bits: int = 8
    vector_lanes: int = 256
    assign: Literal["latency", "energy"] = "latency"

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        checked_choice("pe_bits", self.pe_bits, PE_BITS, _OWNER)
        checked_choice("assign", self.assign, ASSIGNS, _OWNER)
        for slot in SLOTS:
            choices = DATAFLOWS if slot == 1 else (*DATAFLOWS, "none")
            checked_choice(f"sub{slot}_dataflow", getattr(self, f"sub{slot}_dataflow"), choices, _OWNER)
            for item, allowed in _SUB_RANGES.items():
                name = f"sub{slot}_{item}"
                object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        for slot, sub in zip(SLOTS, self.slots, strict=True):
            if sub is None:
                continue
            need = 2 * max(array_of(sub.dataflow, sub.pes))
            if sub.buffer_kib * 512 < need:
                raise SpecError(
                    f"sub{slot}_buffer_kib",
                    f"is {sub.buffer_kib}, but half of it ({sub.buffer_kib * 512} bytes) must hold one vector of "
                    f"16-bit operands of the array ({need} bytes)",
                    f"write at least {math.ceil(need / 512)}, or use fewer PEs",
                )

    @property
    def slots(self) -> tuple[Sub | None, ...]:
        """All four sub-accelerators, None where there is none."""
        return tuple(
            Sub(**{item: getattr(self, f"sub{slot}_{item}") for item in ("dataflow", *_SUB_RANGES)})
            if getattr(self, f"sub{slot}_dataflow") != "none"
            else None
            for slot in SLOTS
        )

    @property
    def subs(self) -> tuple[Sub, ...]:
        """Those that exist."""
        return tuple(sub for sub in self.slots if sub is not None)


def array_of(dataflow: str, pes: int) -> tuple[int, int, int]:
    """Returns how many rows, reduction steps and columns of a product an array of ``pes`` works on side by side.

    - ``nvdla``: clusters of `CLUSTER` PEs add up over the reduction, each for one column; rows follow one another.
    - ``shidiannao``: a square block of the output matrix, a PE for each, in the place of a block of an output map.
    - ``row_stationary``: the shape of Eyeriss, 12 x 14 for 168 PEs: the 12 add up over the reduction, the 14 are
      rows of the product, in the place of rows of an output map; columns follow one another.

    PEs beyond the rectangle stand idle.
    """
    if dataflow == "nvdla":
        cluster = min(CLUSTER, pes)
        return 1, cluster, pes // cluster
    if dataflow == "shidiannao":
        side = math.isqrt(pes)
        return side, 1, side
    down = max(math.isqrt(pes * 12 // 14), 1)
    return pes // down, down, 1
