"""What ZigZag reports of a matrix product: cycles and energy of the best loop order on an array with memories.

    >>> from cosearch.hardware.zigzag import ARCHITECTURES, Product, zigzag_cost
    >>> product = Product(m=197, k=192, n=576, a_bits=8, w_bits=8, psum_bits=16)
    >>> zigzag_cost(product, ARCHITECTURES["ws16_dbuf"]).latency_cycles
    89864.0

ZigZag (Mei et al. 2021, IEEE TC 70(8); release zigzag-dse 3.9.1) splits the loops into factors, allocates every order
of them to the memories (LOMA, Symons et al. 2021), counts what each allocation moves, and keeps the best. So does this,
for all orders at once. The tool's roundings are kept: the numbers are meant to be its own.
"""

from __future__ import annotations

from cosearch.hardware.zigzag.allocation import NoOrderFitsError
from cosearch.hardware.zigzag.architecture import Axis, Memory, Port, ZigZagArchitecture
from cosearch.hardware.zigzag.catalogue import ARCHITECTURES
from cosearch.hardware.zigzag.cost import Goal, ZigZagCost, predict_rows, zigzag_cost
from cosearch.hardware.zigzag.files import architecture_yaml, mapping_yaml, read_architecture
from cosearch.hardware.zigzag.mapping import Product

__all__ = [
    "ARCHITECTURES",
    "Axis",
    "Goal",
    "Memory",
    "NoOrderFitsError",
    "Port",
    "Product",
    "ZigZagArchitecture",
    "ZigZagCost",
    "architecture_yaml",
    "mapping_yaml",
    "predict_rows",
    "read_architecture",
    "zigzag_cost",
]
