"""What a candidate is, as plain data.

Everything here is frozen, hashable and goes to JSON and back. A spec checks itself once, when it is made; code that
receives one need not check again. The id of a spec is a hash of its canonical JSON: keys sorted, fields that equal
their default left out (so that a field added later does not change the id of what existed before).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cosearch.errors import SpecError

__all__ = [
    "FLOAT_BITS",
    "TOKEN_METHODS",
    "AcceleratorSpec",
    "BlockSpec",
    "Candidate",
    "ModelSpec",
    "Point",
    "Result",
    "Scalar",
    "Status",
    "TaskShape",
    "Violation",
    "canonical_json",
    "from_json",
    "to_json",
]

Scalar = bool | int | float | str
Point = Mapping[str, Scalar]
"""One choice for each parameter of a space, by the parameter's flat name, such as ``model.weight_bits[2]``."""

FLOAT_BITS = 32
"""Operand width that means IEEE single precision: not quantised."""

TOKEN_METHODS = ("none", "prune", "merge")
"""``prune``: keep the tokens that the class token attends to most, fuse the rest into one (EViT, Liang et al. 2022).
``merge``: average the most similar pairs of two alternating sets (ToMe, Bolya et al. 2023)."""


def _require(condition: bool, field: str, problem: str, remedy: str) -> None:
    if not condition:
        raise SpecError(field, problem, remedy)


