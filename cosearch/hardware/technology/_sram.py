"""Scratchpads: CACTI's rows by node, and the caches of Horowitz's and Jouppi's tables.

CACTI (Balasubramonian et al. 2017): one bank, words of 128 bits, rows as hwcomponents-cacti gives them; below 22 nm it
extrapolates. They lie in tests/published/hwcomponents_sram_cacti.csv, and a test holds these against them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from cosearch.hardware.technology._table import Sram

__all__ = ["CACTI", "JOUPPI_7", "JOUPPI_45", "nearest", "scaled"]

_KIB = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 2048.0)


def _cacti(
    read_pj: tuple[float, ...], write_pj: tuple[float, ...], mm2: tuple[float, ...], leak_mw: tuple[float, ...]
) -> Sram:
    """Returns CACTI's rows; energies are given per access of 128 bits."""
    return Sram(
        kib=_KIB,
        read_pj_per_bit=tuple(pj / 128 for pj in read_pj),
        write_pj_per_bit=tuple(pj / 128 for pj in write_pj),
        area_kib=_KIB,
        mm2=mm2,
        leak_mw=leak_mw,
    )


# leakage of the smallest sizes is printed as 0.0 or with one digit; those rows take the largest size's leakage per KiB
CACTI: Mapping[int, Sram] = MappingProxyType(
    {
        45: _cacti(
            (3.3785, 4.4268, 10.7481, 39.332, 76.1191, 153.433, 205.041),
            (5.1128, 11.8899, 23.2224, 36.0435, 63.6773, 129.128, 170.368),
            (0.00532, 0.014268, 0.050649, 0.187953, 0.887609, 3.24735, 6.80215),
            (2.4e-5, 9.5e-5, 3.8e-4, 0.0017, 0.0063, 0.0249, 0.0484),
        ),
        32: _cacti(
            (1.8085, 2.4449, 8.3455, 19.7169, 42.4945, 86.4054, 114.228),
            (2.7612, 6.5384, 10.0019, 18.1238, 34.4027, 70.5366, 92.6247),
            (0.002698, 0.007227, 0.027025, 0.115081, 0.449028, 1.64249, 3.44112),
            (4.0e-5, 1.58e-4, 6.3e-4, 0.0028, 0.0105, 0.0417, 0.081),
        ),
        22: _cacti(
            (0.7626, 1.5901, 3.8298, 8.9659, 17.7687, 36.3379, 51.1217),
            (1.1471, 2.1794, 4.1921, 7.6014, 15.2845, 31.4505, 46.2343),
            (0.001267, 0.003854, 0.012745, 0.054281, 0.255441, 0.856273, 1.6912),
            (1.35e-4, 5.4e-4, 2.2e-3, 0.0094, 0.0357, 0.1386, 0.2773),
        ),
        16: _cacti(
            (0.6504, 1.356, 3.266, 7.6461, 15.1532, 30.9891, 43.5967),
            (0.9782, 1.8586, 3.5751, 6.4825, 13.0347, 26.8211, 39.4287),
            (0.000922, 0.002803, 0.009269, 0.039477, 0.185775, 0.622744, 1.229964),
            (9.1e-5, 3.6e-4, 1.46e-3, 0.0064, 0.0241, 0.0934, 0.1868),
        ),
        7: _cacti(
            (0.4302, 0.8969, 2.1603, 5.0574, 10.0229, 20.4973, 28.8365),
            (0.647, 1.2293, 2.3647, 4.2878, 8.6216, 17.7405, 26.0797),
            (0.000403, 0.001226, 0.004055, 0.017271, 0.081277, 0.272451, 0.538109),
            (6.0e-5, 2.4e-4, 9.7e-4, 0.0042, 0.0159, 0.0618, 0.1236),
        ),
    }
)
"""CACTI's rows by node in nm."""


def _jouppi(pj_per_64_bits: tuple[float, float, float], area: Sram) -> Sram:
    """Returns the SRAM rows of Jouppi 2021, table 2, which does not tell writes from reads, with CACTI's areas."""
    per_bit = tuple(pj / 64 for pj in pj_per_64_bits)
    return Sram(
        kib=(8.0, 32.0, 1024.0),
        read_pj_per_bit=per_bit,
        write_pj_per_bit=per_bit,
        area_kib=area.area_kib,
        mm2=area.mm2,
        leak_mw=area.leak_mw,
    )


JOUPPI_7 = _jouppi((7.5, 8.5, 14), CACTI[7])
JOUPPI_45 = _jouppi((10.0, 20.0, 100.0), CACTI[45])
"""Horowitz's caches of 8 KB, 32 KB and 1 MB; Jouppi's table repeats them."""


def nearest(node_nm: int) -> int:
    """Returns the node, of those that CACTI's rows are for, nearest to ``node_nm`` by their ratio."""
    return min(CACTI, key=lambda node: abs(math.log(node / node_nm)))


def scaled(sram: Sram, energy: float, area: float) -> Sram:
    """Returns ``sram`` with energies and leakage times ``energy``, and areas times ``area``."""
    return replace(
        sram,
        read_pj_per_bit=tuple(energy * pj for pj in sram.read_pj_per_bit),
        write_pj_per_bit=tuple(energy * pj for pj in sram.write_pj_per_bit),
        mm2=tuple(area * mm2 for mm2 in sram.mm2),
        leak_mw=tuple(energy * mw for mw in sram.leak_mw),
    )
