from __future__ import annotations

import dataclasses
from math import ceil

import numpy as np
import pytest

from cosearch.errors import SpecError
from cosearch.hardware.fpga import DEVICES, STYLES, Fpga, Fpgas, feasible, fits, fpga_ledger, fpga_resources
from cosearch.hardware.fpga.packing import DSP_KINDS, blocks, shape_of_pack, stream_pack
from cosearch.hardware.fpga.parts import DEPTH
from cosearch.hardware.fpga.pipeline import places
from cosearch.hardware.ledger import breakdown, total
from cosearch.hardware.technology import technology
from cosearch.hardware.vector import lane_operations
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

TECH = technology("horowitz_45nm")


def design(**changes: object) -> Fpga:
    return Fpga(**({"device": "zcu102", "style": "temporal", "clock_hz": 200e6} | changes))


def product(m: int, k: int, n: int, *, bits: int = 8) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        a_bits=bits,
        b_bits=bits,
        out_bits=bits,
        weights=True,
        inputs=("x", "w"),
        output="p",
    )
    sizes = {"x": m * k, "w": k * n, "p": m * n}
    tensors = tuple(Tensor(name=name, elements=size, bits=bits, weight=name == "w") for name, size in sizes.items())
    return Workload((op,), tensors)


def vit(*, dim: int = 24, heads: int = 2, depth: int = 2, keep: int | None = None, bits: int = 8) -> Workload:
    block = BlockSpec(heads=heads, mlp_hidden=2 * dim, weight_bits=bits, activation_bits=bits)
    first = dataclasses.replace(block, keep_tokens=keep)
    method = "none" if keep is None else "prune"
    task = TaskShape(image=(32, 32), channels=3, classes=10)
    blocks_ = (first, *(block,) * (depth - 1))
    return workload(ModelSpec(task=task, patch=8, dim=dim, blocks=blocks_, token_method=method, edge_bits=bits))


def test_one_engine_by_hand() -> None:
    fpga = design(tm=4, tk=16, tn=16, axi_bits=8)
    cost = breakdown(product(10, 40, 20), fpga_ledger(product(10, 40, 20), Fpgas((fpga,)), TECH), TECH)
    assert cost.compute_cycles == 3 * 3 * 2 + DEPTH
    assert cost.dram_bytes == 10 * 40 + 40 * 20 + 10 * 20  # nothing before it made x, nothing after it reads p
    assert cost.stall_cycles == cost.dram_bytes - cost.compute_cycles  # a byte a cycle
    assert cost.utilisation == 10 * 40 * 20 / (4 * 16 * 16 * cost.cycles)
    assert cost.mac_j == pytest.approx(10 * 40 * 20 / 2 * 14e-12)  # two 8-bit products a DSP


def test_wide_operands_take_passes() -> None:
    cycles = [
        float(total(fpga_ledger(product(8, 32, 32, bits=b), Fpgas((design(),)), TECH)).compute_cycles[0])
        for b in (8, 9, 16)
    ]
    assert cycles[0] == 2 * 2 * 2 + DEPTH
    assert cycles[1] == cycles[2] == 4 * 2 * 2 * 2 + DEPTH


def test_panels_fetch_the_left_operand_again() -> None:
    load = product(64, 1024, 1024)  # 1 MiB of weights in panels of half of weight_kib
    traffic = [
        float(total(fpga_ledger(load, Fpgas((design(weight_kib=kib),)), TECH)).dram_bytes[0]) for kib in (512, 1024)
    ]
    assert traffic[0] - traffic[1] == 2 * 64 * 1024  # four panels, then two


def test_a_layer_of_its_own_by_hand() -> None:
    load = product(10, 40, 20)
    fpga = design(style="dataflow", reuse=100, multiplier="dsp")
    cost = total(fpga_ledger(load, Fpgas((fpga,)), TECH))
    need = fpga_resources(load, fpga)
    assert cost.compute_cycles[0] == 10 * 100 + DEPTH
    assert need.dsp == 4  # 800 weights in 100 steps are 8 multipliers, two a DSP
    assert need.interval_cycles == 1000
    assert need.bram18 == 2  # 100 words of 64 bits


