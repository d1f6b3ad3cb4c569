"""Compares the FPGA and microcontroller templates with what papers and tools report.

Run ``python bench/hardware/embedded.py``: prints the tables and writes them to embedded.md beside this file.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cosearch.hardware import microcontroller as mcu
from cosearch.hardware.cost import BatchCost
from cosearch.hardware.fpga import Fpga, Fpgas, feasible, fits, fpga_ledger, fpga_resources
from cosearch.hardware.fpga.packing import LUT_PER_BIT2
from cosearch.hardware.ledger import Items, total
from cosearch.hardware.microcontroller import BOARDS, SCHEDULES, Microcontroller, microcontroller_ledger
from cosearch.hardware.technology import technology
from cosearch.spec import BlockSpec, ModelSpec, TaskShape
from cosearch.workload import Operator, OperatorKind, Tensor, Workload, workload

HERE = Path(__file__).parent
TECH = technology("stillmaker_16nm")
KEEP = (0.7, 0.7, 0.7)


def vit(
    dim: int,
    heads: int,
    *,
    bits: int = 8,
    weight_bits: int | None = None,
    image: tuple[int, int] = (224, 224),
    depth: int = 12,
    keep: tuple[float, ...] = (),
    classes: int = 1000,
) -> Workload:
    """A vision transformer of the DeiT family; ``keep`` prunes after the third, sixth and ninth block."""
    block = BlockSpec(
        heads=heads, mlp_hidden=4 * dim, weight_bits=bits if weight_bits is None else weight_bits, activation_bits=bits
    )
    tokens, blocks = image[0] * image[1] // 256, []
    for index in range(depth):
        if keep and index and index % 3 == 0 and index // 3 <= len(keep):
            tokens = max(2, round(tokens * keep[index // 3 - 1]))
            blocks.append(replace(block, keep_tokens=tokens))
        else:
            blocks.append(block)
    task = TaskShape(image=image, channels=3, classes=classes)
    method = "prune" if keep else "none"
    return workload(
        ModelSpec(task=task, patch=16, dim=dim, blocks=tuple(blocks), token_method=method, edge_bits=max(bits, 8))
    )


def on_fpga(load: Workload, fpga: Fpga) -> BatchCost:
    return total(fpga_ledger(load, Fpgas((fpga,)), TECH))


def designs() -> list[str]:
    out = [
        "| design | reported | source | ours | DSPs, LUTs, BRAM18 of ours | apart by |",
        "|---|---|---|---|---|---|",
    ]

    def row(name: str, reported_ms: float, power: str, source: str, load: Workload, fpga: Fpga) -> None:
        cost, need = on_fpga(load, fpga), fpga_resources(load, fpga)
        ours = 1e3 * float(cost.latency_s[0])
        out.append(
            f"| {name} | {reported_ms:.2f} ms, {power} | {source} | {ours:.2f} ms, {float(cost.power_w[0]):.1f} W "
            f"(engine {1e3 * float(cost.compute_cycles[0]) / fpga.clock_hz:.2f} ms) "
            f"| {need.dsp}, {need.lut}, {need.bram18} | x {ours / reported_ms:.2f} |"
        )

    zcu = Fpga(device="zcu102", style="temporal", clock_hz=300e6, pe_bits=16)
    row(
        "Edge-MoE: M3ViT, 256 x 128 image, 16-bit weights, 1 x 16 x 16 products a cycle, 300 MHz",
        34.64,
        "14.54 W",
        "latency and power: UbiMoE, table II, read in notes that quote it; shapes: Edge-MoE's published code",
        vit(192, 3, bits=16, image=(128, 256), classes=19),
        replace(zcu, tm=1, tk=16, tn=16, vector_lanes=32, activation_kib=256, weight_kib=576),
    )
    row(
        "UbiMoE: ViT-T, 16 bits, 300 MHz, 1850 DSPs",
        8.20,
        "9.94 W",
        "UbiMoE, tables of resources and III, read in notes that quote them",
        vit(192, 3, bits=16),
        replace(zcu, tm=7, tk=16, tn=16, vector_lanes=58, activation_kib=512, weight_kib=512),
    )
    row(
        "HeatViT: DeiT-S, 8 bits, tokens pruned (ours: 0.7 after blocks 3, 6, 9), 150 MHz",
        9.15,
        "10.70 W",
        "UbiMoE, table III, read in notes that quote it; HeatViT's clock: from memory",
        vit(384, 6, keep=KEEP),
        replace(zcu, clock_hz=150e6, pe_bits=8, tm=7, tk=16, tn=32, vector_lanes=128, activation_kib=1024),
    )
    row(
        "Auto-ViT-Acc: DeiT-B, 8 bits, about 1945 DSPs, 150 MHz",
        35.15 / 0.709,
        "no power",
        "709 GOP/s and the DSPs: worked out from the EfficientViT accelerator's ratios (Shao et al. 2024, section IV); "
        "clock: from memory",
        vit(768, 12),
        replace(zcu, clock_hz=150e6, pe_bits=8, tm=7, tk=16, tn=32, vector_lanes=128, activation_kib=1536),
    )
    return out


def heatvit_speedup() -> list[str]:
    out = ["| model | dense, 16 bits | pruned, 8 bits | speedup of ours |", "|---|---:|---:|---:|"]
    base = Fpga(
        device="zcu102", style="temporal", clock_hz=150e6, tm=7, tk=16, tn=16, vector_lanes=128, activation_kib=1024
    )
    for name, dim, heads in (("DeiT-T", 192, 3), ("DeiT-S", 384, 6), ("DeiT-B", 768, 12)):
        plain = on_fpga(vit(dim, heads, bits=16), replace(base, pe_bits=16))
        lean = on_fpga(vit(dim, heads, keep=KEEP), replace(base, pe_bits=8, tn=32))  # the same DSPs
        slow, fast = 1e3 * float(plain.latency_s[0]), 1e3 * float(lean.latency_s[0])
        out.append(f"| {name} | {slow:.2f} ms | {fast:.2f} ms | {slow / fast:.2f} |")
    return out


def pipelines() -> list[str]:
    out = [
        "| bits | fastest that fits the VC1902 | images/s at 425 MHz | LUTs | BRAM18 | URAM |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for bits in (2, 3, 4, 8):
        load = vit(192, 3, bits=bits)
        tried = [
            Fpga(device="vck5000", style="dataflow", clock_hz=425e6, reuse=reuse, multiplier="lut")
            for reuse in range(32, 2049, 16)
        ]
        good = feasible(load, Fpgas.of(tried))
        if not np.any(good):
            lacking = fits(load, tried[-1])
            out.append(f"| {bits} | none: {lacking[0].limit}, {100 * lacking[0].excess:.0f} % over | | | | |")
            continue
        fastest = tried[int(np.argmax(good))]
        need = fpga_resources(load, fastest)
        rate = fastest.clock_hz / (need.interval_cycles or 1)
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in need.shares.items() if share)
        out.append(
            f"| {bits} | reuse {fastest.reuse} ({shares}) | {rate:.0f} | {need.lut} | {need.bram18} | {need.uram} |"
        )
    return out


def engines() -> list[str]:
    """Share of the engine's products that are used, waiting and vector operators left out."""
    out = ["| model | ours |", "|---|---:|"]
    fpga = Fpga(device="pynq_z2", style="temporal", clock_hz=150e6, tm=4, tk=8, tn=8, activation_kib=128, weight_kib=64)
    for name, dim, heads in (("DeiT-T", 192, 3), ("DeiT-S", 384, 6), ("DeiT-B", 768, 12)):
        load = vit(dim, heads)
        used = load.macs / (4 * 8 * 8 * float(on_fpga(load, fpga).compute_cycles[0]))
        out.append(f"| {name} | {100 * used:.1f} % |")
    return out


