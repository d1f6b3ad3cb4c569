"""Operators and the tensors between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from cosearch.formats import NumberFormat, integer_format, number_format
from cosearch.spec import FLOAT_BITS

__all__ = ["RESIDUAL_BITS", "Operator", "OperatorKind", "Tensor", "Workload", "format_of", "stored_bits"]

RESIDUAL_BITS = 16
"""Width at which the residual stream of a quantised model is stored between operators."""


def format_of(bits: int, name: str = "") -> NumberFormat:
    """Returns the number format called ``name``; where there is no name, the integer of ``bits``, or binary32 at 32.

    Raises:
        NotFoundError: no format has this name.
    """
    if name:
        return number_format(name)
    return number_format("fp32") if bits == FLOAT_BITS else integer_format(bits)


def stored_bits(bits: int, name: str = "", sparsity: tuple[int, int] = (1, 1)) -> float:
    """Returns the bits that one value takes in memory, those that are not kept counted too.

    A kept value of a group of M is stored with its place in the group, ``ceil(log2(M))`` bits (2 bits for 2:4: Mishra
    et al. 2021, "Accelerating sparse deep neural networks"); all values are stored as they stand where that takes less.
    """
    kept, of = sparsity
    value = format_of(bits, name).storage_bits_per_value if name else float(bits)
    return value if kept == of else min(value, kept / of * (value + math.ceil(math.log2(of))))


class OperatorKind(StrEnum):
    """What an operator does. All but ``MATMUL`` run on a vector unit.

    ``SCORE`` takes a mean over its repetitions; ``SELECT`` sorts; ``MERGE`` takes weighted averages of rows, ``GATHER``
    copies rows. ``AFFINE`` multiplies each value by its column's constant and adds another (BatchNorm at inference),
    ``DIVIDE`` divides each row by a number, ``POOL`` takes plain averages, ``POWER`` raises to a constant power.
    """

    MATMUL = "matmul"
    SOFTMAX = "softmax"
    LAYERNORM = "layernorm"
    GELU = "gelu"
    ADD = "add"
    SCORE = "score"
    SELECT = "select"
    MERGE = "merge"
    RELU = "relu"
    SIGMOID = "sigmoid"
    MULTIPLY = "multiply"
    AFFINE = "affine"
    DIVIDE = "divide"
    POOL = "pool"
    POWER = "power"
    GATHER = "gather"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A named array between operators.

    Attributes:
        name: such as ``block3.qkv``.
        elements: number of values.
        bits: width at which it is stored.
        weight: whether it is a parameter (read from memory) or an activation.
        format: name of the number format, one of `cosearch.formats.NUMBER_FORMATS`; empty for an integer of ``bits``,
            or single precision at 32.
        sparsity: (kept, of): of every ``of`` values at most ``kept`` are not zero, and only these are stored, each with
            its place in the group.
    """

    name: str
    elements: int
    bits: int
    weight: bool = False
    format: str = ""
    sparsity: tuple[int, int] = (1, 1)

    @property
    def bytes(self) -> int:
        """Size in bytes, rounded up; shared scales and places in groups counted."""
        if not self.format and self.sparsity == (1, 1):
            return -(-self.elements * self.bits // 8)
        return math.ceil(self.elements * stored_bits(self.bits, self.format, self.sparsity) / 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator.

    A matrix product multiplies ``count`` pairs of (m x k) and (k x n) matrices. A vector operator works on ``m`` rows
    of ``n`` values, ``count`` times, with ``k`` = 1.

    Attributes:
        name: such as ``block3.qkv``.
        kind: what it does.
        m: rows of the left operand (tokens, for a linear layer).
        k: length of the reduction.
        n: columns of the right operand.
        count: independent repetitions (heads, for attention products).
        a_bits: width of the left operand.
        b_bits: width of the right operand.
        out_bits: width at which the output is stored; a quantised product is requantised as its accumulators drain.
        weights: whether the right operand holds parameters.
        inputs: names of the tensors it reads, parameters last.
        output: name of the tensor it writes.
        a_format: number format of the left operand, as `Tensor.format`.
        b_format: number format of the right operand.
        out_format: number format of the output.
        sparsity: of the right operand, as `Tensor.sparsity`.
        transposed: whether the left operand is stored with the reduction as its rows: each output needs all of them.
    """

    name: str
    kind: OperatorKind
    m: int
    k: int
    n: int
    count: int = 1
    a_bits: int
    b_bits: int
    out_bits: int
    weights: bool = False
    inputs: tuple[str, ...]
    output: str
    a_format: str = ""
    b_format: str = ""
    out_format: str = ""
    sparsity: tuple[int, int] = (1, 1)
    transposed: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for a vector operator."""
        return self.m * self.k * self.n * self.count if self.kind is OperatorKind.MATMUL else 0

    @property
    def elements(self) -> int:
        """Values in the output of a matrix product, values worked on by a vector operator."""
        return self.m * self.n * self.count


@dataclass(frozen=True, slots=True)
class Workload:
    """All operators of a model in the order they run, and the tensors between them.

    Attributes:
        operators: in execution order.
        tensors: every tensor that an operator names.
    """

    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(op.macs for op in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrix-product weights."""
        return sum(t.bytes for t in self.tensors if t.weight)

    @property
    def weight_count(self) -> int:
        """Number of matrix-product weights (biases, norms and embeddings not counted)."""
        return sum(t.elements for t in self.tensors if t.weight)

    def live_activation_bytes(self) -> tuple[int, ...]:
        """Returns, for each operator, the bytes of all activations alive while it runs.

        A tensor lives from the operator that writes it to the last one that reads it; the image is alive from the
        start. Nothing is assumed to be overwritten in place.
        """
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for position, op in enumerate(self.operators):
            first.setdefault(op.output, position)
            last[op.output] = max(last.get(op.output, 0), position)
            for name in op.inputs:
                first.setdefault(name, 0)
                last[name] = position
        alive = [0] * len(self.operators)
        for tensor in self.tensors:
            if not tensor.weight:
                for position in range(first[tensor.name], last[tensor.name] + 1):
                    alive[position] += tensor.bytes
        return tuple(alive)

    @property
    def peak_activation_bytes(self) -> int:
        """Most bytes of activations alive at once."""
        return max(self.live_activation_bytes())
