"""What a model asks of hardware: every operator that runs, with shapes and operand widths.

`workload` is a pure function of the `ModelSpec`; nothing on the hardware side knows more of a model than what it
returns. Multiply-accumulates agree with ``torch.utils.flop_counter`` on the built module (``tests/property``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from cosearch.errors import SpecError
from cosearch.formats import NumberFormat, integer_format, number_format
from cosearch.spec import FLOAT_BITS, BlockSpec, ModelSpec

__all__ = [
    "RESIDUAL_BITS",
    "Operator",
    "OperatorKind",
    "Tensor",
    "Workload",
    "format_of",
    "stored_bits",
    "with_formats",
    "workload",
]

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
    """What an operator does. All but ``MATMUL`` run on a vector unit."""

    MATMUL = "matmul"
    SOFTMAX = "softmax"
    LAYERNORM = "layernorm"
    GELU = "gelu"
    ADD = "add"
    SCORE = "score"
    SELECT = "select"
    MERGE = "merge"


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


@lru_cache(maxsize=4096)
def workload(model: ModelSpec) -> Workload:
    """Returns the workload of one image through ``model``."""
    return _Builder(model).build()


def with_formats(
    load: Workload, *, weights: str = "", activations: str = "", sparsity: tuple[int, int] = (1, 1)
) -> Workload:
    """Returns ``load`` with other number formats in its matrix products.

    Args:
        load: a workload.
        weights: format of all parameters; empty leaves them as they are.
        activations: format of all other operands of matrix products, and of the tensors they come from; likewise.
        sparsity: (kept, of) of all parameters; (1, 1) leaves them as they are.

    Raises:
        NotFoundError: a format is unknown.
        SpecError: there is no such sparsity, or its groups do not divide a reduction.
    """
    _check_sparsity(load, sparsity)
    changed: dict[str, dict[str, Any]] = {}
    for op in load.operators:
        for name in op.inputs if op.kind is OperatorKind.MATMUL else ():
            changed[name] = _written(activations)
    changed |= {tensor.name: _written(weights) for tensor in load.tensors if tensor.weight}

    def tensor(one: Tensor) -> Tensor:
        sparse = one.weight and sparsity != (1, 1)
        return replace(one, **changed.get(one.name, {}), sparsity=sparsity if sparse else one.sparsity)

    def operator(one: Operator) -> Operator:
        a, out = changed.get(one.inputs[0], {}), changed.get(one.output, {})
        # a vector operator has one operand width: that of its first input
        b = a if one.kind is not OperatorKind.MATMUL else _written(weights if one.weights else activations)
        sides = (("a", a), ("b", b), ("out", out))
        new = {f"{side}_{field}": value for side, fields in sides for field, value in fields.items()}
        return replace(one, **new, sparsity=sparsity if one.weights and sparsity != (1, 1) else one.sparsity)

    return Workload(tuple(operator(op) for op in load.operators), tuple(tensor(one) for one in load.tensors))


def _written(name: str) -> dict[str, Any]:
    """Returns the fields of a tensor in the format called ``name``, none where it is empty."""
    return {"bits": number_format(name).bits, "format": name} if name else {}


def _check_sparsity(load: Workload, sparsity: tuple[int, int]) -> None:
    kept, of = sparsity
    if not 1 <= kept <= of <= 32:
        raise SpecError("sparsity", f"is {kept}:{of}", "write N:M with N of 1 to M and M of at most 32, such as 2:4")
    for op in load.operators:
        if op.weights and op.k % of:
            raise SpecError(
                "sparsity",
                f"is {kept}:{of}, but {op.name} sums over {op.k} values, which are no whole groups of {of}",
                f"choose groups that divide {op.k}, or make the layer's input a multiple of {of} wide",
            )


class _Builder:
    """Writes down the operators in order; one method per part of the model."""

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.merged = False
        widths = {
            model.edge_bits,
            *(b.weight_bits for b in model.blocks),
            *(b.activation_bits for b in model.blocks),
        }
        self.stream_bits = FLOAT_BITS if widths == {FLOAT_BITS} else RESIDUAL_BITS

    def build(self) -> Workload:
        stream = self._stem()
        for index, (block, (tokens, kept)) in enumerate(zip(self.model.blocks, self.model.tokens, strict=True)):
            stream = self._attention(f"block{index}", block, tokens, stream)
            if kept < tokens:
                stream = self._reduce(f"block{index}", block, tokens, kept, stream)
            stream = self._mlp(f"block{index}", block, kept, stream)
        edge = self.model.edge_bits
        normed = self._vector("norm", OperatorKind.LAYERNORM, 1, self.model.dim, (stream,), edge)
        outputs = self.model.task.labels * self.model.task.classes
        self._linear("head", 1, self.model.dim, outputs, normed, edge, edge, FLOAT_BITS)
        return Workload(tuple(self.operators), tuple(self.tensors.values()))

    def _stem(self) -> str:
        model, edge = self.model, self.model.edge_bits
        side = model.patch + 2 * model.overlap
        height, width = model.task.image
        self._tensor("image", height * width * model.task.channels, edge)
        pixels, last = model.task.channels * side * side, "image"
        if model.stem_hidden:
            last = self._linear(
                "stem.fc1", model.patches, pixels, model.stem_hidden, last, edge, edge, self.stream_bits
            )
            last = self._vector("stem.gelu", OperatorKind.GELU, model.patches, model.stem_hidden, (last,), edge)
            pixels = model.stem_hidden
        last = self._linear("stem.proj", model.patches, pixels, model.dim, last, edge, edge, self.stream_bits)
        # the class token joins here, so the sum with the position embedding has one row more
        return self._vector("embed", OperatorKind.ADD, model.patches + 1, model.dim, (last,), self.stream_bits)

    def _attention(self, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, heads, wide = self.model.dim, block.heads, self.stream_bits
        w, a, depth = block.weight_bits, block.activation_bits, dim // block.heads
        normed = self._vector(f"{name}.norm1", OperatorKind.LAYERNORM, tokens, dim, (stream,), a)
        qkv = self._linear(f"{name}.qkv", tokens, dim, 3 * dim, normed, w, a, a)
        scores = self._matmul(f"{name}.scores", tokens, depth, tokens, heads, (qkv,), a, wide)
        if self.merged:  # proportional attention: the logarithm of each token's size is added (ToMe, equation 1)
            scores = self._vector(f"{name}.bias", OperatorKind.ADD, tokens, tokens, (scores,), wide, heads)
        soft = self._vector(f"{name}.softmax", OperatorKind.SOFTMAX, tokens, tokens, (scores,), a, heads)
        context = self._matmul(f"{name}.context", tokens, tokens, depth, heads, (soft, qkv), a, a)
        out = self._linear(f"{name}.proj", tokens, dim, dim, context, w, a, wide)
        return self._vector(f"{name}.add1", OperatorKind.ADD, tokens, dim, (stream, out), wide)

    def _reduce(self, name: str, block: BlockSpec, tokens: int, kept: int, stream: str) -> str:
        dim, wide, image_tokens = self.model.dim, self.stream_bits, tokens - 1
        if self.model.token_method == "prune":
            score = self._vector(
                f"{name}.score", OperatorKind.SCORE, 1, image_tokens, (f"{name}.softmax",), wide, block.heads
            )
            picked = self._vector(f"{name}.select", OperatorKind.SELECT, 1, image_tokens, (score,), wide)
            # kept rows are gathered, the others averaged with their scores as weights into one row
            return self._vector(f"{name}.fuse", OperatorKind.MERGE, tokens, dim, (stream, picked), wide, out_rows=kept)
        self.merged = True
        depth = dim // block.heads
        source, target = (image_tokens + 1) // 2, image_tokens // 2
        metric = self._vector(
            f"{name}.metric",
            OperatorKind.SCORE,
            image_tokens,
            depth,
            (f"{name}.qkv",),
            block.activation_bits,
            block.heads,
        )
        similar = self._matmul(f"{name}.similarity", source, depth, target, 1, (metric,), block.activation_bits, wide)
        picked = self._vector(f"{name}.select", OperatorKind.SELECT, source, target, (similar,), wide)
        return self._vector(f"{name}.merge", OperatorKind.MERGE, tokens, dim, (stream, picked), wide, out_rows=kept)

    def _mlp(self, name: str, block: BlockSpec, tokens: int, stream: str) -> str:
        dim, hidden, wide = self.model.dim, block.mlp_hidden, self.stream_bits
        w, a = block.weight_bits, block.activation_bits
        normed = self._vector(f"{name}.norm2", OperatorKind.LAYERNORM, tokens, dim, (stream,), a)
        up = self._linear(f"{name}.fc1", tokens, dim, hidden, normed, w, a, wide)
        active = self._vector(f"{name}.gelu", OperatorKind.GELU, tokens, hidden, (up,), a)
        down = self._linear(f"{name}.fc2", tokens, hidden, dim, active, w, a, wide)
        return self._vector(f"{name}.add2", OperatorKind.ADD, tokens, dim, (stream, down), wide)

    def _tensor(self, name: str, elements: int, bits: int, *, weight: bool = False) -> str:
        self.tensors[name] = Tensor(name=name, elements=elements, bits=bits, weight=weight)
        return name

    def _linear(self, name: str, m: int, k: int, n: int, source: str, w: int, a: int, out_bits: int) -> str:
        weight = self._tensor(f"{name}.weight", k * n, w, weight=True)
        self._emit(name, OperatorKind.MATMUL, m, k, n, 1, a, w, out_bits, (source, weight), weights=True)
        return self._tensor(name, m * n, out_bits)

    def _matmul(
        self, name: str, m: int, k: int, n: int, count: int, inputs: tuple[str, ...], bits: int, out_bits: int
    ) -> str:
        self._emit(name, OperatorKind.MATMUL, m, k, n, count, bits, bits, out_bits, inputs)
        return self._tensor(name, m * n * count, out_bits)

    def _vector(
        self,
        name: str,
        kind: OperatorKind,
        m: int,
        n: int,
        inputs: tuple[str, ...],
        out_bits: int,
        count: int = 1,
        *,
        out_rows: int | None = None,
    ) -> str:
        bits = self.tensors[inputs[0]].bits
        self._emit(name, kind, m, 1, n, count, bits, bits, out_bits, inputs)
        if kind is OperatorKind.SCORE:  # the mean over heads leaves one
            return self._tensor(name, m * n, out_bits)
        return self._tensor(name, (m if out_rows is None else out_rows) * n * count, out_bits)

    def _emit(
        self,
        name: str,
        kind: OperatorKind,
        m: int,
        k: int,
        n: int,
        count: int,
        a_bits: int,
        b_bits: int,
        out_bits: int,
        inputs: tuple[str, ...],
        *,
        weights: bool = False,
    ) -> None:
        self.operators.append(
            Operator(
                name=name,
                kind=kind,
                m=m,
                k=k,
                n=n,
                count=count,
                a_bits=a_bits,
                b_bits=b_bits,
                out_bits=out_bits,
                weights=weights,
                inputs=inputs,
                output=name,
            )
        )
