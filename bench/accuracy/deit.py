"""Holds DeiT and ViT built here against timm's: parameters, and logits with the same random weights.

Run ``python bench/accuracy/deit.py`` (a minute; needs timm, of the extra ``test``): prints the tables and writes them
to deit.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosearch.imported import adopt, as_model
from cosearch.model import VisionTransformer
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

HERE = Path(__file__).parent
TASK = TaskShape(image=(224, 224), channels=3, classes=1000)
SIZES = (
    ("deit_tiny_patch16_224", 192, 3, 12),
    ("vit_small_patch16_224", 384, 6, 12),
    ("vit_base_patch16_224", 768, 12, 12),
    ("vit_large_patch16_224", 1024, 16, 24),
)
SAME: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deit_tiny_patch16_224", {}),
    ("deit_small_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    ("vit_tiny_patch16_224", {"no_embed_class": True, "qkv_bias": False}),
)
IMAGES = 8


def find_timm() -> Any:
    """Returns timm; beside a torch without CUDA its import needs the names of two of torchvision's operators."""
    found = importlib.util.find_spec("torchvision")
    if found is None or importlib.util.find_spec("timm") is None:
        raise SystemExit("timm is not installed: pip install -e '.[test]'")
    try:
        torch.ops.load_library(Path(str(found.origin)).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import timm

    return timm


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def counts(timm: Any) -> list[str]:
    """Returns the table of parameters; nothing is drawn."""
    lines = ["| model | timm | here |", "|---|---:|---:|"]
    for name, dim, heads, depth in SIZES:
        block = BlockSpec(heads=heads, mlp_hidden=4 * dim)
        with torch.device("meta"):
            theirs = parameters(timm.create_model(name, pretrained=False))
            ours = parameters(VisionTransformer(ModelSpec(task=TASK, patch=16, dim=dim, blocks=(block,) * depth)))
        lines.append(f"| {name} | {theirs:,} | {ours:,} |")
    return lines


def logits(timm: Any) -> list[str]:
    """Returns the table of logits."""
    lines = [
        "| model | largest logit | largest difference | relative |",
        "|---|---:|---:|---:|",
    ]
    for name, options in SAME:
        torch.manual_seed(0)
        theirs = timm.create_model(name, pretrained=False, **options).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.dim() == 1:  # biases, gains and scales begin at 0, 1 or 1e-6
                    parameter.add_(0.1 * torch.randn_like(parameter))
        images = torch.randn(IMAGES, 3, 224, 224)
        with torch.no_grad():
            wanted, found = theirs(images), as_model(adopt(theirs))(images).flatten(1)
        most, difference = float(wanted.abs().max()), float((wanted - found).abs().max())
        said = "".join(f", {key}={value}" for key, value in options.items())
        lines.append(f"| {name}{said} | {most:.2f} | {difference:.1e} | {difference / most:.1e} |")
    return lines


def main() -> None:
    """Measures, and writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    timm = find_timm()
    page = [
        "# DeiT and ViT, held against timm",
        "",
        f"`python bench/accuracy/deit.py`; timm {timm.__version__}, torch {torch.__version__}, single precision, one "
        "thread.",
        "",
        "Parameters of models that are built from a spec:",
        "",
        *counts(timm),
        "",
        "Logits with timm's own random weights, biases and gains disturbed, taken over by `cosearch.imported.adopt`; "
        "random images. Tests hold the relative difference below 1e-5.",
        "",
        *logits(timm),
        "",
    ]
    print("\n".join(page))
    (HERE / "deit.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