def test_stages_begin_where_all_rows_are_needed() -> None:
    load = vit(depth=1, keep=6)
    at = dict(zip([op.name for op in load.operators], places(load), strict=True))
    assert at["stem.proj"].stage == at["block0.norm1"].stage == at["block0.qkv"].stage
    assert at["block0.scores"].stage == at["block0.qkv"].stage + 1
    assert at["block0.context"].stage == at["block0.add1"].stage == at["block0.scores"].stage  # values are there
    assert at["block0.select"].waits
    assert at["block0.select"].stage == at["block0.score"].stage + 1
    assert at["block0.fuse"].stage == at["block0.select"].stage + 1
    assert at["block0.fc1"].stage == at["block0.fuse"].stage
    for stage in {place.stage for place in at.values()}:
        assert sum(place.leads for place in at.values() if place.stage == stage) == 1


def test_pipeline_latency_is_that_of_its_stages() -> None:
    load, reuse = vit(depth=2), 64
    fpga = design(style="dataflow", device="u280", reuse=reuse, axi_bits=4096)
    cost = total(fpga_ledger(load, Fpgas((fpga,)), TECH))
    at = places(load)
    rows = {place.stage: place.rows for place in at}
    expected = sum(rows.values()) * reuse + (len(at) - len(rows)) * reuse + len(at) * DEPTH
    assert cost.cycles[0] == expected
    assert fpga_resources(load, fpga).interval_cycles == max(rows.values()) * reuse


@pytest.mark.parametrize(
    ("device", "bits", "pack", "stream"),
    [
        ("zcu102", 4, 4, 2),
        ("zcu102", 5, 2, 2),
        ("zcu102", 8, 2, 2),
        ("zcu102", 9, 1, 1),
        ("pynq_z2", 4, 2, 2),
        ("vck5000", 8, 3, 3),
        ("vck5000", 4, 4, 3),
        ("u250", 16, 1, 1),
    ],
)
def test_products_of_a_dsp(device: str, bits: int, pack: int, stream: int) -> None:
    batch, width = Fpgas((design(device=device),)), np.array([float(bits)])
    assert DEVICES[device].dsp_kind in DSP_KINDS
    assert np.prod(shape_of_pack(batch, width)) == pack
    assert stream_pack(batch, width)[0] == stream


@pytest.mark.parametrize(
    ("width", "words", "uram", "expected"),
    [
        (36, 512, False, (1, 0, 0)),
        (18, 1024, False, (1, 0, 0)),
        (1, 16384, False, (1, 0, 0)),
        (37, 512, False, (2, 0, 0)),
        (36, 513, False, (2, 0, 0)),
        (9, 4096, False, (2, 0, 0)),
        (40, 64, False, (0, 0, 40)),
        (72, 4096, True, (0, 1, 0)),
        (73, 4097, True, (0, 4, 0)),
        (72, 2047, True, (8, 0, 0)),
    ],
)
def test_memories_of_a_device(width: int, words: int, uram: bool, expected: tuple[int, int, int]) -> None:
    found = blocks(np.array([float(width)]), np.array([float(words)]), np.array([uram]))
    assert (found.bram18[0], found.uram[0], found.lut[0]) == expected


def test_four_bits_take_fewer_dsps_and_luts_take_none() -> None:
    load = vit()
    need = {
        (pe, how): fpga_resources(load, design(pe_bits=pe, multiplier=how, vector_lanes=1))
        for pe in (2, 4, 8, 16)
        for how in ("dsp", "lut", "auto")
    }
    assert need[16, "dsp"].dsp - 1 == 2 * (need[8, "dsp"].dsp - 1) == 4 * (need[4, "dsp"].dsp - 1) == 4 * 16 * 16
    assert need[8, "lut"].dsp == 1  # the lane
    assert need[8, "lut"].lut > 1.1 * 64 * 4 * 16 * 16
    assert need[2, "auto"] == need[2, "lut"]
    assert need[4, "auto"] == need[4, "dsp"]


