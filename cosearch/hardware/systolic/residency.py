"""What stays on the chip: activations between operators, weights between images.

`cosearch.hardware.memory` finds, for a capacity, which activations to keep so that the fewest bytes move when each
access moves a tensor once. An array may fetch an operand several times, so each array takes, of all the plans that fit
its memory for activations, the one that moves the fewest bytes on that very array: more memory never adds traffic.

Plans are made for eight sizes to the doubling. A model with fewer bits or tokens is offered other plans than its wider
sibling, and may move more where an array fetches operands many times (``bench/hardware/systolic.md`` counts how often,
and by how much). Without a memory for activations fewer bits or tokens never move more, and with ``attention: unfused``
they never cost energy; with ``mapping: folds`` beside, never time. A single pass costs more energy in about one pair in
100,000, where it becomes the one with fewer bytes and corrects its outputs as it goes.

Weights beyond the memory for weights are fetched for each image; which ones does not matter, since each is fetched as
often. The share that stays is taken to be the same of every operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosearch.hardware.attentions import AttentionChain, attention_chains
from cosearch.hardware.groups import PLAIN, Groups, Products, Written, product_numbers, score_bits, written
from cosearch.hardware.identity import Same
from cosearch.hardware.memory import resident_traffic
from cosearch.hardware.systolic.attention import Shapes, without_scores
from cosearch.hardware.vector import lane_operations
from cosearch.workload import Operator, OperatorKind, Workload

__all__ = ["Layout", "Role", "layout"]

Floats = NDArray[np.float64]

_GRID = 8
"""Capacities for each doubling at which plans are made."""


class Role(Enum):
    """What an operator is in an attention that runs in a single pass."""

    NONE = 0
    SCORES = 1
    BETWEEN = 2
    SOFTMAX = 3
    CONTEXT = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The rows of a cost model: distinct operators, apart where plans keep different tensors of theirs.

    Attributes:
        groups: the rows.
        rows: row of each operator under each plan, shape (operators, plans).
        times: how often each plan has each row, shape (plans, rows).
        peak_bytes: what a plan takes of the memory for activations, shape (plans,), rising.
        weights: 1 where the right operand is a parameter, shape (products, 1).
        a: 1 where the left operand is kept on the chip, shape (products, 1).
        b: 1 where the right one is, as an activation, shape (products, 1).
        out: 1 where the output never goes to DRAM, shape (rows, 1).
        read_bits: bits that vector operators read from DRAM, shape (vector operators, 1).
        shapes: the distinct attentions; none where scores go through memory.
        roles: for each `Role`, its rows and the attention that each belongs to.
    """

    groups: Groups
    rows: NDArray[np.intp]
    times: Floats
    peak_bytes: Floats
    weights: Floats
    a: Floats
    b: Floats
    out: Floats
    read_bits: Floats
    shapes: Shapes | None
    roles: Mapping[Role, tuple[NDArray[np.intp], NDArray[np.intp]]]


def layout(workload: Workload, *, fused: bool, resident: bool) -> Layout:
    """Returns the rows of ``workload``, kept for the workloads asked for last.

    Args:
        workload: one image through a model.
        fused: whether scores stay inside the attention.
        resident: whether there is a memory for activations.
    """
    return _layout(Same(workload), fused, resident)


