"""The values that a parameter can take.

Three kinds: a `Choice` among listed values, whole numbers (`Integer`) and real numbers (`Float`). All are frozen,
hashable and hand out plain Python values, whatever numpy scalars go in. A domain is *ordered* when its values lie on a
scale, so that a search can step up and down; the values of a `Choice` have no order, even where they are numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cosearch.errors import SpecError
from cosearch.spec import Scalar

__all__ = ["Choice", "Domain", "Float", "Integer", "plain"]

_MOST_GRID_VALUES = 1_000_000
_CONTINUOUS_STEP = 0.1
"""A neighbour on a continuous scale lies a tenth of the scale away."""


def plain(value: object) -> object:
    """Returns ``value``, as a Python scalar where it is a numpy one."""
    return value.item() if isinstance(value, np.generic) else value


def _cell(unit: float, cells: int) -> int:
    """Index of the cell of [0, 1] that ``unit`` falls in, of ``cells`` equal ones."""
    return min(int(min(max(unit, 0.0), 1.0) * cells), cells - 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some listed values, without an order.

    Attributes:
        options: the values, all different.

    Raises:
        SpecError: there is no value, or one is there twice.
    """

    options: tuple[Scalar, ...]
    _own: dict[Scalar, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise SpecError("choice", "is empty", "list at least one value")
        own: dict[Scalar, int] = {}
        for index, option in enumerate(self.options):
            if option in own:
                raise SpecError(
                    f"choice[{index}]", f"is {option!r}, as choice[{own[option]}] is", "remove one of the two"
                )
            own[option] = index
        object.__setattr__(self, "_own", own)

    @property
    def ordered(self) -> bool:
        """Whether the values lie on a scale: they do not."""
        return False

    def normal(self, value: object) -> Scalar | None:
        """Returns the domain's own value that equals ``value``, or ``None`` where there is none."""
        value = plain(value)
        if not isinstance(value, (bool, int, float, str)) or value not in self._own:
            return None
        own = self.options[self._own[value]]
        return own if isinstance(own, bool) == isinstance(value, bool) else None

    def contains(self, value: object) -> bool:
        """Returns whether ``value`` is one of the values."""
        return self.normal(value) is not None

    def values(self) -> Sequence[Scalar]:
        """Returns all values, as listed."""
        return self.options

    def size(self) -> int:
        """Returns the number of values."""
        return len(self.options)

    def sample(self, rng: np.random.Generator) -> Scalar:
        """Returns a value, each equally likely."""
        return self.options[int(rng.integers(len(self.options)))]

    def neighbours(self, value: Scalar) -> tuple[Scalar, ...]:
        """Returns all other values, as listed."""
        return tuple(option for option in self.options if option != value)

    def to_unit(self, value: Scalar) -> float:
        """Returns the middle of the value's cell of [0, 1]."""
        return (self._own[value] + 0.5) / len(self.options)

    def from_unit(self, unit: float) -> Scalar:
        """Returns the value whose cell of [0, 1] holds ``unit``."""
        return self.options[_cell(unit, len(self.options))]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.options))


@dataclass(frozen=True, slots=True)
class Integer:
    """Whole numbers from ``low`` to at most ``high``.

    Attributes:
        low: the least value.
        high: no value is above it; it is itself a value where the steps lead there.
        step: what to add to go from one value to the next; with ``log``, what to multiply with.
        log: whether values grow by a factor.

    Raises:
        SpecError: the bounds or the step make no sense.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False
    _grid: Sequence[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise SpecError("int", f"goes from {self.low} down to {self.high}", f"write [{self.high}, {self.low}]")
        if not self.log:
            if self.step < 1:
                raise SpecError("step", f"is {self.step}, which leads nowhere", "write 1 or more")
            object.__setattr__(self, "_grid", range(self.low, self.high + 1, self.step))
            return
        if self.step < 2:
            raise SpecError("log", f"is {self.step}, which leads nowhere", "write the factor between values, such as 2")
        if self.low < 1:
            raise SpecError(
                "int[0]",
                f"is {self.low}, but multiplying from there leads nowhere",
                "start at 1 or more, or leave log out",
            )
        grid = [self.low]
        while grid[-1] * self.step <= self.high:
            grid.append(grid[-1] * self.step)
        object.__setattr__(self, "_grid", tuple(grid))

    @property
    def ordered(self) -> bool:
        """Whether the values lie on a scale: they do."""
        return True

    def normal(self, value: object) -> int | None:
        """Returns the domain's own value that equals ``value``, or ``None`` where there is none."""
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if isinstance(value, float):
            if not value.is_integer():
                return None
            value = int(value)
        return value if value in self._grid else None

    def contains(self, value: object) -> bool:
        """Returns whether ``value`` is one of the values."""
        return self.normal(value) is not None

    def values(self) -> Sequence[int]:
        """Returns all values, ascending (a `range` where they are evenly spaced)."""
        return self._grid

    def size(self) -> int:
        """Returns the number of values."""
        return len(self._grid)

    def sample(self, rng: np.random.Generator) -> int:
        """Returns a value, each equally likely."""
        return self._grid[int(rng.integers(len(self._grid)))]

    def neighbours(self, value: Scalar) -> tuple[Scalar, ...]:
        """Returns the next value below and the next above, where there is one."""
        index = self._grid.index(int(value))
        return (*self._grid[max(index - 1, 0) : index], *self._grid[index + 1 : index + 2])

    def to_unit(self, value: Scalar) -> float:
        """Returns the middle of the value's cell of [0, 1]."""
        return (self._grid.index(int(value)) + 0.5) / len(self._grid)

    def from_unit(self, unit: float) -> int:
        """Returns the value whose cell of [0, 1] holds ``unit``."""
        return self._grid[_cell(unit, len(self._grid))]

    def __str__(self) -> str:
        how = f", each {self.step} times the one before" if self.log else f" in steps of {self.step}" * (self.step > 1)
        return f"whole numbers from {self.low} to {self.high}{how}"


