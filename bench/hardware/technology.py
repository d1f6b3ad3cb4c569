"""Compares the technology tables with each other, with the files of hwcomponents and with published figures.

Run ``python bench/hardware/technology.py``: prints the tables and writes them to technology.md beside this file.
"""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from cosearch.formats import number_format
from cosearch.hardware.arithmetic import MacCost, PeKind, ProcessingElement, Sparsity, mac_cost
from cosearch.hardware.technology import CACTI, DRAMS, TECHNOLOGIES, Sram, Technology, technology
from cosearch.hardware.widths import ACCUMULATOR_BITS

HERE = Path(__file__).parent
PUBLISHED = HERE.parent.parent / "tests" / "published"
AT_45 = ("horowitz_45nm", "aladdin_45nm")
AT_7 = ("jouppi_7nm", "stillmaker_7nm", "aladdin_7nm")
SHOWN = ("horowitz_45nm", "aladdin_45nm", "jouppi_7nm", "stillmaker_7nm", "aladdin_7nm")
SIZES = (1, 8, 32, 64, 256, 1024)

PAIRS: tuple[tuple[PeKind, int, str, str, str], ...] = (
    *(("bit_parallel", 8, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 8, 16)),
    ("bit_parallel", 8, "fp32", "int8", "int4"),
    ("bit_parallel", 8, "fp32", "int8", "ternary"),
    *(("bit_parallel", n, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 16)),
    *(("stripes", 8, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 8)),
    *(("loom", 1, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 8)),
    *(("bismo", 1, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 8)),
    *(("bit_fusion", 8, "fp32", f"int{n}", f"int{n}") for n in (2, 4, 8, 16)),
    ("float", 32, "fp32", "fp32", "fp32"),
    ("float", 16, "fp32", "fp16", "fp16"),
    ("float", 16, "fp32", "bf16", "bf16"),
    *(("float", 8, how, "fp8_e4m3", "fp8_e4m3") for how in ("fp32", "fp16", "fixed")),
    *(("float", 8, how, "fp8_e5m2", "fp8_e5m2") for how in ("fp16", "fixed")),
    ("float", 6, "fixed", "fp6_e3m2", "fp6_e3m2"),
    ("float", 6, "fixed", "fp6_e2m3", "fp6_e2m3"),
    ("float", 4, "fixed", "fp4_e2m1", "fp4_e2m1"),
    ("l_mul", 16, "fp32", "bf16", "bf16"),
    ("l_mul", 8, "fp16", "fp8_e4m3", "fp8_e4m3"),
    *(("mx_float", bits, "fp32", name, name) for bits, name in ((8, "mxfp8_e4m3"), (8, "mxfp8_e5m2"))),
    *(("mx_float", bits, "fp32", name, name) for bits, name in ((6, "mxfp6_e3m2"), (6, "mxfp6_e2m3"), (4, "mxfp4"))),
    ("mx_integer", 8, "fp32", "mxint8", "mxint8"),
    ("ternary", 8, "fp32", "int8", "ternary"),
    *(("shift", 8, "fp32", "int8", f"pow2_{n}") for n in (2, 3, 4, 5)),
)


