"""When each tensor of a workload is accessed, and how many bytes are alive at each moment.

A moment is an operator: position i stands for the i-th operator of `Workload.operators`. An activation lives from the
operator that writes it to the last one that reads it, both included; the image lives from the start. A weight lives
while its operator runs, and while the one before runs where it is prefetched (double buffering of weights).
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.workload import Workload

__all__ = ["Lifetime", "lifetimes", "live_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When a tensor is alive.

    Attributes:
        tensor: its name.
        bytes: its size.
        weight: whether it is a parameter.
        written: position of the operator that writes it; ``None`` for the image and for parameters.
        reads: positions of the operators that read it, in order; twice where an operator reads it twice.
        first: first position at which it is alive.
        last: last position at which it is alive, included.
    """

    tensor: str
    bytes: int
    weight: bool
    written: int | None
    reads: tuple[int, ...]
    first: int
    last: int


def lifetimes(workload: Workload, *, prefetch_weights: bool = False) -> tuple[Lifetime, ...]:
    """Returns the lifetime of each tensor that an operator names, in the order of `Workload.tensors`.

    Args:
        workload: one image through a model.
        prefetch_weights: whether parameters come one operator ahead.
    """
    written: dict[str, int] = {}
    reads: dict[str, list[int]] = {}
    for position, op in enumerate(workload.operators):
        written.setdefault(op.output, position)
        for name in op.inputs:
            reads.setdefault(name, []).append(position)
    found = []
    for tensor in workload.tensors:
        name = tensor.name
        if name not in written and name not in reads:
            continue
        accessed = reads.get(name, [])
        if tensor.weight:
            first = max(0, accessed[0] - 1) if prefetch_weights else accessed[0]
        else:
            first = written.get(name, 0)
        found.append(
            Lifetime(
                tensor=name,
                bytes=tensor.bytes,
                weight=tensor.weight,
                written=written.get(name),
                reads=tuple(accessed),
                first=first,
                last=max(accessed, default=first),
            )
        )
    return tuple(found)


def live_bytes(workload: Workload, *, weights: bool = False, prefetch_weights: bool = False) -> tuple[int, ...]:
    """Returns the bytes alive while each operator runs, nothing being spilled or overwritten: shape (operators,).

    Args:
        workload: one image through a model.
        weights: whether parameters count too.
        prefetch_weights: whether parameters come one operator ahead.
    """
    alive = [0] * len(workload.operators)
    for life in lifetimes(workload, prefetch_weights=prefetch_weights):
        if weights or not life.weight:
            for position in range(life.first, life.last + 1):
                alive[position] += life.bytes
    return tuple(alive)
