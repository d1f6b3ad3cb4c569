"""Numbers, models and accelerators in words."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosearch.spec import AcceleratorSpec, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import random_model
from cosearch.words import describe_accelerator, describe_model, label, quantity, unit_of

TASK = TaskShape(image=(16, 16), channels=1, classes=10)
PREFIXES = {prefix: 10.0 ** (3 * (i - 10)) for i, prefix in enumerate("qryzafpnum_kMGTPEZYRQ")} | {"": 1.0}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, "s", "1.23 ms"),
        (45.6e-6, "J", "45.6 uJ"),
        (1e-3, "s", "1.00 ms"),
        (999.4e-6, "s", "999 us"),
        (999.96e-6, "s", "1.00 ms"),  # rounds over the prefix
        (9.996, "s", "10.0 s"),
        (4e8, "Hz", "400 MHz"),
        (1e9, "B/s", "1.00 GB/s"),
        (1.26e9, "MAC", "1.26 GMAC"),
        (-2e-3, "s", "-2.00 ms"),
        (0, "s", "0 s"),
        (8192, "B", "8 KiB"),
        (1536, "B", "1.5 KiB"),
        (1023, "B", "1023 B"),
        (3 * 2**20, "B", "3 MiB"),
        (0.96, "", "0.960"),
        (1.0, "", "1"),
        (999.7, "", "1000"),
        (0.1, "mm2", "0.100 mm2"),
        (2.345678, "mm2", "2.35 mm2"),
        (math.inf, "s", "inf s"),
        (math.nan, "", "nan"),
    ],
)
def test_quantities_are_read_at_a_glance(value, unit, text):
    assert quantity(value, unit) == text


@given(st.floats(min_value=1e-29, max_value=1e29))
def test_a_quantity_says_the_value_to_three_digits(value):
    match = re.fullmatch(r"([0-9.]+) ([a-zA-Z]?)s", quantity(value, "s"))
    assert match is not None
    assert 1 <= float(match[1]) < 1000
    assert len(match[1].replace(".", "")) == 3
    assert float(match[1]) * PREFIXES[match[2]] == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("metric", "unit", "text"),
    [
        ("latency_s", "s", "Latency"),
        ("energy_j", "J", "Energy"),
        ("area_mm2", "mm2", "Area"),
        ("dram_bytes", "B", "DRAM"),
        ("dram_bytes_per_s", "B/s", "DRAM"),
        ("peak_bytes", "B", "Peak memory"),
        ("clock_hz", "Hz", "Clock"),
        ("edp_js", "J s", "EDP"),
        ("accuracy", "", "Accuracy"),
        ("status", "", "Status"),  # ends in s, but not in _s
    ],
)
def test_metrics_name_their_unit(metric, unit, text):
    assert (unit_of(metric), label(metric)) == (unit, text)


def test_a_model_in_words():
    def block(keep, weights):
        return BlockSpec(heads=2, mlp_hidden=96, keep_tokens=keep, weight_bits=weights, activation_bits=8)

    model = ModelSpec(
        task=TASK,
        patch=4,
        dim=48,
        blocks=(block(10, 8), block(6, 6), block(None, 4)),
        token_method="prune",
        edge_bits=8,
    )
    assert describe_model(model) == "dim 48, 3 blocks, 2 heads, MLP 96, patch 4, prune 16>10>6, W 8/6/4 A 8 edges 8"


def test_a_plain_model_in_words():
    one = ModelSpec(task=TASK, patch=8, dim=16, blocks=(BlockSpec(heads=1, mlp_hidden=32),), overlap=2, stem_hidden=24)
    assert describe_model(one) == "dim 16, 1 block, 1 head, MLP 32, patch 8+2, stem 24, float"


def test_an_accelerator_in_words():
    parameters = {
        "rows": 16,
        "cols": 32,
        "dataflow": "ws",
        "ifmap_kib": 8,
        "filter_kib": 8,
        "ofmap_kib": 4,
        "dram_bytes_per_s": 1e9,
        "clock_hz": 4e8,
    }
    assert describe_accelerator(AcceleratorSpec.of("systolic", parameters)) == (
        "16x32 ws, 8/8/4 KiB, 1.00 GB/s, 400 MHz"
    )
    more = AcceleratorSpec.of("systolic", parameters | {"pe_bits": 4, "vector_lanes": 32, "overlap": "scalesim"})
    assert describe_accelerator(more) == (
        "16x32 ws, 8/8/4 KiB, 1.00 GB/s, 400 MHz, 4-bit PEs, 32 lanes, overlap scalesim"
    )


def test_an_unknown_template_lists_its_parameters():
    spec = AcceleratorSpec.of("tree", {"leaves": 64, "cache_bytes": 4096, "gated": True})
    assert describe_accelerator(spec) == "tree cache_bytes 4 KiB, gated True, leaves 64"


def test_parameters_without_a_customary_place_follow_by_name() -> None:
    parameters = {"dim": 16, "dataflow": "ws", "scratchpad_kib": 256, "dma_bits": 128, "clock_hz": 1e9}
    assert describe_accelerator(AcceleratorSpec.of("gemmini", parameters)) == (
        "gemmini ws, 1.00 GHz, dim 16, dma 128 bit, scratchpad 256 KiB"
    )


def model_of(*blocks, **fields):
    return ModelSpec(task=TASK, patch=2, dim=48, blocks=blocks, **fields)


def block_of(**fields):
    return BlockSpec(**({"heads": 2, "mlp_hidden": 96} | fields))


@pytest.mark.parametrize(
    ("blocks", "fields", "text"),
    [
        ([{"mixer": "linear"}], {}, "2 heads, mixer linear, MLP 96, patch 2, float"),
        (
            [{"heads": 1, "mixer": "pool"}, {}, {"mixer": "sigmoid"}],
            {},
            "1/2/2 heads, mixer pool/softmax/sigmoid, MLP 96, patch 2, float",
        ),
        ([{"heads": 8, "query_heads": 4}], {}, "8 heads, query heads 4, MLP 96, patch 2, float"),
        (
            [{"heads": 8, "query_heads": 4, "kv_heads": 2}, {"heads": 8}],
            {},
            "8 heads, query heads 4/8, kv heads 2/8, MLP 96, patch 2, float",
        ),
        ([{"heads": 4, "kv_heads": 1}], {}, "4 heads, kv heads 1, MLP 96, patch 2, float"),
        ([{"mlp": "glu"}, {"mlp": "glu", "mlp_hidden": 64}], {}, "2 heads, GLU 96/64, patch 2, float"),
        ([{"mlp": "none", "mlp_hidden": 0}], {}, "2 heads, no MLP, patch 2, float"),
        (
            [{}, {"mlp": "glu", "mlp_hidden": 64}, {"mlp": "none", "mlp_hidden": 0}],
            {},
            "2 heads, MLP gelu 96/glu 64/none, patch 2, float",
        ),
        ([{"rank": 8}, {}], {}, "2 heads, MLP 96, rank 8/full, patch 2, float"),
        ([{"sparsity": (2, 4)}, {}], {}, "2 heads, MLP 96, sparsity 2:4/dense, patch 2, float"),
        (
            [{"weight_bits": 4, "weight_format": "mxfp4", "activation_bits": 8, "activation_format": "fp8_e4m3"}],
            {"edge_bits": 16, "edge_format": "bf16"},
            "2 heads, MLP 96, patch 2, W mxfp4 A fp8_e4m3 edges bf16",
        ),
        (
            [{"weight_bits": 4, "weight_format": "mxfp4"}, {"weight_bits": 4, "activation_bits": 8}, {}],
            {},
            "2 heads, MLP 96, patch 2, W mxfp4/4/float A float/8/float",
        ),
        ([{}], {"edge_bits": 8}, "2 heads, MLP 96, patch 2, W float A float edges 8"),
        ([{}], {"norm": "batchnorm", "pool": "ggem"}, "2 heads, MLP 96, patch 2, norm batchnorm, pool ggem, float"),
        (
            [{}],
            {"training": (("optimizer", "muon"), ("lr", 0.01))},
            "2 heads, MLP 96, patch 2, float, training lr=0.01 optimizer=muon",
        ),
        ([{"keep_tokens": 16}, {}], {"token_method": "lookup"}, "2 heads, MLP 96, patch 2, lookup 64>16, float"),
        (
            [{"keep_tokens": 40}, {"keep_tokens": 9}],
            {"token_method": "hired"},
            "2 heads, MLP 96, patch 2, hired 64>40>9, float",
        ),
    ],
)
def test_what_differs_from_the_default_is_named(blocks, fields, text):
    count = f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}"
    words = describe_model(model_of(*(block_of(**block) for block in blocks), **fields))
    assert words == f"dim 48, {count}, {text}"


def test_models_of_other_meaning_have_other_words():
    """Every field that a model's id knows of is seen in its words, but for what the task is."""
    specs = {}
    for seed in range(300):
        spec = random_model(seed)
        spec = replace(spec, task=replace(spec.task, channels=1, classes=2, labels=1))
        words = describe_model(spec), spec.task.image
        assert specs.setdefault(words, spec.id) == spec.id, words
