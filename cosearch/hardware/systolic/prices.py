"""What the memories and the area of systolic arrays cost by a technology."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.ledger import each
from cosearch.hardware.systolic.array import SystolicArrays
from cosearch.hardware.systolic.elements import element_area
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import LANE_BITS

__all__ = ["Prices"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """Joules to read and to write a bit of each memory, mm2 and watts; fields have shape (accelerators,).

    A memory that an array lacks costs nothing.
    """

    ifmap_read: Floats
    ifmap_write: Floats
    filter_read: Floats
    filter_write: Floats
    ofmap_read: Floats
    ofmap_write: Floats
    activation_read: Floats
    activation_write: Floats
    weight_read: Floats
    area_mm2: Floats
    leak_w: Floats

    @classmethod
    def of(cls, arrays: SystolicArrays, technology: Technology) -> Self:
        """Returns the prices of ``arrays`` by ``technology``."""
        sram = technology.sram
        sizes = {name: getattr(arrays, f"{name}_kib") for name in ("ifmap", "filter", "ofmap", "activation", "weight")}
        pes, lanes = arrays.rows * arrays.cols, arrays.vector_lanes
        element_um2, element_leak_w = element_area(arrays, technology)
        area, leak = pes * element_um2, pes * element_leak_w
        area = 1e-6 * (area + lanes * technology.mac_um2(LANE_BITS))
        leak = leak + lanes * technology.mac_leak_w(LANE_BITS)
        for size in sizes.values():
            area = area + each(size, lambda kib: sram.area_mm2(kib) if kib else 0.0)
            leak = leak + each(size, lambda kib: sram.leak_w(kib) if kib else 0.0)
        columns = {}
        for name, size in sizes.items():
            columns[f"{name}_read"] = 1e-12 * each(size, lambda kib: sram.read_pj(kib) if kib else 0.0)
            columns[f"{name}_write"] = 1e-12 * each(size, lambda kib: sram.write_pj(kib) if kib else 0.0)
        del columns["weight_write"]  # written before the first image
        return cls(**columns, area_mm2=area, leak_w=leak)

    def pick(self, positions: NDArray[np.intp]) -> Self:
        """Returns the prices of the arrays at ``positions``."""
        return type(self)(**{item.name: getattr(self, item.name)[positions] for item in fields(self)})
