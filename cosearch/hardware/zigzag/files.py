"""ZigZag's own files: reads an architecture and its mapping, and writes them.

The tool calls the loops B (m), C (k) and K (n), and the operands I (or I1), W (I2) and O.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cosearch.errors import FileError, SpecError
from cosearch.hardware.zigzag.architecture import Axis, Loop, Memory, Move, Operand, Port, ZigZagArchitecture
from cosearch.yamlfile import read_yaml, shown

__all__ = ["architecture_yaml", "mapping_yaml", "read_architecture"]

_LOOPS: Mapping[str, Loop] = {"B": "m", "C": "k", "K": "n"}
_OPERANDS: Mapping[str, Operand] = {"I1": "i", "I2": "w", "O": "o"}
_LOOP_NAMES = {loop: name for name, loop in _LOOPS.items()}
_OPERAND_NAMES = {operand: name for name, operand in _OPERANDS.items()}
_LINKS = {"O": "O", "W": "I2", "I": "I1"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # areas, latencies and precisions change nothing here


_Parsed = TypeVar("_Parsed", bound=_Section)


class _PortSection(_Section):
    name: str
    type: Literal["read", "write", "read_write"]
    bandwidth_min: int = Field(ge=1)
    bandwidth_max: int = Field(ge=1)
    allocation: list[str]


class _MemorySection(_Section):
    size: int = Field(ge=1)
    r_cost: float = Field(ge=0)
    w_cost: float = Field(ge=0)
    auto_cost_extraction: Literal[False] = False  # CACTI is the tool's to run
    force_double_buffering: bool = False
    operands: list[Literal["I1", "I2", "O"]]
    ports: list[_PortSection]
    served_dimensions: list[str]


class _ArraySection(_Section):
    unit_energy: float = Field(ge=0)
    dimensions: list[str]
    sizes: list[int]
    systolic_dimensions: list[str] = []


class _ArchitectureFile(_Section):
    name: str
    memories: dict[str, _MemorySection]
    operational_array: _ArraySection


class _MappingEntry(_Section):
    name: str
    spatial_mapping: dict[str, list[str]]
    memory_operand_links: dict[str, str]


def read_architecture(architecture: Path, mapping: Path) -> ZigZagArchitecture:
    """Returns the architecture in ZigZag's files.

    Args:
        architecture: memories and array.
        mapping: the spatial mapping named ``default``, one loop for each side of the array.

    Raises:
        FileError: a file cannot be read, lacks a field, or describes what this model does not know.
    """
    parsed = _parse(_ArchitectureFile, architecture, read_yaml(architecture, "ZigZag architecture"))
    axes = _axes(parsed.operational_array, mapping)
    try:
        return ZigZagArchitecture(
            name=parsed.name,
            axes=axes,
            memories=tuple(_memory(name, section) for name, section in parsed.memories.items()),
            mac_pj=parsed.operational_array.unit_energy,
        )
    except SpecError as error:
        raise FileError(shown(architecture), error.field, error.problem, error.remedy) from error


def _parse(kind: type[_Parsed], path: Path, data: object) -> _Parsed:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"][0].lower() + first["msg"][1:]
        raise FileError(shown(path), field, message, "write the file as ZigZag's documentation describes it") from error


def _axes(array: _ArraySection, path: Path) -> tuple[Axis, ...]:
    data = read_yaml(path, "ZigZag mapping")
    entries = [_parse(_MappingEntry, path, item) for item in (data if isinstance(data, list) else [data])]
    chosen = next((entry for entry in entries if entry.name == "default"), None)
    if chosen is None:
        raise FileError(shown(path), "", "has no mapping named 'default'", "name one so")
    if chosen.memory_operand_links != _LINKS:
        raise FileError(
            shown(path), "memory_operand_links", f"is {chosen.memory_operand_links}", f"write {_LINKS}, for a product"
        )
    axes = []
    for name, size in zip(array.dimensions, array.sizes, strict=True):
        loop, _, unrolled = ", ".join(chosen.spatial_mapping.get(name, [])).partition(", ")
        if loop not in _LOOPS or unrolled != str(size):
            raise FileError(
                shown(path),
                f"spatial_mapping.{name}",
                f"is {chosen.spatial_mapping.get(name)}",
                f"unroll one of {', '.join(_LOOPS)} over all {size} elements",
            )
        axes.append(Axis(name=name, size=size, loop=_LOOPS[loop], systolic=name in array.systolic_dimensions))
    return tuple(axes)


def _memory(name: str, section: _MemorySection) -> Memory:
    return Memory(
        name=name,
        bits=section.size,
        read_pj=section.r_cost,
        write_pj=section.w_cost,
        holds=tuple(_OPERANDS[operand] for operand in section.operands),
        ports=tuple(
            Port(
                name=port.name,
                bits_min=port.bandwidth_min,
                bits_max=port.bandwidth_max,
                carries=tuple(_carried(name, port.name, text) for text in port.allocation),
            )
            for port in section.ports
        ),
        serves=tuple(section.served_dimensions),
        double_buffered=section.force_double_buffering,
    )


def _carried(memory: str, port: str, text: str) -> tuple[Operand, Move]:
    operand, _, move = text.partition(", ")
    if operand in _OPERANDS:
        for known in ("fh", "tl", "fl", "th"):
            if move == known:
                return _OPERANDS[operand], known
    raise SpecError(f"memories.{memory}.{port}", f"carries {text!r}", "write an operand and fh, tl, fl or th: 'I1, tl'")


def architecture_yaml(architecture: ZigZagArchitecture) -> str:
    """Returns the architecture file that ZigZag reads."""
    memories: dict[str, Any] = {memory.name: _memory_section(memory) for memory in architecture.memories}
    document = {
        "name": architecture.name,
        "memories": memories,
        "operational_array": {
            "unit_energy": float(architecture.mac_pj),
            "unit_area": 1,
            "dimensions": [axis.name for axis in architecture.axes],
            "sizes": [axis.size for axis in architecture.axes],
            "systolic_dimensions": [axis.name for axis in architecture.axes if axis.systolic],
        },
    }
    return yaml.safe_dump(document, sort_keys=False)


def _memory_section(memory: Memory) -> dict[str, Any]:
    return {
        "size": memory.bits,
        "r_cost": float(memory.read_pj),
        "w_cost": float(memory.write_pj),
        "area": 0,
        "latency": 1,
        "operands": [_OPERAND_NAMES[operand] for operand in memory.holds],
        "ports": [
            {
                "name": port.name,
                "type": _port_type(port),
                "bandwidth_min": port.bits_min,
                "bandwidth_max": port.bits_max,
                "allocation": [f"{_OPERAND_NAMES[operand]}, {move}" for operand, move in port.carries],
            }
            for port in memory.ports
        ],
        "served_dimensions": list(memory.serves),
        "force_double_buffering": memory.double_buffered,
    }


def _port_type(port: Port) -> str:
    reads = {move in ("tl", "th") for _, move in port.carries}
    return "read_write" if len(reads) == 2 else "read" if reads == {True} else "write"


def mapping_yaml(architecture: ZigZagArchitecture) -> str:
    """Returns the mapping file that unrolls the loops as ``architecture`` does."""
    spatial = {axis.name: [f"{_LOOP_NAMES[axis.loop]}, {axis.size}"] for axis in architecture.axes}
    entry = {"name": "default", "spatial_mapping": spatial, "memory_operand_links": dict(_LINKS)}
    return yaml.safe_dump([entry], sort_keys=False)
