"""Says in words why a point is not allowed."""

from __future__ import annotations

from cosearch.space.expression import UncomputableError
from cosearch.space.field import Constraint
from cosearch.space.space import Space
from cosearch.spec import Point

__all__ = ["explain"]


def explain(space: Space, point: Point) -> str:
    """Returns which constraints ``point`` breaks, with the values in them and by how much; or that it breaks none.

    Raises:
        UserError: the point does not belong to the space.
    """
    violations = space.violations(point)
    if not violations:
        return f"valid: the point breaks none of the {len(space.constraints)} constraints of {space.name}"
    lines = []
    by_text = {constraint.expression.text: constraint for constraint in space.constraints}
    for violation in violations:
        lines.append(f"broken: {violation.limit}")
        constraint = by_text.get(violation.limit)
        if constraint is None:
            continue
        if constraint.why:
            lines.append(f"  why it is there: {constraint.why}")
        lines.extend(_named_values(space, point, constraint))
        if constraint.expression.measured:
            lines.append(f"  missed by {violation.excess:.1%}")
        lines.append(f"  stands in {space.file}: {constraint.path}")
    return "\n".join(lines)


def _named_values(space: Space, point: Point, constraint: Constraint) -> list[str]:
    scope = space.values(point)
    out = []
    for name in sorted(constraint.expression.names):
        side, _, field = name.partition(".")
        try:
            out.append(f"  {name} = {scope[side][field]}")
        except UncomputableError as error:
            out.append(f"  {name} has no value: {error}")
    return out
