"""Tables that commands print."""

from __future__ import annotations

from rich.table import Table

from cosearch.front import Front
from cosearch.words import describe_accelerator, describe_model, quantity

__all__ = ["front_table"]


def front_table(front: Front, name: str) -> Table:
    """Returns the members of a front as a table, one row each, in the front's order."""
    table = Table(title=f"Pareto front of {name}: {len(front.members)} pairs", title_justify="left", box=None)
    table.add_column("id", no_wrap=True)
    for objective in front.objectives:
        table.add_column(f"{objective.metric} {'↑' if objective.direction == 'max' else '↓'}", justify="right", no_wrap=True)
    table.add_column("model")
    table.add_column("accelerator")
    for member in front.members:
        values = [quantity(member.metrics[o.metric], o.unit) for o in front.objectives]
        candidate = member.candidate
        table.add_row(
            candidate.id[:8], *values, describe_model(candidate.model), describe_accelerator(candidate.accelerator)
        )
    return table
