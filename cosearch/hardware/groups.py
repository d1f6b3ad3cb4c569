"""The distinct operators of a workload, as columns of numbers for cost models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosearch.errors import SpecError
from cosearch.hardware.vector import lane_operations
from cosearch.spec import FLOAT_BITS
from cosearch.workload import Operator, OperatorKind, Workload, format_of, stored_bits

__all__ = ["PLAIN", "Groups", "Products", "Written", "product_numbers", "require_integers", "score_bits", "written"]

Floats = NDArray[np.float64]
Written = tuple[str, str, tuple[int, int]]
"""Number formats of left and right operand, and the sparsity of the right one."""

PLAIN: Written = ("", "", (1, 1))
"""Dense integers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Products:
    """Matrix products, one per row; each field has shape (products, 1).

    Attributes:
        m: rows of the left operand.
        k: length of the reduction.
        n: columns of the right operand.
        count: how often the product runs (heads).
        a_bits: width of the left operand.
        b_bits: width of the right operand.
        out_bits: width of the stored output.
        formats: number formats of left and right operand, and the sparsity of the right one, a triple for each product;
            empty where all are dense integers. ``a_bits`` and ``b_bits`` are then bits in memory for each value.
    """

    m: Floats
    k: Floats
    n: Floats
    count: Floats
    a_bits: Floats
    b_bits: Floats
    out_bits: Floats
    formats: tuple[Written, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """The distinct operators of a workload: matrix products first, then vector operators.

    Attributes:
        members: the row of each operator, in order; products have rows 0 to p - 1, vector operators those from p on.
        first: for each row, the position of its first operator.
        products: the matrix products, fields of shape (p, 1).
        macs: multiply-accumulates of each product, shape (p, 1).
        lane_operations: of each vector operator, shape (v, 1).
        read_bits: bits that each vector operator reads, shape (v, 1).
        write_bits: bits that each vector operator writes, shape (v, 1).
    """

    members: tuple[int, ...]
    first: tuple[int, ...]
    products: Products
    macs: Floats
    lane_operations: Floats
    read_bits: Floats
    write_bits: Floats

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.first)

    @property
    def vector_bits(self) -> Floats:
        """Bits that each vector operator reads and writes, shape (v, 1)."""
        return self.read_bits + self.write_bits

    @classmethod
    def of(cls, workload: Workload) -> Groups:
        """Returns the groups of ``workload``."""
        return cls.of_operators(workload, workload.operators, [None] * len(workload.operators))

    @classmethod
    def of_operators(cls, workload: Workload, operators: Sequence[Operator], marks: Sequence[object]) -> Groups:
        """Returns the groups of ``operators``; those with different marks are kept apart.

        Args:
            workload: has the operators' tensors.
            operators: any of the workload's, as often as wanted.
            marks: something hashable for each.
        """
        bits = {tensor.name: 8 * tensor.bytes for tensor in workload.tensors}
        rows: dict[tuple[object, ...], int] = {}
        firsts: tuple[list[int], list[int]] = ([], [])
        tables: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
        formats: list[Written] = []
        found: list[tuple[bool, int]] = []
        for position, (op, mark) in enumerate(zip(operators, marks, strict=True)):
            matmul = op.kind is OperatorKind.MATMUL
            numbers = product_numbers(op) if matmul else _vector(op, bits)
            formats_of = written(op) if matmul else PLAIN
            key = (matmul, numbers, formats_of, mark)
            side = 0 if matmul else 1
            if key not in rows:
                rows[key] = len(tables[side])
                tables[side].append(numbers)
                firsts[side].append(position)
                if matmul:
                    formats.append(formats_of)
            found.append((matmul, rows[key]))
        products = np.array(tables[0], dtype=np.float64).reshape(-1, 7)
        vectors = np.array(tables[1], dtype=np.float64).reshape(-1, 3)
        names = ("m", "k", "n", "count", "a_bits", "b_bits", "out_bits")
        p = Products(
            **{name: products[:, [column]] for column, name in enumerate(names)},
            formats=() if set(formats) <= {PLAIN} else tuple(formats),
        )
        return cls(
            members=tuple(index if matmul else index + len(tables[0]) for matmul, index in found),
            first=(*firsts[0], *firsts[1]),
            products=p,
            macs=p.m * p.k * p.n * p.count,
            lane_operations=vectors[:, [0]],
            read_bits=vectors[:, [1]],
            write_bits=vectors[:, [2]],
        )


def product_numbers(op: Operator) -> tuple[float, ...]:
    """Returns the numeric fields of `Products` for one matrix product."""
    a_bits, b_bits = stored_bits(op.a_bits, op.a_format), stored_bits(op.b_bits, op.b_format, op.sparsity)
    return op.m, op.k, op.n, op.count, a_bits, b_bits, stored_bits(op.out_bits, op.out_format)


def written(op: Operator) -> Written:
    """Returns how the operands of one matrix product are written down; `PLAIN` for dense integers, named or not."""
    operands = ((op.a_bits, op.a_format), (op.b_bits, op.b_format))
    if all(_is_integer(*operand) for operand in operands) and op.sparsity[0] == op.sparsity[1]:
        return PLAIN
    a, b = (format_of(*operand).name for operand in operands)
    return a, b, op.sparsity


def _is_integer(bits: int, name: str) -> bool:
    return format_of(bits, name).family == "integer" if name else bits != FLOAT_BITS


def _vector(op: Operator, bits: dict[str, int]) -> tuple[float, ...]:
    read = score_bits(op) if op.kind is OperatorKind.SCORE else sum(bits[name] for name in op.inputs)
    return lane_operations(op), read, bits[op.output]


def score_bits(op: Operator) -> int:
    """Returns the bits that a score reads: the rows or columns that it needs of a tensor that others made."""
    return math.ceil(op.elements * stored_bits(op.a_bits, op.a_format))


def require_integers(workload: Workload, engine: str) -> None:
    """Checks that all matrix products multiply integers, none of them sparse by a pattern.

    Args:
        workload: one image through a model.
        engine: what multiplies, for the error's text: ``a systolic array``.

    Raises:
        SpecError: a matrix product has operands of other number formats, or sparse ones.
    """
    for op in workload.operators:
        if op.kind is not OperatorKind.MATMUL:
            continue
        names = [format_of(bits, name) for bits, name in ((op.a_bits, op.a_format), (op.b_bits, op.b_format)) if name]
        if any(one.family != "integer" for one in names):
            listed = " by ".join(one.name for one in names)
            raise SpecError(
                op.name,
                f"multiplies {listed}, but {engine} multiplies integers of 2 to 16 bits",
                "give integer formats, or choose a systolic array with a pe_kind that multiplies these",
            )
        if op.sparsity[0] < op.sparsity[1]:
            kept, of = op.sparsity
            raise SpecError(
                op.name,
                f"has weights of which {kept} in {of} are kept, but {engine} skips none",
                "leave the sparsity out, or choose a systolic array",
            )
        if FLOAT_BITS in (op.a_bits, op.b_bits):
            raise SpecError(
                op.name,
                f"multiplies {op.a_bits}- by {op.b_bits}-bit floating-point operands, but {engine} multiplies "
                "integers of 2 to 16 bits",
                "quantise the model (weight_bits, activation_bits and edge_bits of 2 to 16)",
            )
