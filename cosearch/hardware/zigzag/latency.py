"""Cycles: stalls of shared ports, then what is loaded before the first product and stored after the last.

The model is that of Mei et al. 2022, "A uniform latency model for DNN accelerators with diverse architectures and
dataflows" (DATE): each move has a window in each period, and stalls for what does not fit; moves that share a port
share its cycles; ports work side by side, so that the worst of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.zigzag.architecture import OPERANDS, Memory, Move, Operand, Port, ZigZagArchitecture
from cosearch.hardware.zigzag.traffic import Links, Tiles

__all__ = ["Cycles", "covered", "cycles"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Key = tuple[Operand, int, Move]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycles:
    """Cycles beside those in which the array computes. All of shape (orders,).

    Attributes:
        stall: in which it waits for a port.
        onload: before the first product.
        offload: after the last one.
    """

    stall: Floats
    onload: Floats
    offload: Floats


def cycles(
    architecture: ZigZagArchitecture,
    mean: Mapping[Operand, Tiles],
    whole: Mapping[Operand, Tiles],
    moved: Links,
) -> Cycles:
    """Returns stalls, loading and storing of every order.

    Args:
        architecture: the accelerator.
        mean: tiles with loops spread evenly over their folds, which decide whether a second tile fits.
        whole: tiles with whole elements.
        moved: what moves, with whole elements.
    """
    doubled = _room_for_two(architecture, mean)
    real = {key: _cycles_of(architecture, key, moved) for key in moved}
    ports = [(memory, port) for memory in architecture.memories for port in memory.ports]
    stall = np.zeros(moved["o", 0, "fl"].period.shape)
    for memory, port in ports:
        stall = np.maximum(stall, _port_stall(_carried(architecture, memory, port), moved, real, doubled))
    computing = whole["o"].cycles[-1] + stall
    loading: dict[Key, Floats] = {}
    for memory, port in ports:
        keys = [key for key in _carried(architecture, memory, port) if key[0] != "o" or key[2] in ("fl", "th")]
        loading.update(_begin_and_end(port, [key for key in keys if key in moved], whole, moved, real, computing))
    return Cycles(
        stall=stall, onload=_onload(architecture, loading), offload=_chain(architecture, "o", ("th", "fl"), loading)
    )


def _carried(architecture: ZigZagArchitecture, memory: Memory, port: Port) -> list[Key]:
    """Returns what ``port`` carries, operand by operand as the memory holds them."""
    carried = sorted(port.carries, key=lambda pair: memory.holds.index(pair[0]))
    return [(operand, architecture.levels(operand).index(memory), move) for operand, move in carried]


def _cycles_of(architecture: ZigZagArchitecture, key: Key, moved: Links) -> Floats:
    """Returns cycles that a period's move takes its port."""
    operand, level, move = key
    port = architecture.levels(operand)[level].port(operand, move)
    link = moved[key]
    return np.zeros(link.period.shape) if port is None else np.ceil(link.elements * link.bits / port.bits_max)


