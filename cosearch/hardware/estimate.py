"""Latency, energy, area and traffic of a workload on accelerators of any template.

One code path for one accelerator and for a million: `estimate` is `estimate_batch` of one, bit for bit. All steps
over accelerators are elementwise, and operators are summed one after another in their order, so a result does not
depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np

from cosearch.hardware.catalogue import Accelerator, batch_of, cost_model
from cosearch.hardware.cost import BatchCost, Cost
from cosearch.hardware.identity import Same
from cosearch.hardware.ledger import Batch, breakdown, total
from cosearch.hardware.technology import Technology
from cosearch.workload import Workload

__all__ = ["estimate", "estimate_batch", "estimate_grid"]

_CHUNK = 1 << 17
"""Operators times accelerators worked on at once: temporaries of 1 MiB, and few steps outside of numpy."""
_LEAST = 64
"""Accelerators worked on at once at least."""


def estimate(workload: Workload, accelerator: Accelerator, technology: Technology) -> Cost:
    """Returns what ``workload`` costs on ``accelerator``, in total and per operator.

    Raises:
        SpecError: the accelerator cannot run an operator.
    """
    batch = batch_of([accelerator])
    return breakdown(workload, cost_model(batch)(workload, batch, technology), technology)


def estimate_batch(
    workload: Workload, accelerators: Sequence[Accelerator] | Batch, technology: Technology
) -> BatchCost:
    """Returns what ``workload`` costs on each of ``accelerators``, without the breakdown per operator.

    Args:
        workload: one image through a model.
        accelerators: objects of one template, or a batch of them such as `SystolicArrays`; any number, worked on in
            chunks of bounded memory.
        technology: prices of energy and area.

    Raises:
        SpecError: an accelerator cannot run an operator, or the templates differ.
    """
    batch = batch_of(accelerators) if isinstance(accelerators, Sequence) else accelerators
    out = {item.name: np.empty(len(batch)) for item in fields(BatchCost)}
    step = max(_LEAST, _CHUNK // _distinct(Same(workload)))
    kinds = batch.kinds()
    for kind in np.unique(kinds):
        same = np.flatnonzero(kinds == kind)
        for start in range(0, same.size, step):
            chosen = same[start : start + step]
            part = batch.pick(chosen)
            cost = total(cost_model(part)(workload, part, technology))
            for name, values in out.items():
                values[chosen] = getattr(cost, name)
    return BatchCost(**out)


@lru_cache(maxsize=256)
def _distinct(key: Same[Workload]) -> int:
    """Returns how many operators differ in what they cost."""
    return len(
        {
            (
                op.kind,
                op.m,
                op.k,
                op.n,
                op.count,
                op.a_bits,
                op.b_bits,
                op.out_bits,
                op.a_format,
                op.b_format,
                op.sparsity,
            )
            for op in key.value.operators
        }
    )


def estimate_grid(
    workloads: Sequence[Workload], accelerators: Sequence[Accelerator] | Batch, technology: Technology
) -> BatchCost:
    """Returns what each of ``workloads`` costs on each of ``accelerators``; fields of shape (workloads, accelerators).

    Each row is what `estimate_batch` gives.

    Args:
        workloads: any number.
        accelerators: objects of one template, or a batch of them.
        technology: prices of energy and area.

    Raises:
        SpecError: an accelerator cannot run an operator, or the templates differ.
    """
    batch = batch_of(accelerators) if isinstance(accelerators, Sequence) else accelerators
    rows = [estimate_batch(workload, batch, technology) for workload in workloads]
    empty = np.empty((0, len(batch)))
    return BatchCost(
        **{
            item.name: np.stack([getattr(row, item.name) for row in rows]) if rows else empty
            for item in fields(BatchCost)
        }
    )
