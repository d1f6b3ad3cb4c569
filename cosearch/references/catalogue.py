"""The tools: what each needs and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cosearch.errors import NotFoundError, did_you_mean

__all__ = ["REFERENCES", "Quantity", "Reference", "reference"]

_DRIVERS = Path(__file__).parent / "drivers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number that a tool gives for each matrix product.

    Attributes:
        name: with its unit as suffix.
        unit: for people.
        description: one line.
    """

    name: str
    unit: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A tool.

    Attributes:
        name: as commands and run files write it.
        version: the release whose numbers it gives.
        title: what it is, with its paper.
        requirements: distributions that its interpreter must have: name, or name with ``==`` or ``<`` and a version.
        python: the oldest Python that runs it.
        driver: the script that runs it, from JSON on standard input to JSON on standard output.
        quantities: what it gives for each product.
        blind: what of an accelerator or product it does not see.
    """

    name: str
    version: str
    title: str
    requirements: tuple[str, ...]
    python: tuple[int, int]
    driver: Path
    quantities: tuple[Quantity, ...]
    blind: str

    @property
    def requirement(self) -> str:
        """What its interpreter must be, in words."""
        oldest = ".".join(map(str, self.python))
        return f"Python {oldest} or newer with {' and '.join(self.requirements)}"

    @property
    def variable(self) -> str:
        """The environment variable that names its interpreter."""
        return f"COSEARCH_{self.name.upper()}_PYTHON"


_COMPUTE = Quantity(name="compute_cycles", unit="cycles", description="cycles in which the array works")
_STALL = Quantity(
    name="stall_cycles", unit="cycles", description="cycles in which it waits, loading and storing included"
)
_SRAM = Quantity(name="sram_bytes", unit="B", description="bytes read from and written to the scratchpads")
_DRAM = Quantity(name="dram_bytes", unit="B", description="bytes read from and written to DRAM")
_ENERGY = Quantity(name="energy_j", unit="J", description="energy of arithmetic and memories, without leakage")

REFERENCES: Mapping[str, Reference] = {
    tool.name: tool
    for tool in (
        Reference(
            name="scalesim",
            version="3.0.0",
            title="SCALE-Sim v3 (Raj et al. 2025), cycle by cycle",
            requirements=("scalesim==3.0.0", "numpy<2.4"),
            python=(3, 11),
            driver=_DRIVERS / "run_scalesim.py",
            quantities=(_COMPUTE, _STALL, _SRAM, _DRAM),
            blind="operand widths (a word is a byte), overlap of folds, clock and energy",
        ),
        Reference(
            name="zigzag",
            version="3.9.1",
            title="ZigZag (Mei et al. 2021), the fastest of all loop orders",
            requirements=("zigzag-dse==3.9.1", "six"),
            python=(3, 11),
            driver=_DRIVERS / "run_zigzag.py",
            quantities=(_COMPUTE, _STALL, _SRAM, _DRAM, _ENERGY),
            blind="operands wider than a multiplier (it takes them whole), leakage",
        ),
        Reference(
            name="accelforge",
            version="1.0.467",
            title="AccelForge (successor of Timeloop and Accelergy), the best of all mappings",
            requirements=("accelforge==1.0.467",),
            python=(3, 12),
            driver=_DRIVERS / "run_accelforge.py",
            quantities=(_COMPUTE, _STALL, _SRAM, _DRAM, _ENERGY),
            blind="operands wider than a multiplier, fill and drain of the array, widths of partial sums, leakage",
        ),
    )
}
"""By name."""


def reference(name: str) -> Reference:
    """Returns the tool called ``name``.

    Raises:
        NotFoundError: there is none.
    """
    if name not in REFERENCES:
        raise NotFoundError(f"no reference is called {name!r}; {did_you_mean(name, REFERENCES)}")
    return REFERENCES[name]
