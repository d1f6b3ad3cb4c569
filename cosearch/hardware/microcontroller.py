"""The microcontroller template and its cost model: integer kernels on one Arm Cortex-M core.

There is no DRAM: activations live in SRAM, weights in flash. Both are limits: what needs more cannot run, and `fits`
says by how much.

Cycles. A core runs an instruction a cycle (assumption: a Cortex-M7 could issue two, but measured networks show fewer
than one; `bench/hardware/embedded.md`). Instructions are counted in the inner loops of CMix-NN (Capotondi et al. 2020,
release 1.0), which extends CMSIS-NN (Lai et al. 2018) to 4 and 2 bits:

- A product takes two rows of the left operand and two columns of the right one at once. For four steps of the
  reduction it loads two words of each row, a word of each column of 8-bit values, unpacks these into pairs of 16 bits
  (UXTB16) and adds two products an instruction (SMLAD). Fewer bits make fewer loads but more unpacking: see
  `INSTRUCTIONS_PER_MAC`.
- The left operand is unpacked once, before (`INSTRUCTIONS_PER_LEFT_VALUE`). A right operand that is no parameter is
  gathered column by column first: a load and a store a value (assumption).
- An output is rescaled and stored: 8 instructions.
- A vector operator takes an instruction for each of its lane operations (I-BERT's integer forms, `vector`), and one
  for each 16 bits that it loads or stores (assumption).
- Flash keeps up with the kernels through its caches and prefetch (assumption): they ask for 1 byte a cycle at most.

Widths. Kernels know 2, 4, 8 and 16 bits; a value of another width takes the next of these in memory and in time.

Flash holds weights, a bias of 32 bits for each output, gains and biases of normalisations and the position embedding
at 16 bits (assumption), and 100 kB of code and the like: TinyEngine's figures are 83 to 100 kB above the parameters.

Energy. Cycles times the charge that the data sheet gives for run mode; it covers core, SRAM and flash, so the ledger
has all of it under multipliers and vector operators. ``area_mm2`` is 0: vendors publish none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.groups import require_integers
from cosearch.hardware.identity import Same
from cosearch.hardware.ledger import Items, Ledger
from cosearch.hardware.memory import peak_sram_bytes
from cosearch.hardware.ranges import Range, checked_choice, checked_number
from cosearch.hardware.technology import Technology
from cosearch.hardware.vector import lane_operations
from cosearch.spec import Violation
from cosearch.workload import Operator, OperatorKind, Workload

__all__ = [
    "BOARDS",
    "INSTRUCTIONS_PER_LEFT_VALUE",
    "INSTRUCTIONS_PER_MAC",
    "SCHEDULES",
    "Board",
    "Microcontroller",
    "MicrocontrollerMemory",
    "feasible",
    "fits",
    "microcontroller_ledger",
    "microcontroller_memory",
]

Floats = NDArray[np.float64]

CONTAINERS = (2, 4, 8, 16)
"""Widths that kernels know."""

INSTRUCTIONS_PER_MAC: Mapping[int, float] = MappingProxyType(
    {
        # CMix-NN's mat_mult_kernel_reordered, one pass of the loop with its count and branch (2): loads of the left
        # operand, loads and unpacking of the right one, SMLAD
        2: (16 + 2 * (1 + 8 * 2) + 32 + 2) / 64,
        4: (8 + 2 * (1 + 4 * 2) + 16 + 2) / 32,
        8: (4 + 2 * (1 + 2) + 8 + 2) / 16,
        # nothing to unpack, SMLALD: two 16-bit products into a 64-bit sum
        16: (2 + 2 + 4 + 2) / 8,
    }
)
"""Instructions for a multiply-accumulate by the right operand's width in memory."""

INSTRUCTIONS_PER_LEFT_VALUE: Mapping[int, float] = MappingProxyType(
    {
        # CMix-NN's u8_to_int16_reordered and its kin: load, unpack, subtract the zero point, store, count and branch
        2: (1 + 8 * 3 + 8 + 8 + 2) / 16,
        4: (1 + 11 + 4 + 4 + 2) / 8,
        8: (1 + 2 + 2 + 2 + 2) / 4,
        16: 0.0,
    }
)
"""Instructions to unpack a value of the left operand by its width in memory."""