def conv(m: int, k: int, n: int, bits: int = 8) -> Workload:
    op = Operator(
        name="p",
        kind=OperatorKind.MATMUL,
        m=m,
        k=k,
        n=n,
        a_bits=8,
        b_bits=bits,
        out_bits=8,
        weights=True,
        inputs=("x", "w"),
        output="p",
    )
    sizes = (("x", m * k, 8), ("w", k * n, bits), ("p", m * n, 8))
    return Workload((op,), tuple(Tensor(name=a, elements=b, bits=c, weight=a == "w") for a, b, c in sizes))


def cycles_per_mac(load: Workload) -> float:
    chip = Microcontroller(device="stm32h743", clock_hz=480e6)
    return float(total(microcontroller_ledger(load, Items((chip,)), TECH)).cycles[0]) / load.macs


MEASURED = (
    # network, multiply-accumulates, parameters, and TinyEngine's, X-CUBE-AI's and CMSIS-NN's ms and TinyEngine's kB of
    # flash on an STM32H743 (TinyEngine's README; MCUNet's README has the counts)
    ("mcunet-in0", 6.4e6, 0.75e6, 25, 35, 51, 842),
    ("mcunet-in1", 12.8e6, 0.64e6, 56, 63, 103, 727),
    ("mcunet-in2", 67.3e6, 0.73e6, 280, 351, 642, 830),
    ("mcunet-in3", 81.8e6, 0.74e6, 336, 414, 770, None),
    ("mcunet-in4", 125.9e6, 1.73e6, 463, 516, None, None),
)


