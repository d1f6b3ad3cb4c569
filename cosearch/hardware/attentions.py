"""The distinct attentions of a workload, as columns of numbers for templates that work on an attention as a whole.

Shapes as in `cosearch.hardware.groups`: a field has shape (attentions, 1), accelerators are the second axis.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from cosearch.workload import Operator, OperatorKind, Workload

__all__ = ["AttentionChain", "Attentions", "Role", "attention_chains", "find_attentions"]

Floats = NDArray[np.float64]
Role = str
"""What an operator does in an attention: ``maker``, the linear layer that makes queries, keys and values; ``scores``,
``bias``, ``softmax``, ``context``; or ``reader``, which scores tokens by a row of the attention map."""


@dataclass(frozen=True, slots=True)
class _Shape:
    queries: int
    keys: int
    depth: int
    value_depth: int
    heads: int
    query_bits: int
    key_bits: int
    score_bits: int
    soft_bits: int
    value_bits: int
    out_bits: int
    biased: bool
    row_values: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attentions:
    """The distinct attentions of a workload; fields but the last two have shape (attentions, 1).

    Attributes:
        queries: tokens that ask.
        keys: tokens that are asked.
        depth: width of a query and a key.
        value_depth: width of a value.
        heads: how often it runs.
        query_bits: width of queries.
        key_bits: width of keys.
        score_bits: width at which a score is stored.
        soft_bits: width of a normalised score.
        value_bits: width of values.
        out_bits: width of outputs.
        biased: 1 where a bias is added to the scores (sizes of merged tokens), else 0.
        row_values: values of the attention map that score tokens later, all heads; 0 where no operator reads it.
        marks: for each operator of the workload, its role and its attention, or None; for `Groups.of`.
        shapes: the attentions in the order of the columns, as in ``marks``.
    """

    queries: Floats
    keys: Floats
    depth: Floats
    value_depth: Floats
    heads: Floats
    query_bits: Floats
    key_bits: Floats
    score_bits: Floats
    soft_bits: Floats
    value_bits: Floats
    out_bits: Floats
    biased: Floats
    row_values: Floats
    marks: tuple[tuple[Role, _Shape] | None, ...]
    shapes: tuple[_Shape, ...]

    def rows(self, first: tuple[int, ...], role: Role) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Returns the rows of a ledger that hold operators of ``role``, and before them the attention of each row.

        An attention may have none (no bias), and several linear layers that differ in their weights may make the
        queries and keys of one.

        Args:
            first: for each row, the position of its first operator, as `Groups.first`.
            role: what the operator does.
        """
        column = {shape: index for index, shape in enumerate(self.shapes)}
        found = [(mark, row) for row, position in enumerate(first) if (mark := self.marks[position]) is not None]
        pairs = [(column[shape], row) for (does, shape), row in found if does == role]
        which, rows = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        return which, rows


@dataclass(slots=True)
class _Found:
    scores: int
    softmax: int
    context: int
    maker: int | None = None
    bias: int | None = None
    readers: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionChain:
    """Positions of the operators of one attention.

    Attributes:
        scores: the product of queries and keys.
        between: vector operators from scores to softmax, the softmax last.
        context: the product with the values.
    """

    scores: int
    between: tuple[int, ...]
    context: int


def attention_chains(workload: Workload) -> tuple[AttentionChain, ...]:
    """Returns the attentions of ``workload``: a product, vector operators up to a softmax, a product of its output.

    Scores that are read twice (LookupViT's, there and back) must be kept as a whole, and are none.
    """
    readers = Counter(name for op in workload.operators for name in dict.fromkeys(op.inputs))
    maker = {op.output: position for position, op in enumerate(workload.operators)}
    found = []
    for position, op in enumerate(workload.operators):
        if op.kind is not OperatorKind.SOFTMAX:
            continue
        between = [position]
        source = maker.get(op.inputs[0])
        while source is not None and workload.operators[source].kind is not OperatorKind.MATMUL:
            between.insert(0, source)
            source = maker.get(workload.operators[source].inputs[0])
        context = next((i for i, other in enumerate(workload.operators) if _multiplies(other, op.output)), None)
        alone = source is not None and readers[workload.operators[source].output] == 1
        if source is not None and context is not None and alone:
            found.append(AttentionChain(scores=source, between=tuple(between), context=context))
    return tuple(found)


def _multiplies(op: Operator, tensor: str) -> bool:
    return op.kind is OperatorKind.MATMUL and op.inputs[0] == tensor


def find_attentions(workload: Workload) -> Attentions:
    """Returns the attentions of ``workload``: products whose output, with or without a bias, goes through a softmax
    into another product.
    """
    operators = workload.operators
    marks: list[tuple[Role, _Shape] | None] = [None] * len(operators)
    shapes: dict[_Shape, None] = {}
    for found in _found(workload):
        shape = _shape(operators, found)
        shapes[shape] = None
        marks[found.scores] = ("scores", shape)
        marks[found.softmax] = ("softmax", shape)
        marks[found.context] = ("context", shape)
        for role, at in (("maker", found.maker), ("bias", found.bias)):
            if at is not None:
                marks[at] = (role, shape)
        for position in found.readers:
            marks[position] = ("reader", shape)
    columns = {
        item.name: np.array([float(getattr(s, item.name)) for s in shapes]).reshape(-1, 1) for item in fields(_Shape)
    }
    return Attentions(**columns, marks=tuple(marks), shapes=tuple(shapes))


def _found(workload: Workload) -> list[_Found]:
    operators = workload.operators
    made = {op.output: position for position, op in enumerate(operators)}
    found = []
    for chain in attention_chains(workload):
        *before, softmax = chain.between
        if len(before) > 1 or (before and operators[before[0]].kind is not OperatorKind.ADD):
            continue
        scoring = [
            position
            for position, op in enumerate(operators)
            if op.kind is OperatorKind.SCORE and operators[softmax].output in op.inputs
        ]
        maker = made.get(operators[chain.scores].inputs[0])
        if maker is not None and not _makes_both(operators[maker], operators[chain.scores]):
            maker = None
        bias = before[0] if before else None
        found.append(_Found(chain.scores, softmax, chain.context, maker, bias, scoring))
    return found


def _makes_both(op: Operator, scores: Operator) -> bool:
    """Returns whether a linear layer makes the queries and the keys of ``scores``."""
    return op.weights and op.elements >= scores.count * scores.k * (scores.m + scores.n)


def _shape(operators: tuple[Operator, ...], found: _Found) -> _Shape:
    scores, softmax, context = (operators[i] for i in (found.scores, found.softmax, found.context))
    return _Shape(
        queries=scores.m,
        keys=scores.n,
        depth=scores.k,
        value_depth=context.n,
        heads=scores.count,
        query_bits=scores.a_bits,
        key_bits=scores.b_bits,
        score_bits=softmax.a_bits,
        soft_bits=context.a_bits,
        value_bits=context.b_bits,
        out_bits=context.out_bits,
        biased=found.bias is not None,
        row_values=sum(operators[i].elements for i in found.readers),
    )
