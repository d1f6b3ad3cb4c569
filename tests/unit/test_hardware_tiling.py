"""The tile search against an exhaustive one, written independently: every nest of loops is walked, step by step.

A nest cuts the streamed dimension into chunks, and the others into groups of folds; its outer loops come in any order,
the folds of a group in any order too. Each operand is held at any level of the nest where its tile fits, and fetched
when the tile changes; what is held nowhere is fetched at each step. Sums that make room before they are finished go to
memory and come back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cosearch.hardware import OVERLAPS, SystolicArray, SystolicArrays, estimate_batch, technology
from cosearch.hardware.groups import Products
from cosearch.hardware.systolic.folding import fold
from cosearch.hardware.systolic.tiling import best_fills
from cosearch.hardware.systolic.traffic import Fills, fold_fills
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

Step = tuple[tuple[int, ...], ...]
WALKS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Case:
    """A product, an array and the bits in half of each scratchpad."""

    m: int
    k: int
    n: int
    rows: int
    cols: int
    a_bits: int
    b_bits: int
    a_room: int
    b_room: int
    sums_room: int
    overlapped: bool = True
    pe_bits: int = 16
    count: int = 1
    a_dram: float = 1.0
    b_dram: float = 1.0

    def products(self) -> Products:
        names = ("m", "k", "n", "count", "a_bits", "b_bits")
        return Products(
            **{name: np.full((1, 1), float(getattr(self, name))) for name in names}, out_bits=np.ones((1, 1))
        )

    def arrays(self, dataflow: str) -> SystolicArrays:
        array = SystolicArray(
            rows=self.rows,
            cols=self.cols,
            dataflow=dataflow,
            ifmap_kib=1,
            filter_kib=1,
            ofmap_kib=1,
            dram_bytes_per_s=1e9,
            clock_hz=1e9,
            pe_bits=self.pe_bits,
            overlap=OVERLAPS[self.overlapped],
            mapping="search",
        )
        arrays = SystolicArrays.of([array])
        # scratchpads of a few values, smaller than a template may have, so that shapes small enough to walk meet limits
        for name, room in (("ifmap", self.a_room), ("filter", self.b_room), ("ofmap", self.sums_room)):
            object.__setattr__(arrays, f"{name}_kib", np.array([room / 4096.0]))
        return arrays

    def passes(self) -> tuple[int, int]:
        return -(-self.a_bits // self.pe_bits), -(-self.b_bits // self.pe_bits)


def weighed(case: Case, fills: Fills) -> float:
    a, b = case.m * case.k * case.count * case.a_bits, case.k * case.n * case.count * case.b_bits
    parts = fills.a * a * case.a_dram + fills.b * b * case.b_dram + 2 * fills.spilled
    return float(np.broadcast_to(parts, (1, 1))[0, 0])


def found(case: Case, dataflow: str) -> float:
    p, arrays = case.products(), case.arrays(dataflow)
    folding = fold(p, arrays, dataflow)
    shares = (np.full((1, 1), case.a_dram), np.full((1, 1), case.b_dram))
    return weighed(case, best_fills(p, arrays, dataflow, folding, *shares))


def pieces(size: int, piece: int) -> list[range]:
    return [range(low, min(low + piece, size)) for low in range(0, size, piece)]


def moved(
    steps: Sequence[Step],
    order: Sequence[str],
    dims: tuple[str, str],
    sizes: dict[str, int],
    room: float,
    each_step: int,
    kept_in_array: bool,
) -> int:
    """Returns the values of an operand that are fetched at the best level of the nest.

    Args:
        steps: values of the loops, (first, last + 1) of the range that each leaves, outermost loop first.
        order: the dimension that each loop cuts.
        dims: those of the operand.
        sizes: length of each dimension.
        room: values that may be held.
        each_step: times that a step fetches its part where that does not fit.
        kept_in_array: whether the array itself holds the part of one step for the next.
    """
    best = None
    for level in range(len(order) + 1):
        tiles = []
        for step in steps:
            tile = {name: (0, sizes[name]) for name in dims}
            for name, span in zip(order[:level], step, strict=False):
                if name in tile:
                    tile[name] = span
            tiles.append(tuple(tile[name] for name in dims))
        volumes = [(t[0][1] - t[0][0]) * (t[1][1] - t[1][0]) for t in tiles]
        if max(volumes) > room and level != len(order):
            continue
        fits = max(volumes) <= room
        times = 1 if fits else each_step
        held, total = None, 0
        for tile, volume in zip(tiles, volumes, strict=True):
            if tile != held or not (fits or (kept_in_array and each_step == 1)):
                total += volume * times
            held = tile
        best = total if best is None else min(best, total)
    assert best is not None
    return best


def spilled(steps: Sequence[Step], order: Sequence[str], sizes: dict[str, int], room: float) -> float:
    """Returns the sums that are written to memory before they are finished, at the best level; inf if none fits."""
    best = float("inf")
    for level in range(len(order) + 1):
        tiles = []
        for step in steps:
            tile = {"s": (0, sizes["s"]), "x": (0, sizes["x"])}
            for name, span in zip(order[:level], step, strict=False):
                if name in tile:
                    tile[name] = span
            tiles.append((tile["s"], tile["x"]))
        volumes = [(t[0][1] - t[0][0]) * (t[1][1] - t[1][0]) for t in tiles]
        if max(volumes) > room:
            continue
        visits = sum(v for i, v in enumerate(volumes) if i == 0 or tiles[i] != tiles[i - 1])
        best = min(best, visits - sizes["s"] * sizes["x"])  # the last visit of each finishes it
    return best


def nests(
    s: int, k: int, x: int, rows: int, cols: int, chunks: Sequence[int]
) -> Iterator[tuple[list[str], list[Step]]]:
    """Yields every nest of chunks of ``s`` and groups of folds of ``k`` and ``x``."""
    for chunk, k_group, x_group in itertools.product(chunks, range(rows, k + rows, rows), range(cols, x + cols, cols)):
        cut = {"s": pieces(s, chunk), "k": pieces(k, k_group), "x": pieces(x, x_group)}
        for outer in itertools.permutations("skx"):
            for inner in (("k", "x"), ("x", "k")):
                steps: list[Step] = []
                for spans in itertools.product(*(cut[name] for name in outer)):
                    span = dict(zip(outer, spans, strict=True))
                    folds = {"k": pieces(len(span["k"]), rows), "x": pieces(len(span["x"]), cols)}
                    for parts in itertools.product(*(folds[name] for name in inner)):
                        ends = [
                            (span[name].start + part.start, span[name].start + part.stop)
                            for name, part in zip(inner, parts, strict=True)
                        ]
                        steps.append((*((r.start, r.stop) for r in spans), *ends))
                yield [*outer, *inner], steps


def exhaustive(case: Case, dataflow: str) -> float:
    """Returns the least weighed traffic of ``ws`` or ``is``."""
    ws, passes = dataflow == "ws", case.passes()
    s, x = (case.m, case.n) if ws else (case.n, case.m)
    bits, room, share = (case.a_bits, case.b_bits), (case.a_room, case.b_room), (case.a_dram, case.b_dram)
    if not ws:
        bits, room, share, passes = bits[::-1], room[::-1], share[::-1], passes[::-1]
    sums_room = case.sums_room / 32
    sizes = {"s": s, "k": case.k, "x": x}
    least = min(case.rows, s)
    chunks = range(least, s + 1) if case.overlapped else [s]
    # nothing need fit: columns of folds outside, rows of folds inside, sums to memory and back at each step
    row_folds, col_folds = -(-case.k // case.rows), -(-x // case.cols)
    r, c = min(case.rows, case.k), min(case.cols, x)
    stream, kept = s * case.k * bits[0], case.k * x * bits[1]
    streamed = stream if stream <= room[0] else stream * col_folds * (1 if s * r * bits[0] <= room[0] else passes[1])
    held = kept if kept <= room[1] or r * c * bits[1] <= room[1] else kept * passes[0]
    again = 0 if s * c * 32 <= case.sums_room else s * x * (row_folds * passes[0] * passes[1] - 1)
    best = streamed * share[0] + held * share[1] + 64 * again
    for order, steps in nests(s, case.k, x, case.rows, case.cols, chunks):
        out = spilled(steps, order, sizes, sums_room)
        if out == float("inf") or 64 * out >= best:
            continue
        left = moved(steps, order, ("s", "k"), sizes, room[0] / bits[0], passes[1], False)
        # the array holds one slice of the stationary operand: it must be the only one to serve the next chunk
        right = moved(steps, order, ("k", "x"), sizes, room[1] / bits[1], passes[0], passes[1] == 1)
        best = min(best, left * bits[0] * share[0] + right * bits[1] * share[1] + 64 * out)
    return best * case.count


def exhaustive_os(case: Case) -> float:
    """Returns the least weighed traffic of ``os``: chunks of nothing, groups of row folds and of column folds."""
    best, (a_passes, b_passes) = float("inf"), case.passes()
    sizes = {"s": 1, "k": case.m, "x": case.n, "r": case.k}
    for order, steps in nests(1, case.m, case.n, case.rows, case.cols, [1]):
        whole = [(*step, (0, case.k)) for step in steps]
        a = moved(whole, [*order, "r"], ("k", "r"), sizes, case.a_room / case.a_bits, b_passes, False)
        b = moved(whole, [*order, "r"], ("x", "r"), sizes, case.b_room / case.b_bits, a_passes, False)
        best = min(best, a * case.a_bits * case.a_dram + b * case.b_bits * case.b_dram)
    return best * case.count


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows, cols = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    m, n = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    k = draw(st.integers(1, 8))
    a_bits, b_bits = draw(st.sampled_from((2, 8, 16))), draw(st.sampled_from((2, 8, 16)))
    return Case(
        m=m,
        k=k,
        n=n,
        rows=rows,
        cols=cols,
        a_bits=a_bits,
        b_bits=b_bits,
        a_room=draw(st.integers(1, m * k)) * a_bits,
        b_room=draw(st.integers(1, k * n)) * b_bits,
        sums_room=draw(st.integers(1, m * n)) * 32,
        overlapped=draw(st.sampled_from((True, True, False))),
        pe_bits=draw(st.sampled_from((4, 16, 16))),
        count=draw(st.sampled_from((1, 3))),
        a_dram=draw(st.sampled_from((1.0, 1.0, 0.0, 0.5))),
        b_dram=draw(st.sampled_from((1.0, 1.0, 0.0, 0.5))),
    )


def case(**changes: object) -> Case:
    sizes = {"m": 8, "k": 6, "n": 6, "rows": 2, "cols": 2, "a_bits": 8, "b_bits": 8}
    rooms = dict.fromkeys(("a_room", "b_room", "sums_room"), 1 << 20)
    return Case(**(sizes | rooms | changes))


# one case for each order that can be the best; what it fetches was worked out by hand
@pytest.mark.parametrize(
    ("limits", "bits"),
    [
        # all fits: A of 48 values and B of 36 once
        ({}, (48 + 36) * 8),
        # sums of one column of folds for 4 vectors, B fits: two chunks, A passes them once, with slabs of 4 x 6
        ({"sums_room": 4 * 2 * 32, "a_room": 24 * 8}, (48 + 36) * 8),
        # one chunk of sums, slabs of 8 x 2 of A, one fold of B: nothing is fetched twice
        ({"a_room": 16 * 8, "b_room": 4 * 8}, (48 + 36) * 8),
        # columns in two groups (4 and 2): A twice, and B in groups that serve both chunks of 4
        ({"sums_room": 4 * 4 * 32, "a_room": 8 * 8, "b_room": 24 * 8}, (2 * 48 + 36) * 8),
        # the same, but only 2 x 4 values of B fit: two chunks fetch it twice, in one group of 6 columns
        ({"sums_room": 4 * 6 * 32, "a_room": 8 * 8, "b_room": 8 * 8}, (48 + 2 * 36) * 8),
        # sums of two vectors, slabs of a fold: columns one by one, B once
        ({"sums_room": 2 * 2 * 32, "a_room": 4 * 8, "b_room": 12 * 8}, (3 * 48 + 36) * 8),
    ],
)
def test_traffic_of_the_best_tiles_by_hand(limits: dict[str, int], bits: int) -> None:
    assert found(case(**limits), "ws") == bits
    mirrored = {"a_room": "b_room", "b_room": "a_room"}
    # the same product on an input-stationary array, operands exchanged
    limits = {mirrored.get(name, name): value for name, value in limits.items()}
    assert found(case(m=6, n=8, **limits), "is") == bits


def test_the_order_of_folds_by_hand() -> None:
    # 3 row folds of one column; sums of 8 x 2 values do not fit 4 x 2: twice to memory and back, 32 bits each
    one = case(k=6, n=2, m=8, a_bits=16, b_bits=16, a_room=16 * 16, b_room=4 * 16, sums_room=4 * 2 * 32)
    assert in_folds(one, "ws") == 16 * (48 + 12) + 2 * 2 * 16 * 32
    # chunks of 4 keep their sums and fetch B twice
    assert found(one, "ws") == 16 * (48 + 2 * 12)


def in_folds(one: Case, dataflow: str) -> float:
    p, arrays = one.products(), one.arrays(dataflow)
    return weighed(one, fold_fills(p, arrays, dataflow, fold(p, arrays, dataflow)))


# sums of all chunks fit, so that groups of K may come first: neither operand is fetched twice
SUMS_FIT = Case(m=7, k=6, n=6, rows=2, cols=2, a_bits=8, b_bits=16, a_room=12 * 8, b_room=15 * 16, sums_room=7 * 6 * 32)
# the array itself keeps a fold, which the scratchpad cannot hold, for all chunks
IN_ARRAY = Case(m=4, k=6, n=8, rows=3, cols=1, a_bits=16, b_bits=16, a_room=12 * 16, b_room=2 * 16, sums_room=3 * 32)
# part of the reduction of all of the stationary operand stays for all chunks, its sums go to memory
K_GROUPS = Case(m=6, k=8, n=2, rows=1, cols=1, a_bits=8, b_bits=16, a_room=8, b_room=8 * 16, sums_room=5 * 32)


@WALKS
@example(SUMS_FIT)
@example(IN_ARRAY)
@example(K_GROUPS)
@given(cases())
def test_no_nest_of_loops_beats_weight_stationary_tiles_and_one_attains_them(one: Case) -> None:
    assert found(one, "ws") == exhaustive(one, "ws")


@WALKS
@given(cases())
def test_no_nest_of_loops_beats_input_stationary_tiles_and_one_attains_them(one: Case) -> None:
    assert found(one, "is") == exhaustive(one, "is")


@WALKS
# a fold's part of the operand that passes a panel by does not fit: it comes again for each fold of the panel
@example(Case(m=6, k=4, n=7, rows=2, cols=1, a_bits=8, b_bits=16, a_room=48, b_room=192, sums_room=32))
@given(cases())
def test_no_nest_of_loops_beats_output_stationary_panels_and_one_attains_them(one: Case) -> None:
    assert found(one, "os") == exhaustive_os(one)


def test_tiles_never_move_more_than_the_order_of_folds() -> None:
    count, rng = 4000, np.random.default_rng(3)

    rows, cols = rng.integers(1, 65, count), rng.integers(1, 65, count)
    arrays = {
        mapping: SystolicArrays(
            rows=rows,
            cols=cols,
            dataflow=np.arange(count) % 3,
            ifmap_kib=(first := np.random.default_rng(4)).integers(1, 65, count),
            filter_kib=first.integers(1, 65, count),
            ofmap_kib=first.integers(1, 65, count),
            dram_bytes_per_s=np.full(count, 1e9),
            clock_hz=np.full(count, 1e9),
            pe_bits=first.choice([2, 4, 8, 16], count),
            vector_lanes=np.full(count, 16),
            overlap=np.arange(count) % 2,
            mapping=np.full(count, mapping),
        )
        for mapping in (0, 1)
    }
    block = BlockSpec(heads=3, mlp_hidden=768, weight_bits=8, activation_bits=8)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    load = workload(ModelSpec(task=task, patch=16, dim=192, blocks=(block,), edge_bits=8))
    folds, search = (estimate_batch(load, arrays[mapping], technology("horowitz_45nm")) for mapping in (0, 1))
    assert np.all(search.dram_bytes <= folds.dram_bytes)
    assert np.mean(search.dram_bytes < folds.dram_bytes) > 0.5
