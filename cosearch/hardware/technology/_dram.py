"""DRAM by kind: energy to move a bit, device and interface.

Sources disagree by factors, for they count different parts (device, interface, termination, controller) at different
loads. Each figure says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cosearch.errors import NotFoundError, did_you_mean

__all__ = ["DRAMS", "Dram", "dram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dram:
    """A kind of DRAM.

    Attributes:
        name: as in `DRAMS`.
        pj_per_bit: energy to read or write a bit, device and interface.
        range_pj_per_bit: the lowest and the highest figure among the sources below.
        source: where they come from.
    """

    name: str
    pj_per_bit: float
    range_pj_per_bit: tuple[float, float]
    source: str


_HWCOMPONENTS = "hwcomponents-cacti's DRAM table (secondary source)"


def _kind(name: str, pj_per_bit: float, low: float, high: float, source: str) -> tuple[str, Dram]:
    return name, Dram(name=name, pj_per_bit=pj_per_bit, range_pj_per_bit=(low, high), source=source)


DRAMS: Mapping[str, Dram] = MappingProxyType(
    dict(
        [
            _kind(
                "ddr3",
                1300 / 64,
                1300 / 64,
                70.0,
                "Horowitz 2014 (1.3 to 2.6 nJ for 64 bits) and Jouppi 2021, table 2 (DDR3/4, 1300 pJ for 64 bits); "
                f"70 pJ a bit: {_HWCOMPONENTS}",
            ),
            _kind("ddr4", 1300 / 64, 1300 / 64, 1300 / 64, "Jouppi 2021, table 2: DDR3/4, 1300 pJ for 64 bits"),
            _kind("lpddr", 40.0, 40.0, 40.0, f"Malladi et al. 2012 (ISCA) by {_HWCOMPONENTS}"),
            _kind(
                "lpddr4",
                8.0,
                8.0,
                14.0,
                f"8 pJ a bit: {_HWCOMPONENTS}, which calls it public data; 13 to 14: a thesis' simulation "
                "(purl.stanford.edu/yp843xn4828) by github.com/Dongyunkam/DRAM_info (secondary source)",
            ),
            _kind("gddr5", 14.0, 14.0, 14.0, f"O'Connor et al. 2017 (MICRO), figure 1, by {_HWCOMPONENTS}"),
            _kind("gddr6", 350 / 64, 350 / 64, 480 / 64, "Jouppi 2021, table 2: 350 to 480 pJ for 64 bits"),
            _kind(
                "hbm2",
                250 / 64,
                250 / 64,
                450 / 64,
                "Jouppi 2021, table 2: 250 to 450 pJ for 64 bits; O'Connor et al. 2017 (MICRO): 3.97 pJ a bit "
                "(secondary source)",
            ),
        ]
    )
)
"""Every kind of DRAM by name."""


def dram(name: str) -> Dram:
    """Returns the kind of DRAM called ``name``.

    Raises:
        NotFoundError: there is none.
    """
    found = DRAMS.get(name)
    if found is None:
        raise NotFoundError(f"DRAM {name!r} is unknown; {did_you_mean(name, DRAMS)}")
    return found
