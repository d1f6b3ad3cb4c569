"""Reads torch modules as workloads and holds their multiply-accumulates against torch's own flop counter.

Run ``python bench/model/imported.py``: prints the table and writes it to imported.md beside this file. timm's models
are read where timm is installed (it is no dependency of this project).
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cosearch.errors import UserError
from cosearch.hardware import SystolicArray, estimate, technology
from cosearch.imported import workload_of
from cosearch.imported.graph import dependent_nodes
from cosearch.model import build_model
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import workload

HERE = Path(__file__).parent
TIMM = (
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "pvt_v2_b0",
    "levit_128s",
    "efficientformer_l1",
    "efficientvit_b0",
    "mobilevit_xxs",
    "poolformer_s12",
    "maxvit_tiny_tf_224",
    "coatnet_0_rw_224",
    "convnext_atto",
    "mixer_s16_224",
    "resnet18",
    "mobilenetv3_small_100",
)
ARRAY = SystolicArray(
    rows=32,
    cols=32,
    dataflow="ws",
    ifmap_kib=64,
    filter_kib=64,
    ofmap_kib=64,
    dram_bytes_per_s=4e9,
    clock_hz=500e6,
)


class Attention(nn.Module):
    """Multi-head attention by torch's fused operator."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Hybrid(nn.Module):
    """Convolutions, then attention over what they leave."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 192)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish()]
        self.stem, self.norm = nn.Sequential(*layers), nn.LayerNorm(192)
        self.attention, self.head = Attention(192, 3), nn.Linear(192, 1000)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(self.norm(x))).mean(1))


def deit_tiny(method: str = "none", keep: int | None = None) -> ModelSpec:
    wide = BlockSpec(heads=3, mlp_hidden=768)
    cut = BlockSpec(heads=3, mlp_hidden=768, keep_tokens=keep)
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    return ModelSpec(task=task, patch=16, dim=192, blocks=(wide,) * 3 + (cut,) + (wide,) * 8, token_method=method)


def modules() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...], ModelSpec | None]]:
    layer = nn.TransformerEncoderLayer(192, 3, 768, batch_first=True, norm_first=True)
    yield (
        "torch: TransformerEncoder, 12 layers of 192",
        lambda: nn.TransformerEncoder(layer, 12, enable_nested_tensor=False),
        (1, 197, 192),
        None,
    )
    yield "torch: convolutions and attention", Hybrid, (1, 3, 224, 224), None
    for method, keep in (("none", None), ("prune", 98), ("merge", 120)):
        spec = deit_tiny(method, keep)
        yield f"cosearch: DeiT-Tiny, {method}", lambda spec=spec: build_model(spec), (1, 3, 224, 224), spec
    if importlib.util.find_spec("timm") is not None:
        import timm

        for name in TIMM:
            yield f"timm: {name}", lambda name=name: timm.create_model(name), (1, 3, 224, 224), None


def counted(module: nn.Module, inputs: Tensor) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module.eval()(inputs)
    return counter.get_total_flops() // 2


def of_constants(module: nn.Module, inputs: Tensor) -> int:
    """Returns the multiply-accumulates, by the counter's own formulas, of products that do not depend on the image."""
    with torch.no_grad():
        program = torch.export.export(module.eval(), (inputs,), strict=False).run_decompositions()
    dependent, flops = dependent_nodes(program), 0
    for node in program.graph.nodes:
        formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
        if formula is not None and node not in dependent:
            values = tree_map(lambda item: item.meta["val"] if isinstance(item, Node) else item, node.args)
            flops += formula(*values, out_val=node.meta["val"])
    return flops // 2


def row(name: str, make: Callable[[], nn.Module], size: tuple[int, ...], spec: ModelSpec | None) -> str:
    module, inputs = make(), torch.zeros(size)
    start = time.perf_counter()
    try:
        load = workload_of(module, inputs, name=name)
    except UserError as error:
        return f"| {name} | refused: {str(error).replace('|', '/')} | | | | | | |"
    seconds = time.perf_counter() - start
    flops = counted(module, inputs)
    agreement = "equal" if flops == load.macs else f"{load.macs - flops:+,} MACs"
    if flops != load.macs and load.macs + of_constants(module, inputs) == flops:
        agreement = f"equal, with {(flops - load.macs) / 1e6:,.1f} million of constants"
    if spec is not None:
        agreement += ", equal to the spec's" if workload(spec).macs == load.macs else ", not the spec's"
    cost = estimate(load, ARRAY, technology("horowitz_45nm"))
    products = sum(op.macs > 0 for op in load.operators)
    return (
        f"| {name} | {load.macs / 1e6:,.1f} | {agreement} | {products} | {len(load.operators) - products} | "
        f"{load.peak_activation_bytes / 1024:,.0f} | {cost.latency_s * 1e3:.1f} | {seconds:.1f} |"
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator is not counted
    with_timm = f", timm {version('timm')}" if importlib.util.find_spec("timm") else ", timm not installed"
    lines = [
        "# Torch modules read as workloads",
        "",
        f"Made by `bench/model/imported.py`, torch {torch.__version__}{with_timm}, {platform.machine()}, one thread",
        "of a shared machine. Weights random, 8 bits. The counter is `torch.utils.flop_counter` on the module itself,",
        "halved. It counts products of parameters alone too (tables of relative positions); a workload leaves them out",
        "because they are computed once: where the table says 'of constants', the counter's own formulas on these",
        "products give exactly the difference.",
        "Latency is the estimate for a 32 x 32 weight-stationary array (64 KiB a scratchpad, 4 GB/s, 500 MHz), to show",
        "that the result can be costed; seconds are those of export, decomposition and reading.",
        "",
        "| module | million MACs | against the counter | products | other operators | peak KiB | ms | seconds |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for name, make, size, spec in modules():
        lines.append(row(name, make, size, spec))
        print(lines[-1], flush=True)
    (HERE / "imported.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
