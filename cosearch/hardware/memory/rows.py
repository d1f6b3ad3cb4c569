"""How operators depend on their operands row by row, which decides what can run in tiles of rows.

A row is a token, with all its heads. An operand is read *by row* where row i of the output needs row i of the operand
alone, else it must be *whole* before the operator starts. The score of pruning needs only the class token's row of the
attention, so it can run as soon as this row is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosearch.workload import Operator, OperatorKind, Tensor, Workload

__all__ = ["RowOperator", "row_operators"]

_POINTWISE = (
    *(OperatorKind.SOFTMAX, OperatorKind.LAYERNORM, OperatorKind.GELU, OperatorKind.ADD, OperatorKind.RELU),
    *(OperatorKind.SIGMOID, OperatorKind.MULTIPLY, OperatorKind.AFFINE, OperatorKind.DIVIDE, OperatorKind.POWER),
)
_CHOOSING = (OperatorKind.MERGE, OperatorKind.GATHER, OperatorKind.POOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOperator:
    """An operator seen by rows.

    Attributes:
        name: the operator's.
        rows: rows that it works on.
        by_row: activations that it reads row by row.
        whole: activations that it reads as a whole.
        first_row: activations of which it reads the first row only.
        output: what it writes.
        pointwise: whether it may write a row over the one that it reads.
        tileable: whether it writes its output row by row.
        shifted: whether its output has one row more in front, which is the class token.
        window: values that it reads of the network's input for each row, 0 where it reads none by row.
        weight_bytes: parameters that it reads.
    """

    name: str
    rows: int
    by_row: tuple[str, ...]
    whole: tuple[str, ...]
    first_row: tuple[str, ...]
    output: str
    pointwise: bool
    tileable: bool
    shifted: bool
    window: int
    weight_bytes: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """All activations that it reads."""
        return (*self.by_row, *self.whole, *self.first_row)


def row_operators(workload: Workload) -> tuple[RowOperator, ...]:
    """Returns the operators of ``workload`` seen by rows, scores of pruning moved up to the attention they read."""
    tensors = {tensor.name: tensor for tensor in workload.tensors}
    rows: dict[str, int] = {}
    found: list[RowOperator] = []
    for op in workload.operators:
        seen = _seen(op, tensors, rows)
        if op.kind in _CHOOSING:
            rows[op.output] = tensors[op.output].elements // op.n
        elif seen.tileable:
            rows[op.output] = op.m
        place = len(found)
        if seen.first_row:
            place = 1 + max(index for index, other in enumerate(found) if other.output in seen.first_row)
        found.insert(place, seen)
    return tuple(found)


def _seen(op: Operator, tensors: Mapping[str, Tensor], rows: Mapping[str, int]) -> RowOperator:
    """Returns ``op`` seen by rows, given the ``rows`` of the tensors before it."""
    read = [name for name in dict.fromkeys(op.inputs) if not tensors[name].weight]
    written = {name for name in read if name in rows}
    by_row, first_row = [], []
    pointwise = op.kind in _POINTWISE
    shifted = op.kind is OperatorKind.ADD and all(rows.get(name) == op.m - 1 for name in read)
    window = 0
    if op.kind is OperatorKind.MATMUL:
        candidates: Sequence[str] = read[:1] if op.weights or len(read) > 1 else ()
        if op.weights and read[0] not in written:  # the image, in patches
            window, by_row = op.k, read[:1]
        elif op.transposed:  # summed over its rows (linear attention)
            candidates = ()
    else:
        candidates = read if pointwise else ()
    by_row += [name for name in candidates if rows.get(name) == op.m or shifted]
    if op.kind is OperatorKind.SCORE and op.m == 1 and all(rows.get(name, 1) > 1 for name in read):
        first_row = read
    return RowOperator(
        name=op.name,
        rows=op.m - 1 if shifted else op.m,
        by_row=tuple(by_row),
        whole=tuple(name for name in read if name not in by_row and name not in first_row),
        first_row=tuple(first_row),
        output=op.output,
        pointwise=pointwise and bool(by_row) and not shifted,
        tileable=op.kind is OperatorKind.MATMUL or pointwise,
        shifted=shifted,
        window=window,
        weight_bytes=sum(tensors[name].bytes for name in op.inputs if tensors[name].weight),
    )
