"""Other people's tools, run as they were released, to hold this project's costs against.

    from cosearch.references import available, install, matrix_products, run

    if not available("zigzag"):
        install("zigzag")
    figures = run("zigzag", matrix_products(workload(model)), array)

Each runs in an interpreter of its own, because none of them installs beside the others: SCALE-Sim 3.0.0 breaks on
numpy 2.4, ZigZag needs a package that it does not name, AccelForge a newer Python. `install` makes the interpreter;
``COSEARCH_ZIGZAG_PYTHON`` and its like name one that is there already.

A tool is given the matrix products alone, one after another, and the array in its own terms: none knows of fused
attention or of memories that keep activations or weights on the chip. What else it does not know (the width of
operands, for SCALE-Sim) is said in its `Reference`.
"""

from __future__ import annotations

from cosearch.references.catalogue import REFERENCES, Quantity, Reference
from cosearch.references.inputs import zigzag_architecture
from cosearch.references.interpreters import available, install, interpreter
from cosearch.references.running import matrix_products, run

__all__ = [
    "REFERENCES",
    "Quantity",
    "Reference",
    "available",
    "install",
    "interpreter",
    "matrix_products",
    "run",
    "zigzag_architecture",
]
