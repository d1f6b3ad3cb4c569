"""The FPGA template: one design, or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.devices import DEVICES
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.widths import PE_BITS
from cosearch.spec import Scalar

__all__ = ["MULTIPLIERS", "STYLES", "Fpga", "Fpgas"]

Floats = NDArray[np.float64]

STYLES = ("temporal", "dataflow")
"""``temporal``: one matrix engine runs all layers in turn, as in HeatViT (Dong et al. 2023) and Edge-MoE (Sarkar et al.
2023). ``dataflow``: each layer has an engine of its own and rows stream through all of them, as in hls4ml (Duarte et
al. 2018, Fahim et al. 2021) and FINN-R (Blott et al. 2018). InTAR (He et al. 2025) switches between the two."""

MULTIPLIERS = ("dsp", "lut", "auto")
"""What multiplies. ``auto``: LUTs where both operands have fewer than 4 bits, as FINN chooses by default; else DSPs."""

_OWNER = "an FPGA design"
_LIMITS: Mapping[str, Range] = {
    "tm": Range(1, 1024, "rows"),
    "tk": Range(1, 1024, "values"),
    "tn": Range(1, 1024, "columns"),
    "reuse": Range(1, 1 << 24, "products"),
    "clock_hz": Range(1e6, 1e9, "Hz", whole=False),
    "vector_lanes": Range(1, 1 << 16, "lanes"),
    "activation_kib": Range(1, 1 << 17, "KiB"),
    "weight_kib": Range(1, 1 << 17, "KiB"),
    "axi_bits": Range(8, 1 << 15, "bits"),
}
_CHOICES: Mapping[str, tuple[Scalar, ...]] = {
    "device": tuple(DEVICES),
    "style": STYLES,
    "multiplier": MULTIPLIERS,
    "pe_bits": PE_BITS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fpga:
    """A design on an FPGA, and the device that has to hold it.

    A design that needs more than its device has cannot be built: `cosearch.hardware.fpga.fits` says by how much, and
    the cost model refuses it. Published designs lie inside the ranges: Edge-MoE multiplies 1 x 16 x 16 values a cycle
    at 300 MHz on a ZCU102; hls4ml takes reuse factors from 1 to the size of a layer.

    Attributes:
        device: the board; one of `cosearch.hardware.fpga.devices.DEVICES`.
        style: one of `STYLES`.
        clock_hz: clock of the fabric.
        tm: rows of the left operand that the engine takes in a cycle (``temporal``).
        tk: values of the reduction that it takes (``temporal``).
        tn: columns of the right operand that it takes (``temporal``).
        pe_bits: operand width of its multipliers; one of `PE_BITS` (``temporal``; a layer's own engine multiplies at
            the layer's widths).
        activation_kib: memory for activations, in KiB (``temporal``).
        weight_kib: memory for the right operand, both halves, in KiB (``temporal``).
        reuse: products that each multiplier makes for one row; a layer of k x n weights gets k * n / reuse
            multipliers and takes ``reuse`` cycles a row (``dataflow``).
        multiplier: one of `MULTIPLIERS`.
        vector_lanes: operations a cycle of the vector unit (``temporal``), or of a selection (``dataflow``, where
            every other vector operator gets as many lanes as keep pace).
        axi_bits: width of all ports to DRAM together; what they move in a cycle, or the board's bandwidth where that
            is less, is the design's.

    Raises:
        SpecError: a field is out of its range.
    """

    device: Literal["pynq_z2", "zcu102", "u250", "u280", "vck5000"]
    style: Literal["temporal", "dataflow"]
    clock_hz: float
    tm: int = 4
    tk: int = 16
    tn: int = 16
    pe_bits: int = 8
    activation_kib: int = 512
    weight_kib: int = 512
    reuse: int = 1024
    multiplier: Literal["dsp", "lut", "auto"] = "dsp"
    vector_lanes: int = 16
    axi_bits: int = 256

    def __post_init__(self) -> None:
        for name, allowed in _LIMITS.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), allowed, _OWNER))
        for name, choices in _CHOICES.items():
            checked_choice(name, getattr(self, name), choices, _OWNER)


@dataclass(frozen=True, slots=True)
class Fpgas:
    """Many designs; the cost model works on those of one style at once."""

    items: tuple[Fpga, ...]

    @classmethod
    def of(cls, items: Sequence[Fpga]) -> Fpgas:
        """Returns ``items`` as a batch."""
        return cls(tuple(items))

    def __len__(self) -> int:
        return len(self.items)

    def pick(self, positions: NDArray[np.intp]) -> Fpgas:
        """Returns those at ``positions``."""
        return Fpgas(tuple(self.items[int(i)] for i in positions))

    def kinds(self) -> NDArray[np.int64]:
        """Returns the position in `STYLES` of each, shape (designs,)."""
        return np.array([STYLES.index(item.style) for item in self.items], dtype=np.int64)

    def column(self, name: str) -> Floats:
        """Returns a numeric field of each, shape (designs,)."""
        return np.array([getattr(item, name) for item in self.items], dtype=np.float64)

    def of_device(self, name: str) -> Floats:
        """Returns a numeric field of each design's device, shape (designs,)."""
        return np.array([getattr(DEVICES[item.device], name) for item in self.items], dtype=np.float64)

    def codes(self, name: str, choices: Sequence[str]) -> NDArray[np.intp]:
        """Returns the position in ``choices`` of a field of each, or of its device, shape (designs,)."""
        owners = [item if hasattr(item, name) else DEVICES[item.device] for item in self.items]
        return np.array([choices.index(getattr(owner, name)) for owner in owners], dtype=np.intp)

    @property
    def dram_bytes_per_s(self) -> Floats:
        """Bandwidth of each: of its ports, or of its board where that is less."""
        return np.minimum(self.of_device("dram_bytes_per_s"), self.column("axi_bits") / 8.0 * self.column("clock_hz"))
