"""What the choices of the systolic template are worth, beside what others report, and where costs are monotone.

Run ``OMP_NUM_THREADS=1 python bench/hardware/systolic.py``: prints the tables and writes them to systolic.md beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosearch.errors import SpecError
from cosearch.hardware import (
    PE_BITS,
    Cost,
    SystolicArray,
    SystolicArrays,
    estimate,
    estimate_batch,
    technology,
)
from cosearch.space import load_space
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.words import quantity
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

TECH = technology("horowitz_45nm")
IMAGENET = TaskShape(image=(224, 224), channels=3, classes=1000)
DIGITS = TaskShape(image=(16, 16), channels=1, classes=10, labels=2)
SPACES = {
    "vit_digits_systolic": DIGITS,
    "vit_cifar_systolic": TaskShape(image=(32, 32), channels=3, classes=10),
    "deit_tiny_edge": IMAGENET,
}


def deit(dim: int = 192, heads: int = 3, bits: int = 8, keep: float = 1.0) -> Workload:
    """DeiT; ``keep`` prunes after blocks 3, 6 and 9 (numbered from 0), as EViT does."""
    blocks, tokens = [], 196
    for index in range(12):
        kept = None
        if keep < 1 and index in (3, 6, 9):
            tokens = round(tokens * keep)
            kept = tokens
        blocks.append(
            BlockSpec(heads=heads, mlp_hidden=4 * dim, weight_bits=bits, activation_bits=bits, keep_tokens=kept)
        )
    method = "prune" if keep < 1 else "none"
    return workload(ModelSpec(task=IMAGENET, patch=16, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=8))


def small() -> Workload:
    """A model of the quickstart's size."""
    block = BlockSpec(heads=4, mlp_hidden=128, weight_bits=8, activation_bits=8)
    model = ModelSpec(task=DIGITS, patch=4, overlap=2, stem_hidden=64, dim=64, blocks=(block,) * 3, edge_bits=8)
    return workload(model)


def product(m: int, k: int, n: int, count: int = 1) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        count=count,
        a_bits=8,
        b_bits=8,
        out_bits=8,
        weights=True,
        inputs=("x", "w"),
        output="p",
    )
    sizes = {"x": m * k * count, "w": k * n * count, "p": m * n * count}
    return Workload((op,), tuple(Tensor(name=name, elements=size, bits=8) for name, size in sizes.items()))


BIG = SystolicArray(
    rows=32,
    cols=32,
    dataflow="ws",
    ifmap_kib=128,
    filter_kib=128,
    ofmap_kib=128,
    dram_bytes_per_s=4e9,
    clock_hz=5e8,
    vector_lanes=64,
)
TINY = dataclasses.replace(BIG, rows=16, cols=16, ifmap_kib=8, filter_kib=8, ofmap_kib=8, dram_bytes_per_s=1e9)


def choices(load: Workload, base: SystolicArray, memory: int) -> list[str]:
    full = {"overlap": "double_buffered", "mapping": "search", "attention": "fused"}
    steps: Sequence[tuple[str, dict[str, object]]] = (
        ("as SCALE-Sim: ws, no overlap, order of folds", {}),
        ("os", {"dataflow": "os"}),
        ("is", {"dataflow": "is"}),
        ("ws, overlap: double_buffered", {"overlap": "double_buffered"}),
        ("and mapping: search", {"overlap": "double_buffered", "mapping": "search"}),
        ("and attention: fused", full),
        (f"and activation_kib: {memory}", full | {"activation_kib": memory}),
        (f"and weight_kib: {memory}", full | {"activation_kib": memory, "weight_kib": memory}),
    )
    lines = ["| array | latency | energy | DRAM traffic | area |", "|---|---:|---:|---:|---:|"]
    for name, changes in steps:
        cost = estimate(load, dataclasses.replace(base, **changes), TECH)  # type: ignore[arg-type]
        lines.append(
            f"| {name} | {quantity(cost.latency_s, 's')} | {quantity(cost.energy_j, 'J')} | "
            f"{quantity(cost.dram_bytes, 'B')} | {quantity(cost.area_mm2, 'mm2')} |"
        )
    return lines


def attention_bytes(cost: Cost) -> float:
    return sum(op.dram_bytes for op in cost.operators if op.name.endswith((".scores", ".softmax", ".context")))


