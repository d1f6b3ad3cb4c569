"""Writes operators down as a graph is read, and gives tensors their widths once it is known who reads them.

A tensor has the width of the operands of the matrix products that read it; what only vector operators read is kept
wide, as `cosearch.workload.workload` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cosearch.spec import FLOAT_BITS
from cosearch.workload import RESIDUAL_BITS, Operator, OperatorKind, Tensor, Workload

__all__ = ["Extent", "Record", "Value"]

Extent = tuple[int, int, int]
"""Repetitions, rows, columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What a node of a graph stands for: a tensor, a view of it, several joined, or something constant.

    Attributes:
        bases: activations that are read when it is read; none if it does not depend on the image.
        parameters: parameters and constants that it was made of, where it is constant.
        bits: width that a quantiser of the module gives it.
    """

    bases: tuple[str, ...] = ()
    parameters: frozenset[str] = frozenset()
    bits: int | None = None


@dataclass(slots=True, kw_only=True)
class _Entry:
    name: str
    kind: OperatorKind
    m: int
    k: int
    n: int
    count: int
    inputs: tuple[str, ...]
    widths: tuple[int, int] | None = None
    weights: bool = False


@dataclass(slots=True)
class Record:
    """Operators so far.

    Attributes:
        weight_bits: width of weights that no quantiser gives one.
        activation_bits: width of other operands of matrix products, likewise.
        sizes: values in each activation and each parameter.
        extents: how the operator that wrote an activation saw it.
        outputs: activations that the model returns.
    """

    weight_bits: int
    activation_bits: int
    sizes: dict[str, int] = field(default_factory=dict)
    extents: dict[str, Extent] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    _entries: list[_Entry] = field(default_factory=list)
    _weights: dict[str, Tensor] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """Returns ``name``, with a number behind it if it is taken."""
        number, free = 1, name
        while free in self.sizes or free in self._weights:
            number, free = number + 1, f"{name}_{number}"
        return free

    def product(
        self, name: str, extent: tuple[int, int, int, int], left: Value, right: Value, *, out: int, out_extent: Extent
    ) -> Value:
        """Writes down a matrix product and returns its result.

        Args:
            name: the operator's.
            extent: count, m, k and n.
            left: the left operand; depends on the image.
            right: the right operand; constant, or not.
            out: values in the result.
            out_extent: how vector operators see it.
        """
        count, m, k, n = extent
        weights = not right.bases
        a_bits = left.bits or self.activation_bits
        b_bits = right.bits or (self.weight_bits if weights else self.activation_bits)
        for value, bits in ((left, a_bits), (right, b_bits)):
            for base in value.bases:
                self._asked[base] = max(bits, self._asked.get(base, 0))
        name = self.unique(name)
        inputs = dict.fromkeys((*left.bases, *right.bases))
        if weights:
            inputs[self._weight(name, right, count * k * n, b_bits)] = None
        entry = _Entry(
            name=name,
            kind=OperatorKind.MATMUL,
            m=m,
            k=k,
            n=n,
            count=count,
            inputs=tuple(inputs),
            widths=(a_bits, b_bits),
            weights=weights,
        )
        return self._write(entry, out, out_extent)

    def vector(self, name: str, kind: OperatorKind, extent: Extent, read: Sequence[Value], *, out: int) -> Value:
        """Writes down a vector operator and returns its result.

        Args:
            name: the operator's.
            kind: what it does.
            extent: what it works on.
            read: what it reads.
            out: values in the result.
        """
        count, m, n = extent
        inputs = tuple(dict.fromkeys(base for value in read for base in value.bases))
        entry = _Entry(name=self.unique(name), kind=kind, m=m, k=1, n=n, count=count, inputs=inputs)
        return self._write(entry, out, extent)

    def _write(self, entry: _Entry, out: int, extent: Extent) -> Value:
        self._entries.append(entry)
        self.sizes[entry.name], self.extents[entry.name] = out, extent
        return Value(bases=(entry.name,))

    def _weight(self, name: str, right: Value, size: int, bits: int) -> str:
        """Returns the name of a product's weights: the parameter's own, where they are one parameter as a whole."""
        same = [parameter for parameter in right.parameters if self.sizes[parameter] == size]
        own = same[0] if len(same) == 1 else f"{name}.weight"
        if own in self._weights and self._weights[own].elements != size:  # the name is that of a larger parameter
            own = self.unique(own)
        if own in self._weights:
            bits = max(bits, self._weights[own].bits)
        self._weights[own] = Tensor(name=own, elements=size, bits=bits, weight=True)
        return own

    def workload(self) -> Workload:
        """Returns what was written down."""
        products = [entry.widths for entry in self._entries if entry.widths is not None]
        wide = FLOAT_BITS if all(widths == (FLOAT_BITS, FLOAT_BITS) for widths in products) else RESIDUAL_BITS
        tensors: dict[str, Tensor] = {}

        def tensor(name: str) -> Tensor:
            if name in self._weights:
                return self._weights[name]
            kept = FLOAT_BITS if name in self.outputs else wide
            return Tensor(name=name, elements=self.sizes[name], bits=self._asked.get(name, kept))

        operators = []
        for entry in self._entries:
            for name in (*entry.inputs, entry.name):
                tensors.setdefault(name, tensor(name))
            bits = tensors[entry.inputs[0]].bits
            a_bits, b_bits = entry.widths or (bits, bits)
            operators.append(
                Operator(
                    name=entry.name,
                    kind=entry.kind,
                    m=entry.m,
                    k=entry.k,
                    n=entry.n,
                    count=entry.count,
                    a_bits=a_bits,
                    b_bits=b_bits,
                    out_bits=tensors[entry.name].bits,
                    weights=entry.weights,
                    inputs=entry.inputs,
                    output=entry.name,
                )
            )
        return Workload(tuple(operators), tuple(tensors.values()))