def _check_bits(name: str, bits: int) -> None:
    _require(
        2 <= bits <= 16 or bits == FLOAT_BITS,
        name,
        f"is {bits}, but integers have 2 to 16 bits",
        f"write 2 to 16, or {FLOAT_BITS} for floating point",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskShape:
    """What a task asks of a model.

    Attributes:
        image: height and width in pixels.
        channels: colour channels.
        classes: classes per label.
        labels: labels to read from one image (two for a pair of digits); the head has ``labels * classes`` outputs.
    """

    image: tuple[int, int]
    channels: int
    classes: int
    labels: int = 1

    def __post_init__(self) -> None:
        _require(min(self.image) >= 1, "image", f"is {self.image}", "give height and width of at least 1 pixel")
        _require(self.channels >= 1, "channels", f"is {self.channels}", "write at least 1")
        _require(self.classes >= 2, "classes", f"is {self.classes}", "a task needs at least 2 classes")
        _require(self.labels >= 1, "labels", f"is {self.labels}", "a task needs at least 1 label an image")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One transformer block: attention, then token reduction (if any), then the MLP.

    Attributes:
        heads: attention heads.
        mlp_hidden: hidden units of the MLP.
        keep_tokens: image tokens (without the class token) that go on to this block's MLP and to later blocks,
            a fused remainder included; ``None`` keeps all.
        weight_bits: width of the block's weights, 2-16, or 32 for floating point.
        activation_bits: width of the inputs of the block's matrix products, likewise.
    """

    heads: int
    mlp_hidden: int
    keep_tokens: int | None = None
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS

    def __post_init__(self) -> None:
        _require(self.heads >= 1, "heads", f"is {self.heads}", "write at least 1")
        _require(self.mlp_hidden >= 1, "mlp_hidden", f"is {self.mlp_hidden}", "write at least 1 hidden unit")
        _require(
            self.keep_tokens is None or self.keep_tokens >= 1,
            "keep_tokens",
            f"is {self.keep_tokens}",
            "keep at least 1 token, or leave it out to keep all",
        )
        _check_bits("weight_bits", self.weight_bits)
        _check_bits("activation_bits", self.activation_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A vision transformer with static token counts.

    Attributes:
        task: the images it reads and the labels it gives.
        patch: side of a patch and stride of the stem, in pixels.
        dim: width of a token.
        blocks: the blocks, in order.
        token_method: how blocks with ``keep_tokens`` reduce their tokens; one of `TOKEN_METHODS`.
        overlap: pixels by which a patch reaches into its neighbours on each side (the stem's kernel has
            ``patch + 2 * overlap`` pixels a side, zero-padded by ``overlap``).
        stem_hidden: hidden units of a two-layer stem; 0 is ViT's single linear projection.
        edge_bits: width of weights and inputs of the stem and the head.
    """

    task: TaskShape
    patch: int
    dim: int
    blocks: tuple[BlockSpec, ...]
    token_method: str = "none"
    overlap: int = 0
    stem_hidden: int = 0
    edge_bits: int = FLOAT_BITS

    def __post_init__(self) -> None:
        height, width = self.task.image
        _require(self.patch >= 1, "patch", f"is {self.patch}", "write at least 1 pixel")
        _require(
            height % self.patch == 0 and width % self.patch == 0,
            "patch",
            f"is {self.patch}, which does not divide the {height} x {width} image",
            "choose a divisor of both sides",
        )
        _require(0 <= self.overlap <= self.patch, "overlap", f"is {self.overlap}", f"write 0 to {self.patch}")
        _require(self.stem_hidden >= 0, "stem_hidden", f"is {self.stem_hidden}", "write 0 or more")
        _require(len(self.blocks) >= 1, "blocks", "is empty", "a model needs at least 1 block")
        _require(
            self.token_method in TOKEN_METHODS,
            "token_method",
            f"is {self.token_method!r}",
            f"choose one of {', '.join(TOKEN_METHODS)}",
        )
        _check_bits("edge_bits", self.edge_bits)
        tokens = self.patches
        reduced = False
        for index, block in enumerate(self.blocks):
            _require(
                self.dim >= 1 and self.dim % block.heads == 0,
                f"blocks[{index}].heads",
                f"is {block.heads}, which does not divide dim {self.dim}",
                "choose a divisor of dim",
            )
            keep = block.keep_tokens
            if keep is None:
                continue
            reduced = True
            least = {"none": tokens, "prune": 2, "merge": tokens - tokens // 2}[self.token_method]
            _require(
                least <= keep < tokens,
                f"blocks[{index}].keep_tokens",
                f"is {keep}, but {self.token_method!r} can take {tokens} tokens to {least} up to {tokens - 1}",
                "choose a count in that range, or leave it out to keep all",
            )
            tokens = keep
        _require(
            reduced or self.token_method == "none",
            "token_method",
            f"is {self.token_method!r}, but no block reduces its tokens",
            "write 'none', or set keep_tokens in a block",
        )

    @property
    def patches(self) -> int:
        """Image tokens that the stem makes (the class token not counted)."""
        return (self.task.image[0] // self.patch) * (self.task.image[1] // self.patch)

    @property
    def tokens(self) -> tuple[tuple[int, int], ...]:
        """For each block, tokens in its attention and tokens in its MLP, the class token counted in both."""
        counts, tokens = [], self.patches
        for block in self.blocks:
            kept = tokens if block.keep_tokens is None else block.keep_tokens
            counts.append((tokens + 1, kept + 1))
            tokens = kept
        return tuple(counts)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this model."""
        return _ident(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorSpec:
    """An accelerator as a template's name and its parameters; `cosearch.hardware.build` makes it concrete.

    Attributes:
        template: the template's name, such as ``systolic``.
        parameters: (name, value) pairs, sorted by name.
    """

    template: str
    parameters: tuple[tuple[str, Scalar], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(sorted((str(n), v) for n, v in self.parameters)))

    @classmethod
    def of(cls, template: str, parameters: Mapping[str, Scalar]) -> AcceleratorSpec:
        """Returns the spec of ``template`` with the given parameters."""
        return cls(template=template, parameters=tuple(parameters.items()))

    def as_dict(self) -> dict[str, Scalar]:
        """Returns the parameters by name."""
        return dict(self.parameters)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this accelerator."""
        return _ident(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model and the accelerator that is to run it."""

    model: ModelSpec
    accelerator: AcceleratorSpec

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for this pair."""
        return _ident(self)


class Status(StrEnum):
    """How the evaluation of a candidate ended."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit or constraint that a candidate breaks.

    Attributes:
        limit: what it breaks, such as ``area_mm2 <= 4`` or ``model.dim % model.heads == 0``.
        excess: by how much, relative to the limit (0.25 is a quarter over); 1 for a constraint without a measure.
    """

    limit: str
    excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one asked point. Every asked point is told exactly once, in the order it was asked.

    Attributes:
        index: position in the order of asking, from 0.
        point: the point as asked.
        status: `Status.OK`, `Status.INFEASIBLE` or `Status.FAILED`.
        candidate_id: id of the candidate that the point means; empty where the point means none.
        model_id: id of its model, likewise.
        metrics: every metric measured, in the metric's own unit and direction.
        objectives: the run's objectives in their order, all to be minimised; empty unless `ok`.
        violations: what was broken; empty unless `infeasible`.
        reason: why it failed; empty unless `failed`.
    """

    index: int
    point: Point
    status: Status
    candidate_id: str = ""
    model_id: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    objectives: tuple[float, ...] = ()
    violations: tuple[Violation, ...] = ()
    reason: str = ""


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Returns ``value`` (a spec, or what specs are made of) as JSON types, fields equal to their default left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for item in dataclasses.fields(value):
            content = getattr(value, item.name)
            default = item.default_factory() if callable(item.default_factory) else item.default
            if content != default:
                out[item.name] = to_json(content)
        return out
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def from_json(cls: type[T], data: Any) -> T:
    """Returns the ``cls`` that `to_json` turned into ``data``.

    Raises:
        SpecError: a field is unknown or missing, or its value makes no sense.
    """
    return _read(cls, data, cls.__name__)  # type: ignore[no-any-return]


def _read(hint: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        _require(isinstance(data, Mapping), where, f"is {data!r}", "give a mapping")
        hints = get_type_hints(hint)
        unknown = sorted(set(data) - set(hints))
        _require(not unknown, where, f"has no field {unknown[:1]}", f"its fields: {', '.join(hints)}")
        for item in dataclasses.fields(hint):
            needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            _require(not needed or item.name in data, where, f"lacks {item.name!r}", "add it")
        return hint(**{name: _read(hints[name], content, f"{where}.{name}") for name, content in data.items()})
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        _require(isinstance(data, (list, tuple)), where, f"is {data!r}", "give a list")
        inner = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else list(args)
        _require(len(inner) == len(data), where, f"has {len(data)} entries", f"give {len(inner)}")
        return tuple(_read(h, d, f"{where}[{i}]") for i, (h, d) in enumerate(zip(inner, data, strict=True)))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        _require(data in set(hint), where, f"is {data!r}", f"write one of {', '.join(hint)}")
        return hint(data)
    if hint is int:
        _require(isinstance(data, int) and not isinstance(data, bool), where, f"is {data!r}", "give a whole number")
    if hint is str:
        _require(isinstance(data, str), where, f"is {data!r}", "give text")
    return data


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of ``value``: keys sorted, no spaces, defaults left out."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _ident(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]
