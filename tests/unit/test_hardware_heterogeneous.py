from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.heterogeneous import (
    BLOCKS,
    DATAFLOWS,
    HeterogeneousASIC,
    Sub,
    heterogeneous_assignment,
    heterogeneous_ledger,
)
from cosearch.hardware.heterogeneous.asic import array_of
from cosearch.hardware.ledger import Items, Ledger, breakdown, total
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Workload, workload

TECH = technology("horowitz_45nm")
ALONE = {"sub2_dataflow": "none"}


def deit(dim: int = 192, depth: int = 1, method: str = "none", keep: int | None = None, bits: int = 8) -> Workload:
    block = BlockSpec(heads=dim // 64, mlp_hidden=4 * dim, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
    rest = dataclasses.replace(block, keep_tokens=None)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    blocks = (block, *(rest,) * (depth - 1))
    return workload(ModelSpec(task=task, patch=16, dim=dim, blocks=blocks, token_method=method, edge_bits=8))


def tiny(heads: int = 3) -> Workload:
    block = BlockSpec(heads=heads, mlp_hidden=20, weight_bits=5, activation_bits=8)
    task = TaskShape(image=(24, 24), channels=1, classes=7)
    return workload(ModelSpec(task=task, patch=8, dim=4 * heads, blocks=(block,), edge_bits=8))


def ledger(load: Workload, *items: HeterogeneousASIC) -> Ledger:
    return heterogeneous_ledger(load, Items(items), TECH)


def row(load: Workload, costs: Ledger, name: str) -> int:
    return costs.members[next(i for i, op in enumerate(load.operators) if op.name == name)]


def operator(load: Workload, name: str) -> Operator:
    return next(op for op in load.operators if op.name == name)


def scalar(op: Operator, sub: Sub, share: float, asic: HeterogeneousASIC) -> tuple[float, float]:
    """Returns cycles and joules of ``op`` on ``sub``, written down a second time in plain Python."""
    if op.n == 0 or op.count == 0:
        return 0.0, 0.0
    rows, steps, cols = array_of(sub.dataflow, sub.pes)
    left, right = math.ceil(op.a_bits / asic.pe_bits), math.ceil(op.b_bits / asic.pe_bits)
    compute = op.count * math.ceil(op.m / rows) * math.ceil(op.k / steps) * math.ceil(op.n / cols) * left * right
    a, b, half = op.m * op.k * op.a_bits, op.k * op.n * op.b_bits, sub.buffer_kib * 4096
    shared_cols = 16 if sub.dataflow == "row_stationary" else cols
    orders = [a * math.ceil(op.n / shared_cols) + b * math.ceil(op.m / rows)]
    if (fit := min(half // (op.k * op.a_bits), op.m)) >= 1:
        orders.append(a + b * math.ceil(op.m / fit))
    if (fit := min(half // (op.k * op.b_bits), op.n)) >= 1:
        orders.append(b + a * math.ceil(op.n / fit))
    fetched, out = op.count * min(orders), op.count * op.m * op.n * op.out_bits
    moved = math.ceil((fetched + out) / 8)
    rate = asic.dram_bytes_per_s / asic.clock_hz * share
    width = asic.pe_bits
    w, x = min(op.a_bits, width), min(op.b_bits, width)
    moving = {"nvdla": w + 32, "shidiannao": w + x + 32, "row_stationary": w + x + 64}[sub.dataflow]
    mac = TECH.mac_pj(w, x) + moving * TECH.register_pj_per_bit
    reads = op.count * a * math.ceil(op.n / shared_cols) * right
    again = math.ceil(op.m / rows) if sub.dataflow == "shidiannao" else 1
    reads += op.count * b * again * left
    run = {"nvdla": steps, "shidiannao": 0, "row_stationary": 12 * steps}[sub.dataflow]
    sums = (math.ceil(op.k / run) * left * right - 1) * op.count * op.m * op.n * 32 if run else 0
    read, write = TECH.sram.read_pj(sub.buffer_kib), TECH.sram.write_pj(sub.buffer_kib)
    joules = op.macs * left * right * mac + reads * read + fetched * write + (sums + out) * (read + write)
    joules += moved * 8 * TECH.dram_pj_per_bit
    return max(compute, math.ceil(moved / rate)), 1e-12 * joules


def every_spread(op: Operator, asic: HeterogeneousASIC) -> list[tuple[float, float]]:
    """Returns makespan and joules of every way to spread ``op``, its units dealt out in order."""
    whole = op.count if op.count > 1 else op.n
    size = next(2**i for i in range(20) if math.ceil(whole / 2**i) <= BLOCKS)
    units, short = math.ceil(whole / size), -whole % size
    share = [sub.bandwidth_share / sum(s.bandwidth_share for s in asic.subs) for sub in asic.subs]
    found = []
    for cuts in itertools.combinations_with_replacement(range(units + 1), len(asic.subs) - 1):
        edges = (0, *cuts, units)
        costs = []
        for sub, part, start, end in zip(asic.subs, share, edges, edges[1:], strict=False):
            much = (end - start) * size - (short if start == 0 and end > 0 else 0)
            mine = dataclasses.replace(op, **({"count": much} if op.count > 1 else {"n": much}))
            costs.append(scalar(mine, sub, part, asic))
        found.append((max(cycles for cycles, _ in costs), sum(joules for _, joules in costs)))
    return found


def random_asic(seed: int, subs: int, assign: str) -> HeterogeneousASIC:
    rng = np.random.default_rng(seed)
    fields: dict[str, object] = {"assign": assign, "dram_bytes_per_s": float(10 ** rng.uniform(8.5, 10.5))}
    for slot in range(1, 5):
        fields |= {
            f"sub{slot}_dataflow": str(rng.choice(DATAFLOWS)) if slot <= subs else "none",
            f"sub{slot}_pes": int(rng.integers(1, 300)),
            f"sub{slot}_buffer_kib": int(rng.integers(1, 40)),
            f"sub{slot}_bandwidth_share": float(rng.uniform(0.05, 1.0)),
        }
    fields["pe_bits"] = int(rng.choice((4, 8)))
    return HeterogeneousASIC(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("assign", ["latency", "energy"])
@pytest.mark.parametrize(("subs", "seeds"), [(1, 3), (2, 20), (3, 12), (4, 2)])
def test_the_assignment_is_the_best_of_all(subs: int, seeds: int, assign: str) -> None:
    """Brute force over every way to spread every product, with costs written down a second time."""
    for seed in range(seeds):
        load, asic = tiny(heads=2 + seed % 4), random_asic(100 * subs + seed, subs, assign)
        costs = ledger(load, asic)
        for op in (op for op in load.operators if op.kind is OperatorKind.MATMUL):
            at = row(load, costs, op.name)
            cycles = costs.compute_cycles[at, 0] + costs.stall_cycles[at, 0]
            joules = costs.mac_j[at, 0] + costs.sram_j[at, 0] + costs.dram_j[at, 0]
            spreads = every_spread(op, asic)
            if assign == "latency":
                best = min(cycles for cycles, _ in spreads)
                assert cycles == best, (op.name, asic)
                least = min(joules for time, joules in spreads if time == best)
            else:
                least = min(joules for _, joules in spreads)
            assert joules == pytest.approx(least, rel=1e-9), (op.name, asic)


def test_defaults_use_up_nasaics_limits() -> None:
    asic = HeterogeneousASIC()
    assert sum(sub.pes for sub in asic.subs) == 4096
    assert asic.dram_bytes_per_s == 64e9
    assert [sub.dataflow for sub in asic.subs] == ["nvdla", "shidiannao"]


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"sub1_dataflow": "none"}, "sub1_dataflow", "choose one of nvdla, shidiannao, row_stationary"),
        ({"sub3_dataflow": "dla"}, "sub3_dataflow", "choose one of nvdla, shidiannao, row_stationary, none"),
        ({"sub1_pes": 0}, "sub1_pes", "sub1_pes is 0, but a heterogeneous ASIC has 1 to 65536 PEs; write 1 to 65536"),
        ({"sub4_pes": 2.0}, "sub4_pes", "write a whole number of PEs"),
        ({"sub2_bandwidth_share": 0}, "sub2_bandwidth_share", "0.001 to 1 of the bandwidth"),
        ({"sub2_bandwidth_share": True}, "sub2_bandwidth_share", "is True"),
        ({"sub1_buffer_kib": 1, "sub1_pes": 40000}, "sub1_buffer_kib", "write at least 3, or use fewer PEs"),
        ({"dram_bytes_per_s": float("nan")}, "dram_bytes_per_s", "nan"),
        ({"pe_bits": 6}, "pe_bits", "choose one of 2, 4, 8, 16"),
        ({"assign": "area"}, "assign", "choose one of latency, energy"),
    ],
)
def test_bad_fields_say_what_to_write(changes: dict[str, object], field: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        HeterogeneousASIC(**changes)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert text in str(caught.value)


def test_floating_point_operands_are_refused() -> None:
    block = BlockSpec(heads=2, mlp_hidden=16)
    task = TaskShape(image=(16, 16), channels=1, classes=2)
    load = workload(ModelSpec(task=task, patch=4, dim=8, blocks=(block,)))
    with pytest.raises(SpecError, match="a heterogeneous ASIC"):
        ledger(load, HeterogeneousASIC())


def test_shapes_of_the_arrays() -> None:
    assert array_of("nvdla", 2048) == (1, 64, 32)
    assert array_of("nvdla", 48) == (1, 48, 1)
    assert array_of("shidiannao", 64) == (8, 1, 8)  # ShiDianNao's own 8 x 8
    assert array_of("row_stationary", 168) == (14, 12, 1)  # Eyeriss's own 12 x 14
    for dataflow in DATAFLOWS:
        for pes in range(1, 400):
            assert 0 < math.prod(array_of(dataflow, pes)) <= pes


@pytest.mark.parametrize(
    ("dataflow", "cycles"),
    [
        ("nvdla", 197 * 3 * 18),  # ceil(192 / 64) clusters of the reduction, ceil(576 / 32) of columns
        ("shidiannao", 5 * 192 * 13),  # ceil(197 / 45), ceil(576 / 45)
        ("row_stationary", 5 * 5 * 576),  # ceil(197 / 49), ceil(192 / 41)
    ],
)
def test_cycles_by_hand(dataflow: str, cycles: int) -> None:
    load = deit()
    costs = ledger(load, HeterogeneousASIC(sub1_dataflow=dataflow, **ALONE))  # type: ignore[arg-type]
    assert costs.compute_cycles[row(load, costs, "block0.qkv"), 0] == cycles


def test_bits_beyond_the_multiplier_take_passes() -> None:
    wide, narrow = deit(bits=16), deit(bits=8)
    asic = HeterogeneousASIC(dram_bytes_per_s=1e15, **ALONE)
    long, short = ledger(wide, asic), ledger(narrow, asic)
    at = row(wide, long, "block0.qkv"), row(narrow, short, "block0.qkv")
    assert long.compute_cycles[at[0], 0] == 4 * short.compute_cycles[at[1], 0]


def test_equal_halves_share_evenly() -> None:
    load = deit(dim=256)
    same = HeterogeneousASIC(sub2_dataflow="nvdla")
    shares = heterogeneous_assignment(load, same, TECH)
    assert shares["block0.qkv"] == (384, 384, 0, 0)
    assert shares["block0.scores"] == (2, 2, 0, 0)
    alone = total(ledger(load, dataclasses.replace(same, sub2_dataflow="none")))
    assert total(ledger(load, same)).compute_cycles[0] < 0.6 * alone.compute_cycles[0]


def test_every_column_and_every_head_is_dealt_out_once() -> None:
    load = deit(depth=2, method="merge", keep=150)
    asic = HeterogeneousASIC(sub3_dataflow="row_stationary", sub4_dataflow="nvdla", sub4_pes=77)
    shares = heterogeneous_assignment(load, asic, TECH)
    products = [op for op in load.operators if op.kind is OperatorKind.MATMUL]
    assert len(shares) == len(products)
    for op in products:
        assert sum(shares[op.name]) == (op.count if op.count > 1 else op.n), op.name


def test_latency_spreads_where_energy_does_not() -> None:
    load = deit()
    fast, frugal = HeterogeneousASIC(), HeterogeneousASIC(assign="energy")
    cost = total(ledger(load, fast, frugal))
    assert cost.latency_s[0] < 0.8 * cost.latency_s[1]
    dynamic = cost.energy_j - cost.leakage_j
    assert dynamic[1] < dynamic[0]
    assert sum(share > 0 for share in heterogeneous_assignment(load, frugal, TECH)["block0.qkv"]) == 1


def test_absent_ones_do_not_count() -> None:
    load = deit()
    asic = HeterogeneousASIC(**ALONE)
    other = dataclasses.replace(asic, sub2_pes=7, sub2_buffer_kib=9, sub2_bandwidth_share=0.9, sub4_pes=3)
    costs = ledger(load, asic, other)
    for item in dataclasses.fields(Ledger):
        if item.name != "members":
            values = getattr(costs, item.name)
            assert np.array_equal(values[..., 0], values[..., 1]), item.name
    assert costs.multipliers[0] == 2048


def test_shares_of_the_bandwidth_are_relative() -> None:
    load = deit()
    halves = HeterogeneousASIC(sub1_bandwidth_share=0.25, sub2_bandwidth_share=0.25, dram_bytes_per_s=5e9)
    cost = total(ledger(load, halves, dataclasses.replace(halves, sub1_bandwidth_share=1, sub2_bandwidth_share=1)))
    assert cost.latency_s[0] == cost.latency_s[1]


def test_every_operator_costs_and_rows_add_up() -> None:
    for load in (deit(), deit(depth=2, method="prune", keep=100), deit(depth=2, method="merge", keep=120)):
        costs = ledger(load, HeterogeneousASIC(sub3_dataflow="row_stationary"))
        whole = breakdown(load, costs, TECH)
        assert whole.cycles == pytest.approx(sum(op.cycles for op in whole.operators))
        assert all(op.cycles > 0 and op.energy_j > 0 and op.dram_bytes > 0 for op in whole.operators)
