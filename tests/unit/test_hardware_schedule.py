"""Schedules for microcontrollers, replayed row by row on a map of the SRAM's bits."""

from __future__ import annotations

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.memory import Buffer, PeakMemory, best_schedule, peak_sram_bytes
from cosearch.hardware.memory.planner import Planner
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

TECHNIQUES = [
    {"fusion": fusion, "patch": patch, "overwrite": overwrite, "tile_rows": rows}
    for fusion in (False, True)
    for patch in (False, True)
    for overwrite in (False, True)
    for rows in (1, 3, 16)
]
BY_ROW = (OperatorKind.SOFTMAX, OperatorKind.LAYERNORM, OperatorKind.GELU, OperatorKind.ADD)


def network(
    method: str = "none", *, stem_hidden: int = 0, overlap: int = 0, bits: int = 8, hidden: int = 40
) -> Workload:
    keeps = {"none": (None, None, None), "prune": (11, None, 6), "merge": (None, 10, 8)}[method]
    blocks = tuple(
        BlockSpec(heads=2, mlp_hidden=hidden + 8 * i, keep_tokens=keep, weight_bits=4, activation_bits=bits)
        for i, keep in enumerate(keeps)
    )
    task = TaskShape(image=(16, 16), channels=1, classes=10)
    return workload(
        ModelSpec(
            task=task,
            patch=4,
            dim=24,
            blocks=blocks,
            token_method=method,
            edge_bits=8,
            stem_hidden=stem_hidden,
            overlap=overlap,
        )
    )


NETWORKS = {
    "plain": network(),
    "stem": network(stem_hidden=12, overlap=2),
    "prune": network("prune", bits=4),
    "merge": network("merge", stem_hidden=30, bits=5),
    "narrow": network("merge", overlap=1, hidden=3),
    "wide stem": network(stem_hidden=96, overlap=2, hidden=10),
    "wide mlp": network("prune", hidden=300),
}


