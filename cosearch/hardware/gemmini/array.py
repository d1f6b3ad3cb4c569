"""The Gemmini template, for one accelerator or many."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.widths import ACCUMULATOR_BITS, PE_BITS

__all__ = ["GEMMINI_DATAFLOWS", "LINE_BYTES", "GemminiArray", "GemminiArrays"]

Floats = NDArray[np.float64]

GEMMINI_DATAFLOWS = ("ws", "os")
"""Which operand stays in the array: the weights or the outputs."""

LINE_BYTES = 64
"""Bytes of the longest DMA request (``dma_maxbytes`` in the generator's Configs.scala) and of a cache line."""

_OPERAND_BITS = 16  # the widest operand, for which the smallest tile must still fit

_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "dim": (2, 256, "rows"),
    "scratchpad_kib": (1, 1 << 16, "KiB"),
    "accumulator_kib": (1, 1 << 16, "KiB"),
    "dma_bits": (32, 512, "bits"),
    "dram_bytes_per_s": (1e6, 1e13, "bytes/s"),
    "clock_hz": (1e6, 1e10, "Hz"),
    "l2_kib": (0, 1 << 16, "KiB"),
    "vector_lanes": (1, 1 << 16, "lanes"),
}
_CONTINUOUS = ("dram_bytes_per_s", "clock_hz")


@dataclass(frozen=True, slots=True, kw_only=True)
class GemminiArray:
    """A systolic array with scratchpad, accumulator and DMA, behind a processor's L2 cache: Gemmini.

    Genc et al., "Gemmini: Enabling Systematic Deep-Learning Architecture Evaluation via Full-Stack Integration", DAC
    2021. Defaults are the generator's own (github.com/ucb-bar/gemmini, Configs.scala, ``defaultConfig``) on the SoC
    that Chipyard's ``GemminiRocketConfig`` builds, as the measurements of ``tests/published/gemmini_firesim_gemm.csv``
    were made: 1 GHz, an L2 of 512 KiB, and DRAM at 8 bytes a cycle as DOSA's description of that system has it
    (Hong et al., MICRO 2023; gemmini_config.py of its artifact). Limits of the fields are this project's, not the
    generator's.

    Gemmini leaves softmax, normalisation and the like to its processor or to units that it can be built with; here a
    vector unit does them, as beside the systolic template.

    Attributes:
        dim: rows, and columns, of the array.
        dataflow: ``ws`` or ``os``.
        scratchpad_kib: memory of operands, in KiB; half of it is filled while the other is used.
        accumulator_kib: memory of 32-bit sums, in KiB, likewise.
        dma_bits: width of the bus to the L2.
        dram_bytes_per_s: bandwidth to DRAM, reads and writes together.
        clock_hz: clock of everything on the chip.
        l2_kib: cache between DMA and DRAM, in KiB; 0 for none.
        pe_bits: operand width of one multiplier, and of an element of the scratchpad; one of `PE_BITS`.
        vector_lanes: operations a cycle of the vector unit.

    Raises:
        SpecError: a field is out of its range, or a memory cannot hold one tile.
    """

    dim: int = 16
    dataflow: Literal["ws", "os"] = "ws"
    scratchpad_kib: int = 256
    accumulator_kib: int = 64
    dma_bits: int = 128
    dram_bytes_per_s: float = 8e9
    clock_hz: float = 1e9
    l2_kib: int = 512
    pe_bits: int = 8
    vector_lanes: int = 16

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _LIMITS.items():
            value = getattr(self, name)
            _check_number(name, value, low, high, unit)
            if name in _CONTINUOUS:  # 1 and 1.0 are the same clock
                object.__setattr__(self, name, float(value))
        _check_choice("dataflow", self.dataflow, GEMMINI_DATAFLOWS)
        _check_choice("pe_bits", self.pe_bits, PE_BITS)
        if self.dma_bits % 8:
            raise SpecError("dma_bits", f"is {self.dma_bits}, but a bus is whole bytes wide", "write a multiple of 8")
        for name, need in _least_bytes(self.dim, self.pe_bits).items():
            kib = getattr(self, name)
            if kib * 512 < need:
                raise SpecError(
                    name,
                    f"is {kib}, but half of it ({kib * 512} bytes) must hold one tile of a {self.dim} x {self.dim} "
                    f"array ({need:.0f} bytes)",
                    f"write at least {math.ceil(need / 512)}, or make dim smaller",
                )


def _least_bytes(dim: Any, pe_bits: Any) -> dict[str, Any]:
    """Returns what half of each memory must hold: a block of both operands at 16 bits, a block of sums."""
    elements = np.ceil(_OPERAND_BITS / pe_bits) * pe_bits / 8.0
    return {"scratchpad_kib": 2.0 * dim * dim * elements, "accumulator_kib": dim * dim * (ACCUMULATOR_BITS / 8.0)}


