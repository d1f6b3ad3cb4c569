"""Accelerator templates: what can be built from an `AcceleratorSpec`.

`TEMPLATES` maps a template's name, as space files write it, to a frozen dataclass that checks itself once when made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError, did_you_mean
from cosearch.spec import AcceleratorSpec, Scalar

__all__ = [
    "ACCUMULATOR_BITS",
    "DATAFLOWS",
    "OVERLAPS",
    "PE_BITS",
    "TEMPLATES",
    "SystolicArray",
    "SystolicArrays",
    "build",
]

Floats = NDArray[np.float64]

DATAFLOWS = ("os", "ws", "is")
"""Which operand stays in the array: the outputs, the weights or the inputs."""

OVERLAPS = ("scalesim", "double_buffered")
"""``scalesim``: each fold loads, fills and drains before the next begins (SCALE-Sim v3, Raj et al. 2025).
``double_buffered``: a second register in each PE loads the next fold while this one computes."""

PE_BITS = (2, 4, 8, 16)
"""Operand widths that the multiplier of a PE comes in."""

ACCUMULATOR_BITS = 32
"""Width of partial sums, in the array and in the ofmap scratchpad (as in Gemmini, Genc et al. 2021)."""

_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "rows": (1, 4096, "rows"),
    "cols": (1, 4096, "columns"),
    "ifmap_kib": (1, 1 << 20, "KiB"),
    "filter_kib": (1, 1 << 20, "KiB"),
    "ofmap_kib": (1, 1 << 20, "KiB"),
    "dram_bytes_per_s": (1e3, 1e15, "bytes/s"),
    "clock_hz": (1e3, 1e11, "Hz"),
    "vector_lanes": (1, 1 << 16, "lanes"),
}
_CONTINUOUS = ("dram_bytes_per_s", "clock_hz")
_CHOICES: Mapping[str, tuple[Scalar, ...]] = {"dataflow": DATAFLOWS, "pe_bits": PE_BITS, "overlap": OVERLAPS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SystolicArray:
    """A systolic array with three double-buffered scratchpads, a vector unit beside it and DRAM behind it.

    Shapes and dataflows are SCALE-Sim's (Samajdar et al. 2018, 2020). Operands wider than the multiplier take
    ``ceil(w / pe_bits) * ceil(a / pe_bits)`` passes over the array, their partial products shifted and accumulated:
    composition in time, as in BISMO (Umuroglu et al. 2018) and the temporal form that Bit Fusion compares itself with
    (Sharma et al. 2018, section III).

    Attributes:
        rows: PEs down the array.
        cols: PEs across the array.
        dataflow: ``ws``, ``os`` or ``is``; see `DATAFLOWS`.
        ifmap_kib: scratchpad of the left operand (activations), both halves, in KiB.
        filter_kib: scratchpad of the right operand (weights; keys and values in attention), likewise.
        ofmap_kib: scratchpad of outputs and 32-bit partial sums, likewise.
        dram_bytes_per_s: bandwidth to DRAM, reads and writes together.
        clock_hz: clock of array, vector unit and scratchpads.
        pe_bits: operand width of one multiplier; one of `PE_BITS`.
        vector_lanes: operations a cycle of the vector unit.
        overlap: what a fold hides behind the one before; one of `OVERLAPS`.

    Raises:
        SpecError: a field is out of its range, or a scratchpad cannot feed the array.
    """

    rows: int
    cols: int
    dataflow: Literal["os", "ws", "is"]
    ifmap_kib: int
    filter_kib: int
    ofmap_kib: int
    dram_bytes_per_s: float
    clock_hz: float
    pe_bits: int = 8
    vector_lanes: int = 16
    overlap: Literal["scalesim", "double_buffered"] = "scalesim"

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _LIMITS.items():
            value = getattr(self, name)
            _check_number(name, value, low, high, unit)
            if name in _CONTINUOUS:  # 1 and 1.0 are the same clock
                object.__setattr__(self, name, float(value))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in choices:
                listed = ", ".join(str(choice) for choice in choices)
                raise SpecError(name, f"is {value!r}, which a systolic array does not have", f"choose one of {listed}")
        for name, need in _least_bytes(self.rows, self.cols).items():
            kib = getattr(self, name)
            if kib * 512 < need:
                raise SpecError(
                    name,
                    f"is {kib}, but half of it ({kib * 512} bytes) must hold one vector of the {self.rows} x "
                    f"{self.cols} array ({need:.0f} bytes)",
                    f"write at least {math.ceil(need / 512)}, or make the array smaller",
                )


def _least_bytes(rows: float, cols: float) -> dict[str, float]:
    """Returns what half of each scratchpad must hold: a vector of 16-bit operands, a row of accumulators."""
    edge = 2.0 * max(rows, cols)
    return {"ifmap_kib": edge, "filter_kib": edge, "ofmap_kib": cols * ACCUMULATOR_BITS / 8.0}


def _check_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    whole = name not in _CONTINUOUS
    allowed = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise SpecError(name, f"is {value!r}", f"write a {'whole ' if whole else ''}number of {unit}")
    if not low <= value <= high:  # also false for NaN
        raise SpecError(
            name, f"is {value}, but a systolic array has {low:g} to {high:g} {unit}", f"write {low:g} to {high:g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SystolicArrays:
    """Many systolic arrays, one number per array and field: a million need no million objects.

    Fields are those of `SystolicArray`, each of shape (accelerators,); ``dataflow`` and ``overlap`` are positions in
    `DATAFLOWS` and `OVERLAPS`.

    Raises:
        SpecError: the fields differ in length, or one value is what `SystolicArray` would refuse.
    """

    rows: Floats
    cols: Floats
    dataflow: NDArray[np.int8]
    ifmap_kib: Floats
    filter_kib: Floats
    ofmap_kib: Floats
    dram_bytes_per_s: Floats
    clock_hz: Floats
    pe_bits: Floats
    vector_lanes: Floats
    overlap: NDArray[np.int8]

    def __post_init__(self) -> None:
        for name in _field_names():
            kind = np.int8 if name in ("dataflow", "overlap") else np.float64
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
            if getattr(self, name).shape != self.rows.shape or self.rows.ndim != 1:
                raise SpecError(name, f"has shape {getattr(self, name).shape}", "give one value for each accelerator")
        wrong = np.zeros(self.rows.shape, dtype=bool)
        for name, (low, high, _) in _LIMITS.items():
            values = getattr(self, name)
            wrong |= ~((values >= low) & (values <= high))
            if name not in _CONTINUOUS:
                wrong |= values != np.floor(values)
        wrong |= ~np.isin(self.pe_bits, PE_BITS)
        for name, names in (("dataflow", DATAFLOWS), ("overlap", OVERLAPS)):
            codes = getattr(self, name)
            if np.any((codes < 0) | (codes >= len(names))):
                raise SpecError(
                    name, "holds a code out of range", f"write 0 to {len(names) - 1} for {', '.join(names)}"
                )
        edge = 2.0 * np.maximum(self.rows, self.cols)
        wrong |= (self.ifmap_kib * 512 < edge) | (self.filter_kib * 512 < edge)
        wrong |= self.ofmap_kib * 512 < self.cols * (ACCUMULATOR_BITS / 8.0)
        if np.any(wrong):
            _refuse(self, int(np.argmax(wrong)))

    @classmethod
    def of(cls, arrays: Sequence[SystolicArray]) -> SystolicArrays:
        """Returns ``arrays`` field by field, in their order."""
        columns: dict[str, list[float]] = {
            name: [getattr(a, name) for a in arrays] for name in _field_names() if name not in ("dataflow", "overlap")
        }
        return cls(
            dataflow=np.array([DATAFLOWS.index(a.dataflow) for a in arrays], dtype=np.int8),
            overlap=np.array([OVERLAPS.index(a.overlap) for a in arrays], dtype=np.int8),
            **{name: np.array(values, dtype=np.float64) for name, values in columns.items()},
        )

    def __len__(self) -> int:
        return int(self.rows.size)

    def pick(self, positions: NDArray[np.intp]) -> SystolicArrays:
        """Returns the arrays at ``positions``, without checking them again."""
        out = object.__new__(SystolicArrays)
        for name in _field_names():
            object.__setattr__(out, name, getattr(self, name)[positions])
        return out


def _field_names() -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(SystolicArray))


def _refuse(arrays: SystolicArrays, position: int) -> None:
    """Raises the `SpecError` that the array at ``position`` would raise on its own."""
    values: dict[str, Scalar] = {}
    for name in _field_names():
        value = getattr(arrays, name)[position].item()
        if name == "dataflow":
            value = DATAFLOWS[value]
        elif name == "overlap":
            value = OVERLAPS[value]
        elif name not in _CONTINUOUS and float(value).is_integer():
            value = int(value)
        values[name] = value
    try:
        build(AcceleratorSpec.of("systolic", values))
    except SpecError as error:
        raise SpecError(f"accelerators[{position}].{error.field}", error.problem, error.remedy) from None


TEMPLATES: Mapping[str, type[SystolicArray]] = {"systolic": SystolicArray}
"""Each template's name, as space files write it, and its class. Fields of the class are the template's parameters."""


def build(spec: AcceleratorSpec) -> SystolicArray:
    """Returns the accelerator that ``spec`` describes.

    Raises:
        SpecError: the template or a parameter is unknown, a parameter is missing, or a value makes no sense.
    """
    template = TEMPLATES.get(spec.template)
    if template is None:
        raise SpecError("template", f"is {spec.template!r}, which is unknown", did_you_mean(spec.template, TEMPLATES))
    given = spec.as_dict()
    fields = {item.name: item for item in dataclasses.fields(template)}
    for name in given:
        if name not in fields:
            raise SpecError(name, f"is not a parameter of {spec.template!r}", did_you_mean(name, fields))
    for name, item in fields.items():
        if item.default is MISSING and name not in given:
            raise SpecError(name, f"is missing from the {spec.template!r} accelerator", "add it")
    return template(**given)  # type: ignore[arg-type]
