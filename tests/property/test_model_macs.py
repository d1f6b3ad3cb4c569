"""What the workload says of a model is what the built model does, for random models."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cosearch.model import build_model
from cosearch.model.formats import IntegerQuantizer
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

WIDTHS = [2, 3, 4, 5, 8, 16, 32]


def random_spec(seed: int) -> ModelSpec:
    rng = random.Random(seed)
    patch = rng.choice([2, 4])
    image = (patch * rng.randint(2, 6), patch * rng.randint(2, 6))
    method = rng.choice(["none", "prune", "merge"])
    tokens = image[0] * image[1] // patch**2
    dim, blocks, keeps = rng.choice([8, 12, 24]), [], []
    for _ in range(rng.randint(1, 4)):
        least = {"none": tokens, "prune": 2, "merge": tokens - tokens // 2}[method]
        keep = rng.randint(least, tokens - 1) if least < tokens and rng.random() < 0.6 else None
        tokens = tokens if keep is None else keep
        keeps.append(keep)
        weight_bits, activation_bits = rng.choice(WIDTHS), rng.choice(WIDTHS)
        if rng.random() < 0.3:
            weight_bits = activation_bits = 32
        blocks.append(
            BlockSpec(
                heads=rng.choice([1, 2, 4]),
                mlp_hidden=rng.randint(1, 40),
                keep_tokens=keep,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
            )
        )
    return ModelSpec(
        task=TaskShape(image=image, channels=rng.choice([1, 3]), classes=rng.randint(2, 10), labels=rng.randint(1, 2)),
        patch=patch,
        dim=dim,
        blocks=tuple(blocks),
        token_method=method if any(keeps) else "none",
        overlap=rng.randint(0, patch),
        stem_hidden=rng.choice([0, 0, 5, 16]),
        edge_bits=rng.choice(WIDTHS),
    )


def counted(spec: ModelSpec, device: str = "cpu") -> dict[str, int]:
    """Multiply-accumulates by the part of the model: stem, head, blocks.0, ..., and the total under ''."""
    with torch.device(device):
        model = build_model(spec).eval()
        images = torch.ones(1, spec.task.channels, *spec.task.image)
        for module in model.modules():
            if isinstance(module, IntegerQuantizer):  # any scale will do, and fitting one takes a while
                module.load_state_dict({"scale": torch.ones(module.channels)})
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    found = {"": counter.get_total_flops()}
    for name, flops in counter.get_flop_counts().items():
        part = name.removeprefix("VisionTransformer.")
        if part in ("stem", "head") or (part.startswith("blocks.") and part.count(".") == 1):
            found[part] = sum(flops.values())
    assert all(flops % 2 == 0 for flops in found.values())
    return {name: flops // 2 for name, flops in found.items()}


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_macs_equal_the_counter_part_by_part(first: int) -> None:
    for seed in range(first, first + 25):
        spec = random_spec(seed)
        expected = {"": workload(spec).macs}
        for op in workload(spec).operators:
            part = op.name.split(".")[0].replace("block", "blocks.")
            if op.macs:
                expected[part] = expected.get(part, 0) + op.macs
        assert counted(spec) == expected, f"seed {seed}: {spec}"


def test_the_random_models_cover_what_they_should() -> None:
    specs = [random_spec(seed) for seed in range(200)]
    for method in ("none", "prune", "merge"):
        assert sum(spec.token_method == method for spec in specs) > 30
    assert sum(spec.overlap > 0 and spec.stem_hidden > 0 for spec in specs) > 30
    assert sum(block.activation_bits < 32 for spec in specs for block in spec.blocks) > 100


@pytest.mark.parametrize(("dim", "heads", "gmac"), [(192, 3, 1.26), (768, 12, 17.58)])
def test_published_vision_transformers(dim: int, heads: int, gmac: float) -> None:
    """DeiT-Tiny and ViT-Base at 224 pixels: timm's benchmark table (results/benchmark-infer, infer_gmacs)."""
    block = BlockSpec(heads=heads, mlp_hidden=4 * dim)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    spec = ModelSpec(task=task, patch=16, dim=dim, blocks=(block,) * 12)
    assert counted(spec, device="meta")[""] == workload(spec).macs
    assert workload(spec).macs / 1e9 == pytest.approx(gmac, rel=0.01)
