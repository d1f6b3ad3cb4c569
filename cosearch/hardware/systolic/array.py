"""The systolic template: one array, or many as columns of numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.arithmetic import PE_KINDS, PE_WIDTHS, PeKind, ProcessingElement
from cosearch.hardware.widths import ACCUMULATOR_BITS
from cosearch.spec import Scalar

__all__ = ["ATTENTIONS", "DATAFLOWS", "MAPPINGS", "OVERLAPS", "SPARSITIES", "SystolicArray", "SystolicArrays"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

DATAFLOWS = ("os", "ws", "is")
"""Which operand stays in the array: the outputs, the weights or the inputs."""

OVERLAPS = ("scalesim", "double_buffered")
"""``scalesim``: each fold loads, fills and drains before the next begins (SCALE-Sim v3, Raj et al. 2025).
``double_buffered``: a second register in each PE loads the next fold while this one computes."""

MAPPINGS = ("folds", "search")
"""``folds``: operands are fetched as SCALE-Sim's order of folds asks for them. ``search``: the tiles and loop order of
each product that move the fewest bits from DRAM, found by exhaustive search (`cosearch.hardware.systolic.tiling`)."""

ATTENTIONS = ("unfused", "fused")
"""``unfused``: scores and softmax go through memory. ``fused``: a single pass over keys and values, scores stay in the
ofmap scratchpad, softmax runs beside the products (`cosearch.hardware.systolic.attention`)."""

SPARSITIES = ("dense", "2:4", "1:4")
"""Zeros among the weights that PEs skip: at most N of every M weights are not zero
(2:4 as in Ampere, Mishra et al. 2021)."""

_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "rows": (1, 4096, "rows"),
    "cols": (1, 4096, "columns"),
    "ifmap_kib": (1, 1 << 20, "KiB"),
    "filter_kib": (1, 1 << 20, "KiB"),
    "ofmap_kib": (1, 1 << 20, "KiB"),
    "dram_bytes_per_s": (1e3, 1e15, "bytes/s"),
    "clock_hz": (1e3, 1e11, "Hz"),
    "vector_lanes": (1, 1 << 16, "lanes"),
    "activation_kib": (0, 1 << 22, "KiB"),
    "weight_kib": (0, 1 << 22, "KiB"),
}
_CONTINUOUS = ("dram_bytes_per_s", "clock_hz")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "dataflow": DATAFLOWS,
    "overlap": OVERLAPS,
    "mapping": MAPPINGS,
    "attention": ATTENTIONS,
    "pe_kind": PE_KINDS,
    "sparsity": SPARSITIES,
}


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
        pe_bits: operand width of one multiplier, one of those that ``pe_kind`` comes in.
        vector_lanes: operations a cycle of the vector unit.
        overlap: what a fold hides behind the one before; one of `OVERLAPS`.
        mapping: in what order, and in what tiles, operands are fetched; one of `MAPPINGS`.
        attention: one of `ATTENTIONS`.
        activation_kib: memory in which activations stay between operators, in KiB; with 0 they all go to DRAM.
        weight_kib: memory in which weights stay from one image to the next, in KiB; those beyond it, and with 0 all,
            are fetched for each image.
        pe_kind: what a PE multiplies, and how; one of `cosearch.hardware.PE_KINDS`.
        sparsity: zeros among the weights that PEs skip; one of `SPARSITIES`.

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
    mapping: Literal["folds", "search"] = "folds"
    attention: Literal["unfused", "fused"] = "unfused"
    activation_kib: int = 0
    weight_kib: int = 0
    pe_kind: PeKind = "bit_parallel"
    sparsity: Literal["dense", "2:4", "1:4"] = "dense"

    def __post_init__(self) -> None:
        for name, (low, high, unit) in _LIMITS.items():
            value = getattr(self, name)
            _check_number(name, value, low, high, unit)
            if name in _CONTINUOUS:  # 1 and 1.0 are the same clock
                object.__setattr__(self, name, float(value))
        for name, choices in _NAMES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in choices:
                listed = ", ".join(str(choice) for choice in choices)
                raise SpecError(name, f"is {value!r}, which a systolic array does not have", f"choose one of {listed}")
        ProcessingElement(kind=self.pe_kind, bits=self.pe_bits)  # refuses a width that the kind does not have
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


def _left_out() -> NDArray[Any]:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SystolicArrays:
    """Many systolic arrays, one number per array and field: a million need no million objects.

    Fields are those of `SystolicArray`, each of shape (accelerators,). Names are positions in their lists:
    `DATAFLOWS`, `OVERLAPS`, `MAPPINGS`, `ATTENTIONS`, `PE_KINDS`, `SPARSITIES`. The last six fields may be left out.

    Raises:
        SpecError: the fields differ in length, or one value is what `SystolicArray` would refuse.
    """

    rows: Floats
    cols: Floats
    dataflow: Codes
    ifmap_kib: Floats
    filter_kib: Floats
    ofmap_kib: Floats
    dram_bytes_per_s: Floats
    clock_hz: Floats
    pe_bits: Floats
    vector_lanes: Floats
    overlap: Codes
    mapping: Codes = field(default_factory=_left_out)
    attention: Codes = field(default_factory=_left_out)
    activation_kib: Floats = field(default_factory=_left_out)
    weight_kib: Floats = field(default_factory=_left_out)
    pe_kind: Codes = field(default_factory=_left_out)
    sparsity: Codes = field(default_factory=_left_out)

    def __post_init__(self) -> None:
        for name in _field_names():
            kind = np.int8 if name in _NAMES else np.float64
            values = getattr(self, name)
            values = np.zeros(np.shape(self.rows)) if np.size(values) == 0 else values
            object.__setattr__(self, name, np.ascontiguousarray(values, dtype=kind))
            if getattr(self, name).shape != self.rows.shape or self.rows.ndim != 1:
                raise SpecError(name, f"has shape {getattr(self, name).shape}", "give one value for each accelerator")
        wrong = np.zeros(self.rows.shape, dtype=bool)
        for name, (low, high, _) in _LIMITS.items():
            values = getattr(self, name)
            wrong |= ~((values >= low) & (values <= high))
            if name not in _CONTINUOUS:
                wrong |= values != np.floor(values)
        for name, names in _NAMES.items():
            codes = getattr(self, name)
            if np.any((codes < 0) | (codes >= len(names))):
                raise SpecError(
                    name, "holds a code out of range", f"write 0 to {len(names) - 1} for {', '.join(names)}"
                )
        for kind in np.unique(self.pe_kind):
            wrong |= (self.pe_kind == kind) & ~np.isin(self.pe_bits, PE_WIDTHS[PE_KINDS[kind]])
        edge = 2.0 * np.maximum(self.rows, self.cols)
        wrong |= (self.ifmap_kib * 512 < edge) | (self.filter_kib * 512 < edge)
        wrong |= self.ofmap_kib * 512 < self.cols * (ACCUMULATOR_BITS / 8.0)
        if np.any(wrong):
            _refuse(self, int(np.argmax(wrong)))

    @classmethod
    def of(cls, arrays: Sequence[SystolicArray]) -> SystolicArrays:
        """Returns ``arrays`` field by field, in their order."""
        columns: dict[str, Any] = {}
        for name in _field_names():
            values = [getattr(array, name) for array in arrays]
            names = _NAMES.get(name)
            columns[name] = np.array([names.index(v) for v in values] if names else values, dtype=np.float64)
        return cls(**columns)

    def __len__(self) -> int:
        return int(self.rows.size)

    def pick(self, positions: NDArray[np.intp]) -> SystolicArrays:
        """Returns the arrays at ``positions``, without checking them again."""
        out = object.__new__(SystolicArrays)
        for name in _field_names():
            object.__setattr__(out, name, getattr(self, name)[positions])
        return out

    def kinds(self) -> NDArray[np.int64]:
        """Returns a code for each array; those with the same code have the same closed forms. Shape (accelerators,)."""
        code = self.dataflow.astype(np.int64) * 2 + self.mapping
        code = (code * 2 + self.attention) * 2 + (self.activation_kib > 0)
        return (code * len(PE_KINDS) + self.pe_kind) * len(SPARSITIES) + self.sparsity


def _field_names() -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(SystolicArray))


def _refuse(arrays: SystolicArrays, position: int) -> None:
    """Raises the `SpecError` that the array at ``position`` would raise on its own."""
    values: dict[str, Scalar] = {}
    for name in _field_names():
        value = getattr(arrays, name)[position].item()
        if name in _NAMES:
            value = _NAMES[name][value]
        elif name not in _CONTINUOUS and float(value).is_integer():
            value = int(value)
        values[name] = value
    try:
        SystolicArray(**values)  # type: ignore[arg-type]
    except SpecError as error:
        raise SpecError(f"accelerators[{position}].{error.field}", error.problem, error.remedy) from None
