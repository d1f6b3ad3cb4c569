"""Energy and area by technology: named tables, the source beside each constant.

Published constants disagree (an 8-bit multiply-accumulate takes 0.3 pJ in Horowitz's table and 1.15 pJ in Aladdin's,
both at 45 nm), so the table is a named choice: `TECHNOLOGIES` lists the names, `technology` gives the table, `scale`
takes one to another node, `with_dram` puts another DRAM behind it. By how much they disagree:
`bench/hardware/technology.md`.

| tables | arithmetic | SRAM energy |
|---|---|---|
| ``horowitz_45nm`` | Horowitz 2014 | CACTI |
| ``jouppi_45nm``, ``jouppi_7nm`` | Jouppi 2021 | Jouppi 2021 |
| ``aladdin_45nm``, ``_40nm``, ``_28nm``, ``_22nm``, ``_16nm``, ``_7nm`` | Aladdin | CACTI, nearest node |
| ``stillmaker_130nm`` to ``stillmaker_7nm`` | Horowitz 2014, scaled | CACTI, nearest node |

Sources:

- *Horowitz 2014*: "Computing's energy problem (and what we can do about it)", ISSCC, figure 1.1.9: 45 nm, 0.9 V.
- *Jouppi 2021*: "Ten lessons from three generations shaped Google's TPUv4i", ISCA, table 2: 45 nm and 7 nm.
- *Stillmaker & Baas 2017*: "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to
  7 nm", Integration 58: area factors and energy polynomials of the high-performance nodes.
- *Aladdin*: Shao et al. 2014 (ISCA), its 40 nm cell table as packaged in hwcomponents and gem5-aladdin.
- *CACTI*: Balasubramonian et al. 2017, single-bank SRAM with 128-bit words, rows as given by hwcomponents-cacti, which
  extrapolates below 22 nm.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cosearch.errors import NotFoundError, did_you_mean
from cosearch.hardware.technology._dram import DRAMS, Dram, dram
from cosearch.hardware.technology._scaling import NODES, NOMINAL_VOLTS, area_factor, energy_factor
from cosearch.hardware.technology._sram import CACTI
from cosearch.hardware.technology._table import FloatUnits, Sram, Technology
from cosearch.hardware.technology._tables import all_tables, scale, with_dram

__all__ = [
    "CACTI",
    "DRAMS",
    "NODES",
    "NOMINAL_VOLTS",
    "TECHNOLOGIES",
    "Dram",
    "FloatUnits",
    "Sram",
    "Technology",
    "area_factor",
    "dram",
    "energy_factor",
    "scale",
    "technology",
    "with_dram",
]

TECHNOLOGIES: Mapping[str, Technology] = MappingProxyType(
    {table.name: table for table in sorted(all_tables(), key=lambda table: table.name)}
)
"""Every technology by name."""


def technology(name: str) -> Technology:
    """Returns the technology called ``name``; with a plus sign and a kind of DRAM behind it, with that DRAM.

        >>> technology("jouppi_7nm+hbm2").dram_pj_per_bit
        3.90625

    Raises:
        NotFoundError: there is no such table, or no such DRAM.
    """
    table, plus, kind = name.partition("+")
    found = TECHNOLOGIES.get(table)
    if found is None:
        raise NotFoundError(f"technology {name!r} is unknown; {did_you_mean(table, TECHNOLOGIES)}")
    return with_dram(found, kind) if plus else found
