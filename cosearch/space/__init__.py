"""Search spaces: what can be chosen of a model and of an accelerator, read from YAML files.

    >>> from cosearch.space import load_space
    >>> from cosearch.spec import TaskShape
    >>> task = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
    >>> space = load_space("vit_digits_systolic", task)
    >>> space.parameters[0].name
    'model.patch'

A *point* gives a value to each parameter. `Space` says which candidate a point means, and picks one point, the
canonical one, for each candidate. `Space.side` gives one side alone, with the same methods.
"""

from __future__ import annotations

from cosearch.space.build import build_space, load_space
from cosearch.space.domains import Choice, Domain, Float, Integer
from cosearch.space.explain import explain
from cosearch.space.field import Constraint, Parameter
from cosearch.space.reduction import kept, reduction_blocks
from cosearch.space.schema import space_schema
from cosearch.space.shipped import find_space, shipped_spaces
from cosearch.space.side import Side
from cosearch.space.space import Space

__all__ = [
    "Choice",
    "Constraint",
    "Domain",
    "Float",
    "Integer",
    "Parameter",
    "Side",
    "Space",
    "build_space",
    "explain",
    "find_space",
    "kept",
    "load_space",
    "reduction_blocks",
    "shipped_spaces",
    "space_schema",
]
