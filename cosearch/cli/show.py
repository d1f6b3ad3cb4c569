"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from cosearch.spec import AcceleratorSpec, Candidate
from cosearch.words import describe_accelerator, describe_model, quantity, unit_of

if TYPE_CHECKING:
    from cosearch.front import Front, Member
    from cosearch.hardware import Cost
    from cosearch.space import Space
    from cosearch.workload import Operator, Workload

__all__ = ["cost_tables", "front_table", "member_table", "space_table"]


def front_table(front: Front, name: str, most: int = 16) -> Table:
    """Returns the members of a front as a table, one row each; where they are many, one row for each model.

    Args:
        front: the front.
        name: the run's name.
        most: rows from which on each model is shown once, with the accelerator of its member nearest to the knee.
    """
    from cosearch.front import Front, pick

    of_model: dict[str, list[Member]] = {}
    for member in front.members:
        of_model.setdefault(member.candidate.model.id, []).append(member)
    folded = len(front.members) > most
    groups = list(of_model.values()) if folded else [[member] for member in front.members]
    title = f"Pareto front of {name}: {len(front.members)} pairs of {len(of_model)} models"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("id", no_wrap=True)
    for objective in front.objectives:
        arrow = "↑" if objective.direction == "max" else "↓"
        table.add_column(f"{objective.metric} {arrow}", justify="right", no_wrap=True)
    if folded:
        table.add_column("pairs", justify="right", no_wrap=True)
    table.add_column("model")
    table.add_column("accelerator")
    for members in groups:
        shown = pick(Front(front.objectives, tuple(members)), "knee") if len(members) > 1 else members[0]
        values = [quantity(shown.metrics[o.metric], o.unit) for o in front.objectives]
        words = describe_model(shown.candidate.model), describe_accelerator(shown.candidate.accelerator)
        table.add_row(shown.candidate.id[:8], *values, *([str(len(members))] if folded else []), *words)
    return table


def member_table(member: Member) -> Table:
    """Returns everything known of one member."""
    table = Table(title=f"pair {member.candidate.id}", title_justify="left", box=None, show_header=False)
    _describe(table, member.candidate)
    for name, value in member.metrics.items():
        table.add_row(name, quantity(value, unit_of(name)))
    return table


def cost_tables(model: str, accelerator: AcceleratorSpec, workload: Workload, cost: Cost) -> tuple[Table, Table]:
    """Returns the cost of each operator, equal ones of several blocks in one row (costs are of one), and the totals.

    Args:
        model: the model in words.
        accelerator: what it runs on.
        workload: of one image.
        cost: on the accelerator.
    """
    operators = Table(title="Operators", title_justify="left", box=None, padding=(0, 1, 0, 0))
    operators.add_column("operator", no_wrap=True)
    for name in ("n", "shape", "bits", "cycles", "stalls", "DRAM", "energy", "use"):
        operators.add_column(name, justify="right", no_wrap=True)
    rows: dict[tuple[str, ...], list[str]] = {}
    for op, one in zip(workload.operators, cost.operators, strict=True):
        shape = f"{op.m}x{op.k}x{op.n}" if op.macs else f"{op.m}x{op.n}"
        columns = (
            f"{op.count} x {shape}" if op.count > 1 else shape,
            _widths(op),
            f"{one.cycles:,.0f}",
            f"{one.stall_cycles:,.0f}",
            quantity(one.dram_bytes, "B"),
            quantity(one.energy_j, "J"),
            f"{one.utilisation:.0%}" if op.macs else "",
        )
        part = op.name.rpartition(".")[2] if op.name.startswith("block") else op.name
        rows.setdefault((part, *columns), []).append(op.name)
    for (part, *shown), names in rows.items():
        first, last = names[0].partition(".")[0], names[-1].partition(".")[0]
        title = f"{first}-{last.removeprefix('block')}.{part}" if len(names) > 1 else names[0]
        operators.add_row(title, str(len(names)), *shown)
    totals = Table(title="In all, for one image", title_justify="left", box=None, show_header=False)
    totals.add_row("model", model)
    totals.add_row("accelerator", describe_accelerator(accelerator))
    facts: Mapping[str, str] = {
        "multiply-accumulates": quantity(workload.macs, "MAC"),
        "weights": quantity(workload.weight_bytes, "B"),
        "latency": f"{quantity(cost.latency_s, 's')}  ({cost.cycles:,.0f} cycles: {cost.compute_cycles:,.0f} array, "
        f"{cost.vector_cycles:,.0f} vector unit, {cost.stall_cycles:,.0f} waiting for DRAM)",
        "energy": f"{quantity(cost.energy_j, 'J')}  ({quantity(cost.mac_j, 'J')} array, "
        f"{quantity(cost.vector_j, 'J')} vector unit, {quantity(cost.sram_j, 'J')} scratchpads, "
        f"{quantity(cost.dram_j, 'J')} DRAM, {quantity(cost.leakage_j, 'J')} leakage)",
        "power": quantity(cost.power_w, "W"),
        "area": quantity(cost.area_mm2, "mm2"),
        "DRAM traffic": quantity(cost.dram_bytes, "B"),
        "array use": f"{cost.utilisation:.1%}",
        "technology table": cost.technology,
    }
    for name, text in facts.items():
        totals.add_row(name, text)
    return operators, totals


def _widths(op: Operator) -> str:
    """Returns the formats of both operands, in bits where they are integers."""
    if not op.macs:
        return str(op.a_bits)
    kept, of = op.sparsity
    text = f"{op.a_format or op.a_bits}/{op.b_format or op.b_bits}"
    return f"{text} {kept}:{of}" if kept < of else text


def space_table(space: Space) -> Table:
    """Returns the parameters of a space, entries of a repeated one together."""
    table = Table(box=None)
    table.add_column("parameter", no_wrap=True)
    table.add_column("values")
    groups: dict[tuple[str, str], int] = {}
    for parameter in space.parameters:
        key = (parameter.name.partition("[")[0], str(parameter.domain))
        groups[key] = groups.get(key, 0) + 1
    for (name, domain), times in groups.items():
        table.add_row(f"{name} x {times}" if times > 1 else name, domain)
    return table


def _describe(table: Table, candidate: Candidate) -> None:
    table.add_row("model", describe_model(candidate.model))
    table.add_row("accelerator", describe_accelerator(candidate.accelerator))
