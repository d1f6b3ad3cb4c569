"""A workload's operators as columns of numbers, equal ones once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.fpga.pipeline import Place, places
from cosearch.hardware.identity import Same
from cosearch.hardware.memory import live_bytes
from cosearch.hardware.vector import lane_operations
from cosearch.workload import Operator, OperatorKind, Workload

__all__ = ["Layers"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """Numbers of one operator; see `Layers`."""

    product: float
    m: float
    k: float
    n: float
    count: float
    a_bits: float
    b_bits: float
    weights: float
    lanes: float
    a_size: float
    a_live: float
    b_size: float
    b_live: float
    out_size: float
    out_live: float
    stage_rows: float
    leads: float
    waits: float
    outside_bits: float
    kept_bits: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layers:
    """The distinct operators of a workload; fields but the first have shape (rows, 1).

    Attributes:
        members: the row of each operator, in order.
        repeats: how many operators the row stands for.
        product: 1 for a matrix product, 0 for a vector operator.
        m: rows; of a vector operator too.
        k: length of the reduction.
        n: columns.
        count: repetitions (heads).
        a_bits: width of the left operand.
        b_bits: width of the right one.
        weights: 1 where the right operand is a parameter.
        lanes: lane operations of a vector operator.
        a_size: bits of the left operand, or of all that a vector operator reads.
        a_live: bits of activations alive at the worst time of its life; infinite where it comes from outside.
        b_size: bits of the right operand of a product.
        b_live: likewise.
        out_size: bits of the output.
        out_live: likewise; infinite where it leaves.
        stage_rows: rows that stream through its stage of the pipeline.
        leads: 1 where it leads its stage.
        waits: 1 where it needs everything at once.
        outside_bits: bits that come from outside or leave: image and result.
        kept_bits: bits of its inputs, a product's right operand left out, that an earlier stage made: a pipeline keeps
            them until it reads them.
    """

    members: tuple[int, ...]
    repeats: Floats
    product: Floats
    m: Floats
    k: Floats
    n: Floats
    count: Floats
    a_bits: Floats
    b_bits: Floats
    weights: Floats
    lanes: Floats
    a_size: Floats
    a_live: Floats
    b_size: Floats
    b_live: Floats
    out_size: Floats
    out_live: Floats
    stage_rows: Floats
    leads: Floats
    waits: Floats
    outside_bits: Floats
    kept_bits: Floats

    @property
    def macs(self) -> Floats:
        """Multiply-accumulates, shape (rows, 1); 0 for a vector operator."""
        return self.m * self.k * self.n * self.count * self.product

    @staticmethod
    def of(workload: Workload) -> Layers:
        """Returns the layers of ``workload``, kept for the workloads asked for last."""
        return _layers(Same(workload))


@lru_cache(maxsize=256)
def _layers(key: Same[Workload]) -> Layers:
    rows: dict[_Row, int] = {}
    members = [rows.setdefault(row, len(rows)) for row in _rows(key.value)]
    columns = {
        item.name: np.array([[getattr(row, item.name)] for row in rows], dtype=np.float64) for item in fields(_Row)
    }
    repeats = np.bincount(members, minlength=len(rows)).astype(np.float64).reshape(-1, 1)
    return Layers(members=tuple(members), repeats=repeats, **columns)


def _rows(workload: Workload) -> list[_Row]:
    size = {tensor.name: 8.0 * tensor.bytes for tensor in workload.tensors}
    parameters = {tensor.name for tensor in workload.tensors if tensor.weight}
    live = _worst_times(workload)
    at = places(workload)
    made = {op.output: place.stage for op, place in zip(workload.operators, at, strict=True)}
    read = {name for op in workload.operators for name in op.inputs}
    return [
        _row(op, place, size, live, made, read, parameters) for op, place in zip(workload.operators, at, strict=True)
    ]


def _worst_times(workload: Workload) -> dict[str, float]:
    """Returns for each activation the most bits of activations alive at any time of its life."""
    alive = [8.0 * value for value in live_bytes(workload)]
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for position, op in enumerate(workload.operators):
        first.setdefault(op.output, position)
        for name in (op.output, *op.inputs):
            last[name] = position
    return {name: max(alive[start : last[name] + 1]) for name, start in first.items()}


def _row(
    op: Operator,
    place: Place,
    size: dict[str, float],
    live: dict[str, float],
    made: dict[str, int],
    read: set[str],
    parameters: set[str],
) -> _Row:
    product = op.kind is OperatorKind.MATMUL
    sources = [name for name in op.inputs if name not in parameters]
    left: Sequence[str] = sources[:1] if product else sources
    right = op.inputs[-1] if product else ""
    outside = [name for name in left if name not in made]
    kept = [name for name in dict.fromkeys(left) if name in made and made[name] < place.stage]
    if op.kind is OperatorKind.SCORE:  # reads what it needs of a tensor that others made
        a_size = float(op.elements * op.a_bits)
    elif product:  # of a tensor that holds both operands, each reads its own part
        a_size = float(op.m * op.k * op.count * op.a_bits)
    else:
        a_size = sum(size[name] for name in left)
    leaves = op.output not in read
    return _Row(
        product=float(product),
        m=float(op.m),
        k=float(op.k if product else 0),
        n=float(op.n),
        count=float(op.count),
        a_bits=float(op.a_bits),
        b_bits=float(op.b_bits),
        weights=float(op.weights),
        lanes=float(lane_operations(op)),
        a_size=a_size,
        a_live=np.inf if outside else max(live[name] for name in left),
        b_size=float(op.k * op.n * op.count * op.b_bits) if product else 0.0,
        b_live=live.get(right, np.inf) if product and not op.weights else 1.0,
        out_size=size[op.output],
        out_live=np.inf if leaves else live[op.output],
        stage_rows=float(place.rows),
        leads=float(place.leads),
        waits=float(place.waits),
        outside_bits=sum(size[name] for name in outside) + (size[op.output] if leaves else 0.0),
        # of a tensor that holds both operands, only the left one: the right one lies beside the multipliers
        kept_bits=a_size * len(kept) if product else sum(size[name] for name in kept),
    )