def rows(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open(newline="") as file:
        return list(csv.DictReader(file))


def cost(
    table: str, kind: PeKind, bits: int, a: str, b: str, how: str = "fp32", sparsity: Sparsity | None = None
) -> MacCost:
    pe = ProcessingElement(kind=kind, bits=bits, accumulator=how)  # type: ignore[arg-type]
    return mac_cost(technology(table), pe, number_format(a), number_format(b), sparsity)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Returns a table in Markdown; columns whose first cell begins like a number stand on the right."""
    lines = list(body)
    marks = ["---:" if cell and cell[0] in "+-0123456789" else "---" for cell in lines[0]]
    return [f"| {' | '.join(line)} |" for line in (head, ["---", *marks[1:]], *lines)]


def digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def full_pj(t: Technology) -> float:
    """Returns pJ of a binary32 multiplication and addition."""
    return t.float_multiply_pj(24, 24, 8) + t.float_add_pj(24)


def by_table() -> list[str]:
    def line(t: Technology) -> tuple[str, ...]:
        half = t.float_multiply_pj(11, 11, 5) + t.float_add_pj(11)
        values = (t.mac_pj(8, 8), t.mac_pj(4, 4), half, full_pj(t), t.mac_um2(8), 1e6 * t.mac_leak_w(8))
        return (
            f"`{t.name}`",
            f"{t.node_nm}",
            f"{t.volts:g}",
            *(digits(v) for v in values),
            digits(1000 * t.sram.read_pj(64)),
            digits(1000 * t.sram.write_pj(64)),
            digits(t.sram.area_mm2(64)),
        )

    ordered = sorted(TECHNOLOGIES.values(), key=lambda t: (-t.node_nm, t.name))
    head = ("table", "nm", "V", "int8 pJ", "int4 pJ", "FP16 pJ", "FP32 pJ", "int8 PE um2", "leak uW")
    return table((*head, "64 KiB read fJ/bit", "write fJ/bit", "mm2"), (line(t) for t in ordered))


def disagreement() -> list[str]:
    def spread(label: str, names: Sequence[str], values: Sequence[float]) -> tuple[str, ...]:
        low, high = min(values), max(values)
        who = f"`{names[values.index(low)]}` to `{names[values.index(high)]}`"
        return label, digits(low), digits(high), f"{high / low:.1f}", who

    body = []
    for node, names in (("45 nm", (*AT_45, "jouppi_45nm")), ("7 nm", AT_7)):
        found = [technology(name) for name in names]
        body += [
            spread(f"int8 MAC, pJ, {node}", names, [t.mac_pj(8, 8) for t in found]),
            spread(f"int4 MAC, pJ, {node}", names, [t.mac_pj(4, 4) for t in found]),
            spread(f"FP32 MAC, pJ, {node}", names, [full_pj(t) for t in found]),
            spread(f"int8 PE, um2, {node}", names, [t.mac_um2(8) for t in found]),
            *(
                spread(f"read of {kib} KiB, pJ/bit, {node}", names, [t.sram.read_pj(kib) for t in found])
                for kib in (8, 32, 1024)
            ),
        ]
    return table(("quantity", "lowest", "highest", "factor", "tables"), body)


def by_format() -> list[str]:
    body = []
    for kind, bits, how, a, b in PAIRS:
        found = [cost(name, kind, bits, a, b, how) for name in SHOWN]
        first, registers = found[0], technology(SHOWN[0]).register_pj_per_bit
        moved = (first.a_bits_per_mac + first.b_bits_per_mac + first.sum_bits_per_mac) * registers
        sums = how if kind in ("float", "l_mul") else ""
        body.append(
            (
                f"{kind} {bits}",
                a if a == b else f"{a} x {b}",
                sums,
                f"{first.cycles_per_mac:g}",
                *(digits(c.pj) for c in found),
                digits(first.pj + moved),
                digits(first.um2),
                digits(1e6 / (first.um2 * first.cycles_per_mac)),
            )
        )
    head = ("PE", "operands", "sums", "cycles", *(f"{name.replace('_', ' ')} pJ" for name in SHOWN))
    return table((*head, "45 nm with registers pJ", "45 nm um2", "45 nm MAC/cycle/mm2"), body)


def scratchpads() -> list[str]:
    names = ("horowitz_45nm", "jouppi_45nm", "stillmaker_90nm", "stillmaker_20nm", "stillmaker_7nm", "jouppi_7nm")
    body = [(f"{kib} KiB", *(f"{1000 * technology(name).sram.read_pj(kib):.0f}" for name in names)) for kib in SIZES]
    return table(("read, fJ/bit", *(f"`{name}`" for name in names)), body)


def drams() -> list[str]:
    body = (
        (d.name, digits(d.pj_per_bit), " to ".join(digits(v) for v in dict.fromkeys(d.range_pj_per_bit)), d.source)
        for d in DRAMS.values()
    )
    return table(("DRAM", "pJ/bit", "sources say", "source"), body)


def errors(label: str, ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, ...]:
    relative = [abs(a - b) / b for a, b in zip(ours, theirs, strict=True)]
    middle, worst = statistics.median(relative), max(relative)
    signed = statistics.median((a - b) / b for a, b in zip(ours, theirs, strict=True))
    return label, f"{len(relative)}", f"{100 * middle:.2f} %", f"{100 * signed:+.2f} %", f"{100 * worst:.2f} %"


def against_mac_rows() -> list[str]:
    found = rows("hwcomponents_mac.csv")
    body = []
    for node in ("45", "40", "28", "22", "16", "7"):
        chosen = [row for row in found if row["tech_nm"] == node]
        others: dict[str, Sequence[str]] = {"45": ("horowitz_45nm",), "16": ("stillmaker_16nm",), "7": AT_7[:2]}
        names = (f"aladdin_{node}nm", *others.get(node, ()))
        for name in names:
            t = technology(name)
            widths = [(int(row["a_bits"]), int(row["w_bits"])) for row in chosen]
            body.append(
                errors(f"`{name}`, energy", [t.mac_pj(*w) for w in widths], [float(r["energy_pJ"]) for r in chosen])
            )
            um2 = [t.multiplier_um2(*w) + t.add_um2 for w in widths]
            body.append(errors(f"`{name}`, area", um2, [float(r["area_um2"]) for r in chosen]))
    return table(("table and quantity", "rows", "median error", "median, signed", "worst"), body)


def without(sram: Sram, position: int) -> Sram:
    """Returns ``sram`` less one of its rows."""
    changed = {
        item.name: tuple(v for i, v in enumerate(getattr(sram, item.name)) if i != position)
        for item in dataclasses.fields(Sram)
    }
    return Sram(**changed)


def against_sram_rows() -> list[str]:
    found = rows("hwcomponents_sram_cacti.csv")
    body = []
    for node, sram in CACTI.items():
        for width in ("128", "64"):
            chosen = [row for row in found if row["tech_nm"] == str(node) and row["width_bits"] == width]
            sizes = [float(row["size_KiB"]) for row in chosen]
            read = [float(row["read_pJ_per_access"]) / int(width) for row in chosen]
            area = [float(row["area_mm2"]) for row in chosen]
            body.append(errors(f"{node} nm, read, words of {width}", [sram.read_pj(kib) for kib in sizes], read))
            body.append(errors(f"{node} nm, area, words of {width}", [sram.area_mm2(kib) for kib in sizes], area))
    return table(("CACTI's rows, per bit", "rows", "median error", "median, signed", "worst"), body)


def left_out() -> list[str]:
    body = []
    for node, sram in CACTI.items():
        inner, outer = range(1, len(sram.kib) - 1), (0, len(sram.kib) - 1)
        for label, positions in (("between", inner), ("beyond", outer)):
            for what, price, known in (
                ("read", "read_pj", sram.read_pj_per_bit),
                ("write", "write_pj", sram.write_pj_per_bit),
                ("area", "area_mm2", sram.mm2),
            ):
                ours = [getattr(without(sram, i), price)(sram.kib[i]) for i in positions]
                body.append(errors(f"{node} nm, {what}, {label}", ours, [known[i] for i in positions]))
    return table(("row left out", "rows", "median error", "median, signed", "worst"), body)


def published() -> list[str]:
    """Figures that no table was fitted to; those that fix a constant are not here."""
    h, j = technology("horowitz_45nm"), technology("jouppi_7nm")
    int8, int4 = (cost("horowitz_45nm", "bit_parallel", 8, name, name).pj for name in ("int8", "int4"))
    fp8 = {how: cost("horowitz_45nm", "float", 8, "fp8_e4m3", "fp8_e4m3", how) for how in ("fixed", "fp16", "fp32")}
    mx = cost("horowitz_45nm", "mx_float", 8, "mxfp8_e4m3", "mxfp8_e4m3").pj
    mxint = cost("horowitz_45nm", "mx_integer", 8, "mxint8", "mxint8").pj
    half7 = cost("jouppi_7nm", "float", 16, "fp16", "fp16", "fp16").pj
    near28 = {
        name: cost(name, "float", 8, "fp8_e4m3", "fp8_e4m3", "fp16") for name in ("aladdin_28nm", "stillmaker_32nm")
    }
    near28_pj = {
        name: c.pj + (16 + c.sum_bits_per_mac) * technology(name).register_pj_per_bit for name, c in near28.items()
    }
    saved = 1 - cost("horowitz_45nm", "l_mul", 32, "fp32", "fp32").pj / full_pj(h)
    over8 = {how: c.pj / int8 for how, c in fp8.items()}
    wide = cost("horowitz_45nm", "bit_parallel", 16, "int16", "int16")
    at8 = cost("horowitz_45nm", "stripes", 16, "int8", "int16")
    half = cost("horowitz_45nm", "bit_parallel", 8, "int8", "int8", sparsity=Sparsity(kept=2, of=4))
    fusion4, fusion8 = (cost("horowitz_45nm", "bit_fusion", 8, name, name) for name in ("int4", "int8"))
    body = [
        ("8-bit addition, pJ, 45 nm", "0.03", digits(h.adder_pj(8)), "Horowitz 2014"),
        ("8-bit adder, um2, 45 nm", "36", digits(h.adder_um2(8)), "Horowitz 2014"),
        ("bfloat16 multiplication, pJ, 7 nm", "0.21", digits(j.float_multiply_pj(8, 8, 8)), "Jouppi 2021, table 2"),
        ("bfloat16 addition, pJ, 7 nm", "0.11", digits(j.float_add_pj(8)), "Jouppi 2021, table 2"),
        (
            "FP8 over INT8, energy",
            "1.5 to 2.8",
            f"{over8['fixed']:.2f} exact, {over8['fp16']:.2f} FP16, {over8['fp32']:.2f} FP32 sums",
            "van Baalen et al. 2023, 2-input gates, exact and floating-point sums",
        ),
        ("MXINT8 over MXFP8, energy", "0.63", f"{mxint / mx:.2f}", "Chen et al. 2025 (arXiv 2510.25602), table 5"),
        (
            "FP8 PE, pJ, 28 nm",
            "1.10 (2.13 mW at 1.94 GHz)",
            ", ".join(f"{pj:.2f} (`{name}`)" for name, pj in near28_pj.items()) + ", with registers",
            "Kumar et al. 2026 (arXiv 2604.04507)",
        ),
        (
            "FP8 PE, um2, 28 nm",
            "3960, pipelined for 1.94 GHz",
            ", ".join(f"{c.um2:.0f} (`{name}`)" for name, c in near28.items()),
            "Kumar et al. 2026 (arXiv 2604.04507)",
        ),
        (
            "L-Mul, energy saved of a multiplication",
            "95 %",
            f"{100 * (1 - h.adder_pj(32) / h.float_multiply_pj(24, 24, 8)):.0f} % of FP32, "
            f"{100 * (1 - h.adder_pj(16) / h.float_multiply_pj(11, 11, 5)):.0f} % of FP16",
            "Luo & Sun 2024, abstract",
        ),
        (
            "L-Mul, energy saved of a dot product",
            "80 %",
            f"{100 * saved:.0f} % of FP32",
            "Luo & Sun 2024, abstract",
        ),
        (
            "FP16 MAC over ternary, energy, 7 nm",
            "71.4",
            f"{half7 / cost('jouppi_7nm', 'ternary', 8, 'int8', 'ternary').pj:.1f} with 32-bit sums, "
            f"{half7 / j.adder_pj(8):.1f} against one 8-bit addition",
            "Ma et al. 2024 (BitNet b1.58)",
        ),
        (
            "Stripes over 16-bit PEs, speed",
            "1.92 (mean of networks)",
            f"{16 / at8.cycles_per_mac:.2f} at 8-bit activations, 16 lanes for one PE",
            "Judd et al. 2016, abstract",
        ),
        (
            "Stripes over 16-bit PEs, area",
            "1.32 (whole chip)",
            f"{16 * at8.um2 / wide.um2:.2f} (arithmetic)",
            "Judd et al. 2016, abstract",
        ),
        (
            "Stripes over 16-bit PEs, energy efficiency",
            "1.57 (whole chip)",
            f"{wide.pj / at8.pj:.2f} at 8-bit activations (arithmetic)",
            "Judd et al. 2016, abstract",
        ),
        (
            "int4 over int8, speed",
            "1.45 (ResNet50 on a T4)",
            f"{fusion8.cycles_per_mac / fusion4.cycles_per_mac:.0f} bit fusion, 1 bit-parallel of 8 bits",
            "HAWQ-V3, Yao et al. 2021, abstract",
        ),
        ("int4 over int8, energy", "", f"{int4 / int8:.2f} bit-parallel, {fusion4.pj / fusion8.pj:.2f} bit fusion", ""),
        (
            "2:4 sparsity, speed",
            "2 (peak)",
            f"{1 / half.cycles_per_mac:.0f}, at {half.pj / int8:.2f} of the energy",
            "Mishra et al. 2021",
        ),
    ]
    return table(("quantity", "published", "ours", "source"), body)


def synthesis() -> list[str]:
    """The fixed and fused units that Bit Fusion's authors synthesised, one by one (N = M = 1), 45 nm, 500 MHz."""
    found: tuple[tuple[str, PeKind, int, str, float, float], ...] = (
        ("fixed 2 bits", "bit_parallel", 2, "int2", 124.8912, 28742.0),
        ("fixed 4 bits", "bit_parallel", 4, "int4", 282.239998, 60101.7),
        ("fixed 8 bits", "bit_parallel", 8, "int8", 687.6072, 148845.0),
        ("fixed 16 bits", "bit_parallel", 16, "int16", 2203.236034, 473688.0),
        ("fused 8 to 2 bits, at 8", "bit_fusion", 8, "int8", 1733.129989, 279960.0),
    )
    body = []
    for label, kind, bits, name, um2, nw in found:
        ours, t = cost("horowitz_45nm", kind, bits, name, name), technology("horowitz_45nm")
        registers = (2 * bits + ACCUMULATOR_BITS) * t.register_pj_per_bit
        body.append(
            (
                label,
                digits(nw * 1e-9 / 500e6 * 1e12),
                digits(ours.pj),
                digits(ours.pj + registers),
                digits(um2),
                digits(ours.um2),
                f"{100 * (ours.um2 / um2 - 1):+.0f} %",
            )
        )
    return table(("unit", "pJ/cycle", "ours, arithmetic", "ours, with registers", "um2", "ours", "error"), body)


def main() -> None:
    sections = (
        (
            "The tables",
            "A MAC adds to a 32-bit sum (floating point: of its own width). A PE has operand and sum registers.",
            by_table(),
        ),
        (
            "How far published tables disagree at one node",
            "Choose a table, and compare only within it.",
            disagreement(),
        ),
        (
            "By format and kind of PE",
            "Energy of one multiply-accumulate, arithmetic only; the last columns are Horowitz's 45 nm.",
            by_format(),
        ),
        ("Scratchpads", "", scratchpads()),
        ("DRAM", "", drams()),
        (
            "Against the rows of hwcomponents: arithmetic",
            "`aladdin` tables are made of these rows; the others show how far they lie from them.",
            against_mac_rows(),
        ),
        (
            "Against the rows of hwcomponents: SRAM",
            "The tables are made of the 128-bit rows; 64-bit words cost more for a bit.",
            against_sram_rows(),
        ),
        (
            "Scratchpads between and beyond the rows",
            "Each 128-bit row predicted from the others of its node, by the power law that the tables use.",
            left_out(),
        ),
        (
            "Against published figures",
            "None of these fixed a constant. Whole chips and peak rates measure other things than one PE does.",
            published(),
        ),
        (
            "Against synthesis",
            "github.com/hsharma35/bitfusion, results/systolic_array_synth.csv. The last row over the third fixes the "
            "fused unit's constants. Their accumulators grow with the operands, ours have 32 bits. Their energies "
            "count their registers, so Aladdin's registers on top of Horowitz's arithmetic are dear beside them.",
            synthesis(),
        ),
    )
    text = [
        "# Energy and area: tables, formats, processing elements",
        "",
        "Made by `bench/hardware/technology.py`.",
        "",
    ]
    for heading, note, lines in sections:
        text += [f"## {heading}", "", *([note, ""] if note else []), *lines, ""]
    print("\n".join(text))
    (HERE / "technology.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