def _room_for_two(architecture: ZigZagArchitecture, mean: Mapping[Operand, Tiles]) -> dict[Operand, list[Bools]]:
    """Returns, for each operand and level (0 is the array), whether the next tile fits beside the present one."""
    share: dict[tuple[Operand, int], Floats] = {}
    used: dict[int, Floats] = {}
    for operand in OPERANDS:
        tile = mean[operand]
        for level, memory in enumerate(architecture.levels(operand), start=1):
            bits = tile.elements[level] * tile.bits[level]
            share[operand, level] = (bits // tile.fresh_last[level]) / memory.bits
            position = architecture.memories.index(memory)
            used[position] = used.get(position, np.zeros(bits.shape)) + share[operand, level]
    doubled: dict[Operand, list[Bools]] = {}
    for operand in OPERANDS:
        doubled[operand] = [np.zeros(share[operand, 1].shape, dtype=bool)]
        for level, memory in enumerate(architecture.levels(operand), start=1):
            position = architecture.memories.index(memory)
            plenty = used[position] <= 0.5
            squeezed = ~plenty & (share[operand, level] <= 1 - used[position])
            used[position] = used[position] + np.where(squeezed, share[operand, level], 0.0)
            doubled[operand].append(plenty | squeezed)
    return doubled


def _port_stall(
    keys: Sequence[Key], moved: Links, real: Mapping[Key, Floats], doubled: Mapping[Operand, Sequence[Bools]]
) -> Floats:
    """Returns cycles that one port's moves keep the array waiting."""
    keys = [key for key in keys if key in moved]
    if not keys:
        return np.zeros(1)
    windows = []
    for operand, level, move in keys:
        link = moved[operand, level, move]
        free = doubled[operand][level if move in ("tl", "fl") else level + 1]
        windows.append(np.where(free, link.period, link.window))
    window = np.array(windows)
    period = np.array([moved[key].period for key in keys])
    periods = np.array([moved[key].periods for key in keys])
    active = periods > 0
    repeats = np.where(active, periods - 1, 0)
    over = (np.array([real[key] for key in keys]) - window) * repeats
    union = covered(np.where(active, period, 1.0), np.where(active, window, 0.0), (period * periods).max(axis=0))
    slack = np.minimum(over, 0).sum(axis=0) + (window * repeats).sum(axis=0) - union
    stall: Floats = np.maximum(over, 0).sum(axis=0) + np.maximum(slack, 0)
    return stall


def covered(period: Floats, window: Floats, total: Floats) -> Floats:
    """Returns how many of ``total`` cycles lie in the window of one move at least.

    Move i may use the first ``window[i]`` cycles of each ``period[i]``; of any two periods one divides the other, and
    all divide ``total``. What a period leaves free follows from what the next shorter one leaves free.

    Args:
        period: cycles of each move's period, at least 1. Shape (moves, orders).
        window: cycles of its window, at most its period; likewise.
        total: cycles altogether. Shape (orders,).
    """
    order = np.argsort(period, axis=0, kind="stable")
    period, window = np.take_along_axis(period, order, axis=0), np.take_along_axis(window, order, axis=0)

    def free(below: Floats, upto: int) -> Floats:
        """Returns how many of the first ``below`` cycles no window of the first ``upto`` moves covers."""
        if upto == 0:
            return below
        whole, rest = np.divmod(below, period[upto - 1])
        taken = free(window[upto - 1], upto - 1)
        each = free(period[upto - 1], upto - 1) - taken
        return whole * each + np.maximum(free(rest, upto - 1) - taken, 0)

    return total - free(total, period.shape[0])


def _begin_and_end(
    port: Port,
    keys: Sequence[Key],
    whole: Mapping[Operand, Tiles],
    moved: Links,
    real: Mapping[Key, Floats],
    computing: Floats,
) -> dict[Key, Floats]:
    """Returns cycles that each of a port's moves takes before the first product, or after the last.

    A move with one period only may be spread over the computing cycles that the others leave free, down to one tile of
    the innermost memory; the longest gives way first.
    """
    if not keys:
        return {}
    taken = np.array([real[key] for key in keys])
    single = np.array([moved[key].periods == 1 for key in keys])
    busy = np.where(single, 0.0, np.array([moved[key].mean_bits for key in keys])).sum(axis=0)
    spare = np.maximum(0.0, (port.bits_max - busy) / port.bits_max * computing)
    least = np.array([np.ceil(whole[op].elements[1] * whole[op].bits[1] / port.bits_max) for op, _, _ in keys])
    yielding = np.where(single, np.maximum(0.0, taken - least), 0.0)
    order = np.argsort(-np.where(single, taken, 0.0), axis=0, kind="stable")
    ranked = np.take_along_axis(yielding, order, axis=0)
    before = np.cumsum(ranked, axis=0) - ranked
    cut = np.empty_like(ranked)
    np.put_along_axis(cut, order, np.clip(spare - before, 0.0, ranked), axis=0)
    return dict(zip(keys, taken - cut, strict=True))


def _onload(architecture: ZigZagArchitecture, loading: Mapping[Key, Floats]) -> Floats:
    """Returns cycles before the first product: links whose ports inputs and weights share run one after another."""
    apart, half, shared = {}, {}, {}
    for operand in ("i", "w"):
        levels = architecture.levels(operand)
        none = np.zeros(loading[operand, 0, "tl"].shape)
        apart[operand], half[operand], shared[operand] = none, none, none
        for level in range(len(levels) - 1):
            longest = np.maximum(loading[operand, level, "fh"], loading[operand, level + 1, "tl"])
            ports = (levels[level].port(operand, "fh"), levels[level + 1].port(operand, "tl"))
            sharing = [port is not None and port.shared_by_inputs() for port in ports]
            if all(sharing):
                shared[operand] = shared[operand] + longest
            elif any(sharing):
                half[operand] = longest  # the tool keeps the outermost of them
            else:
                apart[operand] = apart[operand] + longest
    rest = {operand: half[operand] + apart[operand] for operand in ("i", "w")}
    first = [shared[a] + np.maximum(shared[b] + rest[b], rest[a]) for a, b in (("i", "w"), ("w", "i"))]
    return np.minimum(*first)


def _chain(
    architecture: ZigZagArchitecture, operand: Operand, moves: tuple[Move, Move], loading: Mapping[Key, Floats]
) -> Floats:
    """Returns cycles to pass ``operand`` from each level to the next, one link after another."""
    lower, upper = moves
    total = np.zeros(loading[operand, 0, "fl"].shape)
    for level in range(len(architecture.levels(operand)) - 1):
        total = total + np.maximum(loading[operand, level, lower], loading[operand, level + 1, upper])
    return total
