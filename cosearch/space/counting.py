"""Counts the assignments of variables that depend on each other, without listing all of them.

The number sought is a sum, over all values of the variables, of a product of weights that each look at few variables.
One variable after the other is summed out (bucket elimination, Dechter 1999, "Bucket elimination: a unifying framework
for reasoning"), so the work grows with the widest dependency, not with the space. Python's integers keep it exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosearch.errors import UserError

__all__ = ["Factor", "total"]

_LARGEST_TABLE = 5_000_000


@dataclass(frozen=True, slots=True)
class Factor:
    """A weight that depends on some variables.

    Attributes:
        scope: the variables it looks at.
        weight: the weight, given their values by name.
    """

    scope: tuple[str, ...]
    weight: Callable[[Mapping[str, Any]], int]


def total(variables: Mapping[str, Sequence[Any]], factors: Sequence[Factor]) -> int:
    """Returns the sum, over every assignment of ``variables``, of the product of all ``factors``.

    Raises:
        UserError: too many variables hang together to count.
    """
    left = dict(variables)
    remaining = list(factors)
    while left:
        name = min(left, key=lambda n: _table_size(variables, _scope(remaining, n)))
        values = left.pop(name)
        touching = [factor for factor in remaining if name in factor.scope]
        remaining = [factor for factor in remaining if name not in factor.scope]
        scope = _scope(touching, name)
        if _table_size(variables, scope) * len(values) > _LARGEST_TABLE:
            raise UserError(
                f"cannot count the space: the conditions tie {name}, {', '.join(scope)} together, which have too many "
                "values; let conditions mention fewer parameters, or give those fewer values"
            )
        remaining.append(Factor(scope, _summed(name, values, touching, scope, variables)))
    return math.prod(factor.weight({}) for factor in remaining)


def _scope(factors: Sequence[Factor], name: str) -> tuple[str, ...]:
    """The other variables that factors about ``name`` look at."""
    names = {other for factor in factors if name in factor.scope for other in factor.scope}
    return tuple(sorted(names - {name}))


def _table_size(variables: Mapping[str, Sequence[Any]], scope: Sequence[str]) -> int:
    return math.prod(len(variables[name]) for name in scope)


def _summed(
    name: str,
    values: Sequence[Any],
    factors: Sequence[Factor],
    scope: tuple[str, ...],
    variables: Mapping[str, Sequence[Any]],
) -> Callable[[Mapping[str, Any]], int]:
    """Returns the weight that is left of ``factors`` once ``name`` is summed out."""
    table: dict[tuple[Any, ...], int] = {}
    for assignment in itertools.product(*(variables[other] for other in scope)):
        env = dict(zip(scope, assignment, strict=True))
        table[assignment] = sum(
            math.prod(factor.weight(inner) for factor in factors)
            for inner in ({**env, name: value} for value in values)
        )
    return lambda env: table[tuple(env[other] for other in scope)]
