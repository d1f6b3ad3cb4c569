"""Puts operators in groups that run together, so that the fewest bytes of activations are alive at once.

The techniques and what they assume are those of `cosearch.hardware.memory.schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cosearch.hardware.memory.packing import Block, pack
from cosearch.hardware.memory.rows import RowOperator, row_operators
from cosearch.workload import Workload

__all__ = ["Buffer", "PeakMemory", "Planner", "Stage"]

_OTHERS = 6
"""Higher limits tried where offsets need more than the bytes alive at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Operators that run together.

    Attributes:
        operators: their names, in order.
        tile_rows: rows in a tile; 0 where one operator runs as a whole.
        tiles: how often they run.
        overwrites: (output, operand whose place it takes).
        windows: whether the image comes in tile by tile.
    """

    operators: tuple[str, ...]
    tile_rows: int
    tiles: int
    overwrites: tuple[tuple[str, str], ...]
    windows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A place in SRAM.

    Attributes:
        tensors: what it holds, one after the other.
        offset: its first byte.
        block: its bytes and when they are needed, in positions of the operators as scheduled.
        tile: whether it holds a tile of its tensors.
    """

    tensors: tuple[str, ...]
    offset: int
    block: Block
    tile: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """What a schedule needs.

    Attributes:
        sram_bytes: highest byte of SRAM used, with the offsets of ``buffers``.
        live_bytes: most bytes needed at once, below which no offsets can get.
        operator: the operator during which the most bytes are needed.
        flash_bytes: parameters of matrix products.
        flash_read_bytes: parameters read for one image, tile by tile.
        extra_input_bytes: bytes of the image read beyond its size, padding counted.
        extra_macs: multiply-accumulates beyond those of the network; none of these schedules has any.
        stages: the operators in groups.
        buffers: who is where.
    """

    sram_bytes: int
    live_bytes: int
    operator: str
    flash_bytes: int
    flash_read_bytes: int
    extra_input_bytes: int
    extra_macs: int
    stages: tuple[Stage, ...]
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """A buffer for a tile, and the tensors that it holds one after the other."""

    tensors: tuple[str, ...]
    block: Block


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Operators ``start`` to ``stop`` together: tensors written as a whole, tiles, and what they read."""

    start: int
    stop: int
    stage: Stage
    outputs: tuple[str, ...]
    tiles: tuple[_Tile, ...]
    overwriting: bool
    flash_read_bytes: int
    extra_input_bytes: int


class Planner:
    """Finds the groups of one workload under one set of techniques."""

    def __init__(
        self, workload: Workload, *, fusion: bool, patch: bool, overwrite: bool, tiles: tuple[int, ...]
    ) -> None:
        self.operators = row_operators(workload)
        self.bytes = {tensor.name: tensor.bytes for tensor in workload.tensors}
        self.bits = {tensor.name: tensor.elements * tensor.bits for tensor in workload.tensors}
        self.elements = {tensor.name: tensor.elements for tensor in workload.tensors}
        self.flash_bytes = workload.weight_bytes
        self.fusion, self.patch, self.overwrite, self.tile_sizes = fusion, patch, overwrite, tiles
        self.born = {op.output: position for position, op in enumerate(self.operators)}
        self.rows = {op.output: op.rows + op.shifted for op in self.operators if op.tileable}
        self.last: dict[str, int] = {}
        for position, op in enumerate(self.operators):
            self.last.setdefault(op.output, position)
            for name in op.inputs:
                self.last[name] = position
        self.before = [  # tensors from before each operator that it or a later one reads
            [name for name, last in self.last.items() if self.born.get(name, -1) < position <= last]
            for position in range(len(self.operators))
        ]

        self.options = [self._options(stop) for stop in range(1, len(self.operators) + 1)]

    def lowest(self) -> PeakMemory:
        """Returns the schedule with the lowest peak found, offsets included."""
        found = self.plan(0)
        others = {peak for options in self.options for peak, _ in options if found.live_bytes < peak < found.sram_bytes}
        for limit in sorted(others)[:: max(1, len(others) // _OTHERS)]:  # more bytes at once may be easier to place
            other = self.plan(limit)
            if other.sram_bytes < found.sram_bytes:
                found = other
        return found

    def plan(self, limit: int) -> PeakMemory:
        """Returns the schedule that reads the fewest parameters with at most ``limit`` bytes alive at once.

        Where that is not possible, the limit is the lowest peak that is.
        """
        lowest = [0]
        for options in self.options:
            lowest.append(min(max(lowest[group.start], peak) for peak, group in options))
        limit = max(limit, lowest[-1])
        # parameters read, outputs bound to the place of an operand (harder to place), stages
        best: list[tuple[float, int, int]] = [(0, 0, 0)]
        chosen: list[_Group | None] = []
        for options in self.options:
            cost: tuple[float, int, int] = (math.inf, 0, 0)
            group = None
            for peak, option in options:
                read, bound, stages = best[option.start]
                there = (read + option.flash_read_bytes, bound + len(option.stage.overwrites), stages + 1)
                if peak <= limit and there < cost:
                    cost, group = there, option
            best.append(cost)
            chosen.append(group)
        groups: list[_Group] = []
        stop = len(self.operators)
        while stop:
            group = chosen[stop - 1]
            assert group is not None, "the limit is at least the lowest bottleneck"
            groups.insert(0, group)
            stop = group.start
        return self._described(groups)

    def _options(self, stop: int) -> list[tuple[int, _Group]]:
        """Returns the groups that end before operator ``stop``, each with the most bytes alive during it."""
        found = []
        for start in range(stop - 1, -1, -1):
            if start < stop - 1 and self._blocked(start, stop):
                break
            found += [(max(self._needed(group)), group) for group in self._groups(start, stop)]
        return found

    def _blocked(self, start: int, stop: int) -> bool:
        """Returns whether no operators up to ``stop`` can run with ``start`` in tiles."""
        op = self.operators[start]
        if not op.tileable and not op.first_row:
            return True
        return any(op.output in other.whole for other in self.operators[start + 1 : stop])

    def _together(self, start: int, stop: int) -> bool:
        """Returns whether operators ``start`` to ``stop``, of which none is blocked, can run in tiles."""
        members = self.operators[start:stop]
        inside = {op.output for op in members}
        for index, op in enumerate(members):
            if index and not any(name in inside for name in op.inputs):
                return False
            if op.first_row and index:
                continue
            if not op.tileable or op.rows != members[0].rows or (op.shifted and index + 1 < len(members)):
                return False
        return True

    def _groups(self, start: int, stop: int) -> list[_Group]:
        """Returns the ways to run operators ``start`` to ``stop`` together that the techniques allow."""
        alone, found = stop - start == 1, []
        if alone:
            found.append(self._alone(start, overwrite=False))
        first = self.operators[start]
        if alone and self.overwrite and first.pointwise:
            found.append(self._alone(start, overwrite=True))
        if not self._together(start, stop):
            return found
        windows = self.patch and start == 0 and first.window > 0 and self.last[first.by_row[0]] == 0
        for tile in dict.fromkeys(min(size, first.rows) for size in self.tile_sizes):
            if windows or (self.fusion and not alone):
                found.append(self._tiled(start, stop, tile, windows=windows, overwrite=False))
            if self.overwrite and not (alone and first.pointwise):
                found.append(self._tiled(start, stop, tile, windows=windows, overwrite=True))
        return [group for group in found if group.stage.overwrites or not group.overwriting]

    def _alone(self, position: int, *, overwrite: bool) -> _Group:
        """Returns the operator at ``position`` run as a whole."""
        op = self.operators[position]
        operand = self._operand_to_replace(position, position + 1, position, ()) if overwrite else None
        return _Group(
            start=position,
            stop=position + 1,
            stage=Stage(
                operators=(op.name,),
                tile_rows=0,
                tiles=1,
                overwrites=((op.output, operand),) if operand is not None else (),
                windows=False,
            ),
            outputs=(op.output,),
            tiles=(),
            overwriting=overwrite,
            flash_read_bytes=op.weight_bytes,
            extra_input_bytes=0,
        )

    def _tiled(self, start: int, stop: int, tile: int, *, windows: bool, overwrite: bool) -> _Group:
        """Returns operators ``start`` to ``stop`` run together in tiles of ``tile`` rows."""
        members = self.operators[start:stop]
        rows = members[0].rows
        outputs: list[str] = []
        overwrites: list[tuple[str, str]] = []
        tiles: list[_Tile] = []
        extra = 0
        if windows:
            image = members[0].by_row[0]
            row_bits = members[0].window * self.bits[image] // self.elements[image]
            block = Block(bytes=-(-tile * row_bits // 8), first=start, last=start)
            tiles.append(_Tile(tensors=(image,), block=block))
            extra = max(0, -(-rows * row_bits // 8) - self.bytes[image])
        for position, op in enumerate(members, start):
            if self.last[op.output] < stop and position < self.last[op.output]:
                self._tile_for(op, position, tile, tiles)
                continue
            outputs.append(op.output)
            taken = [operand for _, operand in overwrites]
            operand = self._operand_to_replace(start, stop, position, taken) if overwrite else None
            if operand is not None:
                overwrites.append((op.output, operand))
                if operand in op.by_row and not op.pointwise:  # a row is needed until the one over it is done
                    block = Block(bytes=self._tile_bytes(op.output, tile), first=position, last=position)
                    tiles.append(_Tile(tensors=(op.output,), block=block))
        runs = -(-rows // tile)
        return _Group(
            start=start,
            stop=stop,
            stage=Stage(
                operators=tuple(op.name for op in members),
                tile_rows=tile,
                tiles=runs,
                overwrites=tuple(overwrites),
                windows=windows,
            ),
            outputs=tuple(outputs),
            tiles=tuple(tiles),
            overwriting=overwrite,
            flash_read_bytes=runs * sum(op.weight_bytes for op in members),
            extra_input_bytes=extra,
        )

    def _tile_for(self, op: RowOperator, position: int, tile: int, tiles: list[_Tile]) -> None:
        """Adds a tile for the output of ``op``, in the place of an operand's tile where that is allowed."""
        size, last = self._tile_bytes(op.output, tile), self.last[op.output]
        if self.overwrite and op.pointwise:
            for index, other in enumerate(tiles):
                held = other.tensors[-1]
                if held in op.by_row and other.block.last == position and self._tile_bytes(held, tile) >= size:
                    shrinks = (*other.block.shrinks, (position + 1, size))
                    block = Block(bytes=other.block.bytes, first=other.block.first, last=last, shrinks=shrinks)
                    tiles[index] = _Tile(tensors=(*other.tensors, op.output), block=block)
                    return
        tiles.append(_Tile(tensors=(op.output,), block=Block(bytes=size, first=position, last=last)))

    def _tile_bytes(self, name: str, tile: int) -> int:
        return -(-tile * self.bits[name] // (8 * self.rows[name]))

    def _operand_to_replace(self, start: int, stop: int, position: int, taken: Sequence[str]) -> str | None:
        """Returns the tensor from before ``start`` whose rows the output at ``position`` may overwrite.

        All that read it are done: none after ``stop``, none as a whole, none later in a tile than ``position``.
        """
        output = self.operators[position].output
        if output not in self.rows:
            return None
        for name in self.before[start]:
            if name in taken or self.last[name] > position or self.rows.get(name) != self.rows[output]:
                continue
            readers = [op for op in self.operators[start:stop] if name in op.inputs]
            if readers and all(name in op.by_row for op in readers) and self.bits[name] >= self.bits[output]:
                return name
        return None

    def _needed(self, group: _Group) -> list[int]:
        """Returns the bytes needed while each operator of ``group`` runs."""
        windowed = self.operators[group.start].by_row if group.stage.windows else ()
        before = sum(self.bytes[name] for name in self.before[group.start] if name not in windowed)
        over = {output for output, _ in group.stage.overwrites}
        before += sum(self.bytes[name] for name in group.outputs if name not in over)
        return [
            before + sum(t.block.bytes_at(p) for t in group.tiles if t.block.first <= p <= t.block.last)
            for p in range(group.start, group.stop)
        ]

    def _described(self, groups: Sequence[_Group]) -> PeakMemory:
        buffers = [
            *self._whole_buffers(groups),
            *((tile.tensors, tile.block, True) for g in groups for tile in g.tiles),
        ]
        offsets, height = pack([block for _, block, _ in buffers])
        needed = [alive for group in groups for alive in self._needed(group)]
        return PeakMemory(
            sram_bytes=height,
            live_bytes=max(needed),
            operator=self.operators[needed.index(max(needed))].name,
            flash_bytes=self.flash_bytes,
            flash_read_bytes=sum(group.flash_read_bytes for group in groups),
            extra_input_bytes=sum(group.extra_input_bytes for group in groups),
            extra_macs=0,
            stages=tuple(group.stage for group in groups),
            buffers=tuple(
                Buffer(tensors=tensors, offset=offset, block=block, tile=tile)
                for (tensors, block, tile), offset in zip(buffers, offsets, strict=True)
            ),
        )

    def _whole_buffers(self, groups: Sequence[_Group]) -> list[tuple[tuple[str, ...], Block, bool]]:
        """Returns a buffer for each chain of tensors that overwrite one another, all of them whole."""
        group_of = [group for group in groups for _ in range(group.start, group.stop)]
        over = {output: operand for group in groups for output, operand in group.stage.overwrites}
        under = {operand: output for output, operand in over.items()}
        windowed = {self.operators[g.start].by_row[0] for g in groups if g.stage.windows}
        whole = [name for name in self.last if name not in self.born and name not in windowed]
        whole += [name for group in groups for name in group.outputs]
        found = []
        for name in whole:
            if name in over:
                continue
            chain, shrinks = [name], []
            while chain[-1] in under:
                chain.append(under[chain[-1]])
                shrinks.append((group_of[self.born[chain[-1]]].stop, self.bytes[chain[-1]]))
            block = Block(
                bytes=self.bytes[name],
                first=group_of[self.born[name]].start if name in self.born else 0,
                last=group_of[self.last[chain[-1]]].stop - 1,
                shrinks=tuple(shrinks),
            )
            found.append((tuple(chain), block, False))
        return found
