"""Checks of a template's parameters, with errors that name field, value, limit and way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosearch.errors import SpecError
from cosearch.spec import Scalar

__all__ = ["Range", "checked_choice", "checked_number"]


@dataclass(frozen=True, slots=True)
class Range:
    """What a numeric parameter may be.

    Attributes:
        low: least value.
        high: greatest value.
        unit: what it counts, for the error's text.
        whole: whether it must be a whole number.
    """

    low: float
    high: float
    unit: str
    whole: bool = True


def checked_number(name: str, value: object, allowed: Range, owner: str) -> float:
    """Returns ``value``, a float where ``allowed`` is not whole: 1 and 1.0 are the same clock.

    Raises:
        SpecError: it is no number, or out of range. ``owner`` is who has the parameter: ``a systolic array``.
    """
    kinds = (int,) if allowed.whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise SpecError(name, f"is {value!r}", f"write a {'whole ' if allowed.whole else ''}number of {allowed.unit}")
    if not allowed.low <= value <= allowed.high:  # also false for NaN
        limits = f"{allowed.low:g} to {allowed.high:g}"
        raise SpecError(name, f"is {value}, but {owner} has {limits} {allowed.unit}", f"write {limits}")
    return value if allowed.whole else float(value)


def checked_choice(name: str, value: object, choices: Sequence[Scalar], owner: str) -> None:
    """Checks that ``value`` is one of ``choices``.

    Raises:
        SpecError: it is not.
    """
    if isinstance(value, bool) or value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise SpecError(name, f"is {value!r}, which {owner} does not have", f"choose one of {listed}")
