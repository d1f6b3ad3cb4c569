"""How residency can change over one operator, apart from the tensors' sizes.

Between two operators each live activation is in a *place*: in DRAM only (``DRAM``), on chip only (``CHIP``), or on chip
with a copy in DRAM (``BOTH``). A *state* is one place for each live activation. An operator that touches few
activations allows few moves from state to state. Networks repeat their blocks, so the moves of an operator are
written down once for all operators of the same kind (`pattern` is cached) and priced with the sizes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOTH", "CHIP", "DRAM", "Pattern", "Role", "pattern"]

DRAM, CHIP, BOTH = 0, 1, 2


class Role(IntEnum):
    """What an operator does with a live activation."""

    PASS = 0
    """Does not touch it."""
    READ = 1
    """Reads it, and it is read again later."""
    LAST_READ = 2
    """Reads it for the last time."""
    WRITE = 3
    """Writes it."""
    FETCH = 4
    """Reads it for the first time from DRAM, where it comes from; it is read again later."""


Member = tuple[Role, tuple[int, ...], tuple[int, ...], bool]
"""Role, places possible before, places possible after, whether DRAM has had a copy from the start."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pattern:
    """The moves over one operator.

    The first axis of the move tables is the state after, the second the moves that lead there; missing ones repeat
    another and have ``missing`` infinite. Members are the live activations that the operator sees, in order of birth.

    Attributes:
        before: places in each state before, shape (states before, members alive before).
        after: places in each state after, shape (states after, members alive after).
        source: state before of each move, shape (states after, moves).
        missing: 0 or infinity, shape (states after, moves).
        reads: whether a move reads a member from DRAM, shape (states after * moves, members).
        writes: whether a move writes a member to DRAM, same shape.
        held: whether a member is on chip while the operator runs, same shape.
    """

    before: NDArray[np.int8]
    after: NDArray[np.int8]
    source: NDArray[np.intp]
    missing: NDArray[np.float64]
    reads: NDArray[np.float64]
    writes: NDArray[np.float64]
    held: NDArray[np.float64]


Step = tuple[int, int, bool, bool, bool]
"""Place before, place after (-1: not alive), reads DRAM, writes DRAM, on chip meanwhile."""


def _steps(member: Member) -> Iterator[Step]:
    """Yields what can happen to one member; a place that is not possible afterwards is replaced by an equal one.

    A tensor that leaves the chip while it is still needed is written then, unless DRAM has a copy: writing it earlier
    costs the same.
    """
    role, before, after, copied = member
    both = BOTH if BOTH in after else CHIP  # with no later chance to leave, a copy makes no difference
    if role is Role.PASS:
        for place in before:
            yield place, place, False, False, place != DRAM
    elif role is Role.LAST_READ:
        for place in before:
            yield place, -1, place == DRAM, False, place != DRAM
    elif role is Role.READ:
        for place in before:
            if place == DRAM:
                yield DRAM, DRAM, True, False, False
                yield DRAM, both, True, False, True
            else:
                yield place, DRAM, False, place == CHIP and not copied, True
                yield place, both if place == BOTH else CHIP, False, False, True
    elif role is Role.WRITE:
        yield -1, DRAM, False, True, False
        yield -1, CHIP, False, False, True
    else:
        yield -1, DRAM, True, False, False
        yield -1, CHIP, True, False, True


@lru_cache(maxsize=1024)
def pattern(members: tuple[Member, ...]) -> Pattern:
    """Returns the moves over an operator with these ``members``."""
    alive = [i for i, (role, *_) in enumerate(members) if role not in (Role.WRITE, Role.FETCH)]
    stay = [i for i, (role, *_) in enumerate(members) if role is not Role.LAST_READ]
    before = list(product(*(members[i][1] for i in alive)))
    after = list(product(*(members[i][2] for i in stay)))
    source_of = {state: index for index, state in enumerate(before)}
    moves: dict[tuple[int, ...], list[tuple[int, tuple[Step, ...]]]] = {state: [] for state in after}
    for steps in product(*(tuple(_steps(member)) for member in members)):
        source = source_of[tuple(steps[i][0] for i in alive)]
        moves[tuple(steps[i][1] for i in stay)].append((source, steps))
    most = max(len(found) for found in moves.values())
    shape = (len(after), most)
    sources, missing = np.zeros(shape, dtype=np.intp), np.full(shape, np.inf)
    flags = np.zeros((3, *shape, len(members)))
    for row, found in enumerate(moves.values()):
        for column, (source, steps) in enumerate(found):
            sources[row, column], missing[row, column] = source, 0.0
            flags[:, row, column] = [[step[flag] for step in steps] for flag in (2, 3, 4)]
    reads, writes, held = flags.reshape(3, shape[0] * shape[1], len(members))
    return Pattern(
        before=np.array(before, dtype=np.int8).reshape(len(before), len(alive)),
        after=np.array(after, dtype=np.int8).reshape(len(after), len(stay)),
        source=sources,
        missing=missing,
        reads=reads,
        writes=writes,
        held=held,
    )
