"""What stays on the chip: activations between operators, weights between images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.groups import Groups
from cosearch.hardware.systolic.array import SystolicArrays
from cosearch.workload import Workload

__all__ = ["Residency", "Shares"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shares:
    """How much of what each operator moves comes from or goes to DRAM; shapes broadcast to (rows, accelerators).

    Attributes:
        a: share of a product's left operand that DRAM holds, shape (products, accelerators).
        b: likewise of the right operand.
        b_activation: share of the right operand that the memory for activations holds.
        b_pinned: share of it that the memory for weights holds.
        out: share of a product's output that DRAM takes.
        read_bits: bits that a vector operator reads from DRAM.
        vector_out: share of its output that DRAM takes.
    """

    a: Floats
    b: Floats
    b_activation: Floats
    b_pinned: Floats
    out: Floats
    read_bits: Floats
    vector_out: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residency:
    """What the memories for activations and weights hold of a workload.

    Attributes:
        marks: something for each operator; those with the same mark find the same tensors on the chip.
        held_bits: bits of activations and weights held, shape (accelerators,).
    """

    marks: tuple[object, ...]
    held_bits: Floats
    pinned: Floats

    @classmethod
    def of(cls, workload: Workload, arrays: SystolicArrays) -> Residency:
        """Returns what stays on ``arrays``.

        Weights beyond the memory's size are fetched for each image; which ones does not matter, since each is fetched
        as often. The share that stays is taken to be the same of every operator.
        """
        weight_bits = 8.0 * max(workload.weight_bytes, 1)
        pinned = np.minimum(arrays.weight_kib * 8192.0 / weight_bits, 1.0)
        return cls(marks=tuple(op.weights for op in workload.operators), held_bits=pinned * weight_bits, pinned=pinned)

    def shares(self, groups: Groups) -> Shares:
        """Returns how much each row of ``groups`` moves to and from DRAM."""
        weights = np.array([[float(bool(self.marks[first]))] for first in groups.first[: groups.macs.shape[0]]])
        weights = weights.reshape(-1, 1)
        one, none = np.ones((1, 1)), np.zeros((1, 1))
        return Shares(
            a=one,
            b=1.0 - weights * self.pinned,
            b_activation=none,
            b_pinned=weights * self.pinned,
            out=one,
            read_bits=groups.read_bits,
            vector_out=one,
        )
