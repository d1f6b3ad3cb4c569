"""Zero-cost scores: what an untrained model tells of how well it will train.

Each is a function ``score(spec, task, seed) -> float``, larger for models that are expected to be better; `SCORES` has
them by name. Those of `COUNTED` need no torch and microseconds; the others look at a freshly drawn model.

    >>> sorted(COUNTED)
    ['bit_operations', 'entropy', 'macs', 'params']
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cosearch.data import Task
from cosearch.predictors.noise import relative_error
from cosearch.spec import ModelSpec
from cosearch.workload import Operator, format_of, workload

__all__ = ["COUNTED", "PROBED", "SCORES", "Score", "bit_operations", "entropy", "macs", "params", "signal"]

Score = Callable[[ModelSpec, Task, int], float]


def params(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001 - one protocol for all scores
    """Returns log2 of the weights of all matrix products."""
    return math.log2(workload(spec).weight_count)


def macs(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001
    """Returns log2 of the multiply-accumulates of one image."""
    return math.log2(workload(spec).macs)


def bit_operations(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001
    """Returns log2 of multiply-accumulates times the widths of both operands.

    BOPs: Baskin et al. 2018, "UNIQ", https://arxiv.org/abs/1804.10969, without the accumulator's part.
    """
    return math.log2(sum(op.macs * op.a_bits * op.b_bits for op in workload(spec).operators))


def entropy(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001
    """Returns the entropy of DeepMAD, adapted to transformers and to number formats.

    Shen et al. 2023, "DeepMAD", CVPR, https://arxiv.org/abs/2303.02165: a network of L layers with c_i
    inputs and k_i x k_i kernels in g_i groups, whose output has resolution r and c channels, has the entropy
    log(r^2 c) times the sum of log(c_i k_i^2 / g_i). Here a layer is a matrix product, attention's two included:
    ``c_i k_i^2 / g_i`` is the length of its sums (of those that sparsity keeps), r^2 the tokens and c the width of the
    last block. Each layer's part is multiplied by the share of variance that its number formats leave, `signal`
    (an adaptation of ours). Its bound on effectiveness (depth over mean width) is left out.
    """
    load = workload(spec)
    width = math.log(spec.tokens[-1][1] * spec.dim)
    return width * sum(math.log(max(_summed(op), 1.0)) * signal(op) for op in load.operators if op.macs)


def _summed(op: Operator) -> float:
    return op.k * op.sparsity[0] / op.sparsity[1]


def signal(op: Operator) -> float:
    """Returns the share of a product's variance that is no rounding error, for normally distributed operands."""
    errors = (
        relative_error(format_of(op.a_bits, op.a_format)),
        relative_error(format_of(op.b_bits, op.b_format)),
    )
    return math.prod(1.0 - error**2 for error in errors)


def _probe(name: str) -> Score:
    """Returns a score of `cosearch.predictors.probes`, which imports torch when it is first asked."""

    def score(spec: ModelSpec, task: Task, seed: int) -> float:
        from cosearch.predictors import probes

        return probes.PROBES[name](spec, task, seed)

    score.__name__ = name
    score.__doc__ = f"See `cosearch.predictors.probes.{name}`."
    return score


PROBED = ("gradient_norm", "synflow", "dss", "naswot", "zico")
"""Scores that build the model in torch."""

COUNTED: Mapping[str, Score] = MappingProxyType(
    {"params": params, "macs": macs, "bit_operations": bit_operations, "entropy": entropy}
)
"""Scores that the workload alone gives."""

SCORES: Mapping[str, Score] = MappingProxyType({**COUNTED, **{name: _probe(name) for name in PROBED}})
"""Every zero-cost score by name."""