_GATHER = 2.0
_RESCALE = 8.0  # CMix-NN: start of the sum (2), SMULL, shifts (2), zero point, USAT, store
_PEAK_MACS = 2.0  # a cycle: SMLAD
_CODE_BYTES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A microcontroller.

    Attributes:
        core: its processor.
        sram_bytes: memory for data.
        flash_bytes: memory for code and parameters.
        most_hz: highest clock.
        amperes_per_hz: charge of a cycle in run mode, peripherals off.
        volts: supply.
        source: where these come from.
    """

    core: str
    sram_bytes: int
    flash_bytes: int
    most_hz: float
    amperes_per_hz: float
    volts: float
    source: str

    @property
    def cycle_j(self) -> float:
        """Joules of a cycle."""
        return self.amperes_per_hz * self.volts


BOARDS: Mapping[str, Board] = MappingProxyType(
    {
        "stm32f427": Board(
            core="Cortex-M4",
            sram_bytes=256 * 1024,
            flash_bytes=1024 * 1024,
            most_hz=180e6,
            amperes_per_hz=280e-12,
            volts=3.3,
            source="memories: MCUFormer (Liang et al. 2023), experiments; 280 uA/MHz: STMicroelectronics on the F4 "
            "line at 180 MHz from flash (secondary source); volts: assumption",
        ),
        "stm32f746": Board(
            core="Cortex-M7",
            sram_bytes=320 * 1024,
            flash_bytes=1024 * 1024,
            most_hz=216e6,
            amperes_per_hz=480e-12,
            volts=3.3,
            source="memories: MCUFormer, experiments; clock: Linux kernel documentation; 480 uA/MHz: about 100 mA at "
            "216 MHz, from memory of DS10916 (assumption); volts: assumption",
        ),
        "stm32h743": Board(
            core="Cortex-M7",
            sram_bytes=512 * 1024,
            flash_bytes=2 * 1024 * 1024,
            most_hz=480e6,
            amperes_per_hz=275e-12,
            volts=3.3,
            source="memories: MCUFormer, experiments (512 KB is the largest block of 1 MB); 275 uA/MHz and 480 MHz: "
            "DS12110 (secondary source); volts: assumption",
        ),
        "stm32u575": Board(
            core="Cortex-M33",
            sram_bytes=768 * 1024,
            flash_bytes=2 * 1024 * 1024,
            most_hz=160e6,
            amperes_per_hz=19e-12,
            volts=3.3,
            source="19 uA/MHz at 3.3 V: data sheet (secondary source); memories and clock: from memory of DS13737",
        ),
    }
)
"""Every board by name."""

SCHEDULES = ("layerwise", "fused", "patch")
"""``layerwise``: each operator whole, nothing overwritten. ``fused``: operators that work row by row run together, two
rows at a time, and outputs take the place of what nobody needs any more (MCUFormer, Liang et al. 2023). ``patch``: the
image also comes in patch by patch (MCUNetV2, Lin et al. 2021). All are planned by `cosearch.hardware.memory`."""

_TILE_ROWS = 2  # kernels take two rows at once: tiles of two read no parameter more often than whole operators do
_OWNER = "a microcontroller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Microcontroller:
    """A microcontroller that runs a network by itself.

    Attributes:
        device: the chip; one of `BOARDS`.
        clock_hz: clock of the core; at most the chip's highest.
        schedule: in what order activations are made, one of `SCHEDULES`.
        sram_reserve_kib: SRAM that the application keeps for itself, in KiB.
        flash_reserve_kib: flash that it keeps for itself, in KiB.

    Raises:
        SpecError: a field is out of its range.
    """

    device: Literal["stm32f427", "stm32f746", "stm32h743", "stm32u575"]
    clock_hz: float
    schedule: Literal["layerwise", "fused", "patch"] = "fused"
    sram_reserve_kib: int = 0
    flash_reserve_kib: int = 0

    def __post_init__(self) -> None:
        checked_choice("device", self.device, tuple(BOARDS), _OWNER)
        checked_choice("schedule", self.schedule, SCHEDULES, _OWNER)
        clock = Range(1e6, self.board.most_hz, "Hz", whole=False)
        object.__setattr__(self, "clock_hz", checked_number("clock_hz", self.clock_hz, clock, f"the {self.device}"))
        for name in ("sram_reserve_kib", "flash_reserve_kib"):
            checked_number(name, getattr(self, name), Range(0, 1 << 20, "KiB"), _OWNER)

    @property
    def board(self) -> Board:
        """The chip."""
        return BOARDS[self.device]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrocontrollerMemory:
    """What a network takes of a microcontroller, and what it leaves.

    Attributes:
        sram_bytes: most bytes of SRAM at once: activations and the kernels' own buffers.
        flash_bytes: bytes of flash: parameters and code.
        sram_margin_bytes: SRAM left beside the application's reserve; negative where it is too much.
        flash_margin_bytes: likewise of flash.
    """

    sram_bytes: int
    flash_bytes: int
    sram_margin_bytes: int
    flash_margin_bytes: int


def microcontroller_memory(workload: Workload, microcontroller: Microcontroller) -> MicrocontrollerMemory:
    """Returns the memory that ``workload`` takes of ``microcontroller``, whether or not it has it."""
    sram, flash = _sram_bytes(workload, microcontroller.schedule), _flash_bytes(workload)
    sram_left, flash_left = _left(microcontroller)
    return MicrocontrollerMemory(
        sram_bytes=sram,
        flash_bytes=flash,
        sram_margin_bytes=sram_left - sram,
        flash_margin_bytes=flash_left - flash,
    )


def fits(workload: Workload, microcontroller: Microcontroller) -> tuple[Violation, ...]:
    """Returns which memories of ``microcontroller`` are too small for ``workload``; nothing where it fits."""
    need = microcontroller_memory(workload, microcontroller)
    found = []
    limits = zip(("sram", "flash"), (need.sram_bytes, need.flash_bytes), _left(microcontroller), strict=True)
    for name, taken, left in limits:
        if taken > left:
            limit = f"{name}_bytes <= {max(left, 0)} ({microcontroller.device})"
            found.append(Violation(limit=limit, excess=taken / left - 1.0 if left > 0 else float(taken)))
    return tuple(found)


def feasible(workload: Workload, batch: Items[Microcontroller]) -> NDArray[np.bool_]:
    """Returns whether ``workload`` fits into each microcontroller, shape (microcontrollers,)."""
    flash = _flash_bytes(workload)
    sram = {schedule: _sram_bytes(workload, schedule) for schedule in {item.schedule for item in batch.items}}
    left = [(*_left(item), item.schedule) for item in batch.items]
    return np.array([sram[schedule] <= ram and flash <= rom for ram, rom, schedule in left], dtype=np.bool_)


def microcontroller_ledger(workload: Workload, batch: Items[Microcontroller], technology: Technology) -> Ledger:
    """Returns what ``workload`` costs on microcontrollers; ``technology`` prices nothing here, data sheets do.

    Raises:
        SpecError: a matrix product has floating-point operands, or SRAM or flash is too small.
    """
    del technology
    require_integers(workload, "a microcontroller's integer kernel")
    good = feasible(workload, batch)
    if not np.all(good):
        _refuse(workload, batch.items[int(np.argmin(good))])
    clock = batch.column("clock_hz")
    none = np.zeros((len(workload.operators), len(batch)))
    products, vectors = _cycles(workload)
    compute, vector = products + none, vectors + none
    cycle_j = np.array([item.board.cycle_j for item in batch.items])
    peaks = {schedule: _sram_bytes(workload, schedule) for schedule in {item.schedule for item in batch.items}}
    held = np.array([8.0 * peaks[item.schedule] for item in batch.items])
    macs = np.array([[float(op.macs)] for op in workload.operators])
    return Ledger(
        members=tuple(range(len(workload.operators))),
        compute_cycles=compute,
        vector_cycles=vector,
        stall_cycles=none,
        dram_bytes=none,
        mac_j=compute * cycle_j,
        vector_j=vector * cycle_j,
        sram_j=none,
        dram_j=none,
        held_bits=held + none,
        busy=macs + none,
        multipliers=np.full(len(batch), _PEAK_MACS),
        clock_hz=clock,
        area_mm2=np.zeros(len(batch)),
        leak_w=np.zeros(len(batch)),
    )


def _cycles(workload: Workload) -> tuple[Floats, Floats]:
    """Returns the cycles of each operator in products and in vector operators, each of shape (operators, 1)."""
    size = {tensor.name: _container(tensor.bits) * tensor.elements for tensor in workload.tensors}
    products, vectors = [], []
    for op in workload.operators:
        product = op.kind is OperatorKind.MATMUL
        products.append(_product_cycles(op) if product else 0.0)
        # a score reads the rows or columns that it needs of a tensor that others made
        score = op.kind is OperatorKind.SCORE
        read = op.elements * _container(op.a_bits) if score else sum(size[name] for name in op.inputs)
        moved = math.ceil((read + size[op.output]) / 16)
        vectors.append(0.0 if product else float(lane_operations(op) + moved))
    return np.array(products).reshape(-1, 1), np.array(vectors).reshape(-1, 1)


def _product_cycles(op: Operator) -> float:
    inner = INSTRUCTIONS_PER_MAC[_container(op.b_bits)] * op.macs
    left = INSTRUCTIONS_PER_LEFT_VALUE[_container(op.a_bits)] * (op.m * op.k * op.count)
    gathered = 0.0 if op.weights else _GATHER * (op.k * op.n * op.count)
    return float(math.ceil(inner + left + gathered + _RESCALE * op.elements))


def _container(bits: int) -> int:
    """Returns the width that a value of ``bits`` takes in memory; one of floating point keeps its own."""
    return next((width for width in CONTAINERS if bits <= width), bits)


def _left(microcontroller: Microcontroller) -> tuple[int, int]:
    """Returns the bytes of SRAM and of flash that the application leaves."""
    board = microcontroller.board
    return (
        board.sram_bytes - 1024 * microcontroller.sram_reserve_kib,
        board.flash_bytes - 1024 * microcontroller.flash_reserve_kib,
    )


def _flash_bytes(workload: Workload) -> int:
    """Returns the bytes of parameters and code."""
    total = _CODE_BYTES
    bits = {tensor.name: tensor.bits for tensor in workload.tensors if tensor.weight}
    for op in workload.operators:
        if op.weights:
            total += -(-op.k * op.n * op.count * _container(bits[op.inputs[-1]]) // 8) + 4 * op.n
        elif op.kind is OperatorKind.LAYERNORM:
            total += 2 * 2 * op.n
        elif op.name == "embed":  # the position embedding is the one other parameter of an addition
            total += 2 * op.elements
    return total


def _sram_bytes(workload: Workload, schedule: str) -> int:
    """Returns the most bytes of SRAM at once: activations by ``schedule``, and the kernels' own buffer."""
    return _sram_bytes_of(Same(workload), schedule)