def test_what_does_not_fit_is_named_with_need_limit_and_way_out() -> None:
    load, fpga = vit(), design(device="pynq_z2", tm=16, tk=16, tn=16)
    found = {item.limit: item.excess for item in fits(load, fpga)}
    assert found["dsp <= 220 (pynq_z2)"] == pytest.approx((2048 + 16) / 220 - 1)
    with pytest.raises(SpecError) as caught:
        fpga_ledger(load, Fpgas((fpga,)), TECH)
    assert caught.value.field == "device"
    assert "pynq_z2 has 220 DSPs, but the temporal design needs 2064 (838 % over)" in str(caught.value)
    assert "make tm, tk, tn or vector_lanes smaller" in str(caught.value)
    assert "larger device" in str(caught.value)


def test_feasible_and_the_ledger_agree_with_fits() -> None:
    load = vit(bits=4)
    items = tuple(
        design(device=device, style=style, reuse=reuse, tm=tm)
        for device in DEVICES
        for style in ("temporal", "dataflow")
        for reuse in (1, 64)
        for tm in (1, 64)
    )
    found = feasible(load, Fpgas(items))
    assert [not fits(load, item) for item in items] == found.tolist()
    assert 0 < found.sum() < len(items)
    for item, good in zip(items, found, strict=True):
        if good:
            fpga_ledger(load, Fpgas((item,)), TECH)
        else:
            with pytest.raises(SpecError):
                fpga_ledger(load, Fpgas((item,)), TECH)


def test_luts_flip_flops_and_bytes_held_by_hand() -> None:
    load = product(10, 40, 20)
    fpga = design(tm=4, tk=16, tn=16, vector_lanes=3)
    need = fpga_resources(load, fpga)
    assert need.dsp == 4 * 16 * 16 // 2 + 3
    assert need.lut == need.dsp * 67 + 3 * 300
    assert need.ff == need.dsp * 77
    cost = total(fpga_ledger(load, Fpgas((fpga,)), TECH))
    assert cost.peak_onchip_bytes[0] == max(10 * 40, 10 * 20) + 40 * 20
    tight = total(fpga_ledger(product(64, 1024, 1024), Fpgas((design(weight_kib=64, activation_kib=16),)), TECH))
    assert tight.peak_onchip_bytes[0] == (64 + 16) * 1024


def test_one_dsp_too_many_is_refused() -> None:
    load = product(4, 4, 4)
    just = design(device="pynq_z2", tm=1, tk=1, tn=2, vector_lanes=219)
    assert fpga_resources(load, just).dsp == 220
    assert not [item for item in fits(load, just) if item.limit.startswith("dsp")]
    over = dataclasses.replace(just, vector_lanes=220)
    assert [item.excess for item in fits(load, over) if item.limit.startswith("dsp")] == [pytest.approx(1 / 220)]
    with pytest.raises(SpecError, match="has 220 DSPs, but the temporal design needs 221"):
        fpga_ledger(load, Fpgas((over,)), TECH)


def test_vector_operators_cost_energy_and_dram_what_the_technology_says() -> None:
    for style in STYLES:
        load = vit()
        cost = total(fpga_ledger(load, Fpgas((design(style=style, device="u250"),)), TECH))
        assert cost.vector_j[0] == pytest.approx(14e-12 * sum(lane_operations(op) for op in load.operators))
        assert cost.dram_j[0] == pytest.approx(cost.dram_bytes[0] * 8e-12 * TECH.dram_pj_per_bit)
        assert cost.leakage_j[0] == pytest.approx(DEVICES["u250"].static_w * cost.latency_s[0])
    hbm = total(fpga_ledger(load, Fpgas((design(device="u280"),)), TECH))
    assert hbm.dram_j[0] == pytest.approx(hbm.dram_bytes[0] * 8e-12 * 250 / 64)