def kernels() -> list[str]:
    out = [
        "| network | TinyEngine | X-CUBE-AI 7.3 | CMSIS-NN | flash beyond the parameters |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, macs, parameters, tiny, cube, cmsis, flash in MEASURED:
        rates = [f"{480e3 * ms / macs:.2f}" if ms else "out of memory" for ms in (tiny, cube, cmsis)]
        beyond = f"{flash - parameters / 1e3:.0f} kB" if flash else "not printed"
        out.append(f"| {name} | {' | '.join(rates)} | {beyond} |")
    pointwise = cycles_per_mac(conv(784, 96, 96))
    out.append(f"| ours, a pointwise convolution of 96 channels | {pointwise:.2f} | | | 100 kB |")
    return out


def unpacking() -> list[str]:
    out = ["| weight bits | cycles a MAC | time | flash |", "|---:|---:|---:|---:|"]
    base = cycles_per_mac(conv(196, 192, 768))
    for bits in (8, 4, 2, 16):
        rate = cycles_per_mac(conv(196, 192, 768, bits))
        out.append(f"| {bits} | {rate:.3f} | x {rate / base:.3f} | x {bits / 8:g} |")
    return out


def transformers() -> list[str]:
    head = " | ".join(f"SRAM, {schedule}" for schedule in SCHEDULES)
    out = [f"| model, 8 bits unless said | {head} | flash | runs on, with schedule patch |"]
    out.append("|---|" + "---:|" * (len(SCHEDULES) + 1) + "---|")
    small = {"image": (240, 240), "depth": 12}
    for name, load in (
        ("DeiT-T, 224 x 224", vit(192, 3)),
        ("DeiT-T, 240 x 240 (MCUFormer's image)", vit(192, 3, image=(240, 240))),
        ("DeiT-T, 240 x 240, 4-bit weights", vit(192, 3, weight_bits=4, image=(240, 240))),
        ("width 64, 240 x 240", vit(64, 2, **small)),
        ("width 64, 240 x 240, half of the tokens twice", vit(64, 2, keep=(0.5, 0.5), **small)),
    ):
        chips = [Microcontroller(device="stm32h743", clock_hz=480e6, schedule=schedule) for schedule in SCHEDULES]
        needs = [mcu.microcontroller_memory(load, chip) for chip in chips]
        runs = []
        for device, board in BOARDS.items():
            chip = Microcontroller(device=device, clock_hz=board.most_hz, schedule="patch")
            if not mcu.fits(load, chip):
                cost = total(microcontroller_ledger(load, Items((chip,)), TECH))
                runs.append(f"{device}: {float(cost.latency_s[0]):.2f} s, {1e3 * float(cost.energy_j[0]):.0f} mJ")
        kib = " | ".join(f"{need.sram_bytes / 1024:.0f} KiB" for need in needs)
        out.append(f"| {name} | {kib} | {needs[0].flash_bytes / 1024:.0f} KiB | {'; '.join(runs) or 'none'} |")
    return out


def attention() -> list[str]:
    out = ["| tokens | layer by layer | fused | ratio |", "|---:|---:|---:|---:|"]
    for side in (128, 176, 224, 288):
        load = vit(64, 4, image=(side, side), depth=1)
        plain, fused = (
            mcu.microcontroller_memory(load, Microcontroller(device="stm32h743", clock_hz=480e6, schedule=schedule))
            for schedule in ("layerwise", "fused")
        )
        out.append(
            f"| {side * side // 256 + 1} | {plain.sram_bytes / 1024:.0f} KiB | {fused.sram_bytes / 1024:.0f} KiB "
            f"| {plain.sram_bytes / fused.sram_bytes:.2f} |"
        )
    return out


def speed() -> list[str]:
    load = vit(192, 3)
    rng = np.random.default_rng(1)
    out = ["| template | pairs/s, one process, DeiT-T |", "|---|---:|"]
    for style in ("temporal", "dataflow"):
        batch = Fpgas.of(
            [
                Fpga(device="u250", style=style, clock_hz=2e8, tm=int(tm), reuse=int(reuse))
                for tm, reuse in zip(rng.integers(1, 9, 2000), rng.integers(1024, 4096, 2000), strict=True)
            ]
        )
        start = time.perf_counter()
        total(fpga_ledger(load, batch, TECH))
        out.append(f"| FPGA, {style} | {len(batch) / (time.perf_counter() - start):.0f} |")
    small = vit(64, 2, image=(128, 128))
    chips = Items(tuple(Microcontroller(device="stm32h743", clock_hz=float(hz)) for hz in rng.uniform(1e8, 4e8, 2000)))
    microcontroller_ledger(small, chips, TECH)  # plans the schedule, once for each workload
    start = time.perf_counter()
    total(microcontroller_ledger(small, chips, TECH))
    out.append(f"| microcontroller, schedule known | {len(chips) / (time.perf_counter() - start):.0f} |")
    return out


PAGE = """\
# FPGA and microcontroller templates beside published figures

Made by `bench/hardware/embedded.py`. Nothing is fitted to the tables here but the energy of a DSP-cycle and the LUTs of
a DSP (`cosearch/hardware/fpga/parts.py`, `packing.py`), which come from two of the designs. Where a paper itself could
not be read, the table says what was read instead; "from memory" means unverified.

## One engine for all layers (ZCU102)

{designs}

Ours is optimistic, as a model without stalls of control, of memory ports and of the host is bound to be: by 1.7 for
UbiMoE and by 2.7 for Edge-MoE, whose experts, gates and router this workload lacks. That the 8-bit engines come within
a sixth says less than it seems: how many lanes the vector units have, and how many tokens HeatViT keeps, no source
gave, so these are our choices (the engine's own time, in brackets, does not depend on the lanes). The notes print 300
MHz for HeatViT, at which ours would take half. Power is lower than reported, by 1.3 to 3: our engine waits for the
vector unit, and what it draws meanwhile beside the static part is not modelled.

HeatViT reports 3.46 to 4.89 times the speed of its baseline (abstract; that this has 16 bits and all tokens: from
memory). Ours, on the same DSPs, tokens kept at 0.7 three times, against 16 bits and all tokens:

{speedup}

The direction agrees; ours is lower for all three, for the vector unit does not become faster with narrower operands.

ViTA keeps its hardware busy to nearly 90 % (abstract). Ours, an engine of 128 DSPs on a PYNQ-Z2, vector unit left out:

{engines}

## One engine for each layer: DeiT-T on a VC1902

HG-PIPE runs the whole of DeiT-T on this device at 7118 images/s with LUT multipliers (abstract; 3 bits and 425 MHz:
from memory). The fastest of our designs that fits, by bits:

{pipelines}

At 3 bits ours is a tenth faster than theirs, with block RAM as the limit; at 8 bits, what fits is slow.

A multiplier of 18 x 18 bits took 411 LUTs in a synthesis with hls4ml (its issue 99); FINN-R's coefficient gives
{luts:.0f}. Vivado takes one DSP for 8 x 8 and for 16 x 16 bits on a PYNQ-Z2 (churchroad, issue 90): pairs of 8 bits
must be packed by hand, as the papers do and this template assumes.

## Microcontroller: cycles

Cycles for a multiply-accumulate of whole networks at 480 MHz (clock: from memory) on an STM32H743, out of milliseconds
and counts that MCUNet's and TinyEngine's pages print:

{kernels}

The networks also have depthwise convolutions, which reuse little. The best library is 1.3 to 1.5 times slower than our
instruction count, CMSIS-NN about three times: a cycle an instruction is optimistic and stands for a good library. On an
STM32F746 at 216 MHz, the networks that MCUNet names after 5 and 10 frames/s take {f746[0]:.1f} and {f746[1]:.1f} cycles
if they run at just these rates: there, ours is too fast by about 2.5.

What unpacking weights costs (CMix-NN's loops, counted), a product of 196 x 192 and 192 x 768:

{unpacking}

CMix-NN and Rusci et al. 2019 use fewer bits to fit memories, not to be fast: the same here.

## Microcontroller: memory

{transformers}

MCUFormer runs a vision transformer on 240 x 240 images in 320 KB of SRAM and 1 MB of flash (abstract and experiments).
Its SRAM agrees: with fusion and overwriting, a network as wide as DeiT-T needs less than that. Flash does not: DeiT-T
is too large at 8 and at 4 bits, and MCUFormer decomposes its weights into low ranks, which this project's models do
not. Its latency was not found in what could be read.

Peak of one block of width 64 with 4 heads. Jung et al. 2024 lower the peak of attention by up to 6.19 with depth-first
tiling (abstract; their shapes were not found):

{attention}

The direction agrees; here the ratio goes on growing with the tokens.

## Speed

{speed}
"""


def main() -> None:
    sections = (designs, engines, pipelines, kernels, unpacking, transformers, attention, speed)
    text = PAGE.format(
        **{section.__name__: "\n".join(section()) for section in sections},
        speedup="\n".join(heatvit_speedup()),
        luts=LUT_PER_BIT2 * 18 * 18,
        f746=(216e6 / 5 / 12.8e6, 216e6 / 10 / 6.4e6),
    )
    print(text)
    HERE.joinpath("embedded.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