@lru_cache(maxsize=256)
def _layout(key: Same[Workload], fused: bool, resident: bool) -> Layout:
    workload = key.value
    reads, writes, peaks = _plans(without_scores(workload) if fused else workload, resident=resident)
    found = attention_chains(workload) if fused else ()
    marks = [_marks(workload, reads[:, :, plan], writes[:, plan], found) for plan in range(peaks.size)]
    operators = workload.operators * peaks.size
    groups = Groups.of_operators(workload, operators, [mark for plan in marks for mark in plan])
    rows = np.array(groups.members, dtype=np.intp).reshape(peaks.size, -1)
    times = np.array([np.bincount(row, minlength=groups.size) for row in rows], dtype=np.float64)
    flat = [marks[first // len(workload.operators)][first % len(workload.operators)] for first in groups.first]
    products = groups.macs.shape[0]
    variants: dict[_Variant, int] = {}
    for mark in flat:
        if mark.variant is not None:
            variants.setdefault(mark.variant, len(variants))

    def column(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64).reshape(-1, 1)

    return Layout(
        groups=groups,
        rows=rows.T,
        times=times,
        peak_bytes=peaks,
        weights=column([mark.weights for mark in flat[:products]]),
        a=column([mark.a for mark in flat[:products]]),
        b=column([mark.b for mark in flat[:products]]),
        out=column([mark.out for mark in flat]),
        read_bits=groups.read_bits - column([mark.kept_bits for mark in flat[products:]]),
        shapes=_shapes(list(variants)) if variants else None,
        roles={role: _rows_of(flat, role, variants) for role in Role},
    )


def _rows_of(
    marks: Sequence[_Mark], role: Role, variants: Mapping[_Variant, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    found = [(row, mark.variant) for row, mark in enumerate(marks) if mark.role is role and mark.variant is not None]
    rows = np.array([row for row, _ in found], dtype=np.intp)
    return rows, np.array([variants[variant] for _, variant in found], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What of an operator's tensors is on the chip."""

    weights: bool
    a: bool
    b: bool
    out: bool
    kept_bits: int
    role: Role = Role.NONE
    variant: _Variant | None = None


@dataclass(frozen=True, slots=True)
class _Variant:
    """An attention: its shape (`Shapes`, field by field), and what of its tensors is on the chip."""

    shape: tuple[float, ...]
    kept: tuple[bool, ...]
    formats: tuple[Written, ...]


def _shapes(variants: Sequence[_Variant]) -> Shapes:
    table = np.array([variant.shape for variant in variants], dtype=np.float64).reshape(-1, 17)
    kept = 1.0 - np.array([variant.kept for variant in variants], dtype=np.float64).reshape(-1, 4)
    names = ("m", "k", "n", "count", "a_bits", "b_bits", "out_bits")
    formats: list[tuple[Written, ...]] = [tuple(variant.formats[side] for variant in variants) for side in (0, 1)]
    formats = [side if set(side) != {PLAIN} else () for side in formats]
    return Shapes(
        scores=Products(**{name: table[:, [i]] for i, name in enumerate(names)}, formats=formats[0]),
        context=Products(**{name: table[:, [7 + i]] for i, name in enumerate(names)}, formats=formats[1]),
        between_bits=table[:, [14]],
        lane_operations=table[:, [15]],
        row_bits=table[:, [16]],
        queries=kept[:, [0]],
        keys=kept[:, [1]],
        values=kept[:, [2]],
        out=kept[:, [3]],
    )


def _marks(
    workload: Workload, reads: NDArray[np.bool_], writes: NDArray[np.bool_], found: Sequence[AttentionChain]
) -> list[_Mark]:
    bits = {tensor.name: 8 * tensor.bytes for tensor in workload.tensors}
    inside = {tensor.name: 8 * tensor.bytes for tensor in without_scores(workload).tensors} if found else bits
    marks = [
        _mark(op, [bool(kept) for kept in reads[position]], bool(writes[position]), bits)
        for position, op in enumerate(workload.operators)
    ]
    for one in found:
        roles = {one.scores: Role.SCORES, one.context: Role.CONTEXT} | dict.fromkeys(one.between, Role.BETWEEN)
        roles[one.between[-1]] = Role.SOFTMAX
        # the plans know the tensors inside as empty; where they are not, because the pass is not taken, DRAM has them
        for position, role in roles.items():
            a, out = marks[position].a and role is Role.SCORES, marks[position].out and role is Role.CONTEXT
            marks[position] = replace(marks[position], a=a, out=out, kept_bits=0, role=role)
        scores, context = marks[one.scores], marks[one.context]
        products = [workload.operators[position] for position in (one.scores, one.context)]
        variant = _Variant(
            _shape(workload, one, bits, inside),
            (scores.a, scores.b, context.b, context.out),
            tuple(written(op) for op in products),
        )
        for position in roles:
            marks[position] = replace(marks[position], variant=variant)
    return marks


def _shape(
    workload: Workload, one: AttentionChain, bits: Mapping[str, int], inside: Mapping[str, int]
) -> tuple[float, ...]:
    """Returns the fields of `Shapes` for one attention."""
    between = [workload.operators[position] for position in one.between]
    numbers = [
        number
        for op in (workload.operators[one.scores], workload.operators[one.context])
        for number in product_numbers(op)
    ]
    moved = sum(bits[name] for op in between for name in (*op.inputs, op.output))
    lanes = sum(lane_operations(op) for op in between)
    return (*numbers, moved, lanes, inside[between[-1].output])


def _mark(op: Operator, reads: list[bool], write: bool, bits: dict[str, int]) -> _Mark:
    if op.kind is OperatorKind.MATMUL:
        last = len(op.inputs) - 1
        return _Mark(op.weights, reads[0], not op.weights and reads[last], write, 0)
    if op.kind is OperatorKind.SCORE:
        return _Mark(False, False, False, write, score_bits(op) if reads[0] else 0)
    kept = sum(bits[name] for name, held in zip(op.inputs, reads, strict=False) if held)
    return _Mark(False, False, False, write, kept)


def _plans(workload: Workload, *, resident: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Returns reads and writes that plans avoid, and their peaks; the first plan keeps nothing."""
    operators = len(workload.operators)
    if not resident:
        most = max(len(op.inputs) for op in workload.operators)
        return np.zeros((operators, most, 1), dtype=np.bool_), np.zeros((operators, 1), dtype=np.bool_), np.zeros(1)
    doublings = np.ceil(np.log2(max(workload.peak_activation_bytes, 1024) / 1024.0)) + 2.0
    capacities = np.floor(1024.0 * np.exp2(np.arange(_GRID * doublings) / _GRID))
    found = resident_traffic(workload, np.concatenate(([0.0], capacities)))
    _, distinct = np.unique(found.peak_bytes, return_index=True)
    return found.reads_avoided[:, :, distinct], found.writes_avoided[:, distinct], found.peak_bytes[distinct]