def test_a_pipeline_reads_the_image_and_writes_the_result() -> None:
    load = vit()
    size = {tensor.name: tensor.bytes for tensor in load.tensors}
    cost = total(fpga_ledger(load, Fpgas((design(style="dataflow", device="u250"),)), TECH))
    assert cost.dram_bytes[0] == size["image"] + size["head"]


def test_a_pipeline_keeps_twice_what_later_stages_read() -> None:
    load = vit(depth=1, dim=64, heads=1)  # 17 tokens
    fpga = design(style="dataflow", reuse=1 << 20, device="zcu102")  # one multiplier a layer
    weights = sum(ceil(op.k * op.n / 2048) for op in load.operators if op.weights)  # words of 9 bits
    stream, operand = 17 * 64 * 16, 17 * 64 * 8
    # keys and values beside their multipliers, queries and the stream between stages, each for two images
    assert fpga_resources(load, fpga).bram18 == weights + 2 * (2 + 1 + 1)
    held = total(fpga_ledger(load, Fpgas((fpga,)), TECH)).peak_onchip_bytes[0]
    assert held == load.weight_bytes + (2 * 3 * operand + 2 * stream) / 8


def test_weights_that_block_ram_has_no_room_for_go_to_ultraram() -> None:
    block = BlockSpec(heads=3, mlp_hidden=768, weight_bits=4, activation_bits=4)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    load = workload(ModelSpec(task=task, patch=16, dim=192, blocks=(block,) * 12, edge_bits=8))
    need = fpga_resources(load, design(device="vck5000", style="dataflow", reuse=288, multiplier="lut"))
    assert need.uram == DEVICES["vck5000"].uram  # all of it, and that is not enough
    assert need.shares["bram18"] > 1
    roomy = fpga_resources(load, design(device="u250", style="dataflow", reuse=288, multiplier="lut"))
    assert roomy.shares["bram18"] < 1
    assert roomy.uram < need.uram


def test_floating_point_is_refused() -> None:
    with pytest.raises(SpecError, match="an FPGA design multiplies"):
        fpga_ledger(vit(bits=FLOAT_BITS), Fpgas((design(),)), TECH)


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"device": "zcu104"}, "device", "device is 'zcu104', which an FPGA design does not have; choose one of"),
        ({"style": "hybrid"}, "style", "choose one of temporal, dataflow"),
        ({"tm": 0}, "tm", "tm is 0, but an FPGA design has 1 to 1024 rows; write 1 to 1024"),
        ({"tk": True}, "tk", "tk is True"),
        ({"tn": 2.0}, "tn", "whole number of columns"),
        ({"pe_bits": 3}, "pe_bits", "choose one of 2, 4, 8, 16"),
        ({"reuse": 0}, "reuse", "write 1 to"),
        ({"clock_hz": 2e9}, "clock_hz", "1e+06 to 1e+09 Hz"),
        ({"clock_hz": float("nan")}, "clock_hz", "nan"),
        ({"multiplier": "asic"}, "multiplier", "choose one of dsp, lut, auto"),
        ({"activation_kib": 0}, "activation_kib", "KiB"),
    ],
)
def test_bad_fields_name_value_limit_and_way_out(changes: dict[str, object], field: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        design(**changes)
    assert caught.value.field == field
    assert text in str(caught.value)


def test_devices_are_whole_and_sourced() -> None:
    assert {"zcu102", "u250", "u280", "pynq_z2"} <= set(DEVICES)
    for device in DEVICES.values():
        assert device.ff == 2 * device.lut
        assert device.source
    assert dataclasses.astuple(DEVICES["zcu102"])[1:7] == (2520, "DSP48E2", 274_080, 548_160, 1824, 0)


def test_whole_and_real_clock_are_the_same_design() -> None:
    assert design(clock_hz=200_000_000) == design(clock_hz=2e8)
