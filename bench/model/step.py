"""Times fake quantisation and a training step on one core; prints what ``step.md`` holds.

    OMP_NUM_THREADS=1 python bench/model/step.py > bench/model/step.md

Every figure is the least of many rounds in which the alternatives take turns, so that a busy machine disturbs all
alike.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cosearch.model import VisionTransformer, build_model, calibrate
from cosearch.model.formats import IntegerQuantizer
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

BATCH, DIM, DEPTH, HEADS, HIDDEN = 64, 64, 4, 4, 256


def least(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the least time of each, in microseconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: value * 1e6 for name, value in best.items()}


def textbook(x: Tensor, scale: Tensor, low: int, high: int, factor: float) -> Tensor:
    """LSQ as its paper writes it, with autograd on each step."""
    step = (scale - scale * factor).detach() + scale * factor
    step = step.view(-1, *[1] * (x.dim() - 1)) if step.numel() > 1 else step
    v = (x / step).clamp(low, high)
    return ((v.round() - v).detach() + v) * step


class Textbook(nn.Module):
    """An `IntegerQuantizer` that computes as `textbook` does."""

    def __init__(self, quantizer: IntegerQuantizer) -> None:
        super().__init__()
        self.scale, self.low, self.high = quantizer.scale, quantizer.low, quantizer.high
        self.factor = quantizer.gradient_scale

    def forward(self, x: Tensor) -> Tensor:
        return textbook(x, self.scale, self.low, self.high, self.factor)


def there_and_back(run: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Callable[[], None]:
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn_like(run(x))

    def both() -> None:
        run(x).backward(dy)
        x.grad = None

    return both


def make(bits: int, method: str = "none") -> VisionTransformer:
    keeps = (None,) * DEPTH if method == "none" else (None, 12, None, 8)
    blocks = tuple(
        BlockSpec(heads=HEADS, mlp_hidden=HIDDEN, keep_tokens=keep, weight_bits=bits, activation_bits=bits)
        for keep in keeps
    )
    task = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
    spec = ModelSpec(task=task, patch=4, dim=DIM, blocks=blocks, token_method=method, edge_bits=8 if bits < 32 else 32)
    model = build_model(spec)
    calibrate(model, torch.randn(BATCH, 1, 16, 16))
    return model


def replace(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, IntegerQuantizer):
                setattr(module, name, Textbook(child))
    return model


def stepper(model: nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images, labels = torch.randn(BATCH, 1, 16, 16), torch.randint(0, 10, (BATCH * 2,))

    def step() -> None:
        F.cross_entropy(model(images).flatten(0, 1), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def calls() -> None:
    print("## One quantiser, forwards and backwards, microseconds\n")
    print("| tensor | values | scales | textbook LSQ | here | of it forwards |\n|---|---|---|---|---|---|")
    for name, shape, channels in (
        ("weight 64 x 64", (64, 64), 64),
        ("weight 256 x 64", (256, 64), 256),
        ("tokens, dim 64", (BATCH, 17, 64), 1),
        ("q, k, v", (3, BATCH, HEADS, 17, 16), 3),
        ("tokens, hidden 256", (BATCH, 17, 256), 1),
    ):
        quantizer = IntegerQuantizer(4, channels=channels, values=1000)
        x = torch.randn(shape)
        quantizer(x)
        runs = {
            "old": there_and_back(Textbook(quantizer), shape),
            "new": there_and_back(quantizer, shape),
            "forward": lambda quantizer=quantizer, x=x: quantizer(x),
        }
        t = least(runs, 150)
        print(f"| {name} | {x.numel()} | {channels} | {t['old']:.0f} | {t['new']:.0f} | {t['forward']:.0f} |")


def convolution(stem: nn.Module) -> Callable[[Tensor], Tensor]:
    side = stem.patch + 2 * stem.overlap

    def run(images: Tensor) -> Tensor:
        kernel = stem.conv.weight.view(DIM, 1, side, side)
        out = F.conv2d(images, kernel, stem.conv.bias, stride=stem.patch, padding=stem.overlap)
        return out.flatten(2).transpose(1, 2)

    return run


def stems() -> None:
    print("\n## Stem, forwards and backwards (to the pixels too, whose scale is learned), microseconds\n")
    print("| kernel | convolution | here |\n|---|---|---|")
    for overlap in (0, 2):
        task = TaskShape(image=(16, 16), channels=1, classes=10)
        block = BlockSpec(heads=1, mlp_hidden=1)
        stem = build_model(ModelSpec(task=task, patch=4, dim=DIM, blocks=(block,), overlap=overlap)).stem
        shape = (BATCH, 1, 16, 16)
        t = least({"conv": there_and_back(convolution(stem), shape), "here": there_and_back(stem, shape)}, 100)
        print(f"| {stem.patch + 2 * overlap} pixels | {t['conv']:.0f} | {t['here']:.0f} |")


def attentions() -> None:
    print("\n## Attention of one block, forwards and backwards, microseconds\n")
    print("| tokens | heads x depth | fused kernel | two products and a softmax |\n|---|---|---|---|")
    for tokens, heads, depth in ((17, 2, 32), (17, 4, 16), (50, 3, 16), (65, 4, 16)):
        shape = (BATCH, tokens, 3, heads, depth)

        def fused(x: Tensor) -> Tensor:
            q, k, v = x.permute(2, 0, 3, 1, 4).unbind(0)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        def plain(x: Tensor) -> Tensor:
            q, k, v = x.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
            scores = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
            return torch.matmul(scores.softmax(3), v).transpose(1, 2).flatten(2)

        x, dy = torch.randn(shape, requires_grad=True), torch.randn(BATCH, tokens, heads * depth)
        runs = {"fused": lambda x=x, dy=dy: fused(x).backward(dy), "plain": lambda x=x, dy=dy: plain(x).backward(dy)}
        t = least(runs, 60)
        print(f"| {tokens} | {heads} x {depth} | {t['fused']:.0f} | {t['plain']:.0f} |")


def steps() -> None:
    print("\n## One training step, milliseconds\n")
    print(f"dim {DIM}, depth {DEPTH}, {HEADS} heads, MLP {HIDDEN}, 17 tokens, batch {BATCH}, AdamW; 4 bits, edges 8.\n")
    print("| tokens | 32 bits | 4 bits, textbook LSQ | 4 bits, here |\n|---|---|---|---|")
    for method in ("none", "prune", "merge"):
        models = {"float": make(32, method), "textbook": replace(make(4, method)), "here": make(4, method)}
        t = least({name: stepper(model) for name, model in models.items()}, 40)
        print(f"| {method} | {t['float'] / 1e3:.1f} | {t['textbook'] / 1e3:.1f} | {t['here'] / 1e3:.1f} |")


PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "fake quantisation": ("_FakeQuantize", "_FakeQuantizeBackward"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data"),
    "LayerNorm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "copies": ("aten::copy_",),
}


def parts() -> None:
    step = stepper(make(4))
    for _ in range(5):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(20):
            step()
    events = {event.key: event for event in found.key_averages()}
    total = sum(event.self_cpu_time_total for event in events.values())
    print("\n## How the quantised step divides (profiler, overhead of profiling included)\n")
    print("| part | share |\n|---|---|")
    rest = 1.0
    for part, names in PARTS.items():
        times = [
            events[name].cpu_time_total if name.startswith("_Fake") else events[name].self_cpu_time_total
            for name in names
            if name in events
        ]
        rest -= sum(times) / total
        print(f"| {part} | {sum(times) / total:.0%} |")
    print(f"| the rest: adding, joining, optimiser, bookkeeping | {rest:.0%} |")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("# Time of a training step\n\nMade by `bench/model/step.py` on one core of a shared machine, torch", end=" ")
    print(f"{torch.__version__}, {platform.machine()}. Least of many rounds; the alternatives take turns.")
    print("Where other work shares the core, compare within a row, not between rows.\n")
    calls()
    stems()
    attentions()
    steps()
    parts()


if __name__ == "__main__":
    main()
