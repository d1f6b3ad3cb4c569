"""A workload in other number formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cosearch.errors import SpecError
from cosearch.formats import number_format
from cosearch.workload._data import Operator, OperatorKind, Tensor, Workload

__all__ = ["with_formats"]


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
