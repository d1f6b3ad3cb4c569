"""What predictors see of a model: a row of numbers of fixed length, whatever space or framework the model comes from.

`encode` reads a `cosearch.workload.Workload`, so it takes models of any space and imported ones alike (the idea of
AIO-P: Mills et al. 2023, "AIO-P: Expanding Neural Performance Predictors Beyond Image Classification",
https://arxiv.org/abs/2211.17228, and of predictors on ONNX graphs). What a workload cannot tell (which token method
chooses, what trains the model) enters by columns from the `ModelSpec`, by the names that specs know; they are 0 for a
model without a spec.

Columns, in order; ``names()`` has them all:

- ``total.*``: log2(1 + x) of multiply-accumulates, bit operations (multiply-accumulates times both widths), weights,
  bytes of weights, peak bytes of activations, all bytes of activations, values that vector operators work on, and
  counts of operators by role.
- ``share.*``: of the multiply-accumulates, those of products without weights; of the values that vector operators work
  on, those of each `OperatorKind`; ``count.*`` is log2(1 + operators) of each kind.
- ``bits.*``: for the weights and the other operands (``b`` and ``a``): mean over multiply-accumulates of log2 bits and
  of the format's relative error (`relative_error`), its largest value, and the share of each format family; the mean
  width of what vector operators write; the share of weights that are kept (N:M sparsity), over multiply-accumulates.
- ``layer[p].*``: a profile over depth. Products with weights, in execution order, are spread evenly over [0, 1], and
  position p of `LAYER_POSITIONS` holds their mean over its part: log2 of rows, reduction, columns and
  multiply-accumulates, log2 bits and relative error of both operands, share kept.
- ``mix[p].*``: likewise for products without weights (attention), at `MIX_POSITIONS`: log2 of rows, reduction, columns
  and repetitions, log2 bits and relative error.
- ``vector[p].*``: likewise for vector operators, at `VECTOR_POSITIONS`: log2 of rows, columns and repetitions, and of
  the bits that are written.
- ``spec.*``: what the spec says and operators blur: patch and overlap, width, depth, patches, tokens that are left
  (least and mean), heads, the MLP's width to the model's, and which share of blocks has low ranks, N:M sparsity, fewer
  query or key heads; whether the stem has a hidden layer. Without them 38 candidates, each unseen, were ranked with
  tau 0.21, with them 0.38.
- ``method.*``, ``mixer.*``, ``mlp.*``, ``norm.*``, ``pool.*``: 1 for the name that the spec has; of mixers and MLPs,
  the share of blocks.
- ``training[i]``: the fields of `ModelSpec.training`, by the hashing trick (Weinberger et al. 2009, "Feature Hashing
  for Large Scale Multitask Learning", https://arxiv.org/abs/0902.2206), so that any field enters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cosearch.formats import Family, NumberFormat
from cosearch.predictors.noise import relative_error
from cosearch.spec import MIXERS, MLPS, NORMS, POOLS, TOKEN_METHODS, ModelSpec, Scalar
from cosearch.workload import Operator, OperatorKind, Workload, format_of, workload

__all__ = [
    "LAYER_POSITIONS",
    "MIX_POSITIONS",
    "TRAINING_COLUMNS",
    "VECTOR_POSITIONS",
    "encode",
    "encode_models",
    "names",
]

Floats = NDArray[np.float64]

LAYER_POSITIONS = 16
"""Parts of the depth of products with weights. With 16, 8 and 4 a Gaussian process ranked 39 candidates of digit-pairs,
each unseen, with tau 0.44, 0.40 and -0.03 to trainings of 150 steps."""

VECTOR_POSITIONS = 2
"""Parts of the depth of vector operators: they tell little of accuracy, and each column counts for a predictor."""

MIX_POSITIONS = 4
"""Parts of the depth of products without weights."""

TRAINING_COLUMNS = 8
"""Columns that changes of the recipe are hashed into."""

_FAMILIES: tuple[str, ...] = get_args(Family)
_VECTORS = tuple(kind for kind in OperatorKind if kind is not OperatorKind.MATMUL)

_Part = dict[str, float]


def encode(load: Workload, spec: ModelSpec | None = None) -> Floats:
    """Returns the encoding of a workload, shape (columns,), all of it finite.

    Args:
        load: what the model computes.
        spec: what it was made from; left out for an imported model.
    """
    return np.array(list(_described(load, spec).values()), dtype=np.float64)


def encode_models(models: Sequence[ModelSpec]) -> Floats:
    """Returns the encodings of models, shape (models, columns)."""
    rows = [_encoded(model) for model in models]
    return np.stack(rows) if rows else np.zeros((0, len(names())))


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Returns the name of each column."""
    return tuple(_described(Workload((), ()), None))


