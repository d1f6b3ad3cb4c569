"""What ZigZag knows of an accelerator: an array, the memories behind it, and what a port may carry.

Terms are ZigZag's (Mei et al. 2021, "ZigZag: Enlarging joint architecture-mapping design space exploration for DNN
accelerators", IEEE Transactions on Computers 70(8)): a product has the loops m, k and n; a loop is *relevant* to an
operand that it indexes, *irrelevant* to the one that it reuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cosearch.errors import SpecError

__all__ = ["IRRELEVANT", "LOOPS", "MOVES", "OPERANDS", "RELEVANT", "Axis", "Memory", "Port", "ZigZagArchitecture"]

Loop = Literal["m", "k", "n"]
Operand = Literal["o", "i", "w"]
Move = Literal["fh", "tl", "fl", "th"]

LOOPS: tuple[Loop, ...] = ("m", "k", "n")
"""In the order in which the tool is given them (its B, C and K), which decides ties when it merges factors."""

OPERANDS: tuple[Operand, ...] = ("o", "i", "w")
"""Outputs, inputs (activations, m x k) and weights (k x n), in the order in which the tool goes through them."""

MOVES: tuple[Move, ...] = ("fh", "tl", "fl", "th")
"""What passes a memory's ports: written from the level above (fh), read to the one below (tl), written from the one
below (fl), read to the one above (th)."""

RELEVANT: Mapping[Operand, tuple[Loop, Loop]] = {"o": ("m", "n"), "i": ("m", "k"), "w": ("k", "n")}
IRRELEVANT: Mapping[Operand, Loop] = {"o": "k", "i": "n", "w": "m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A side of the array.

    Attributes:
        name: as in the architecture file (``D1``).
        size: processing elements along it.
        loop: which loop of the product is unrolled over it.
        systolic: whether data move along it by one element a cycle, so that results leave it one by one.
    """

    name: str
    size: int
    loop: Loop
    systolic: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SpecError("size", f"is {self.size}, but a side of an array has at least 1 element", "write 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of a memory.

    Attributes:
        name: as in the architecture file.
        bits_min: the smallest access, in bits; what is moved is rounded up to it.
        bits_max: bits a cycle; the memory's energies are of an access as wide as this.
        carries: operand and move, one pair for each use of the port.
    """

    name: str
    bits_min: int
    bits_max: int
    carries: tuple[tuple[Operand, Move], ...]

    def __post_init__(self) -> None:
        if not 1 <= self.bits_min <= self.bits_max:
            raise SpecError(
                "bits_min",
                f"of port {self.name} is {self.bits_min}, with a bits_max of {self.bits_max}",
                "write at least 1, and no more than bits_max",
            )

    def shared_by_inputs(self) -> bool:
        """Returns whether inputs and weights both pass through it."""
        return len({operand for operand, _ in self.carries} & {"i", "w"}) == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One memory, or as many as there are elements along the sides that it does not serve.

    Attributes:
        name: as in the architecture file.
        bits: its capacity.
        read_pj: energy of a read as wide as its port.
        write_pj: energy of a write, likewise.
        holds: operands, in the file's order.
        ports: each move of each operand passes one port.
        serves: names of the sides of the array that share one instance.
        double_buffered: whether a tile takes twice its size unless it is all of the operand.
    """

    name: str
    bits: int
    read_pj: float
    write_pj: float
    holds: tuple[Operand, ...]
    ports: tuple[Port, ...]
    serves: tuple[str, ...] = ()
    double_buffered: bool = False

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise SpecError("bits", f"of {self.name} is {self.bits}", "write a capacity of at least 1 bit")
        for name in ("read_pj", "write_pj"):
            if not getattr(self, name) >= 0:
                raise SpecError(name, f"of {self.name} is {getattr(self, name)}", "write an energy of 0 or more")
        for operand, move in ((operand, move) for port in self.ports for operand, move in port.carries):
            if operand not in self.holds:
                raise SpecError("ports", f"of {self.name} carry {operand} ({move}), which it does not hold", "drop it")

    def port(self, operand: Operand, move: Move) -> Port | None:
        """Returns the port that carries ``move`` of ``operand``; none if none does."""
        return next((port for port in self.ports if (operand, move) in port.carries), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZigZagArchitecture:
    """An array and its memories.

    Attributes:
        name: what rows of a table call it.
        axes: sides of the array.
        memories: from the array outward; the last that holds an operand is where all of it lies.
        mac_pj: energy of a multiply-accumulate, whatever its operands' bits.
    """

    name: str
    axes: tuple[Axis, ...]
    memories: tuple[Memory, ...]
    mac_pj: float

    def __post_init__(self) -> None:
        loops = [axis.loop for axis in self.axes]
        if len(set(loops)) < len(loops):
            raise SpecError("axes", "unroll the same loop twice", "give each side of the array a loop of its own")
        for operand in OPERANDS:
            if not self.levels(operand):
                raise SpecError("memories", f"hold no {operand}", "write one that does")

    def levels(self, operand: Operand) -> tuple[Memory, ...]:
        """Returns the memories that hold ``operand``, from the array outward."""
        return tuple(memory for memory in self.memories if operand in memory.holds)
