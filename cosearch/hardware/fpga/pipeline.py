"""Where a network's pipeline must wait for all rows.

A layer with an engine of its own starts as soon as the first row comes, so layers run at the same time. Three things
need all rows before the first one leaves, and cut the pipeline into stages one after another:

- a product of two activations whose right operand the stage itself makes: scores need every key;
- a selection of tokens, which sorts all scores; and what follows it.

HG-PIPE (Guo et al. 2024) names the same dependence as the cause of bubbles in pipelined vision transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.workload import OperatorKind, Workload

__all__ = ["Place", "places"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an operator stands in the pipeline.

    Attributes:
        stage: position of its stage.
        rows: rows that stream through the stage: the most of any of its operators.
        leads: whether it is the first operator of its stage with that many rows; the others follow it.
        waits: whether it needs everything at once (a selection).
    """

    stage: int
    rows: int
    leads: bool
    waits: bool


def places(workload: Workload) -> tuple[Place, ...]:
    """Returns the place of each operator of ``workload``."""
    stages: list[int] = []
    made: dict[str, int] = {}
    stage, after_selection = 0, False
    for op in workload.operators:
        waits = op.kind is OperatorKind.SELECT
        needs_all = op.kind is OperatorKind.MATMUL and not op.weights and made.get(op.inputs[-1]) == stage
        if stages and (waits or after_selection or needs_all):
            stage += 1
        stages.append(stage)
        made[op.output] = stage
        after_selection = waits
    rows: dict[int, int] = {}
    for op, at in zip(workload.operators, stages, strict=True):
        rows[at] = max(rows.get(at, 0), op.m)
    led: set[int] = set()
    found = []
    for op, at in zip(workload.operators, stages, strict=True):
        leads = at not in led and op.m == rows[at]
        if leads:
            led.add(at)
        found.append(Place(stage=at, rows=rows[at], leads=leads, waits=op.kind is OperatorKind.SELECT))
    return tuple(found)
