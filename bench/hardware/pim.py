"""Processing in memory: ISAAC's totals, attention on crossbars or beside them, and what bits and tiles change.

Prints the tables and writes them to ``pim.md`` beside this file.

Others' figures: ISAAC's peak, density and efficiency from "Hardware implementation of memristor-based artificial neural
networks" (Nature Communications 2024, s41467-024-45670-9), table 3, a secondary source; X-Former (Sridharan et al.
2023, arXiv 2303.07470), TrilinearCIM (arXiv 2604.07628) and ReTransformer (Yang et al., ICCAD 2020), abstracts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosearch.hardware.ledger import Items, total
from cosearch.hardware.pim import PIM, pim_ledger
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

HERE = Path(__file__).parent
TECH = technology("stillmaker_32nm")
CHIP_W, CHIP_MM2, LINK_W, LINK_MM2 = 65.8, 85.4, 10.4, 22.88
"""ISAAC-CE's power and area, and those of its links to other chips, which are not modelled (links not checked)."""


def vit(dim: int, bits: int = 8, side: int = 224) -> Workload:
    block = BlockSpec(heads=dim // 64, mlp_hidden=4 * dim, weight_bits=bits, activation_bits=bits)
    task = TaskShape(image=(side, side), channels=3, classes=1000)
    return workload(ModelSpec(task=task, patch=16, dim=dim, blocks=(block,) * 12, edge_bits=8))


def full_chip(rows: int = 4096) -> Workload:
    """Returns one layer of 16 bits that fills ISAAC's 16128 crossbars: 126 down and 128 across."""
    k, n = 126 * 128, 128 * 128 // 8
    op = Operator(
        name="layer",
        kind=OperatorKind.MATMUL,
        m=rows,
        k=k,
        n=n,
        a_bits=16,
        b_bits=16,
        out_bits=16,
        weights=True,
        inputs=("x", "layer.weight"),
        output="layer",
    )
    tensors = (
        Tensor(name="x", elements=rows * k, bits=16),
        Tensor(name="layer.weight", elements=k * n, bits=16, weight=True),
        Tensor(name="layer", elements=rows * n, bits=16),
    )
    return Workload((op,), tensors)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def isaac_totals() -> list[str]:
    load = full_chip()
    roomy = PIM(dram_bytes_per_s=1e15, tile_buffer_kib=64, digital_pes=1, vector_lanes=1)
    ledger = pim_ledger(load, Items((roomy,)), TECH)
    seconds = float(ledger.compute_cycles[0, 0] / ledger.clock_hz[0])
    joules = float(ledger.mac_j[0, 0] + ledger.sram_j[0, 0] + ledger.leak_w[0] * seconds)
    tops = 2e-12 * load.macs / seconds
    watts, mm2 = joules / seconds, float(ledger.area_mm2[0])
    theirs_w, theirs_mm2 = CHIP_W - LINK_W, CHIP_MM2 - LINK_MM2
    rows = [
        ["peak, TOPS at 16 bits", f"{tops:.1f}", "41.3"],
        ["power without links, W", f"{watts:.1f}", f"{theirs_w:.1f}"],
        ["area without links, mm2", f"{mm2:.1f}", f"{theirs_mm2:.1f}"],
        ["TOPS/W with its links' power added", f"{tops / (watts + LINK_W):.2f}", "0.63"],
        ["TOPS/mm2 with its links' area added", f"{tops / (mm2 + LINK_MM2):.2f}", "0.48"],
    ]
    return [
        "### ISAAC-CE, all crossbars at work",
        "",
        *table(["", f"ours ({TECH.name})", "ISAAC"], rows),
        "The peak is the same by construction. Buffers differ: SRAM here, eDRAM there, and ISAAC counts "
        "each part at its "
        "full power while this model counts accesses, so one large layer, whose inputs feed all columns, moves less.",
        "",
    ]


def attention() -> list[str]:
    rows = []
    for name, dim, side in (("Tiny", 192, 224), ("Base", 768, 224), ("Base", 768, 384)):
        load = vit(dim, side=side)
        base = PIM(tiles=672)
        items = (base, dataclasses.replace(base, digital_pes=4096), dataclasses.replace(base, attention="crossbar"))
        ledger = pim_ledger(load, Items(items), TECH)
        cost = total(ledger)
        core = [
            row
            for op, row in zip(load.operators, ledger.members, strict=True)
            if op.kind is OperatorKind.MATMUL and not op.weights
        ]
        cycles = (ledger.compute_cycles + ledger.stall_cycles)[core].sum(axis=0)
        joules = (ledger.mac_j + ledger.sram_j)[core].sum(axis=0)
        rows.append(
            [
                f"DeiT-{name}, {(side // 16) ** 2 + 1} tokens",
                *(f"{cycles[2] / cycles[i]:.2f}" for i in (0, 1)),
                *(f"{joules[2] / joules[i]:.2f}" for i in (0, 1)),
                *(f"{cost.latency_s[2] / cost.latency_s[i]:.2f}" for i in (0, 1)),
                *(f"{cost.energy_j[2] / cost.energy_j[i]:.2f}" for i in (0, 1)),
            ]
        )
    head = [""]
    for what in ("products: latency", "products: energy", "model: latency", "model: energy"):
        head += [f"{what}, over 1024 PEs", "over 4096 PEs"]
    return [
        "### Attention on crossbars, over a digital engine: four ISAAC chips, so that all weights stay",
        "",
        *table(head, rows),
        "X-Former, which has the digital engine, reports up to 10.7 times less latency and 4.6 times "
        "less energy than an "
        "accelerator with all on memristors; TrilinearCIM, which avoids the writes otherwise, up to "
        "20.4 % less latency "
        "and 46.6 % less energy, over crossbars that are written. The direction agrees in all rows. The "
        "latency is about "
        "theirs at best: most of it is reading, a row of the left operand and a bit of it after "
        "another, for lack of copies "
        "of what was just written. The energy saved is less: writing is cheap here (1.3 pJ a cell once, without "
        "verification) and attention a small part of a vision transformer. ReTransformer compares with a GPU and "
        "PipeLayer, which are not modelled.",
        "",
    ]


def bits() -> list[str]:
    rows = []
    for name, dim in (("Tiny", 192), ("Base", 768)):
        chip = PIM(tiles=672, digital_pes=4096)
        costs = [total(pim_ledger(vit(dim, bits=b), Items((chip,)), TECH)) for b in (8, 6, 4, 2)]
        for what, field, scale in (("latency, ms", "latency_s", 1e3), ("energy, uJ", "energy_j", 1e6)):
            rows.append([f"DeiT-{name}, {what}", *(f"{scale * float(getattr(c, field)[0]):.4g}" for c in costs)])
    return [
        "### Bits of weights and activations",
        "",
        *table(["", "8", "6", "4", "2"], rows),
        "Cells and reads both count in proportion, so halving both asks for a quarter of the "
        "conversions; latency gains "
        "from more copies of each layer, too.",
        "",
    ]


def tiles() -> list[str]:
    counts = (21, 42, 84, 168, 336, 672)
    rows = []
    for name, dim in (("Tiny", 192), ("Base", 768)):
        cost = total(pim_ledger(vit(dim), Items(tuple(PIM(tiles=count) for count in counts)), TECH))
        for what, values in (
            ("latency, ms", 1e3 * cost.latency_s),
            ("energy, uJ", 1e6 * cost.energy_j),
            ("DRAM, MB", 1e-6 * cost.dram_bytes),
            ("mm2", cost.area_mm2),
        ):
            rows.append([f"DeiT-{name}, {what}", *(f"{float(v):.4g}" for v in np.asarray(values))])
    return [
        "### Tiles: weights that stay, or are written for each image",
        "",
        *table(["", *(str(count) for count in counts)], rows),
    ]


def main() -> None:
    text = "\n".join(
        [
            "# Processing in memory",
            "",
            "Made by `bench/hardware/pim.py`, which names the sources of others' figures.",
            "",
            *isaac_totals(),
            *attention(),
            *bits(),
            *tiles(),
        ]
    )
    print(text)
    (HERE / "pim.md").write_text(text)


if __name__ == "__main__":
    main()
