"""From node to node: Stillmaker & Baas 2017, "Scaling equations for the accurate prediction of CMOS device performance
from 180 nm to 7 nm", Integration 58.

Areas by the factors of the paper's table, energies by its polynomials of the supply voltage for high-performance (HP)
devices. Figures checked against two transcriptions, nodeScale (UCLA NanoCAD) and hwcomponents (which has LP devices at
45 and 32 nm, and no 180 nm); they agree. The paper itself was not at hand (secondary sources).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cosearch.errors import SpecError

__all__ = ["NODES", "NOMINAL_VOLTS", "area_factor", "energy_factor"]

NODES = (180, 130, 90, 65, 45, 32, 20, 16, 14, 10, 7)
"""Nodes in nm that the equations cover."""

_AREA: Mapping[int, tuple[float, ...]] = MappingProxyType(
    {
        180: (1, 0.34, 0.15, 0.08, 0.053, 0.025, 0.011, 0.01, 0.0093, 0.0055, 0.0032),
        130: (2.9, 1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092),
        90: (6.6, 2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021),
        65: (12, 4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039),
        45: (19, 6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059),
        32: (40, 14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13),
        20: (88, 30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28),
        16: (99, 34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31),
        14: (110, 37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34),
        10: (180, 63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58),
        7: (320, 110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1),
    }
)
"""Area at the nodes of `NODES` for an area of 1 at the key."""

_ENERGY: Mapping[int, tuple[float, float, float]] = MappingProxyType(
    {
        180: (0, 24.64, -17.98),
        130: (7.171, -6.709, 2.904),
        90: (4.762, -4.781, 2.092),
        65: (3.755, -4.398, 1.975),
        45: (1.018, -0.3107, 0.1539),
        32: (0.8367, -0.4341, 0.1701),
        20: (0.373, -0.1582, 0.04104),
        16: (0.2958, -0.1241, 0.03024),
        14: (0.2363, -0.09675, 0.02239),
        10: (0.2068, -0.09311, 0.02375),
        7: (0.1776, -0.09097, 0.02447),
    }
)
"""Coefficients of the squared, linear and constant term in volts."""

NOMINAL_VOLTS: Mapping[int, float] = MappingProxyType(
    {180: 1.8, 130: 1.3, 90: 1.2, 65: 1.1, 45: 1.0, 32: 0.9, 20: 0.9, 16: 0.85, 14: 0.8, 10: 0.75, 7: 0.7}
)
"""Nominal supplies of the predictive technology models (PTM, Arizona State University) that the paper simulated
(assumption: not checked in the paper)."""

_LOW, _HIGH = 0.7, 1.2
"""The fits are trusted from 0.7 to 1.2 times the nominal supply (assumption)."""


def area_factor(from_nm: int, to_nm: int) -> float:
    """Returns the area at ``to_nm`` of what takes an area of 1 at ``from_nm``.

    Raises:
        SpecError: the equations do not cover a node.
    """
    _check_node(from_nm)
    _check_node(to_nm)
    return _AREA[from_nm][NODES.index(to_nm)]


def energy_factor(from_nm: int, from_volts: float, to_nm: int, to_volts: float) -> float:
    """Returns the energy at one node and supply of what takes an energy of 1 at another.

    Raises:
        SpecError: the equations do not cover a node or a supply.
    """
    return _energy(to_nm, to_volts) / _energy(from_nm, from_volts)


def _energy(node_nm: int, volts: float) -> float:
    _check_node(node_nm)
    nominal = NOMINAL_VOLTS[node_nm]
    low, high = _LOW * nominal, _HIGH * nominal
    if not low <= volts <= high:
        raise SpecError(
            "volts",
            f"is {volts}, but the scaling equations are used from {low:.3g} to {high:.3g} V at {node_nm} nm",
            f"write {nominal} or leave it out",
        )
    square, linear, constant = _ENERGY[node_nm]
    return square * volts * volts + linear * volts + constant


def _check_node(node_nm: int) -> None:
    if node_nm not in NODES:
        listed = ", ".join(str(node) for node in NODES)
        raise SpecError("node_nm", f"is {node_nm}, which the scaling equations do not cover", f"choose one of {listed}")