@lru_cache(maxsize=8192)
def _encoded(model: ModelSpec) -> Floats:
    row = encode(workload(model), model)
    row.flags.writeable = False
    return row


def _described(load: Workload, spec: ModelSpec | None) -> _Part:
    products = [op for op in load.operators if op.kind is OperatorKind.MATMUL]
    layers, mixes = [op for op in products if op.weights], [op for op in products if not op.weights]
    vectors = [op for op in load.operators if op.kind is not OperatorKind.MATMUL]
    return {
        **_totals(load, layers, mixes, vectors),
        **_shares(products, vectors),
        **_widths(products, layers, vectors),
        **_profile("layer", layers, LAYER_POSITIONS, _LAYER),
        **_profile("mix", mixes, MIX_POSITIONS, _MIX),
        **_profile("vector", vectors, VECTOR_POSITIONS, _VECTOR),
        **_sizes(spec),
        **_chosen(spec),
        **_training(() if spec is None else spec.training),
    }


def _totals(
    load: Workload, layers: Sequence[Operator], mixes: Sequence[Operator], vectors: Sequence[Operator]
) -> _Part:
    activations = [tensor.bytes for tensor in load.tensors if not tensor.weight]
    values = {
        "macs": load.macs,
        "bit_operations": sum(op.macs * op.a_bits * op.b_bits for op in load.operators),
        "weights": load.weight_count,
        "weight_bytes": load.weight_bytes,
        "peak_activation_bytes": load.peak_activation_bytes if load.operators else 0,
        "activation_bytes": sum(activations),
        "vector_values": sum(op.elements for op in vectors),
        "layers": len(layers),
        "mixes": len(mixes),
        "vectors": len(vectors),
    }
    return {f"total.{name}": math.log2(1 + value) for name, value in values.items()}


def _shares(products: Sequence[Operator], vectors: Sequence[Operator]) -> _Part:
    macs, values = sum(op.macs for op in products) or 1, sum(op.elements for op in vectors) or 1
    found = {"share.mixing": sum(op.macs for op in products if not op.weights) / macs}
    for kind in _VECTORS:
        own = [op for op in vectors if op.kind is kind]
        found[f"share.{kind}"] = sum(op.elements for op in own) / values
        found[f"count.{kind}"] = math.log2(1 + len(own))
    return found


def _widths(products: Sequence[Operator], layers: Sequence[Operator], vectors: Sequence[Operator]) -> _Part:
    found: _Part = {}
    for side in ("a", "b"):
        forms = [_form(op, side) for op in products]
        weights = _normalised([op.macs for op in products])
        errors = [relative_error(form) for form in forms]
        found[f"bits.{side}.log2"] = _mean(weights, [math.log2(form.bits) for form in forms])
        found[f"bits.{side}.error"] = _mean(weights, errors)
        found[f"bits.{side}.largest_error"] = max(errors, default=0.0)
        for family in _FAMILIES:
            found[f"bits.{side}.{family}"] = _mean(weights, [float(form.family == family) for form in forms])
    found["bits.vector"] = _mean(
        _normalised([op.elements for op in vectors]), [math.log2(op.out_bits) for op in vectors]
    )
    found["bits.kept"] = _mean(_normalised([op.macs for op in layers]), [_kept(op) for op in layers])
    return found


def _form(op: Operator, side: str) -> NumberFormat:
    return format_of(op.a_bits, op.a_format) if side == "a" else format_of(op.b_bits, op.b_format)


def _kept(op: Operator) -> float:
    return op.sparsity[0] / op.sparsity[1]


def _normalised(weights: Sequence[float]) -> Floats:
    row = np.array(weights, dtype=np.float64)
    return row / row.sum() if len(row) and row.sum() > 0 else row


def _mean(weights: Floats, values: Sequence[float]) -> float:
    return float(weights @ np.array(values, dtype=np.float64)) if len(values) else 0.0


_Facts = tuple[tuple[str, Callable[[Operator], float]], ...]

_LAYER: _Facts = (
    ("m", lambda op: math.log2(op.m * op.count)),
    ("k", lambda op: math.log2(op.k)),
    ("n", lambda op: math.log2(op.n)),
    ("macs", lambda op: math.log2(op.macs)),
    ("a_bits", lambda op: math.log2(op.a_bits)),
    ("b_bits", lambda op: math.log2(op.b_bits)),
    ("a_error", lambda op: relative_error(_form(op, "a"))),
    ("b_error", lambda op: relative_error(_form(op, "b"))),
    ("kept", _kept),
)

