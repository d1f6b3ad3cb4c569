"""What the workload says of a model is what the built model does, for random models."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cosearch.model import build_model
from cosearch.model.formats import IntegerQuantizer, ScaledQuantizer
from cosearch.spec import MIXERS, MLPS, TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import FORMATS, random_model
from cosearch.workload import workload


def counted(spec: ModelSpec, device: str = "cpu") -> dict[str, int]:
    """Multiply-accumulates by the part of the model: stem, head, blocks.0, ..., and the total under ''."""
    with torch.device(device):
        model = build_model(spec).eval()
        images = torch.ones(1, spec.task.channels, *spec.task.image)
        for module in model.modules():
            if isinstance(module, (IntegerQuantizer, ScaledQuantizer)):  # any scale will do; fitting one takes a while
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
        spec = random_model(seed)
        expected = {"": workload(spec).macs}
        for op in workload(spec).operators:
            part = op.name.split(".")[0].replace("block", "blocks.")
            if op.macs:
                expected[part] = expected.get(part, 0) + op.macs
        assert counted(spec) == expected, f"seed {seed}: {spec}"


def test_the_random_models_cover_what_they_should() -> None:
    specs = [random_model(seed) for seed in range(200)]
    blocks = [block for spec in specs for block in spec.blocks]
    for method in TOKEN_METHODS:
        assert sum(spec.token_method == method for spec in specs) >= 8, method
    for field, known in (("mixer", MIXERS), ("mlp", MLPS)):
        for name in known:
            assert sum(getattr(block, field) == name for block in blocks) > 12, name
    assert sum(spec.norm == "batchnorm" for spec in specs) > 50
    assert sum(block.query_heads > 0 for block in blocks) > 10
    assert sum(block.kv_heads > 0 for block in blocks) > 10
    assert sum(block.rank > 0 for block in blocks) > 100
    assert sum(block.sparsity != (1, 1) for block in blocks) > 100
    assert len({block.weights_in for block in blocks}) == len(FORMATS)
    assert sum(spec.overlap > 0 and spec.stem_hidden > 0 for spec in specs) > 30


@pytest.mark.parametrize(("dim", "heads", "gmac"), [(192, 3, 1.26), (768, 12, 17.58)])
def test_published_vision_transformers(dim: int, heads: int, gmac: float) -> None:
    """DeiT-Tiny and ViT-Base at 224 pixels: timm's benchmark table (results/benchmark-infer, infer_gmacs)."""
    block = BlockSpec(heads=heads, mlp_hidden=4 * dim)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    spec = ModelSpec(task=task, patch=16, dim=dim, blocks=(block,) * 12)
    assert counted(spec, device="meta")[""] == workload(spec).macs
    assert workload(spec).macs / 1e9 == pytest.approx(gmac, rel=0.01)
