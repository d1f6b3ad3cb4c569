"""Writing operators down, one after the other."""

from __future__ import annotations

from typing import NamedTuple

from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec, layer_rank
from cosearch.workload._data import RESIDUAL_BITS, Operator, OperatorKind, Tensor, Workload

__all__ = ["Width", "Writer"]


class Width(NamedTuple):
    """How values are stored.

    Attributes:
        bits: as `Tensor.bits`.
        format: as `Tensor.format`.
    """

    bits: int
    format: str = ""


class Writer:
    """Operators so far, and the tensors between them.

    Args:
        model: the model whose operators they are.

    Attributes:
        model: likewise.
        wide: width of the residual stream, and of what is not the operand of a matrix product.
        merged: whether tokens stand for several patches by now, so that attention weighs them by their size.
        streams: tensors that are carried from block to block beside the residual stream, by what they are.
    """

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self.merged = False
        self.streams: dict[str, str] = {}
        self._operators: list[Operator] = []
        self._tensors: dict[str, Tensor] = {}
        widths = {model.edge_bits, *(b.weight_bits for b in model.blocks), *(b.activation_bits for b in model.blocks)}
        self.wide = Width(FLOAT_BITS if widths == {FLOAT_BITS} else RESIDUAL_BITS)

    def workload(self) -> Workload:
        """Returns what was written."""
        return Workload(tuple(self._operators), tuple(self._tensors.values()))

    def width(self, name: str) -> Width:
        """Returns how the tensor called ``name`` is stored."""
        tensor = self._tensors[name]
        return Width(tensor.bits, tensor.format)

    def elements(self, name: str) -> int:
        """Returns the number of values of the tensor called ``name``."""
        return self._tensors[name].elements

    def tensor(
        self, name: str, elements: int, width: Width, *, weight: bool = False, sparsity: tuple[int, int] = (1, 1)
    ) -> str:
        """Adds a tensor; returns its name."""
        self._tensors[name] = Tensor(
            name=name, elements=elements, bits=width.bits, weight=weight, format=width.format, sparsity=sparsity
        )
        return name

    def linear(
        self,
        name: str,
        m: int,
        k: int,
        n: int,
        source: str,
        weights: Width,
        out: Width,
        *,
        sparsity: tuple[int, int] = (1, 1),
    ) -> str:
        """Adds a product of ``m`` rows of ``k`` values with weights, ``n`` columns; returns what it writes."""
        weight = self.tensor(f"{name}.weight", k * n, weights, weight=True, sparsity=sparsity)
        self._emit(name, OperatorKind.MATMUL, (m, k, n, 1), (source, weight), weights, out, sparsity=sparsity)
        return self.tensor(name, m * n, out)

    def layer(self, name: str, block: BlockSpec, m: int, k: int, n: int, source: str, out: Width) -> str:
        """Adds a linear layer of a block, in two products where the block's rank says so; returns what it writes."""
        weights, rank = Width(block.weight_bits, block.weight_format), layer_rank(block.rank, k, n)
        if not rank:
            return self.linear(name, m, k, n, source, weights, out, sparsity=block.sparsity)
        inner = Width(block.activation_bits, block.activation_format)
        down = self.linear(f"{name}.down", m, k, rank, source, weights, inner, sparsity=block.sparsity)
        return self.linear(name, m, rank, n, down, weights, out, sparsity=block.sparsity)

    def matmul(
        self,
        name: str,
        m: int,
        k: int,
        n: int,
        count: int,
        inputs: tuple[str, ...],
        out: Width,
        *,
        transposed: bool = False,
    ) -> str:
        """Adds ``count`` products of two activations, the left one as it is stored or ``transposed``; returns what it
        writes.
        """
        right = self.width(inputs[-1])
        self._emit(name, OperatorKind.MATMUL, (m, k, n, count), inputs, right, out, transposed=transposed)
        return self.tensor(name, m * n * count, out)

    def vector(
        self,
        name: str,
        kind: OperatorKind,
        m: int,
        n: int,
        inputs: tuple[str, ...],
        out: Width,
        count: int = 1,
        *,
        elements: int | None = None,
    ) -> str:
        """Adds an operator that works on ``count`` times ``m`` rows of ``n`` values; returns what it writes.

        Args:
            name: of the operator and of its output.
            kind: what it does.
            m: rows.
            n: values in a row.
            inputs: names of the tensors that it reads.
            out: how its output is stored.
            count: repetitions.
            elements: values that it writes, where these are not as many as it works on.
        """
        self._emit(name, kind, (m, 1, n, count), inputs, self.width(inputs[0]), out)
        return self.tensor(name, m * n * count if elements is None else elements, out)

    def _emit(
        self,
        name: str,
        kind: OperatorKind,
        shape: tuple[int, int, int, int],
        inputs: tuple[str, ...],
        right: Width,
        out: Width,
        *,
        sparsity: tuple[int, int] = (1, 1),
        transposed: bool = False,
    ) -> None:
        m, k, n, count = shape
        left = self.width(inputs[0])
        weights = kind is OperatorKind.MATMUL and self._tensors[inputs[-1]].weight
        self._operators.append(
            Operator(
                name=name,
                kind=kind,
                m=m,
                k=k,
                n=n,
                count=count,
                a_bits=left.bits,
                b_bits=right.bits,
                out_bits=out.bits,
                weights=weights,
                inputs=inputs,
                output=name,
                a_format=left.format,
                b_format=right.format,
                out_format=out.format,
                sparsity=sparsity,
                transposed=transposed,
            )
        )