def published() -> list[str]:
    qkv = {}
    for overlap in ("scalesim", "double_buffered"):
        array = dataclasses.replace(BIG, rows=16, cols=16, overlap=overlap, dram_bytes_per_s=1e12)
        cycles = [estimate(product(tokens, 192, 576), array, TECH).compute_cycles for tokens in (197, 50)]
        qkv[overlap] = cycles[0] / cycles[1]
    best = dataclasses.replace(BIG, overlap="double_buffered", mapping="search", dram_bytes_per_s=16e9)
    pruned = {
        keep: estimate(deit(384, 6), best, TECH).latency_s / estimate(deit(384, 6, keep=keep), best, TECH).latency_s
        for keep in (0.9, 0.7, 0.5)
    }
    narrow = dataclasses.replace(best, pe_kind="bit_fusion")
    wide, four = (estimate(deit(384, 6, bits=bits), narrow, TECH) for bits in (8, 4))
    matrix = [sum(op.cycles for op in cost.operators if op.macs) for cost in (wide, four)]
    growth = []
    for side in (14, 28, 56):
        block = BlockSpec(heads=3, mlp_hidden=768, weight_bits=8, activation_bits=8)
        task = TaskShape(image=(16 * side, 16 * side), channels=3, classes=1000)
        load = workload(ModelSpec(task=task, patch=16, dim=192, blocks=(block,), edge_bits=8))
        apart, one = (
            attention_bytes(estimate(load, dataclasses.replace(best, attention=how), TECH))
            for how in ("unfused", "fused")
        )
        growth.append(f"{side * side + 1} tokens {apart / one:.1f}")
    array = dataclasses.replace(BIG, rows=64, cols=64, ifmap_kib=512, filter_kib=512, ofmap_kib=512)
    depthwise = estimate(product(196, 9, 1, 512), array, TECH)
    grouped = [estimate(product(196, 9 * g, g, 512 // g), array, TECH) for g in (4, 16)]
    draco = ", ".join(
        f"groups of {g}: use x {cost.utilisation / depthwise.utilisation:.0f}, "
        f"latency x {cost.latency_s / depthwise.latency_s:.2f}"
        for g, cost in zip((4, 16), grouped, strict=True)
    )
    rows = (
        (
            "tokens 197 to 50, QKV of DeiT-Tiny on 16 x 16",
            "2.5 without overlap, 3.9 with (this project's requirements)",
            f"{qkv['scalesim']:.2f} and {qkv['double_buffered']:.2f}",
        ),
        (
            "EViT on DeiT-S, keep 0.7 three times: speed on a GPU",
            "+50 % (Liang et al. 2022, abstract)",
            ", ".join(f"keep {keep}: +{100 * (ratio - 1):.0f} %" for keep, ratio in pruned.items()),
        ),
        (
            "4 against 8 bits: speed",
            "1.45 for ResNet50 on a T4 (HAWQ-V3, Yao et al. 2021, abstract)",
            f"DeiT-S on Bit Fusion PEs: {wide.latency_s / four.latency_s:.2f}; its matrix products alone: "
            f"{matrix[0] / matrix[1]:.2f}",
        ),
        (
            "attention in one pass: DRAM traffic apart over fused, by tokens",
            "grows with the tokens over the head's width (FlashAttention, Dao et al. 2022; FLAT, Kao et al. 2023)",
            ", ".join(growth),
        ),
        (
            "more reuse for a memory-bound layer, 64 x 64: a depthwise layer of MobileNetV1 (14 x 14 x 512, 3 x 3) in "
            "wider groups",
            "use +41.8 %, latency -42.6 % over the whole of MobileNetV1 (DRACO, Jha et al. 2020, abstract)",
            draco,
        ),
    )
    lines = ["| what | reported | ours |", "|---|---|---|"]
    return lines + [f"| {what} | {theirs} | {ours} |" for what, theirs, ours in rows]


def random_arrays(rng: np.random.Generator, count: int, attention: int, memory: bool) -> dict[str, np.ndarray]:
    return {
        "rows": rng.choice([4, 8, 16, 32, 64], count),
        "cols": rng.choice([4, 8, 16, 32, 64], count),
        "dataflow": rng.integers(0, 3, count),
        "ifmap_kib": rng.choice([1, 2, 8, 32, 64, 128, 256], count),
        "filter_kib": rng.choice([1, 2, 8, 32, 64, 128, 256], count),
        "ofmap_kib": rng.choice([1, 2, 8, 32, 64, 128, 256], count),
        "dram_bytes_per_s": rng.uniform(1e8, 1e11, count),
        "clock_hz": rng.uniform(1e8, 1e9, count),
        "pe_bits": rng.choice(PE_BITS, count),
        "vector_lanes": rng.choice([8, 16, 32], count),
        "overlap": rng.integers(0, 2, count),
        "mapping": rng.integers(0, 2, count),
        "attention": np.full(count, attention),
        "activation_kib": rng.choice([8, 64, 300], count) if memory else np.zeros(count),
        "weight_kib": rng.choice([0, 0, 100], count),
    }


def leaner(model: ModelSpec) -> dict[str, ModelSpec]:
    """The model with a bit less of weights and activations, and with a token less after each reduction."""
    out = {}
    blocks = [
        dataclasses.replace(
            block, weight_bits=max(2, block.weight_bits - 1), activation_bits=max(2, block.activation_bits - 1)
        )
        for block in model.blocks
    ]
    out["a bit less"] = dataclasses.replace(model, blocks=tuple(blocks))
    if model.token_method != "none":
        with contextlib.suppress(SpecError):  # a count that the method cannot reach from the one before
            out["a token less"] = dataclasses.replace(
                model,
                blocks=tuple(
                    dataclasses.replace(block, keep_tokens=block.keep_tokens - 1) if block.keep_tokens else block
                    for block in model.blocks
                ),
            )
    return out


def monotone(count: int = 2000, models: int = 10) -> list[str]:
    rng = np.random.default_rng(0)
    lines = [
        "| attention | memory for activations | change | pairs | more energy | by at most | more time | more DRAM |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for attention, memory in ((0, False), (1, False), (0, True), (1, True)):
        found: dict[str, list[np.ndarray]] = {}
        for name, task in SPACES.items():
            space = load_space(name, task)
            for _ in range(models):
                model = space.decode(space.sample(rng)).model
                fields = random_arrays(rng, count, attention, memory)
                before = estimate_batch(workload(model), SystolicArrays(**fields), TECH)
                for change, lean in leaner(model).items():
                    after = estimate_batch(workload(lean), SystolicArrays(**fields), TECH)
                    ratios = [getattr(after, n) / getattr(before, n) for n in ("energy_j", "latency_s", "dram_bytes")]
                    found.setdefault(change, []).append(np.array(ratios))
                for buffer in ("ifmap_kib", "filter_kib", "ofmap_kib", "activation_kib"):
                    after = estimate_batch(
                        workload(model), SystolicArrays(**(fields | {buffer: fields[buffer] * 2})), TECH
                    )
                    ratios = [getattr(after, n) / getattr(before, n) for n in ("energy_j", "latency_s", "dram_bytes")]
                    found.setdefault("a memory doubled", []).append(np.array(ratios))
        for change, parts in found.items():
            energy, time, dram = np.concatenate(parts, axis=1)
            grown = f"{100 * max(energy.max() - 1, 0):.1f} %" if change != "a memory doubled" else ""
            wrong = [np.mean(ratio > 1 + 1e-12) for ratio in (energy, time, dram)]
            shown = ["" if change == "a memory doubled" else f"{wrong[0]:.3%}", grown, f"{wrong[1]:.3%}"]
            how = ("unfused", "fused")[attention], "yes" if memory else "no"
            lines.append(f"| {how[0]} | {how[1]} | {change} | {energy.size:,} | {' | '.join(shown)} | {wrong[2]:.3%} |")
    return lines


def main() -> None:
    text = "\n".join(
        [
            "# Choices of the systolic template",
            "",
            "Made by `bench/hardware/systolic.py`; energy and area by `horowitz_45nm`.",
            "",
            "## DeiT-Tiny on 32 x 32, 3 x 128 KiB, 4 GB/s, 500 MHz, 64 lanes",
            "",
            *choices(deit(), BIG, 1024),
            "",
            "## A model of the quickstart (dim 64, 3 blocks, 16 tokens) on 16 x 16, 3 x 8 KiB, 1 GB/s",
            "",
            *choices(small(), TINY, 64),
            "",
            "## Beside what others report",
            "",
            *published(),
            "",
            "A GPU's speed is that of kernels and batches, and no array is a GPU: directions are compared, and sizes",
            "roughly. Narrow operands speed up the array alone; the vector unit takes as long as before, which a T4's",
            "fused kernels hide. DRACO changes the network so that a whole MobileNetV1 uses the array better; ours is",
            "one layer of it, whose multiply-accumulates grow with the groups.",
            "",
            "## Where costs are monotone",
            "",
            "Random pairs of models of the three systolic spaces and arrays; how often a leaner model, or a memory of",
            "twice the size, costs more. 0.000 % is never.",
            "",
            *monotone(),
            "",
            "Doubling a memory may cost time where it makes another tiling move fewer bytes, and costs energy where",
            "its accesses do; it never adds traffic. With a memory for activations, plans are made at eight sizes to",
            "the doubling, and as if each access moved a tensor once: a leaner model is offered other plans, and where",
            "an array fetches operands many times none of them may be as good as the wider model's.",
            "",
        ]
    )
    print(text)
    (Path(__file__).parent / "systolic.md").write_text(text)


if __name__ == "__main__":
    main()
