"""The roofline template: one device, or many as a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.roofline.devices import DEVICES, Device

__all__ = ["FLOAT_RATES", "RATES", "Roofline", "Rooflines"]

DeviceName = Literal[
    "custom",
    "a100_sxm_80gb",
    "h100_sxm",
    "rtx_4090",
    "jetson_orin_nano_8gb",
    "laptop_avx512_vnni",
    "laptop_avx2",
    "raspberry_pi_4",
    "raspberry_pi_5",
]
FloatAs = Literal["fp32", "tf32", "fp16"]
_NAMES: tuple[str, ...] = get_args(DeviceName)
FLOAT_RATES: tuple[str, ...] = get_args(FloatAs)
"""What floats may be computed as."""

_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "fp32_macs_per_s": (0, 1e18, "multiply-accumulates/s"),
    "tf32_macs_per_s": (0, 1e18, "multiply-accumulates/s"),
    "fp16_macs_per_s": (0, 1e18, "multiply-accumulates/s"),
    "int8_macs_per_s": (0, 1e18, "multiply-accumulates/s"),
    "int4_macs_per_s": (0, 1e18, "multiply-accumulates/s"),
    "vector_ops_per_s": (0, 1e18, "operations/s"),
    "dram_bytes_per_s": (0, 1e15, "bytes/s"),
    "cache_kib": (0, 1 << 22, "KiB"),
    "units": (0, 1 << 16, "units"),
    "tile_rows": (0, 4096, "rows"),
    "tile_cols": (0, 4096, "columns"),
    "launch_s": (0, 1, "s"),
    "tdp_w": (0, 1e5, "W"),
    "idle_share": (0, 1, "of the power"),
    "area_mm2": (0, 1e6, "mm2"),
}
_WHOLE = ("cache_kib", "units", "tile_rows", "tile_cols")
RATES = ("fp32", "tf32", "fp16", "int8", "int4")
"""Formats that a device may have a rate for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A processor or GPU by its peak rates (Williams, Waterman & Patterson 2009).

    A number of 0 means the device's own where ``device`` names one of `DEVICES`; of a ``custom`` device it
    means that there is none. So a device of a data sheet can be given another bandwidth alone.

    Attributes:
        device: the device, or ``custom`` for one given by the numbers below.
        float_as: arithmetic of models that are not quantised; ``fp16`` also halves what they store.
        fp32_macs_per_s: peak multiply-accumulates a second in single precision (half of a vendor's FLOPS).
        tf32_macs_per_s: likewise of tf32.
        fp16_macs_per_s: likewise of half precision.
        int8_macs_per_s: likewise of 8-bit integers.
        int4_macs_per_s: likewise of 4-bit integers.
        vector_ops_per_s: elementwise operations a second; of a custom device with 0, the rate of single precision.
        dram_bytes_per_s: bandwidth to memory.
        cache_kib: last-level cache in KiB.
        units: multiprocessors or cores that tiles of a product are dealt out to; of a custom device with 0, one.
        tile_rows: rows of the output that a unit works on at a time; of a custom device with 0, one.
        tile_cols: columns, likewise.
        launch_s: seconds to start an operator.
        tdp_w: thermal design power in watts.
        idle_share: share of it that is drawn while nothing is computed or moved (assumption).
        area_mm2: of the die; 0 where it is not known.

    Raises:
        SpecError: a field is out of its range, or a custom device lacks a number that it needs.
    """

    device: DeviceName
    float_as: FloatAs = "fp32"
    fp32_macs_per_s: float = 0.0
    tf32_macs_per_s: float = 0.0
    fp16_macs_per_s: float = 0.0
    int8_macs_per_s: float = 0.0
    int4_macs_per_s: float = 0.0
    vector_ops_per_s: float = 0.0
    dram_bytes_per_s: float = 0.0
    cache_kib: int = 0
    units: int = 0
    tile_rows: int = 0
    tile_cols: int = 0
    launch_s: float = 0.0
    tdp_w: float = 0.0
    idle_share: float = 0.3
    area_mm2: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (("device", _NAMES), ("float_as", FLOAT_RATES)):
            value = getattr(self, name)
            if value not in choices:
                raise SpecError(name, f"is {value!r}, which is unknown", f"choose one of {', '.join(choices)}")
        for name, (low, high, unit) in _LIMITS.items():
            _check_number(name, getattr(self, name), low, high, unit)
            if name not in _WHOLE:  # 1 and 1.0 are the same bandwidth
                object.__setattr__(self, name, float(getattr(self, name)))
        if self.device == "custom":
            self._check_custom()

    def _check_custom(self) -> None:
        for name, why in (("dram_bytes_per_s", "a memory"), ("tdp_w", "power")):
            if getattr(self, name) == 0:
                raise SpecError(name, f"is 0, but a custom device needs {why}", "write its number")
        if not any(getattr(self, f"{rate}_macs_per_s") for rate in RATES):
            raise SpecError(
                "fp32_macs_per_s",
                "is 0, as all rates of this custom device are",
                "write the rate of one format at least",
            )
        if self.vector_ops_per_s == 0 and self.fp32_macs_per_s == 0:
            raise SpecError(
                "vector_ops_per_s",
                "is 0, and this custom device has no single precision whose rate could stand for it",
                "write its elementwise operations a second",
            )

    def resolved(self) -> Device:
        """Returns every number, the device's own where this one is 0."""
        given = {
            item.name: getattr(self, item.name)
            for item in fields(Device)
            if item.name not in ("tiles", "sources") and getattr(self, item.name)
        }
        own = DEVICES.get(self.device)
        if own is not None:
            tiles = tuple(dict.fromkeys((self.tile_rows or rows, self.tile_cols or cols) for rows, cols in own.tiles))
            return replace(own, tiles=tiles, **given)
        base = Device(
            fp32_macs_per_s=0.0,
            vector_ops_per_s=self.fp32_macs_per_s,
            dram_bytes_per_s=0.0,
            cache_kib=0,
            units=1,
            tiles=((self.tile_rows or 1, self.tile_cols or 1),),
            launch_s=0.0,
            tdp_w=0.0,
            sources="given by the user",
        )
        return replace(base, **given)


def _check_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    whole = name in _WHOLE
    allowed = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise SpecError(name, f"is {value!r}", f"write a {'whole ' if whole else ''}number of {unit}")
    if not low <= value <= high:  # also false for NaN
        raise SpecError(
            name, f"is {value}, but a roofline takes {low:g} to {high:g} {unit}", f"write {low:g} to {high:g}"
        )


@dataclass(frozen=True, slots=True)
class Rooflines:
    """Rooflines as a `cosearch.hardware.ledger.Batch`."""

    items: tuple[Roofline, ...]

    @classmethod
    def of(cls, items: Sequence[Roofline]) -> Rooflines:
        """Returns ``items`` as a batch, in their order."""
        return cls(tuple(items))

    def __len__(self) -> int:
        return len(self.items)

    def pick(self, positions: NDArray[np.intp]) -> Rooflines:
        """Returns those at ``positions``."""
        return Rooflines(tuple(self.items[int(i)] for i in positions))

    def kinds(self) -> NDArray[np.int64]:
        """Returns a code for each: how it computes floats, and how many tile sizes it has. Shape (accelerators,)."""
        tiles = np.array([len(item.resolved().tiles) for item in self.items], dtype=np.int64)
        return tiles * len(FLOAT_RATES) + np.array(
            [FLOAT_RATES.index(item.float_as) for item in self.items], dtype=np.int64
        )
