"""The roofline template: closed cases by hand, and what must hold of any device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.errors import SpecError
from cosearch.hardware import BatchCost, Cost, technology
from cosearch.hardware.ledger import breakdown, total
from cosearch.hardware.roofline import DEVICES, Roofline, Rooflines, roofline_ledger
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, with_formats, workload

TASK = TaskShape(image=(48, 48), channels=3, classes=10)
TECH = technology("horowitz_45nm")
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIELDS = [item.name for item in dataclasses.fields(BatchCost)]


def product(m: int, k: int, n: int, bits: int = 8) -> Workload:
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
    return Workload((op,), tuple(Tensor(name=t, elements=s, bits=bits, weight=t == "w") for t, s in sizes.items()))


def custom(**numbers: object) -> Roofline:
    base = {"device": "custom", "fp32_macs_per_s": 1e12, "dram_bytes_per_s": 1e10, "tdp_w": 10.0}
    return Roofline(**(base | numbers))  # type: ignore[arg-type]


def cost_of(load: Workload, device: Roofline) -> Cost:
    return breakdown(load, roofline_ledger(load, Rooflines((device,)), TECH), TECH)


def test_a_compute_bound_product_takes_its_macs_at_the_peak_rate():
    cost = cost_of(product(512, 4096, 512), custom(dram_bytes_per_s=1e14, int8_macs_per_s=4e12))
    assert cost.latency_s == pytest.approx(512 * 4096 * 512 / 4e12)
    assert cost.utilisation == pytest.approx(1.0)
    assert cost.power_w == pytest.approx(10.0)


def test_a_memory_bound_product_takes_its_bytes_at_the_bandwidth():
    cost = cost_of(product(1, 1000, 1000), custom())
    assert cost.dram_bytes == 1000 + 1000 * 1000 + 1000
    assert cost.latency_s == pytest.approx(cost.dram_bytes / 1e10)


def test_every_operator_is_launched():
    load = workload(ModelSpec(task=TASK, patch=12, dim=24, blocks=(BlockSpec(heads=2, mlp_hidden=48),)))
    idle, launched = cost_of(load, custom()), cost_of(load, custom(launch_s=1e-3))
    assert launched.latency_s - idle.latency_s == pytest.approx(1e-3 * len(load.operators))
    assert launched.power_w < idle.power_w  # it waits at its idle power


@pytest.mark.parametrize(("m", "n", "waves"), [(128, 128, 1), (129, 128, 1), (128 * 8, 128, 1), (128 * 8 + 1, 128, 2)])
def test_tiles_and_waves_that_are_not_full_take_as_long_as_full_ones(m, n, waves):
    device = custom(units=8, tile_rows=128, tile_cols=128, dram_bytes_per_s=1e14)
    assert cost_of(product(m, 4096, n), device).latency_s == pytest.approx(waves * 8 * 128 * 128 * 4096 / 1e12)


@pytest.mark.parametrize(
    ("bits", "rate"), [(2, 16e12), (4, 16e12), (5, 8e12), (8, 8e12), (9, 1e12), (16, 1e12), (32, 1e12)]
)
def test_operands_take_the_fastest_unit_that_holds_them(bits, rate):
    device = custom(fp16_macs_per_s=2e12, int8_macs_per_s=8e12, int4_macs_per_s=16e12, dram_bytes_per_s=1e14)
    assert cost_of(product(512, 4096, 512, bits), device).latency_s == pytest.approx(512 * 4096 * 512 / rate)


def test_half_precision_is_taken_where_asked_and_halves_traffic():
    load = product(64, 4096, 64, 32)
    single = cost_of(load, custom(fp16_macs_per_s=4e12))
    half = cost_of(load, custom(fp16_macs_per_s=4e12, float_as="fp16"))
    assert half.dram_bytes * 2 == single.dram_bytes
    assert half.compute_cycles * 4 == pytest.approx(single.compute_cycles)
    # a device without half precision computes in single precision
    assert cost_of(load, custom(float_as="fp16")).compute_cycles == single.compute_cycles


def test_a_model_that_fits_in_the_cache_moves_nothing_and_one_that_does_not_moves_all():
    load = product(64, 64, 64)
    held = 3 * 64 * 64 // 1024
    assert cost_of(load, custom(cache_kib=held)).dram_bytes == 0
    assert cost_of(load, custom(cache_kib=held - 1)).dram_bytes == 3 * 64 * 64


def test_a_named_device_has_the_numbers_of_its_data_sheet_but_for_those_given():
    assert Roofline(device="a100_sxm_80gb").resolved() == DEVICES["a100_sxm_80gb"]
    other = Roofline(device="a100_sxm_80gb", dram_bytes_per_s=1e12).resolved()
    assert other == dataclasses.replace(DEVICES["a100_sxm_80gb"], dram_bytes_per_s=1e12)


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_every_device_runs_floats_and_integers_and_is_no_slower_with_fewer_bits(name):
    times = []
    for bits in (32, 8, 4):
        block = BlockSpec(heads=2, mlp_hidden=96, weight_bits=bits, activation_bits=bits)
        load = workload(ModelSpec(task=TASK, patch=12, dim=48, blocks=(block,) * 2, edge_bits=bits))
        cost = cost_of(load, Roofline(device=name))
        assert 0 < cost.power_w <= DEVICES[name].tdp_w * (1 + 1e-12)
        times.append(cost.latency_s)
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("wrong", "field", "text"),
    [
        ({"device": "a100"}, "device", "choose one of custom, a100_sxm_80gb"),
        ({"float_as": "fp8"}, "float_as", "choose one of fp32, tf32, fp16"),
        ({"dram_bytes_per_s": 0}, "dram_bytes_per_s", "a custom device needs a memory"),
        ({"tdp_w": 0}, "tdp_w", "a custom device needs power"),
        ({"fp32_macs_per_s": 0}, "fp32_macs_per_s", "write the rate of one format"),
        ({"fp32_macs_per_s": 0, "int8_macs_per_s": 1e9}, "vector_ops_per_s", "write its elementwise operations"),
        ({"units": 1.5}, "units", "write a whole number"),
        ({"units": True}, "units", "write a whole number"),
        ({"idle_share": 1.5}, "idle_share", "a roofline takes 0 to 1"),
        ({"launch_s": float("nan")}, "launch_s", "a roofline takes 0 to 1 s"),
    ],
)
def test_a_bad_field_is_refused_by_name_with_a_way_out(wrong, field, text):
    with pytest.raises(SpecError, match=field) as caught:
        custom(**wrong)
    assert text in str(caught.value)


def test_operands_that_no_unit_holds_are_refused():
    device = custom(fp32_macs_per_s=0, int8_macs_per_s=1e12, vector_ops_per_s=1e12)
    with pytest.raises(SpecError, match=r"p multiplies 32- by 32-bit operands.*write one of fp32_macs_per_s"):
        cost_of(product(8, 8, 8, 32), device)


def test_half_precision_formats_run_in_half_precision():
    device = custom(fp16_macs_per_s=4e12, dram_bytes_per_s=1e14)
    for name in ("fp16", "bf16"):
        half = with_formats(product(512, 4096, 512, 32), weights=name, activations=name)
        assert cost_of(half, device).latency_s == pytest.approx(512 * 4096 * 512 / 4e12)
        assert cost_of(half, device).dram_bytes == 2 * (2 * 512 * 4096) + 4 * 512 * 512
    mixed = with_formats(product(512, 4096, 512, 16), weights="fp16")
    assert cost_of(mixed, device).latency_s == pytest.approx(512 * 4096 * 512 / 1e12)


def test_formats_and_sparsity_without_a_rate_are_refused():
    load = product(8, 8, 8)
    with pytest.raises(SpecError, match="multiplies fp8_e4m3, but the roofline knows"):
        cost_of(with_formats(load, weights="fp8_e4m3"), custom())
    with pytest.raises(SpecError, match="2 in 4 are kept"):
        cost_of(with_formats(load, sparsity=(2, 4)), custom())
    assert cost_of(with_formats(load, weights="int4", activations="int8"), custom()).latency_s > 0


def test_whole_and_fractional_numbers_are_the_same_device():
    assert custom(tdp_w=10) == custom(tdp_w=10.0)


rates = st.sampled_from([0.0, 1e9, 3e10, 1e12])
devices = st.one_of(
    st.builds(
        Roofline,
        device=st.sampled_from(sorted(DEVICES)),
        float_as=st.sampled_from(("fp32", "tf32", "fp16")),
        dram_bytes_per_s=st.sampled_from((0.0, 1e9, 1e11)),
        cache_kib=st.sampled_from((0, 1, 64)),
    ),
    st.builds(
        Roofline,
        device=st.just("custom"),
        fp32_macs_per_s=st.floats(1e8, 1e13),
        tf32_macs_per_s=rates,
        fp16_macs_per_s=rates,
        int8_macs_per_s=rates,
        int4_macs_per_s=rates,
        vector_ops_per_s=rates,
        dram_bytes_per_s=st.floats(1e7, 1e12),
        cache_kib=st.integers(0, 4096),
        units=st.integers(0, 130),
        tile_rows=st.integers(0, 130),
        tile_cols=st.integers(0, 130),
        launch_s=st.floats(0, 1e-3),
        tdp_w=st.floats(0.1, 700),
        idle_share=st.floats(0, 1),
    ),
)
bits = st.integers(2, 16)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    patch, heads = draw(st.sampled_from((6, 8, 12))), draw(st.sampled_from((1, 2, 4)))
    method, tokens, blocks = draw(st.sampled_from(("none", "prune", "merge"))), (48 // patch) ** 2, []
    for index in range(draw(st.integers(1, 3))):
        keep = None
        if index == 0 and method != "none":
            keep = draw(st.integers(2 if method == "prune" else tokens - tokens // 2, tokens - 1))
        blocks.append(
            BlockSpec(
                heads=heads,
                mlp_hidden=draw(st.integers(4, 160)),
                keep_tokens=keep,
                weight_bits=draw(bits),
                activation_bits=draw(bits),
            )
        )
    dim = heads * draw(st.integers(4, 24))
    return ModelSpec(task=TASK, patch=patch, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=draw(bits))


@MANY
@given(models(), devices)
def test_a_cost_is_finite_and_not_below_its_roofline(model, device):
    load, numbers = workload(model), device.resolved()
    cost = cost_of(load, device)
    for name in FIELDS:
        value = getattr(cost, name)
        assert np.isfinite(value)
        assert value >= 0
    peak = max(getattr(numbers, f"{rate}_macs_per_s") for rate in ("fp32", "tf32", "fp16", "int8", "int4"))
    tight = 1 - 1e-12
    assert cost.latency_s >= load.macs / peak * tight
    assert cost.latency_s >= cost.dram_bytes / numbers.dram_bytes_per_s * tight
    assert cost.latency_s >= len(load.operators) * numbers.launch_s * tight
    assert cost.utilisation <= 1 + 1e-12
    assert cost.power_w <= numbers.tdp_w * (1 + 1e-9)
    assert cost.latency_s == pytest.approx(sum(op.cycles for op in cost.operators) / 1e9)


@MANY
@given(models(), st.lists(devices, min_size=1, max_size=12), st.data())
def test_one_is_the_batch_of_one_bit_for_bit(model, batch, data):
    load, many = workload(model), Rooflines(tuple(batch))
    position, kinds = data.draw(st.integers(0, len(batch) - 1)), many.kinds()
    same = np.flatnonzero(kinds == kinds[position])
    together = total(roofline_ledger(load, many.pick(same), TECH))
    alone = cost_of(load, batch[position])
    for field in FIELDS:
        assert getattr(together, field)[int(np.flatnonzero(same == position)[0])] == getattr(alone, field), field


@MANY
@given(models(), devices, st.floats(1, 50), st.integers(0, 4096))
def test_more_bandwidth_and_cache_never_cost(model, device, factor, kib):
    load, own = workload(model), device.resolved()
    before = cost_of(load, device)
    faster = cost_of(load, dataclasses.replace(device, dram_bytes_per_s=own.dram_bytes_per_s * factor))
    assert faster.latency_s <= before.latency_s * (1 + 1e-12)
    assert faster.energy_j <= before.energy_j * (1 + 1e-12)
    roomy = cost_of(load, dataclasses.replace(device, cache_kib=own.cache_kib + kib))
    assert roomy.dram_bytes <= before.dram_bytes
    assert roomy.latency_s <= before.latency_s * (1 + 1e-12)


@MANY
@given(models(), devices, st.integers(0, 14), st.integers(0, 14))
def test_fewer_bits_never_cost(model, device, weight, activation):
    blocks = tuple(
        dataclasses.replace(
            block,
            weight_bits=max(2, block.weight_bits - weight),
            activation_bits=max(2, block.activation_bits - activation),
        )
        for block in model.blocks
    )
    before = cost_of(workload(model), device)
    after = cost_of(workload(dataclasses.replace(model, blocks=blocks)), device)
    assert after.latency_s <= before.latency_s * (1 + 1e-12)
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes


@MANY
@given(st.data(), devices)
def test_fewer_tokens_never_cost(data, device):
    model = data.draw(models().filter(lambda m: m.token_method != "none"))
    tokens = model.patches
    least = 2 if model.token_method == "prune" else tokens - tokens // 2
    keep = data.draw(st.integers(least, model.blocks[0].keep_tokens or tokens))
    lean = dataclasses.replace(
        model, blocks=(dataclasses.replace(model.blocks[0], keep_tokens=keep), *model.blocks[1:])
    )
    before, after = cost_of(workload(model), device), cost_of(workload(lean), device)
    assert after.latency_s <= before.latency_s * (1 + 1e-12)
    assert after.energy_j <= before.energy_j * (1 + 1e-12)
    assert after.dram_bytes <= before.dram_bytes
