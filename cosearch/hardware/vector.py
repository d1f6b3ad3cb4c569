"""The vector unit: what each operator beside the matrix products costs, in lane operations.

One lane does one 16-bit operation a cycle: add, multiply, shift, compare or a comparator's exchange. Counts are those
of integer-only arithmetic, I-BERT (Kim et al. 2021) for the nonlinear functions; what that paper leaves open is an
assumption, stated beside it. Requantisation of a matrix product happens as its accumulators drain and is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

from cosearch.workload import Operator, OperatorKind

__all__ = ["LANE_BITS", "OPERATIONS_PER_ROW", "OPERATIONS_PER_VALUE", "lane_operations"]

LANE_BITS = 16
"""Width of a lane."""

OPERATIONS_PER_VALUE: Mapping[OperatorKind, int] = {
    # max; subtract it; i-exp: scale, floor and remainder for the range (3), polynomial of degree 2 (3), shift (1);
    # accumulate; scale by the row's reciprocal. I-BERT, algorithm 3 and section 3.5
    OperatorKind.SOFTMAX: 11,
    # accumulate for the mean; subtract it; square and accumulate (2); scale by 1/std; gain and bias (2).
    # I-BERT, section 3.6
    OperatorKind.LAYERNORM: 7,
    # i-GELU: sign, absolute value, clip, polynomial of degree 2 (3), times sign, add one, times x.
    # I-BERT, algorithm 2 and equation 8
    OperatorKind.GELU: 9,
    # one scale to align the operands and the sum (assumption: the other operand has the output's scale)
    OperatorKind.ADD: 2,
    # accumulate over heads; square-accumulate and scale for the cosine of merging (ToMe, Bolya et al. 2023), which
    # pruning pays too (assumption, on the safe side)
    OperatorKind.SCORE: 3,
    # running maximum of each row, when there are several rows (merging: best match of each source token)
    OperatorKind.SELECT: 1,
    # multiply and accumulate with the weight, scale by the reciprocal of the weights' sum; gathering rides along
    OperatorKind.MERGE: 3,
    # compare with zero
    OperatorKind.RELU: 1,
    # i-exp as for softmax (7), add one, times the reciprocal: as many divisions as values, see below (assumption: the
    # exponential of I-BERT, algorithm 3, for want of a published integer sigmoid)
    OperatorKind.SIGMOID: 9 + 16,
    # multiply, and scale the product
    OperatorKind.MULTIPLY: 2,
    # multiply by a constant and add another, in integers: dyadic scale, shift, add
    OperatorKind.AFFINE: 2,
    # times the row's reciprocal
    OperatorKind.DIVIDE: 1,
    # accumulate; the reciprocal of the count is a constant, and folds into a scale
    OperatorKind.POOL: 1,
    # logarithm and exponential by shift and polynomial of degree 2 (6 each, as I-BERT's i-exp), times the exponent
    # (assumption)
    OperatorKind.POWER: 13,
    # move a value
    OperatorKind.GATHER: 1,
}
"""Lane operations for each value that the operator works on."""

OPERATIONS_PER_ROW: Mapping[OperatorKind, int] = {
    OperatorKind.SOFTMAX: 16,  # one 16-bit division, a bit a step (assumption)
    OperatorKind.LAYERNORM: 88,  # i-sqrt: 4 steps (I-BERT, algorithm 4) of division, add, shift; then one division
    OperatorKind.MERGE: 16,  # one division
    OperatorKind.DIVIDE: 16,  # one division
}
"""Lane operations for each row, on top."""


def lane_operations(op: Operator) -> int:
    """Returns the lane operations of a vector operator, all ``count`` repetitions together; 0 for a matrix product.

    Selection sorts by a bitonic network of ``n/2 * log2(n) * (log2(n) + 1) / 2`` exchanges, n rounded up to a power of
    two (Batcher 1968): the scores of all tokens when there is one row (pruning), the best match of each row when
    there are several (merging).
    """
    if op.kind is OperatorKind.MATMUL:
        return 0
    if op.kind is OperatorKind.SELECT:
        best = OPERATIONS_PER_VALUE[op.kind] * op.elements if op.m > 1 else 0
        return best + op.count * _sort_exchanges(op.m if op.m > 1 else op.n)
    rows = op.m * op.count
    return OPERATIONS_PER_VALUE[op.kind] * op.elements + OPERATIONS_PER_ROW.get(op.kind, 0) * rows


def _sort_exchanges(values: int) -> int:
    stages = (values - 1).bit_length()
    return (1 << stages) * stages * (stages + 1) // 4