@dataclass(frozen=True, slots=True)
class Float:
    """Real numbers from ``low`` to at most ``high``.

    Attributes:
        low: the least value.
        high: no value is above it.
        step: distance between values, or with ``log`` the factor between them; ``None`` takes every number between.
        log: whether the scale is logarithmic.

    Raises:
        SpecError: the bounds or the step make no sense.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    _grid: tuple[float, ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for index, bound in enumerate((self.low, self.high)):
            if not math.isfinite(bound):
                raise SpecError(f"float[{index}]", f"is {bound}", "write a finite number")
        if self.low > self.high:
            raise SpecError(
                "float", f"goes from {self.low:g} down to {self.high:g}", f"write [{self.high:g}, {self.low:g}]"
            )
        if self.log and self.low <= 0:
            raise SpecError(
                "float[0]", f"is {self.low:g}, but a log scale starts above 0", "start above 0, or leave log out"
            )
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        object.__setattr__(self, "_grid", None if self.step is None else self._make_grid(float(self.step)))

    def _make_grid(self, step: float) -> tuple[float, ...]:
        if self.log:
            if not step > 1 or not math.isfinite(step):
                raise SpecError(
                    "log", f"is {step:g}, which leads nowhere", "write the factor between values, such as 2"
                )
            last = math.floor(math.log(self.high / self.low) / math.log(step) + 1e-9)
        else:
            if not step > 0 or not math.isfinite(step):
                raise SpecError("step", f"is {step:g}, which leads nowhere", "write a number above 0")
            last = math.floor((self.high - self.low) / step + 1e-9)
        if last >= _MOST_GRID_VALUES:
            raise SpecError("step", f"is {step:g}, which makes {last + 1} values", "write a wider one, or leave it out")
        # rounded, so that 0.4 + 3 * 0.1 is the 0.7 that people write
        raw = (self.low * step**i if self.log else self.low + i * step for i in range(last + 1))
        return tuple(min(float(f"{value:.12g}"), self.high) for value in raw)

    @property
    def ordered(self) -> bool:
        """Whether the values lie on a scale: they do."""
        return True

    def normal(self, value: object) -> float | None:
        """Returns the domain's own value that equals ``value`` (to 1 in 10^9), or ``None`` where there is none."""
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        slack = 1e-9 * max(abs(value), abs(self.high - self.low))
        if self._grid is None:
            inside = self.low - slack <= value <= self.high + slack
            return min(max(float(value), self.low), self.high) if inside else None
        index = bisect_left(self._grid, value - slack)
        near = index < len(self._grid) and self._grid[index] <= value + slack
        return self._grid[index] if near else None

    def contains(self, value: object) -> bool:
        """Returns whether ``value`` is one of the values."""
        return self.normal(value) is not None

    def values(self) -> Sequence[float]:
        """Returns all values, ascending.

        Raises:
            SpecError: there are infinitely many, as there is no step.
        """
        if self._grid is None:
            raise SpecError("float", "has no step, so its values cannot be listed", "give it a step")
        return self._grid

    def size(self) -> int | float:
        """Returns the number of values; infinity without a step, unless both bounds are the same."""
        if self._grid is None:
            return 1 if self.low == self.high else math.inf
        return len(self._grid)

    def sample(self, rng: np.random.Generator) -> float:
        """Returns a value: each equally likely, or uniform on the scale where there is no step."""
        return self.from_unit(float(rng.random()))

    def neighbours(self, value: Scalar) -> tuple[Scalar, ...]:
        """Returns the next value below and the next above; without a step, those a tenth of the scale away."""
        if self._grid is not None:
            index = self._grid.index(float(value))
            return (*self._grid[max(index - 1, 0) : index], *self._grid[index + 1 : index + 2])
        unit = self.to_unit(value)
        near = (self.from_unit(unit - _CONTINUOUS_STEP), self.from_unit(unit + _CONTINUOUS_STEP))
        return tuple(other for other in near if other != value)

    def to_unit(self, value: Scalar) -> float:
        """Returns the middle of the value's cell of [0, 1]; without a step, its place on the scale."""
        number = float(value)
        if self._grid is not None:
            return (self._grid.index(number) + 0.5) / len(self._grid)
        if self.low == self.high:
            return 0.0
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def from_unit(self, unit: float) -> float:
        """Returns the value whose cell of [0, 1] holds ``unit``; without a step, the one at that place of the scale."""
        if self._grid is not None:
            return self._grid[_cell(unit, len(self._grid))]
        unit = min(max(unit, 0.0), 1.0)
        value = self.low * (self.high / self.low) ** unit if self.log else self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        if self.step is None:
            how = " on a log scale" * self.log
        else:
            how = f", each {self.step:g} times the one before" if self.log else f" in steps of {self.step:g}"
        return f"numbers from {self.low:g} to {self.high:g}{how}"


Domain = Choice | Integer | Float