def _check_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    whole = name not in _CONTINUOUS
    allowed = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise SpecError(name, f"is {value!r}", f"write a {'whole ' if whole else ''}number of {unit}")
    if not low <= value <= high:  # also false for NaN
        raise SpecError(
            name, f"is {value}, but a Gemmini array has {low:g} to {high:g} {unit}", f"write {low:g} to {high:g}"
        )


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if isinstance(value, bool) or value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise SpecError(name, f"is {value!r}, which a Gemmini array does not have", f"choose one of {listed}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GemminiArrays:
    """Many Gemmini arrays, one number per array and field.

    Fields are those of `GemminiArray`, each of shape (accelerators,); ``dataflow`` is a position in
    `GEMMINI_DATAFLOWS`.

    Raises:
        SpecError: the fields differ in length, or one value is what `GemminiArray` would refuse.
    """

    dim: Floats
    dataflow: Floats
    scratchpad_kib: Floats
    accumulator_kib: Floats
    dma_bits: Floats
    dram_bytes_per_s: Floats
    clock_hz: Floats
    l2_kib: Floats
    pe_bits: Floats
    vector_lanes: Floats

    def __post_init__(self) -> None:
        for name in _field_names():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float64))
            if getattr(self, name).shape != self.dim.shape or self.dim.ndim != 1:
                raise SpecError(name, f"has shape {getattr(self, name).shape}", "give one value for each accelerator")
        wrong = np.zeros(self.dim.shape, dtype=bool)
        for name, (low, high, _) in _LIMITS.items():
            values = getattr(self, name)
            wrong |= ~((values >= low) & (values <= high))
            if name not in _CONTINUOUS:
                wrong |= values != np.floor(values)
        wrong |= ~np.isin(self.pe_bits, PE_BITS) | ~np.isin(self.dataflow, range(len(GEMMINI_DATAFLOWS)))
        wrong |= self.dma_bits % 8 != 0
        for name, need in _least_bytes(self.dim, np.where(self.pe_bits > 0, self.pe_bits, 1.0)).items():
            wrong |= getattr(self, name) * 512 < need
        if np.any(wrong):
            _refuse(self, int(np.argmax(wrong)))

    @classmethod
    def of(cls, arrays: Sequence[GemminiArray]) -> GemminiArrays:
        """Returns ``arrays`` field by field, in their order."""
        columns: dict[str, Any] = {}
        for name in _field_names():
            values = [getattr(array, name) for array in arrays]
            columns[name] = [GEMMINI_DATAFLOWS.index(v) for v in values] if name == "dataflow" else values
        return cls(**{name: np.array(values, dtype=np.float64) for name, values in columns.items()})

    def __len__(self) -> int:
        return int(self.dim.size)

    def pick(self, positions: NDArray[np.intp]) -> GemminiArrays:
        """Returns the arrays at ``positions``, without checking them again."""
        out = object.__new__(GemminiArrays)
        for name in _field_names():
            object.__setattr__(out, name, getattr(self, name)[positions])
        return out

    def kinds(self) -> NDArray[np.int64]:
        """Returns the dataflow's position: one model works on those of one dataflow. Shape (accelerators,)."""
        return self.dataflow.astype(np.int64)

    @property
    def output_stationary(self) -> NDArray[np.bool_]:
        """Whether outputs stay in the array, shape (accelerators,)."""
        return np.asarray(self.dataflow == GEMMINI_DATAFLOWS.index("os"), dtype=np.bool_)

    @property
    def scratchpad_rows(self) -> Floats:
        """Rows of the scratchpad, ``dim`` elements each, shape (accelerators,)."""
        return np.floor(self.scratchpad_kib * 8192.0 / (self.dim * self.pe_bits))

    @property
    def accumulator_rows(self) -> Floats:
        """Rows of the accumulator, ``dim`` sums each, shape (accelerators,)."""
        return np.floor(self.accumulator_kib * 8192.0 / (self.dim * ACCUMULATOR_BITS))


def _field_names() -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(GemminiArray))


def _refuse(arrays: GemminiArrays, position: int) -> None:
    """Raises the `SpecError` that the array at ``position`` would raise on its own."""
    values: dict[str, Any] = {}
    for name in _field_names():
        value = getattr(arrays, name)[position].item()
        if name == "dataflow" and value in range(len(GEMMINI_DATAFLOWS)):
            value = GEMMINI_DATAFLOWS[int(value)]
        elif name not in _CONTINUOUS and float(value).is_integer():
            value = int(value)
        values[name] = value
    try:
        GemminiArray(**values)
    except SpecError as error:
        raise SpecError(f"accelerators[{position}].{error.field}", error.problem, error.remedy) from None
