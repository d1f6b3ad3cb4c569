"""Architectures of the reference table, as data.

`tpu_like` and `gemm_l1_l3` are examples of ZigZag's repository (github.com/KULeuven-MICAS/zigzag, MIT licence,
``zigzag/inputs/hardware``); `ws16_dbuf` follows the first, with its own file in ``tests/published/zigzag_arch``.
"""

from __future__ import annotations

from collections.abc import Mapping

from cosearch.hardware.zigzag.architecture import Axis, Memory, Move, Operand, Port, ZigZagArchitecture

__all__ = ["ARCHITECTURES"]


def _port(name: str, least: int, most: int, *carries: tuple[Operand, Move]) -> Port:
    return Port(name=name, bits_min=least, bits_max=most, carries=carries)


def _dram(bits: int, read_pj: float, write_pj: float, serves: tuple[str, ...]) -> Memory:
    """Returns memory without end behind one port of ``bits``."""
    moves: tuple[tuple[Operand, Move], ...] = (
        *(("i", "fh"), ("i", "tl"), ("w", "fh"), ("w", "tl")),
        *(("o", "fh"), ("o", "tl"), ("o", "fl"), ("o", "th")),
    )
    return Memory(
        name="dram",
        bits=10_000_000_000,
        read_pj=read_pj,
        write_pj=write_pj,
        holds=("i", "w", "o"),
        ports=(_port("rw_port_1", bits, bits, *moves),),
        serves=serves,
    )


def _output_register(name: str, bits: int, width: int, read_pj: float, write_pj: float, *serves: str) -> Memory:
    """Returns a register of outputs with a port for each direction."""
    return Memory(
        name=name,
        bits=bits,
        read_pj=read_pj,
        write_pj=write_pj,
        holds=("o",),
        ports=(
            _port("r_port_1", width, width, ("o", "tl")),
            _port("r_port_2", width, width, ("o", "th")),
            _port("w_port_1", width, width, ("o", "fh")),
            _port("w_port_2", width, width, ("o", "fl")),
        ),
        serves=serves,
    )


def _weight_stationary(
    name: str, side: int, register_bits: int, output_bits: int, sram: tuple[Port, ...]
) -> ZigZagArchitecture:
    """Returns a TPU-like array: weights in each element, inputs and outputs in 2 MiB, all in DRAM."""
    return ZigZagArchitecture(
        name=name,
        axes=(Axis(name="D1", size=side, loop="n", systolic=True), Axis(name="D2", size=side, loop="k", systolic=True)),
        memories=(
            Memory(
                name="rf_128B",
                bits=register_bits,
                read_pj=0.095,
                write_pj=0.095,
                holds=("w",),
                ports=(_port("r_port_1", 8, 8, ("w", "tl")), _port("w_port_1", 8, 8, ("w", "fh"))),
            ),
            _output_register("rf_2B", output_bits, 16, 0.021, 0.021),
            Memory(
                name="sram_2MB",
                bits=16_777_216,
                read_pj=416.16,
                write_pj=378.4,
                holds=("i", "o"),
                ports=sram,
                serves=("D1", "D2"),
            ),
            _dram(64, 700, 750, ("D1", "D2")),
        ),
        mac_pj=0.04,
    )


_WS16_DBUF = _weight_stationary(
    "ws16_dbuf",
    16,
    16,
    32,
    (
        _port("r_port_1", 64, 2048, ("i", "tl")),
        _port("r_port_2", 64, 2048, ("o", "tl"), ("o", "th")),
        _port("w_port_1", 64, 2048, ("i", "fh")),
        _port("w_port_2", 64, 2048, ("o", "fh"), ("o", "fl")),
    ),
)
"""A second weight in each element's register loads while the first computes (``ws16_dbuf.yaml``, ``map_16.yaml``)."""

_TPU_LIKE = _weight_stationary(
    "tpu_like_32x32",
    32,
    1024,
    16,
    (
        _port("r_port_1", 64, 2048, ("i", "tl"), ("o", "tl"), ("o", "th")),
        _port("w_port_1", 64, 2048, ("i", "fh"), ("o", "fh"), ("o", "fl")),
    ),
)
"""128 weights in each element; inputs and outputs share the SRAM's ports (``tpu_like.yaml``)."""

_GEMM_L1_L3 = ZigZagArchitecture(
    name="gemm_l1_l3",
    axes=(Axis(name="D1", size=8, loop="n"), Axis(name="D2", size=8, loop="k"), Axis(name="D3", size=8, loop="m")),
    memories=(
        _output_register("reg_O", 32, 32, 3, 4, "D2"),
        Memory(
            name="l1",
            bits=943_718,
            read_pj=118,
            write_pj=141.6,
            holds=("i", "w", "o"),
            ports=(
                _port("rw_port_1", 64, 512, ("i", "tl")),
                _port("rw_port_2", 64, 512, ("w", "tl")),
                _port("rw_port_3", 64, 2048, ("o", "tl"), ("o", "fl")),
                _port("rw_port_4", 64, 512, ("i", "fh"), ("w", "fh"), ("o", "fh"), ("o", "th")),
            ),
            serves=("D1", "D2", "D3"),
            double_buffered=True,
        ),
        _dram(512, 16_000, 24_000, ("D1", "D2", "D3")),
    ),
    mac_pj=0.04,
)
"""An 8 x 8 x 8 array of output-stationary dot products behind a cluster's L1 (``gemm_l1_l3.yaml``)."""

ARCHITECTURES: Mapping[str, ZigZagArchitecture] = {item.name: item for item in (_WS16_DBUF, _TPU_LIKE, _GEMM_L1_L3)}
"""By the name that the reference table's column ``arch`` gives them."""