@lru_cache(maxsize=256)
def _sram_bytes_of(key: Same[Workload], schedule: str) -> int:
    peak = peak_sram_bytes(
        _in_containers(key.value),
        overwrite=schedule != "layerwise",
        fusion=schedule != "layerwise",
        patch=schedule == "patch",
        tile_rows=_TILE_ROWS,
    )
    return peak.sram_bytes + _scratch_bytes(key.value)


def _in_containers(workload: Workload) -> Workload:
    """Returns ``workload`` with every tensor at the width that it takes in memory."""
    return Workload(workload.operators, tuple(replace(t, bits=_container(t.bits)) for t in workload.tensors))


def _scratch_bytes(workload: Workload) -> int:
    """Returns the kernels' own buffer: two rows of a left operand at 16 bits."""
    return max((2 * 2 * op.k for op in workload.operators if op.kind is OperatorKind.MATMUL), default=0)


def _refuse(workload: Workload, microcontroller: Microcontroller) -> None:
    need = microcontroller_memory(workload, microcontroller)
    sram, flash = _left(microcontroller)
    device = microcontroller.device
    if need.flash_margin_bytes < 0:
        raise SpecError(
            "device",
            f"{device} leaves {flash} bytes of flash, but parameters and code take {need.flash_bytes} "
            f"({-need.flash_margin_bytes} too many)",
            "use fewer weight bits (kernels know 2, 4, 8 and 16), a smaller model, or a device with more flash",
        )
    raise SpecError(
        "device",
        f"{device} leaves {sram} bytes of SRAM, but activations take {need.sram_bytes} with schedule "
        f"{microcontroller.schedule!r} ({-need.sram_margin_bytes} too many)",
        "keep fewer tokens, use fewer activation bits, schedule 'patch', a smaller model, or a device with more SRAM",
    )