class Replay:
    """Runs the stages row by row; each row of each tensor leaves its mark in every bit that it occupies.

    Which rows an operator needs is said here again, from what the operator does.
    """

    def __init__(self, load: Workload, memory: PeakMemory) -> None:
        self.memory = memory
        self.operators = {op.name: op for op in load.operators}
        self.tensors = {tensor.name: tensor for tensor in load.tensors}
        self.marks = np.full(8 * memory.sram_bytes, -1)
        self.numbers = {name: 1000 * i for i, name in enumerate(self.tensors)}
        self.position = 0

    def run(self) -> None:
        ran = [name for stage in self.memory.stages for name in stage.operators]
        assert sorted(ran) == sorted(self.operators)
        if not any(stage.windows for stage in self.memory.stages):
            self.write("image", 0, 0, 0)
        for stage in self.memory.stages:
            first = self.operators[stage.operators[0]]
            rows = self.rows_of(first) if not self.grows(first) else self.rows_of(first) - 1
            size = stage.tile_rows or rows
            assert stage.tiles == -(-rows // size)
            for start in range(0, rows, size):
                for index, name in enumerate(stage.operators):
                    span = range(start, min(start + size, rows))
                    self.step(
                        self.operators[name], self.position + index, span, stage.windows, tiled=stage.tile_rows > 0
                    )
            self.position += len(stage.operators)

    def step(self, op: Operator, position: int, span: range, windows: bool, *, tiled: bool) -> None:
        start = span.start
        staged = self.place(op.output, position, tile=True) and self.place(op.output, position, tile=False)
        if op.kind is OperatorKind.SCORE and op.m == 1:
            if start == 0:  # the class token's attention is in the first tile
                self.read(op.inputs[0], 0, position, start)
                self.write(op.output, 0, position, start)
            return
        if not self.by_row(op) or not tiled:
            self.whole(op, position, windows)
            return
        written = []
        for row in span:
            self.read_for_row(op, row, position, start, windows)
            if staged:
                written.append(row)
                self.write(op.output, row, position, start, tile=True)
            else:
                self.write(op.output, row + self.grows(op), position, start)
            if op.kind is OperatorKind.MATMUL:  # each value of the row needs all of the operand's
                self.read_for_row(op, row, position, start, windows)
        if self.grows(op) and start == 0:
            self.write(op.output, 0, position, start)
        for row in written:
            self.read(op.output, row, position, start, tile=True)
            self.write(op.output, row, position, start, tile=False)

    def whole(self, op: Operator, position: int, windows: bool) -> None:
        pointwise = op.kind in BY_ROW and self.by_row(op) and not self.grows(op)
        if pointwise:
            for row in range(op.m):
                self.read_for_row(op, row, position, 0, windows)
                self.write(op.output, row, position, 0)
            return
        for name in op.inputs:
            if not self.tensors[name].weight:
                for row in range(self.rows_in(name)):
                    self.read(name, row, position, 0)
        for row in range(self.rows_in(op.output)):
            self.write(op.output, row, position, 0)
        for name in op.inputs:  # no operand may go while the operator as a whole still needs it
            if not self.tensors[name].weight:
                for row in range(self.rows_in(name)):
                    self.read(name, row, position, 0)

    def read_for_row(self, op: Operator, row: int, position: int, start: int, windows: bool) -> None:
        for index, name in enumerate(op.inputs):
            if self.tensors[name].weight:
                continue
            if name == "image":
                if windows:
                    room = self.place(name, position, tile=True)
                    assert 8 * room.block.bytes >= op.k * self.tensors[name].bits
                else:
                    self.read(name, 0, position, 0)
            elif op.kind is OperatorKind.MATMUL and (index or (not op.weights and len(op.inputs) == 1)):
                for other in range(self.rows_in(name)):  # keys and values of all tokens
                    self.read(name, other, position, 0)
            else:
                self.read(name, row, position, start)

    def by_row(self, op: Operator) -> bool:
        if op.kind is OperatorKind.MATMUL:
            return op.inputs[0] == "image" or op.count > 1 or self.rows_in(op.inputs[0]) == op.m
        return op.kind in BY_ROW and all(self.rows_in(name) in (op.m, op.m - 1) for name in op.inputs)

    def grows(self, op: Operator) -> int:
        return int(op.name == "embed")

    def rows_of(self, op: Operator) -> int:
        return op.m

    def rows_in(self, name: str) -> int:
        if name == "image":
            return 1
        op = self.operators[name]
        if op.kind is OperatorKind.MERGE:
            return self.tensors[name].elements // op.n
        return 1 if op.kind in (OperatorKind.SCORE, OperatorKind.SELECT) else op.m

    def place(self, name: str, position: int, *, tile: bool) -> Buffer | None:
        found = [
            buffer
            for buffer in self.memory.buffers
            if name in buffer.tensors and buffer.tile == tile and buffer.block.first <= position <= buffer.block.last
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def bits(self, name: str, row: int, position: int, start: int, tile: bool | None) -> slice:
        options = (True, False) if tile is None else (tile,)
        buffer = next((b for t in options if (b := self.place(name, position, tile=t)) is not None), None)
        assert buffer is not None, f"{name} is nowhere at {position}"
        tensor = self.tensors[name]
        width = tensor.elements * tensor.bits // self.rows_in(name)
        begin = (row - start if buffer.tile else row) * width
        assert 0 <= begin <= begin + width <= 8 * buffer.block.bytes_at(position)
        return slice(8 * buffer.offset + begin, 8 * buffer.offset + begin + width)

    def write(self, name: str, row: int, position: int, start: int, tile: bool | None = None) -> None:
        where = self.bits(name, row, position, start, tile)
        assert where.stop <= self.marks.size
        self.marks[where] = self.numbers[name] + row

    def read(self, name: str, row: int, position: int, start: int, tile: bool | None = None) -> None:
        where = self.bits(name, row, position, start, tile)
        assert np.all(self.marks[where] == self.numbers[name] + row), f"row {row} of {name} is gone at {position}"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("techniques", TECHNIQUES, ids=lambda t: "-".join(f"{v:d}" for v in t.values()))
def test_no_row_is_gone_while_it_is_needed(name, techniques):
    memory = peak_sram_bytes(NETWORKS[name], **techniques)
    Replay(NETWORKS[name], memory).run()
    assert memory.live_bytes <= memory.sram_bytes


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_the_best_schedule_can_be_replayed(name, share):
    plain = peak_sram_bytes(NETWORKS[name])
    memory = best_schedule(NETWORKS[name], int(share * plain.sram_bytes))
    Replay(NETWORKS[name], memory).run()


def test_the_replay_notices_a_buffer_that_is_too_early_gone():
    memory = peak_sram_bytes(NETWORKS["plain"], fusion=True, overwrite=True)
    moved = tuple(
        Buffer(tensors=b.tensors, offset=0, block=b.block, tile=b.tile) if b.block.bytes < 400 else b
        for b in memory.buffers
    )
    broken = PeakMemory(**{name: getattr(memory, name) for name in memory.__slots__} | {"buffers": moved})
    with pytest.raises(AssertionError):
        Replay(NETWORKS["plain"], broken).run()


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_by_layer_needs_all_that_is_alive(name):
    memory = peak_sram_bytes(NETWORKS[name])
    load = NETWORKS[name]
    if "block0.score" not in {op.name for op in load.operators}:  # which moves up
        assert memory.live_bytes == load.peak_activation_bytes
    assert memory.live_bytes <= load.peak_activation_bytes
    assert memory.flash_read_bytes == memory.flash_bytes == load.weight_bytes
    assert all(len(stage.operators) == stage.tiles == 1 for stage in memory.stages)


@pytest.mark.parametrize("name", NETWORKS)
def test_techniques_and_smaller_tiles_never_need_more_at_once(name):
    load = NETWORKS[name]
    plain = peak_sram_bytes(load).live_bytes
    alone = [lowest(load, **{technique: True}) for technique in ("fusion", "patch", "overwrite")]
    assert all(one <= plain for one in alone)
    assert lowest(load, fusion=True, overwrite=True) <= min(alone[0], alone[2])
    assert lowest(load, fusion=True, overwrite=True, patch=True) <= lowest(load, fusion=True, overwrite=True)
    tiles = [lowest(load, fusion=True, overwrite=True, tile_rows=rows) for rows in (1, 4, 16)]
    assert tiles == sorted(tiles)


def lowest(load: Workload, **techniques: bool | int) -> int:
    """Bytes at once at the lowest; the plan returned may use more where that is easier to place."""
    asked = {"fusion": False, "patch": False, "overwrite": False} | techniques
    rows = asked.pop("tile_rows", 1)
    return Planner(load, tiles=(rows,), **asked).plan(0).live_bytes


def test_tokens_of_an_mlp_are_overwritten():
    load = NETWORKS["wide mlp"]
    memory = peak_sram_bytes(load, overwrite=True)
    stage = next(stage for stage in memory.stages if "block0.fc1" in stage.operators)
    assert {"block0.gelu", "block0.fc2", "block0.add2"} <= set(stage.operators)
    assert stage.overwrites, "without fusion a tile is there to overwrite"
    assert stage.tiles == 12  # the tokens that are left, and no more
    hidden = next(b for b in memory.buffers if "block0.fc1" in b.tensors)
    assert hidden.tile
    assert hidden.block.bytes == 2 * 300


def linear(name: str, source: str, m: int, k: int, n: int) -> Operator:
    return Operator(
        name=name,
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        a_bits=8,
        b_bits=8,
        out_bits=8,
        weights=True,
        inputs=(source, f"{name}.weight"),
        output=name,
    )


def test_a_matrix_product_overwrites_its_operand_row_by_row_through_a_buffer():
    """6 tokens of 20 bytes, three layers: one tensor, and one row that is not yet where it belongs."""
    layers = (linear("a", "image", 6, 2, 20), linear("b", "a", 6, 20, 20), linear("c", "b", 6, 20, 20))
    sizes = {"image": 12} | {op.output: 120 for op in layers} | {f"{op.name}.weight": op.k * op.n for op in layers}
    load = Workload(
        layers,
        tuple(Tensor(name=name, elements=n, bits=8, weight=name.endswith("weight")) for name, n in sizes.items()),
    )
    assert peak_sram_bytes(load).sram_bytes == 240
    for rows, expected in ((1, 140), (2, 160), (6, 240)):
        memory = peak_sram_bytes(load, overwrite=True, tile_rows=rows)
        assert memory.sram_bytes == memory.live_bytes == expected
        Replay(load, memory).run()
    assert peak_sram_bytes(load, fusion=True).sram_bytes == 12 + 20 + 20 + 120


def test_attention_in_row_blocks_never_holds_the_scores():
    load = NETWORKS["plain"]
    memory = peak_sram_bytes(load, fusion=True)
    scores = [b for b in memory.buffers if "block0.scores" in b.tensors]
    tensor = next(t for t in load.tensors if t.name == "block0.scores")
    assert [b.tile for b in scores] == [True]
    assert scores[0].block.bytes == tensor.bytes / 17


def test_patches_bring_the_image_window_by_window():
    load = NETWORKS["wide stem"]
    memory = peak_sram_bytes(load, patch=True, tile_rows=1)
    image = next(b for b in memory.buffers if "image" in b.tensors)
    assert image.tile
    assert image.block.bytes == 8 * 8  # a patch of 4 x 4 with 2 pixels around it
    assert memory.extra_input_bytes == 16 * 64 - 256
    assert memory.extra_macs == 0
    assert memory.flash_read_bytes > memory.flash_bytes


def test_more_sram_reads_fewer_parameters():
    load = NETWORKS["stem"]
    lowest_bytes = best_schedule(load).sram_bytes
    plain = peak_sram_bytes(load)
    assert lowest_bytes < plain.sram_bytes
    reads = [best_schedule(load, int(lowest_bytes * share)).flash_read_bytes for share in (1.0, 1.2, 1.5, 10.0)]
    assert reads == sorted(reads, reverse=True)
    assert reads[-1] == plain.flash_bytes
    assert reads[0] > reads[-1]
    assert best_schedule(load, lowest_bytes).sram_bytes <= lowest_bytes


def test_the_peak_names_its_operator():
    memory = peak_sram_bytes(NETWORKS["plain"])
    alive = NETWORKS["plain"].live_activation_bytes()
    assert memory.operator == NETWORKS["plain"].operators[alive.index(max(alive))].name


def test_a_tile_has_a_row():
    with pytest.raises(SpecError, match="tile_rows is 0, but a tile has at least 1 row; give 1 or more"):
        peak_sram_bytes(NETWORKS["plain"], tile_rows=0)
