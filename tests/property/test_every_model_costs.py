"""Every template costs every model that specs can say, or says why it cannot run it."""

from __future__ import annotations

import dataclasses
import math

import pytest

from cosearch import hardware
from cosearch.errors import SpecError
from cosearch.hardware.catalogue import TEMPLATES
from cosearch.spec import AcceleratorSpec, ModelSpec, Scalar
from cosearch.testing.models import random_model
from cosearch.workload import OperatorKind, workload

_SYSTOLIC: dict[str, Scalar] = {
    **{"rows": 16, "cols": 16, "dataflow": "ws", "ifmap_kib": 16, "filter_kib": 16, "ofmap_kib": 16},
    **{"dram_bytes_per_s": 1e9, "clock_hz": 500_000_000},
}
ACCELERATORS: dict[str, tuple[str, dict[str, Scalar]]] = {
    "systolic": ("systolic", _SYSTOLIC),
    "systolic, memory": ("systolic", {**_SYSTOLIC, "activation_kib": 64, "weight_kib": 32}),
    "systolic, tiles, fused": ("systolic", {**_SYSTOLIC, "mapping": "search", "attention": "fused"}),
    "systolic, all": (
        "systolic",
        {**_SYSTOLIC, "mapping": "search", "attention": "fused", "activation_kib": 64, "weight_kib": 32},
    ),
    "gemmini": ("gemmini", {}),
    "heterogeneous": ("heterogeneous", {}),
    "fusemax": ("fusemax", {}),
    "vitcod": ("vitcod", {}),
    "pim": ("pim", {}),
    "fpga": ("fpga", {"device": "zcu102", "style": "temporal", "clock_hz": 200_000_000}),
    "microcontroller": ("microcontroller", {"device": "stm32f746", "clock_hz": 216_000_000}),
    "roofline": ("roofline", {"device": "a100_sxm_80gb"}),
}


def dense(spec: ModelSpec) -> ModelSpec:
    blocks = tuple(dataclasses.replace(block, sparsity=(1, 1)) for block in spec.blocks)
    return dataclasses.replace(spec, blocks=blocks)


def test_all_templates_are_here() -> None:
    assert {template for template, _ in ACCELERATORS.values()} == set(TEMPLATES)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_quantised_model_of_any_kind_has_a_cost(name: str) -> None:
    accelerator = hardware.build(AcceleratorSpec.of(*ACCELERATORS[name]))
    technology = hardware.technology("horowitz_45nm")
    for seed in range(80):
        load = workload(dense(random_model(seed, formats=("int4", "int8"))))
        cost = hardware.estimate(load, accelerator, technology)
        assert 0 < cost.latency_s < math.inf, f"seed {seed}"
        assert 0 < cost.energy_j < math.inf, f"seed {seed}"


@pytest.mark.parametrize("name", ACCELERATORS)
def test_formats_and_sparsity_have_a_cost_or_a_reason(name: str) -> None:
    accelerator = hardware.build(AcceleratorSpec.of(*ACCELERATORS[name]))
    technology = hardware.technology("horowitz_45nm")
    for seed in range(80):
        try:
            cost = hardware.estimate(workload(random_model(seed)), accelerator, technology)
        except SpecError:  # says what it does not multiply
            continue
        assert 0 < cost.energy_j < math.inf, f"seed {seed}"


def test_every_kind_of_operator_occurs() -> None:
    kinds = {op.kind for seed in range(200) for op in workload(random_model(seed)).operators}
    assert kinds == set(OperatorKind) - {OperatorKind.RELU}  # rectification is the clipping of what accumulators hold
