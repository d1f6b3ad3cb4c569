"""Heterogeneous accelerators against the best homogeneous ones of the same PEs, buffers and bandwidth.

Prints the tables and writes them to ``heterogeneous.md`` beside this file.

Others' figures: NASAIC (Yang et al., DAC 2020, arXiv 2002.04116), abstract; Herald (Kwon et al., HPCA 2021, arXiv
1909.07437), abstract.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cosearch.hardware.heterogeneous import BLOCKS, DATAFLOWS, HeterogeneousASIC, heterogeneous_ledger
from cosearch.hardware.heterogeneous import assignment as spreading
from cosearch.hardware.ledger import Items, total
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Workload, workload

HERE = Path(__file__).parent
TECH = technology("horowitz_45nm")
KIB = 512
SPLITS = tuple(part / 8 for part in range(1, 8))


def vit(dim: int, side: int, patch: int, keep: int | None = None, bits: int = 8, depth: int = 12) -> Workload:
    block = BlockSpec(heads=dim // 64, mlp_hidden=4 * dim, weight_bits=bits, activation_bits=bits)
    first = dataclasses.replace(block, keep_tokens=keep)
    method = "prune" if keep else "none"
    task = TaskShape(image=(side, side), channels=3, classes=1000)
    blocks = (first, *(block,) * (depth - 1))
    return workload(ModelSpec(task=task, patch=patch, dim=dim, blocks=blocks, token_method=method, edge_bits=8))


WORKLOADS = {
    "DeiT-Tiny, 197 tokens": vit(192, 224, 16),
    "DeiT-Tiny, pruned to 50": vit(192, 224, 16, keep=49),
    "DeiT-Base, 197 tokens": vit(768, 224, 16),
    "ViT 128 wide, CIFAR, 65 tokens": vit(128, 32, 4, depth=6),
}


def subs(parts: Sequence[tuple[str, float, float]], pes: int) -> dict[str, object]:
    """Returns the fields of sub-accelerators of (dataflow, part of the PEs and the buffer, part of the bandwidth)."""
    fields: dict[str, object] = {}
    for slot in range(1, 5):
        fields[f"sub{slot}_dataflow"] = "none"
    for slot, (dataflow, share, bandwidth) in enumerate(parts, start=1):
        fields |= {
            f"sub{slot}_dataflow": dataflow,
            f"sub{slot}_pes": max(1, round(pes * share)),
            f"sub{slot}_buffer_kib": max(1, round(KIB * share)),
            f"sub{slot}_bandwidth_share": bandwidth,
        }
    return fields


def designs(pes: int, bandwidth: float, kind: str) -> Iterator[HeterogeneousASIC]:
    """Yields designs of one kind: ``one`` array, ``same`` dataflow twice, or two ``different`` dataflows."""
    base = HeterogeneousASIC(dram_bytes_per_s=bandwidth)
    if kind == "one":
        for dataflow in DATAFLOWS:
            yield dataclasses.replace(base, **subs([(dataflow, 1.0, 1.0)], pes))
        return
    pairs = [(d, d) for d in DATAFLOWS] if kind == "same" else list(itertools.combinations(DATAFLOWS, 2))
    for (one, two), split, part in itertools.product(pairs, SPLITS, SPLITS):
        yield dataclasses.replace(base, **subs([(one, split, part), (two, 1 - split, 1 - part)], pes))


def best(load: Workload, items: Sequence[HeterogeneousASIC], assign: str) -> tuple[float, float, HeterogeneousASIC]:
    """Returns the least latency or energy, the other of the same design, and the design."""
    chosen = [dataclasses.replace(item, assign=assign) for item in items]
    cost = total(heterogeneous_ledger(load, Items(tuple(chosen)), TECH))
    wanted = cost.latency_s if assign == "latency" else cost.energy_j
    at = int(np.argmin(wanted))
    return float(cost.latency_s[at]), float(cost.energy_j[at]), chosen[at]


def named(item: HeterogeneousASIC) -> str:
    return " + ".join(f"{sub.dataflow} {sub.pes} ({sub.bandwidth_share:.3g})" for sub in item.subs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def against_homogeneous() -> list[str]:
    out, gains = [], []
    ranges = ((1024, 16e9), (4096, 64e9))
    for assign, unit, position, scale in (("latency", "ms", 0, 1e3), ("energy", "uJ", 1, 1e6)):
        rows = []
        for (name, load), (pes, bandwidth) in itertools.product(WORKLOADS.items(), ranges):
            kinds = ("one", "same", "different")
            found = {kind: best(load, list(designs(pes, bandwidth, kind)), assign) for kind in kinds}
            values = {kind: costs[position] for kind, costs in found.items()}
            homogeneous = min(values["one"], values["same"])
            gains.append((assign, 1 - values["different"] / homogeneous))
            rows.append(
                [
                    f"{name}, {pes} PEs, {bandwidth / 1e9:g} GB/s",
                    *(f"{scale * value:.4g}" for value in values.values()),
                    f"{100 * (values['different'] / homogeneous - 1):+.1f} %",
                    named(found["different"][2]),
                ]
            )
        head = [
            "",
            f"one array, {unit}",
            "same dataflow twice",
            "two dataflows",
            "of the best homogeneous",
            "best pair",
        ]
        out += [f"### Least {assign}", "", *table(head, rows)]
    means = {a: 100 * float(np.mean([g for kind, g in gains if kind == a])) for a in ("latency", "energy")}
    won = {a: sum(g > 1e-9 for kind, g in gains if kind == a) for a in ("latency", "energy")}
    return [
        *out,
        "Against the best homogeneous design two dataflows change the latency by "
        f"{-means['latency']:+.1f} % on average "
        f"and the energy by {-means['energy']:+.1f} %; they win {won['latency']} and {won['energy']} of 8 cases. "
        "Herald reports 65.3 % less latency and 5.0 % less energy than the best accelerator of a fixed "
        "dataflow, NASAIC "
        "17.77 % less latency and 2.49 times less energy than designing network and accelerator one after the other. "
        "Neither is the same experiment: both run several networks at the same time, with layers from depthwise "
        "convolutions to fully connected ones, so that sub-accelerators work on different layers at once. One vision "
        "transformer is a chain of products of like shapes, all of which wait for each other: the "
        "factor does not carry "
        "over, and where the table shows a rise, neither does the direction. One array fetches each operand once; two "
        "that share a product both fetch its left one, and a part of the bandwidth idles when they are "
        "not done at once.",
        "",
    ]


def alone(load: Workload, pes: int, bandwidth: float) -> dict[tuple[str, float, float], float]:
    """Returns the latency on each part of a chip, with as much of the vector unit as of the PEs."""
    parts = list(itertools.product(DATAFLOWS, (*SPLITS, 1.0), (*SPLITS, 1.0)))
    items = [
        dataclasses.replace(
            HeterogeneousASIC(),
            **subs([(dataflow, split, 1.0)], pes),
            dram_bytes_per_s=bandwidth * part,
            vector_lanes=round(256 * split),
        )
        for dataflow, split, part in parts
    ]
    cost = total(heterogeneous_ledger(load, Items(tuple(items)), TECH))
    return dict(zip(parts, (float(value) for value in cost.latency_s), strict=True))


def two_networks() -> list[str]:
    """Two networks at the same time, each on its own sub-accelerator, against one after the other on one array."""
    rows = []
    for pes, bandwidth in ((1024, 16e9), (4096, 64e9)):
        latency = {name: alone(load, pes, bandwidth) for name, load in WORKLOADS.items()}
        for one, two in itertools.combinations(WORKLOADS, 2):
            serial = min(latency[one][d, 1.0, 1.0] + latency[two][d, 1.0, 1.0] for d in DATAFLOWS)
            beside: dict[bool, float] = {False: np.inf, True: np.inf}
            for first, second, split, part in itertools.product(DATAFLOWS, DATAFLOWS, SPLITS, SPLITS):
                took = max(latency[one][first, split, part], latency[two][second, 1 - split, 1 - part])
                beside[first != second] = min(beside[first != second], took)
            best_same = min(serial, beside[False])
            rows.append(
                [
                    f"{one} and {two}, {pes} PEs",
                    *(f"{1e3 * value:.4g}" for value in (serial, beside[False], beside[True])),
                    f"{100 * (beside[True] / best_same - 1):+.1f} %",
                ]
            )
    head = ["", "one array, in turn, ms", "same dataflow twice", "two dataflows", "of the best homogeneous"]
    return [
        "### Two networks at once, each on its own sub-accelerator (the setting of NASAIC)",
        "",
        *table(head, rows),
        "The vector unit is divided like the PEs; splits in eighths. Here, too, one array in turn is the fastest: the "
        "direction of NASAIC and Herald does not show on vision transformers in this model. All their layers are dense "
        "products that each of the three dataflows fills about equally well, and the time lost to a split that fits "
        "neither network exceeds what a fitting dataflow wins. Depthwise and other convolutions, as in the papers' "
        "networks, do not occur; whether the gains rest on them was not tested.",
        "",
    ]


def grain() -> list[str]:
    """How much finer blocks would gain."""
    load = WORKLOADS["DeiT-Tiny, 197 tokens"]
    items = list(designs(4096, 64e9, "different"))
    latencies = {}
    for blocks in (8, 16, BLOCKS, 128):
        spreading.BLOCKS = blocks  # type: ignore[misc]
        latencies[blocks] = total(heterogeneous_ledger(load, Items(tuple(items)), TECH)).latency_s
    spreading.BLOCKS = BLOCKS  # type: ignore[misc]
    finest = latencies[128]
    rows = [
        [str(blocks), *(f"{100 * float(of(values / finest - 1)):.2f} %" for of in (np.mean, np.max))]
        for blocks, values in latencies.items()
    ]
    return [
        "### Blocks of columns: latency over that with 128 blocks, DeiT-Tiny, 147 designs",
        "",
        *table(["blocks at most", "mean", "worst"], rows),
    ]


def speed() -> list[str]:
    load, items = WORKLOADS["DeiT-Tiny, 197 tokens"], list(designs(4096, 64e9, "different")) * 20
    start = time.perf_counter()
    heterogeneous_ledger(load, Items(tuple(items)), TECH)
    rate = len(items) / (time.perf_counter() - start)
    return [
        f"Exact assignment of DeiT-Tiny to two sub-accelerators: {rate:.0f} accelerators a second in one process.",
        "",
    ]


def main() -> None:
    text = "\n".join(
        [
            "# Heterogeneous accelerators",
            "",
            "Made by `bench/hardware/heterogeneous.py`, which names the sources of others' figures. All "
            "designs of a row "
            f"have the same PEs, {KIB} KiB of buffers and the same bandwidth; pairs split PEs with buffers, "
            "and bandwidth, in "
            "eighths (49 splits for each pair of dataflows). In brackets: part of the bandwidth.",
            "",
            *against_homogeneous(),
            *two_networks(),
            *grain(),
            *speed(),
        ]
    )
    print(text)
    (HERE / "heterogeneous.md").write_text(text)


if __name__ == "__main__":
    main()
