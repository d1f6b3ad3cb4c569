"""An accelerator and its products in each tool's own terms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosearch.hardware import SystolicArray, Technology, scalesim_config
from cosearch.hardware.widths import ACCUMULATOR_BITS
from cosearch.hardware.zigzag import Axis, Memory, Port, ZigZagArchitecture, architecture_yaml, mapping_yaml
from cosearch.hardware.zigzag.architecture import Loop, Operand
from cosearch.workload import Operator

__all__ = ["payload", "zigzag_architecture"]


def payload(name: str, products: Sequence[Operator], array: SystolicArray, prices: Technology) -> dict[str, Any]:
    """Returns what the driver of ``name`` reads."""
    return _PAYLOADS[name](products, array, prices)


def _scalesim(products: Sequence[Operator], array: SystolicArray, prices: Technology) -> dict[str, Any]:  # noqa: ARG001
    rows = [f"p{position},{product.m},{product.n},{product.k}," for position, product in enumerate(products)]
    return {"config": scalesim_config(array, bandwidth="USER"), "topology": "\n".join(["Layer,M,N,K,", *rows, ""])}


@dataclass(frozen=True, slots=True)
class _Flow:
    """A dataflow: which operand stays in the array, and which loop each side unrolls."""

    stays: Operand
    rows: Loop
    cols: Loop


_FLOWS: Mapping[str, _Flow] = {"ws": _Flow("w", "k", "n"), "os": _Flow("o", "m", "n"), "is": _Flow("i", "k", "m")}


def zigzag_architecture(array: SystolicArray, prices: Technology, a_bits: int, b_bits: int) -> ZigZagArchitecture:
    """Returns ``array`` as ZigZag knows it, for operands of these widths.

    A register in each PE for the operand that stays, two where folds overlap; outputs have one for a sum in any case.
    Scratchpads are as wide as the side of the array that they feed, DRAM as the bandwidth in whole bits a cycle.
    """
    flow = _FLOWS[array.dataflow]
    bits: dict[Operand, int] = {"i": a_bits, "w": b_bits, "o": ACCUMULATOR_BITS}
    feeds: dict[Operand, int] = {
        "i": array.cols if flow.stays == "i" else array.rows,
        "w": array.rows if flow.stays == "i" else array.cols,
        "o": array.cols,
    }
    kib: dict[Operand, int] = {"i": array.ifmap_kib, "w": array.filter_kib, "o": array.ofmap_kib}
    registers = [_register("o", ACCUMULATOR_BITS, 1, prices)]
    if flow.stays != "o":
        registers.append(
            _register(flow.stays, bits[flow.stays], 2 if array.overlap == "double_buffered" else 1, prices)
        )
    pads = [_scratchpad(operand, kib[operand], bits[operand], feeds[operand], prices) for operand in ("i", "w", "o")]
    return ZigZagArchitecture(
        name="systolic",
        axes=(
            Axis(name="D1", size=array.cols, loop=flow.cols, systolic=True),
            Axis(name="D2", size=array.rows, loop=flow.rows, systolic=True),
        ),
        memories=(*registers, *pads, _dram(max(1, int(8 * array.dram_bytes_per_s / array.clock_hz)), prices)),
        mac_pj=prices.mac_pj(a_bits, b_bits),
    )


def _ports(operand: Operand, least: int, most: int) -> tuple[Port, ...]:
    """Returns a port for each direction."""
    reads, writes = ("tl", "th"), ("fh", "fl")
    moves = ("tl", "th", "fh", "fl") if operand == "o" else ("tl", "fh")
    return tuple(
        Port(
            name=f"{'r' if move in reads else 'w'}_port_{1 + (reads if move in reads else writes).index(move)}",
            bits_min=least,
            bits_max=most,
            carries=((operand, move),),  # type: ignore[arg-type]  # one of the four
        )
        for move in moves
    )


def _register(operand: Operand, bits: int, count: int, prices: Technology) -> Memory:
    """Returns a register in each PE; the tables price the writing of a bit, reading included."""
    return Memory(
        name=f"register_{operand}",
        bits=bits * count,
        read_pj=0.0,
        write_pj=bits * prices.register_pj_per_bit,
        holds=(operand,),
        ports=_ports(operand, bits, bits),
    )


def _scratchpad(operand: Operand, kib: int, bits: int, feeds: int, prices: Technology) -> Memory:
    return Memory(
        name=f"sram_{operand}",
        bits=kib * 8192,
        read_pj=prices.sram.read_pj(kib) * bits * feeds,
        write_pj=prices.sram.write_pj(kib) * bits * feeds,
        holds=(operand,),
        ports=_ports(operand, bits, bits * feeds),
        serves=("D1", "D2"),
    )


def _dram(bits: int, prices: Technology) -> Memory:
    carries = tuple(
        (operand, move)
        for operand in ("i", "w", "o")
        for move in (("fh", "tl", "fl", "th") if operand == "o" else ("fh", "tl"))
    )
    return Memory(
        name="dram",
        bits=10**13,
        read_pj=prices.dram_pj_per_bit * bits,
        write_pj=prices.dram_pj_per_bit * bits,
        holds=("i", "w", "o"),
        ports=(Port(name="rw_port_1", bits_min=1, bits_max=bits, carries=carries),),  # type: ignore[arg-type]
        serves=("D1", "D2"),
    )


def _zigzag(products: Sequence[Operator], array: SystolicArray, prices: Technology) -> dict[str, Any]:
    jobs = []
    for product in products:
        architecture = zigzag_architecture(array, prices, product.a_bits, product.b_bits)
        jobs.append(
            {
                "architecture": architecture_yaml(architecture),
                "mapping": mapping_yaml(architecture),
                "sizes": {"B": product.m, "C": product.k, "K": product.n},
                "bits": {"I": product.a_bits, "W": product.b_bits, "O": ACCUMULATOR_BITS, "O_final": product.out_bits},
            }
        )
    return {"jobs": jobs}


_REUSED: Mapping[Loop, str] = {"m": "weight", "k": "output", "n": "input"}
_TENSORS: Mapping[Operand, str] = {"i": "input", "w": "weight", "o": "output"}


def _accelforge(products: Sequence[Operator], array: SystolicArray, prices: Technology) -> dict[str, Any]:
    jobs = [
        {
            "architecture": _accelforge_architecture(array, prices, product),
            "workload": _accelforge_workload(product),
            "clock_hz": array.clock_hz,
        }
        for product in products
    ]
    return {"jobs": jobs}


def _accelforge_architecture(array: SystolicArray, prices: Technology, product: Operator) -> str:
    """Returns an AccelForge architecture; energies in J a bit, throughputs in bits a second."""
    flow = _FLOWS[array.dataflow]
    sram = prices.sram
    bandwidth = 8 * array.dram_bytes_per_s
    stays = _TENSORS[flow.stays]
    width = {"i": product.a_bits, "w": product.b_bits, "o": product.out_bits}[flow.stays]
    nodes = [_af_memory("MainMemory", "inf", "All", prices.dram_pj_per_bit, prices.dram_pj_per_bit, bandwidth)]
    for operand, kib in (("i", array.ifmap_kib), ("w", array.filter_kib), ("o", array.ofmap_kib)):
        tensor = _TENSORS[operand]  # type: ignore[index]  # one of the three
        nodes.append(
            _af_memory(f"{tensor}_scratchpad", str(kib * 8192), tensor, sram.read_pj(kib), sram.write_pj(kib), None)
        )
    nodes.append(
        "  - !Container\n    name: Array\n    spatial:\n"
        f"    - {{name: cols, fanout: {array.cols}, reuse: {_REUSED[flow.cols]}, min_usage: 0}}\n"
        f"    - {{name: rows, fanout: {array.rows}, reuse: {_REUSED[flow.rows]}, min_usage: 0}}\n"
    )
    nodes.append(_af_memory("Register", str(width), stays, 0.0, prices.register_pj_per_bit, None))
    mac_j = 1e-12 * prices.mac_pj(product.a_bits, product.b_bits)
    nodes.append(
        "  - !Compute\n    name: MAC\n    leak_power: 0\n    area: 0\n    actions:\n"
        f"    - {{name: compute, energy: {mac_j:.6e}, throughput: {array.clock_hz:.6e}}}\n"
    )
    return "arch:\n  nodes:\n" + "".join(nodes)


def _af_memory(name: str, size: str, keep: str, read_pj: float, write_pj: float, bits_per_s: float | None) -> str:
    throughput = "inf" if bits_per_s is None else f"{bits_per_s:.6e}"
    return (
        f"  - !Memory\n    name: {name}\n    size: {size}\n    leak_power: 0\n    area: 0\n"
        f"    tensors: {{keep: {keep}}}\n    actions:\n"
        f"    - {{name: read, energy: {1e-12 * read_pj:.6e}, throughput: {throughput}}}\n"
        f"    - {{name: write, energy: {1e-12 * write_pj:.6e}, throughput: {throughput}}}\n"
    )


def _accelforge_workload(product: Operator) -> str:
    bits = {"I": product.a_bits, "W": product.b_bits, "O": product.out_bits}
    return (
        "workload:\n  iteration_space_shape:\n"
        f"    m: 0 <= m < {product.m}\n    k: 0 <= k < {product.k}\n    n: 0 <= n < {product.n}\n"
        f"  bits_per_value: {json.dumps(bits)}\n"
        "  einsums:\n  - name: product\n    tensor_accesses:\n"
        "    - {name: I, projection: [m, k]}\n"
        "    - {name: W, projection: [k, n]}\n"
        "    - {name: O, projection: [m, n], output: True}\n"
        "    renames: {input: I, weight: W, output: O}\n"
    )


_PAYLOADS: Mapping[str, Callable[[Sequence[Operator], SystolicArray, Technology], dict[str, Any]]] = {
    "scalesim": _scalesim,
    "zigzag": _zigzag,
    "accelforge": _accelforge,
}