_MIX: _Facts = (
    ("m", lambda op: math.log2(op.m)),
    ("k", lambda op: math.log2(op.k)),
    ("n", lambda op: math.log2(op.n)),
    ("count", lambda op: math.log2(op.count)),
    ("a_bits", lambda op: math.log2(op.a_bits)),
    ("b_bits", lambda op: math.log2(op.b_bits)),
    ("a_error", lambda op: relative_error(_form(op, "a"))),
    ("b_error", lambda op: relative_error(_form(op, "b"))),
)

_VECTOR: _Facts = (
    ("m", lambda op: math.log2(op.m)),
    ("n", lambda op: math.log2(op.n)),
    ("count", lambda op: math.log2(op.count)),
    ("out_bits", lambda op: math.log2(op.out_bits)),
)


def _profile(name: str, ops: Sequence[Operator], positions: int, facts: _Facts) -> _Part:
    """Returns means over parts of the depth; every operator weighs on at least one of them."""
    table = np.array([[fact(op) for _, fact in facts] for op in ops], dtype=np.float64).reshape(len(ops), len(facts))
    means = _pooling(len(ops), positions) @ table
    return {
        f"{name}[{position}].{fact}": float(means[position, column])
        for position in range(positions)
        for column, (fact, _) in enumerate(facts)
    }


@lru_cache(maxsize=1024)
def _pooling(count: int, positions: int) -> Floats:
    """Returns how much each of ``count`` parts of [0, 1] weighs in each of ``positions``, rows of which sum to 1."""
    if count == 0:
        return np.zeros((positions, 0))
    own, ends = np.arange(count + 1) / count, np.arange(positions + 1) / positions
    overlap = np.minimum(own[None, 1:], ends[1:, None]) - np.maximum(own[None, :-1], ends[:-1, None])
    return np.asarray(np.maximum(overlap, 0.0) * positions)


_SIZES: Mapping[str, Callable[[ModelSpec], float]] = {
    "patch": lambda spec: math.log2(spec.patch),
    "overlap": lambda spec: spec.overlap / spec.patch,
    "stem_hidden": lambda spec: float(spec.stem_hidden > 0),
    "dim": lambda spec: math.log2(spec.dim),
    "depth": lambda spec: float(len(spec.blocks)),
    "patches": lambda spec: math.log2(spec.patches),
    "tokens.least": lambda spec: min(math.log2(after) for _, after in spec.tokens),
    "tokens.mean": lambda spec: _average(math.log2(after) for _, after in spec.tokens),
    "heads": lambda spec: _average(math.log2(block.heads) for block in spec.blocks),
    "mlp_ratio": lambda spec: _average(block.mlp_hidden / spec.dim for block in spec.blocks),
    "rank": lambda spec: _average(block.rank > 0 for block in spec.blocks),
    "sparsity": lambda spec: _average(block.sparsity[0] < block.sparsity[1] for block in spec.blocks),
    "query_heads": lambda spec: _average(block.query_heads > 0 for block in spec.blocks),
    "kv_heads": lambda spec: _average(block.kv_heads > 0 for block in spec.blocks),
}


def _sizes(spec: ModelSpec | None) -> _Part:
    return {f"spec.{name}": 0.0 if spec is None else float(fact(spec)) for name, fact in _SIZES.items()}


def _average(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _chosen(spec: ModelSpec | None) -> _Part:
    blocks = () if spec is None else spec.blocks
    found = {f"method.{name}": float(spec is not None and spec.token_method == name) for name in TOKEN_METHODS}
    for group, known in (("mixer", MIXERS), ("mlp", MLPS)):
        for name in known:
            share = sum(getattr(block, group) == name for block in blocks) / max(len(blocks), 1)
            found[f"{group}.{name}"] = share
    found |= {f"norm.{name}": float(spec is not None and spec.norm == name) for name in NORMS}
    return found | {f"pool.{name}": float(spec is not None and spec.pool == name) for name in POOLS}


def _training(changes: Sequence[tuple[str, Scalar]]) -> _Part:
    """Returns hashed changes of the recipe: a number adds 1 + log2(1 + |x|) under its field, a word 1 under both."""
    row = [0.0] * TRAINING_COLUMNS
    for field, value in changes:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        digest = hashlib.sha256((field if number else f"{field}={value}").encode()).digest()
        amount = math.copysign(1.0 + math.log2(1.0 + abs(float(value))), float(value)) if number else 1.0
        row[digest[0] % TRAINING_COLUMNS] += amount if digest[1] % 2 else -amount
    return {f"training[{place}]": value for place, value in enumerate(row)}
