"""What a surrogate sees of a candidate: numbers and names that sum its model, its workload and its accelerator up.

``model`` and ``accelerator`` features are the parameters themselves; ``work`` features follow from the workload:
multiply-accumulates, bytes, operations by kind, and the widths and shapes that a multiply-accumulate has on average.
``bound`` features are what a roofline (Williams et al. 2009) would say of both, for templates with the parameters that
it takes (``rows``, ``cols``, ``clock_hz``, ``dram_bytes_per_s``, ``vector_lanes``; ``pe_bits`` where there is one):
quotients of many parameters, which trees and kernels would need many pairs to find by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.vector import lane_operations
from cosearch.spec import Candidate, ModelSpec, Scalar
from cosearch.workload import OperatorKind, workload

__all__ = ["Encoding", "features"]

Floats = NDArray[np.float64]

_MARGIN = 0.05
"""Share of the learnt span by which a ``work`` feature may lie beyond it: sums over operators hardly ever repeat."""

_PASS_BITS = (2, 4, 8)
"""Multiplier widths that passes are counted for: operands of other widths cost the same passes."""


def features(candidate: Candidate, *, pair: bool) -> dict[str, Scalar]:
    """Returns the features of a candidate by name; those of its accelerator only where ``pair`` is true."""
    found: dict[str, Scalar] = dict(_model_features(candidate.model))
    if pair:
        found["accelerator.template"] = candidate.accelerator.template
        found |= {f"accelerator.{name}": value for name, value in candidate.accelerator.parameters}
        found |= _bounds(candidate.model, candidate.accelerator.as_dict())
    return found


def _bounds(model: ModelSpec, given: Mapping[str, Scalar]) -> dict[str, float]:
    """Returns seconds that peak rate, bandwidth and vector unit allow at best, of those that ``given`` tells."""
    number = {name: float(value) for name, value in given.items() if _is_number(value) and float(value) > 0}
    work, found = _work(model), {}
    if {"rows", "cols", "clock_hz"} <= number.keys():
        width = number.get("pe_bits", 0.0)
        passes = work.macs * (np.ceil(work.a_bits / width) * np.ceil(work.b_bits / width) if width else 1.0)
        found["bound.compute_s"] = float(np.sum(passes)) / (number["rows"] * number["cols"] * number["clock_hz"])
    if "dram_bytes_per_s" in number:
        found["bound.memory_s"] = work.bytes / number["dram_bytes_per_s"]
    if {"vector_lanes", "clock_hz"} <= number.keys():
        found["bound.vector_s"] = work.lane_operations / (number["vector_lanes"] * number["clock_hz"])
    if found:
        found["bound.longest_s"] = max(found.values())
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """Matrix products of a model, shape (products,), and sums over all that it does."""

    macs: Floats
    a_bits: Floats
    b_bits: Floats
    bytes: float
    lane_operations: int


@lru_cache(maxsize=4096)
def _work(model: ModelSpec) -> _Work:
    load = workload(model)
    products = [op for op in load.operators if op.kind is OperatorKind.MATMUL]
    bits = sum(
        op.count * (op.m * op.k * op.a_bits + op.k * op.n * op.b_bits + op.m * op.n * op.out_bits) for op in products
    )
    macs, a_bits, b_bits = (
        np.array([getattr(op, name) for op in products], dtype=np.float64) for name in ("macs", "a_bits", "b_bits")
    )
    lanes = sum(lane_operations(op) for op in load.operators)
    return _Work(macs=macs, a_bits=a_bits, b_bits=b_bits, bytes=bits / 8.0, lane_operations=lanes)


@lru_cache(maxsize=4096)
def _model_features(model: ModelSpec) -> Mapping[str, Scalar]:
    load = workload(model)
    tokens = model.tokens
    found: dict[str, Scalar] = {
        "model.dim": model.dim,
        "model.depth": len(model.blocks),
        "model.patch": model.patch,
        "model.overlap": model.overlap,
        "model.stem_hidden": model.stem_hidden,
        "model.token_method": model.token_method,
        "model.heads": max(block.heads for block in model.blocks),
        "model.mlp_hidden": max(block.mlp_hidden for block in model.blocks),
        "work.first_tokens": tokens[0][0],
        "work.last_tokens": tokens[-1][1],
        "work.mean_tokens": sum(sum(pair) for pair in tokens) / (2 * len(tokens)),
        "work.operators": len(load.operators),
        "work.weight_bytes": load.weight_bytes,
        "work.peak_activation_bytes": load.peak_activation_bytes,
        "work.activation_bytes": sum(tensor.bytes for tensor in load.tensors if not tensor.weight),
    }
    lanes: Counter[str] = Counter()
    for op in load.operators:
        lanes[op.kind] += lane_operations(op)
    found |= {f"work.{kind}_operations": lanes[kind] for kind in OperatorKind if kind is not OperatorKind.MATMUL}
    products, work = [op for op in load.operators if op.kind is OperatorKind.MATMUL], _work(model)
    macs, a_bits, b_bits = work.macs, work.a_bits, work.b_bits
    found |= {
        "work.macs": load.macs,
        "work.largest_a_bytes": max(op.count * op.m * op.k * op.a_bits for op in products) / 8.0,
        "work.largest_b_bytes": max(op.count * op.k * op.n * op.b_bits for op in products) / 8.0,
        "work.largest_out_elements": max(op.elements for op in products),
        "work.attention_macs": sum(op.macs for op in products if not op.weights),
        "work.a_bits": float(np.sum(macs * a_bits) / load.macs),
        "work.b_bits": float(np.sum(macs * b_bits) / load.macs),
        "work.macs_times_bits": float(np.sum(macs * a_bits * b_bits)),
    }
    for width in _PASS_BITS:
        found[f"work.passes_{width}"] = float(np.sum(macs * np.ceil(a_bits / width) * np.ceil(b_bits / width)))
    for name in ("m", "k", "n"):
        sizes = np.array([getattr(op, name) for op in products], dtype=np.float64)
        found[f"work.mean_{name}"] = float(np.exp(np.sum(macs * np.log(sizes)) / load.macs))
    return MappingProxyType(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How features become a row of numbers, and what range was learnt.

    Attributes:
        numbers: numeric features, one column each.
        low: the least value of each that was learnt.
        high: the largest.
        shift: added before the logarithm: 1 where 0 was learnt, so that it has one.
        names: features that are words, with the words that were learnt; one column for each word.
        mean: of each column.
        scale: of each column, to divide by.
    """

    numbers: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    shift: tuple[float, ...]
    names: tuple[tuple[str, tuple[str, ...]], ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Scalar]]) -> Encoding:
        """Returns the encoding that ``rows`` of features teach."""
        every = sorted({name for row in rows for name in row})
        words = [name for name in every if any(not _is_number(row.get(name)) for row in rows)]
        numbers = tuple(name for name in every if name not in words)
        table = _table(rows, numbers)
        low = table.min(axis=0)
        raw = cls(
            numbers=numbers,
            low=tuple(low.tolist()),
            high=tuple(table.max(axis=0).tolist()),
            shift=tuple(np.where(low > 0, 0.0, 1.0 - np.minimum(low, 0.0)).tolist()),
            names=tuple((name, tuple(sorted({_word(row, name) for row in rows}))) for name in words),
            mean=(),
            scale=(),
        )
        columns = raw._columns(rows)
        spread = columns.std(axis=0)
        return cls(
            **{name: getattr(raw, name) for name in ("numbers", "low", "high", "shift", "names")},
            mean=tuple(columns.mean(axis=0).tolist()),
            scale=tuple(np.where(spread > 1e-12, spread, 1.0).tolist()),
        )

    def encode(self, rows: Sequence[Mapping[str, Scalar]]) -> Floats:
        """Returns standardised columns, shape (rows, columns). Rows must be inside the range."""
        return np.asarray((self._columns(rows) - np.array(self.mean)) / np.array(self.scale))

    def outside(self, row: Mapping[str, Scalar]) -> str:
        """Returns in what ``row`` lies outside what was learnt, such as ``rows 256 > 64``; empty where it does not."""
        known = {*self.numbers, *(name for name, _ in self.names)}
        unknown = sorted(set(row) - known)
        if unknown:
            return f"{_short(unknown[0])} was never learnt"
        for name, learnt in self.names:
            if _word(row, name) not in learnt:
                return f"{_short(name)} {_word(row, name)!r} is none of {', '.join(learnt)}"
        for name, low, high in zip(self.numbers, self.low, self.high, strict=True):
            if name.startswith("bound."):  # they follow from the others
                continue
            if name not in row:
                return f"{_short(name)} is missing"
            value = row[name]
            if not _is_number(value):
                return f"{_short(name)} is {value!r}, no number"
            margin = _MARGIN * (high - low) if name.startswith("work.") else 0.0
            if float(value) > high + margin:
                return f"{_short(name)} {float(value):g} > {high:g}"
            if float(value) < low - margin:
                return f"{_short(name)} {float(value):g} < {low:g}"
        return ""

    def _columns(self, rows: Sequence[Mapping[str, Scalar]]) -> Floats:
        values = _table(rows, self.numbers)
        columns = [np.log2(np.maximum(values + np.array(self.shift), 1e-300)).reshape(len(rows), -1)]
        for name, learnt in self.names:
            columns.append(np.array([[float(_word(row, name) == word) for word in learnt] for row in rows]))
        return np.concatenate(columns, axis=1)


def _table(rows: Sequence[Mapping[str, Scalar]], names: Sequence[str]) -> Floats:
    values = [[float(row[name]) for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(names))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _word(row: Mapping[str, Scalar], name: str) -> str:
    return str(row.get(name, "left out"))


def _short(name: str) -> str:
    return name.partition(".")[2]
