"""Models of timm, and what this project makes of their sizes and weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosearch.errors import UserError
from cosearch.imported import adopt, adopted_from_reference, as_model, workload_of
from cosearch.model import VisionTransformer
from cosearch.space import load_space
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.train.twins import float_twin, unreduced
from cosearch.workload import OperatorKind, workload

REASON = "timm is not installed: pip install -e '.[test]'"
IMAGENET = TaskShape(image=(224, 224), channels=3, classes=1000)
TOLERANCE = 1e-5
"""Relative to the largest logit, in single precision; products are summed in another order."""


@pytest.fixture(scope="session")
def timm() -> Any:
    """timm; beside a torch without CUDA its import needs the names of two operators.

    torchvision's wheel on PyPI is built for CUDA. Beside a CPU build of torch its library of operators does not load,
    and torchvision then stops where it describes the shapes of two of them; timm uses neither.
    """
    if importlib.util.find_spec("timm") is None or (found := importlib.util.find_spec("torchvision")) is None:
        pytest.fail(REASON)
    try:
        torch.ops.load_library(Path(str(found.origin)).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import timm

    return timm


def drawn(timm: Any, name: str, **options: Any) -> nn.Module:
    """Returns a model of timm with random weights, those that it begins at 0 or 1 too."""
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(name, pretrained=False, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images).flatten(1)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def deit_from_its_space() -> ModelSpec:
    """Returns the model of a point of ``spaces/deit_tiny_edge.yaml``, with all its tokens and in floating point."""
    space = load_space("deit_tiny_edge", IMAGENET)
    return unreduced(float_twin(space.model(space.sample(np.random.default_rng(0)))))


def test_deit_tiny_of_a_space_is_timms(timm):
    spec = deit_from_its_space()
    theirs = drawn(timm, "deit_tiny_patch16_224")
    adopted = adopt(theirs)
    assert spec == adopted.spec
    ours = as_model(adopted)
    assert parameters(ours) == parameters(theirs) == 5_717_416
    images = torch.randn(4, 3, 224, 224)
    found, wanted = logits(ours, images), logits(theirs, images)
    assert difference(found, wanted) <= TOLERANCE
    assert wanted.std() > 0.1, "the logits say something"
    assert (adopted.mean, adopted.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "dim", "heads", "depth", "count"),
    [
        ("deit_tiny_patch16_224", 192, 3, 12, 5_717_416),
        ("vit_small_patch16_224", 384, 6, 12, 22_050_664),
        ("vit_base_patch16_224", 768, 12, 12, 86_567_656),
        ("vit_large_patch16_224", 1024, 16, 24, 304_326_632),
    ],
)
def test_parameters_of_all_sizes(timm, name, dim, heads, depth, count):
    block = BlockSpec(heads=heads, mlp_hidden=4 * dim)
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False)
        ours = VisionTransformer(ModelSpec(task=IMAGENET, patch=16, dim=dim, blocks=(block,) * depth))
    assert parameters(ours) == parameters(theirs) == count


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit3_small_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"depth": 2, "no_embed_class": True, "qkv_bias": False}),
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": (64, 32), "num_classes": 7, "in_chans": 1}),
        ("vit_small_patch32_224", {"depth": 2, "mlp_ratio": 1.5}),
    ],
    ids=lambda value: str(value),
)
def test_relatives(timm, name, options):
    theirs = drawn(timm, name, **options)
    adopted = adopt(theirs)
    images = torch.randn(2, adopted.spec.task.channels, *adopted.spec.task.image)
    assert difference(logits(as_model(adopted), images), logits(theirs, images)) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, "a distillation token"),
        ("vit_tiny_patch16_224", {"depth": 1, "reg_tokens": 2}, "register tokens"),
        ("vit_tiny_patch16_224", {"depth": 1, "act_layer": "silu"}, "computes something else"),
        ("vit_tiny_patch16_224", {"depth": 1, "global_pool": "avg", "class_token": False}, "cls_token is missing"),
        ("vit_tiny_patch16_224", {"depth": 1, "num_classes": 0}, "head.weight is missing"),
        ("vit_tiny_patch16_224", {"depth": 1, "qk_norm": True}, "normalised queries and keys"),
    ],
    ids=lambda value: str(value),
)
def test_what_is_no_plain_vision_transformer(timm, name, options, said):
    with pytest.raises(UserError, match=said):
        adopt(drawn(timm, name, **options))


def test_torchvisions_too(timm):
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=96, num_classes=7
    ).eval()
    nn.init.normal_(theirs.heads.head.weight)
    adopted = adopt(theirs)
    assert adopted.origin == "torchvision"
    images = torch.randn(2, 3, 32, 32)
    assert difference(logits(as_model(adopted), images), logits(theirs, images)) <= TOLERANCE


def test_by_reference(timm, tmp_path):
    nets = tmp_path / "nets.py"
    nets.write_text(
        "import timm\n\ndef make():\n    return timm.create_model('vit_tiny_patch16_224', depth=1, num_classes=5)\n"
    )
    found = adopted_from_reference(f"{nets}:make")
    assert (found.spec.dim, len(found.spec.blocks), found.spec.task.classes) == (192, 1, 5)


def test_workload_of_the_module_is_that_of_its_spec(timm):
    """What `cosearch estimate --model` reads from timm's graph are the products that our own workload lists."""
    theirs = drawn(timm, "vit_tiny_patch16_224", depth=2)
    read = workload_of(theirs, (torch.zeros(1, 3, 224, 224),))
    own = workload(adopt(theirs).spec)

    def products(load: Any) -> list[tuple[int, int, int, int]]:
        return [(op.m, op.k, op.n, op.count) for op in load.operators if op.kind is OperatorKind.MATMUL]

    assert products(read) == products(own)
