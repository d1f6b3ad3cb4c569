"""The model's side of a space: vision transformers (template ``vit``).

Values that mean the same model are one point: keep ratios that leave the same number of tokens, MLP ratios that give
the same number of hidden units, and every token method where no block reduces anything.

What a block has no use for is not folded in this way: the heads of a pooling block, the ratio of an MLP that is not
there, a rank that would make no layer smaller. Such points decode to one model, which is trained once, but are counted
apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from cosearch.errors import UserError
from cosearch.space.blocks import block_of, hidden_units, width_of
from cosearch.space.domains import Choice, Domain, Float
from cosearch.space.expression import UncomputableError
from cosearch.space.field import Constraint, Draft, Field, Resolved
from cosearch.space.reduction import kept, reduction_blocks, schedules
from cosearch.space.side import Side
from cosearch.space.templates import TRAIN
from cosearch.spec import (
    MIXERS,
    BlockSpec,
    ModelSpec,
    Point,
    Scalar,
    TaskShape,
    Violation,
)
from cosearch.workload import workload

__all__ = ["DERIVED", "ModelSide", "hidden_units"]

DERIVED: Mapping[str, str] = {
    "tokens": "image tokens after the stem",
    "kept": "image tokens after each reduction, one per stage but the last",
    "macs": "multiply-accumulates of one image",
    "weight_bytes": "bytes of all matrix-product weights",
}
"""Names that expressions may use beside the fields, and what they mean."""


@lru_cache(maxsize=4096)
def _hidden_choices(domain: Domain, dim: int) -> Mapping[int, Scalar]:
    """Returns every number of hidden units that ``domain`` gives, with the ratio that stands for it."""
    if isinstance(domain, Float) and domain.step is None:
        low, high = hidden_units(domain.low, dim), hidden_units(domain.high, dim)
        return {hidden: min(max(hidden / dim, domain.low), domain.high) for hidden in range(low, high + 1)}
    out: dict[int, Scalar] = {}
    for ratio in sorted(domain.values(), key=float):
        out.setdefault(hidden_units(float(ratio), dim), ratio)
    return out


class _Values(dict[str, Any]):
    """Values of a model's fields; ``macs`` and ``weight_bytes`` are computed when an expression first asks."""

    spec: ModelSpec | None = None

    def __missing__(self, name: str) -> Any:
        if name not in ("macs", "weight_bytes"):
            raise KeyError(name)
        if self.spec is None:
            raise UncomputableError("the model cannot exist")
        self[name] = getattr(workload(self.spec), name)
        return self[name]


class ModelSide(Side[ModelSpec]):
    """The sub-space of models.

    Args:
        task: what the models read and say.
        fields: all fields of the template, in its order, ``stages`` and those left to their default as constants.
        constraints: those that mention the model alone.
    """

    countable = frozenset({"keep", "mlp_ratio"})

    def __init__(self, task: TaskShape, fields: Sequence[Field], constraints: Sequence[Constraint]) -> None:
        self.task = task
        super().__init__("model", fields, constraints, {})
        self._stages = int(self._constants["stages"])

    def depends(self, item: Field) -> frozenset[str]:
        """Adds what the template implies: blocks hang on the depth, token counts on the patch, hidden units on dim."""
        names = set(super().depends(item))
        if item.when is not None and "model.tokens" in item.when.names:
            names.add("patch")
        if item.repeats is not None:
            names.add("depth")
        if item.name == "mlp_ratio":
            names.add("dim")
        if item.name == "token_method":  # is settled together with keep
            names |= {"patch", "depth"} | (super().depends(self.fields["keep"]) - {"token_method"})
        if item.name == "keep":
            names.add("token_method")
        return frozenset(names)

    def representative(self, item: Field, value: Scalar, values: Mapping[str, Any]) -> Scalar:
        """Returns the smallest MLP ratio with the same number of hidden units; other values mean only themselves."""
        if item.name != "mlp_ratio":
            return value
        return _hidden_choices(item.domain, values["dim"])[hidden_units(float(value), values["dim"])]

    def meanings(self, item: Field, values: Mapping[str, Any]) -> int:
        """Returns how many different values, or numbers of hidden units, there are."""
        if item.name == "mlp_ratio":
            return len(_hidden_choices(item.domain, values["dim"]))
        return super().meanings(item, values)

    def found(self, draft: Draft, item: Field) -> None:
        """Notes the number of image tokens once the patch is known."""
        if item.name == "patch":
            draft.values["tokens"] = self._tokens(draft.values["patch"])

    def known(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns ``values`` with the constants and the number of image tokens added."""
        out = super().known(values)
        if "patch" in out:
            out["tokens"] = self._tokens(out["patch"])
        return out

    def _tokens(self, patch: int) -> int:
        return (self.task.image[0] // patch) * (self.task.image[1] // patch)

    # Token reduction: method and keep ratios are settled together.

    def settle(self, draft: Draft, item: Field) -> None:
        """Finds the value of ``item``; `token_method` brings `keep` with it."""
        if item.name == "token_method":
            self._settle_reduction(draft, item)
        elif item.name != "keep":
            super().settle(draft, item)

    def _settle_reduction(self, draft: Draft, item: Field) -> None:
        keep, values = self.fields["keep"], draft.values
        exists = not item.fixed and self.holds(item, values, draft.troubles)
        method = str(self.take(draft, item, item.path)) if exists else self._resting_method(item)
        length = self._length(method, values)
        domain, named = self._ratios(method, values, length, draft.troubles)
        ratios: tuple[float, ...] = ()
        if domain is not None:
            ratios = self._given_ratios(draft, keep, domain, named, length)
        counts = self._counts(method, ratios, values["tokens"], length)
        if all(count == values["tokens"] for count in counts):
            method, domain, named = self._standing_for_all(item, exists, method, values)
            stands_for, effective = method, "none"
            counts = (int(values["tokens"]),) * self._length(method, values)
        else:
            stands_for = effective = method
        shares = self._stand_ins(domain, stands_for, values["tokens"], counts)
        if exists:
            draft.point[item.path] = stands_for
        if named:
            draft.point.update(zip(keep.names, shares, strict=False))
        filled = shares if domain is not None else (1.0,) * (length if keep.repeats is not None else 1)
        values["token_method"], values["kept"] = effective, counts
        values["keep"] = filled if keep.repeats is not None else filled[0]

    def _length(self, method: str, values: Mapping[str, Any]) -> int:
        """Returns how many reductions there are."""
        return len(reduction_blocks(int(values["depth"]), self._stages, method))

    def _resting_method(self, item: Field) -> str:
        return str(item.domain.values()[0] if item.fixed else item.otherwise)

    def _ratios(
        self, method: str, values: Mapping[str, Any], length: int, troubles: list[Violation] | None = None
    ) -> tuple[Domain | None, bool]:
        """Returns the ratios that ``method`` can have (``None``: it reduces nothing), and whether they are chosen."""
        keep = self.fields["keep"]
        if method == "none" or length == 0:
            return None, False
        if keep.fixed:
            return keep.domain, False
        if self.holds(keep, {**values, "token_method": method}, troubles):
            return keep.domain, True
        return Choice((keep.otherwise if keep.otherwise is not None else 1.0,)), False

    def _given_ratios(self, draft: Draft, keep: Field, domain: Domain, named: bool, length: int) -> tuple[float, ...]:
        if not named:
            return (float(domain.values()[0]),) * length
        if keep.repeats is None:
            return (float(self.take(draft, keep, keep.path)),) * length
        return tuple(float(self.take(draft, keep, name)) for name in keep.names[:length])

    @staticmethod
    def _counts(method: str, ratios: Sequence[float], tokens: int, length: int) -> tuple[int, ...]:
        counts = []
        for ratio in ratios or (1.0,) * length:
            tokens = kept(method, ratio, tokens)
            counts.append(tokens)
        return tuple(counts)

    def _standing_for_all(
        self, item: Field, exists: bool, method: str, values: Mapping[str, Any]
    ) -> tuple[str, Domain | None, bool]:
        """Returns the method that stands for "nothing is reduced", with its ratios: ``none``, or the first that can."""
        for option in self._methods(item) if exists else ():
            domain, named = self._ratios(option, values, self._length(option, values))
            if self._keeps_all(domain, option, int(values["tokens"])):
                return option, domain, named
        return method, *self._ratios(method, values, self._length(method, values))

    @staticmethod
    def _methods(item: Field) -> list[str]:
        return sorted(map(str, item.domain.values()), key=lambda option: option != "none")

    @staticmethod
    def _keeps_all(domain: Domain | None, method: str, tokens: int) -> bool:
        """Returns whether one of the ratios leaves all tokens."""
        return domain is None or (tokens,) in schedules(domain, method, tokens, 1)

    def _stand_ins(self, domain: Domain | None, method: str, tokens: int, counts: tuple[int, ...]) -> tuple[float, ...]:
        """Returns the ratios that stand for ``counts``: one per stage, or a single one that all stages share."""
        if domain is None:
            return ()
        if self.fields["keep"].repeats is None:
            return (schedules(domain, method, tokens, len(counts))[counts],)
        return tuple(schedules(domain, method, a, 1)[(b,)] for a, b in pairwise((tokens, *counts)))

    # Counting.

    def outcomes(self, item: Field) -> tuple[Scalar, ...]:
        """Returns all values that ``item`` can end up with; any method can end up as ``none``."""
        values = super().outcomes(item)
        return values if item.name != "token_method" or "none" in values else (*values, "none")

    def ways(self, item: Field, values: Mapping[str, Any]) -> int:
        """Returns how many canonical choices there are; those of `keep` count with `token_method`."""
        if item.name == "keep":
            return 1
        if item.name != "token_method":
            return super().ways(item, values)
        exists = not item.fixed and self.holds(item, values)
        sums = {"none": 0}
        for method in self._methods(item) if exists else (self._resting_method(item),):
            length = self._length(method, values)
            domain, _ = self._ratios(method, values, length)
            full = self._keeps_all(domain, method, values["tokens"])
            sequences = 1 if domain is None else self._sequences(domain, method, values["tokens"], length)
            sums["none"] = max(sums["none"], int(full))
            sums[method] = sums.get(method, 0) + (sequences - full if method != "none" else 0)
        wanted = values.get(item.name) if not item.fixed else None
        return sum(sums.values()) if wanted is None else sums.get(wanted, 0)

    def _sequences(self, domain: Domain, method: str, tokens: int, length: int) -> int:
        """Returns how many different sequences of token counts the ratios can make."""
        if self.fields["keep"].repeats is None or self.fields["keep"].fixed:
            return len(schedules(domain, method, tokens, length))
        ways = {tokens: 1}
        for _ in range(length):
            onward: dict[int, int] = {}
            for count, number in ways.items():
                for (after,) in schedules(domain, method, count, 1):
                    onward[after] = onward.get(after, 0) + number
            ways = onward
        return sum(ways.values())

    # Neighbours.

    def filler(self, item: Field) -> Scalar:
        """Returns the largest keep ratio, which changes least; the first value of anything else."""
        return _largest(item.domain) if item.name == "keep" else super().filler(item)

    def variants(self, here: Point, base: Point, name: str, value: Scalar) -> Iterator[Point]:
        """Yields the step to ``value``; where a token method would reduce nothing, one step for each stage that can."""
        move = {**base, name: value}
        if name != "model.token_method" or self.canonical(move) != here:
            yield move
            return
        keep = self.fields["keep"]
        for stage in keep.names:
            for ratio in sorted(self._distinct_ratios(keep.domain, str(value), move), reverse=True):
                if self.canonical({**move, stage: ratio}) != here:
                    yield {**move, stage: ratio}
                    break

    def _distinct_ratios(self, domain: Domain, method: str, point: Point) -> list[float]:
        tokens = int(self.resolve(point).values["tokens"])
        length = 1 if self.fields["keep"].repeats is not None else len(self.resolve(point).values["kept"])
        return list(schedules(domain, method, tokens, length).values())

    # To specs and back.

    def build(self, values: Mapping[str, Any]) -> ModelSpec:
        """Returns the model of resolved ``values``.

        Raises:
            SpecError: it cannot exist: heads that do not divide dim, a patch that does not divide the image.
        """
        depth = int(values["depth"])
        keep: dict[int, int] = {}
        tokens = values["tokens"]
        where = reduction_blocks(depth, self._stages, values["token_method"])
        for block, count in zip(where, values["kept"], strict=False):
            if count != tokens:
                keep[block] = tokens = count
        edge_bits, edge_format = width_of(values, "edge", None)
        return ModelSpec(
            task=self.task,
            patch=values["patch"],
            dim=values["dim"],
            blocks=tuple(block_of(values, i, keep.get(i)) for i in range(depth)),
            token_method=values["token_method"],
            overlap=values["overlap"],
            stem_hidden=values["stem_hidden"],
            edge_bits=edge_bits,
            edge_format=edge_format,
            norm=values["norm"],
            pool=values["pool"],
            training=tuple((n.removeprefix(TRAIN), v) for n, v in values.items() if n.startswith(TRAIN)),
        )

    def _finish(self, draft: Draft) -> Resolved[ModelSpec]:
        draft.values = values = _Values(draft.values)
        resolved = super()._finish(draft)
        values.spec = resolved.spec
        return resolved

    def encode(self, spec: ModelSpec) -> Point:
        """Returns the canonical point that means ``spec``.

        Raises:
            UserError: none does; names what differs.
        """
        method = self.fields["token_method"]
        options = [spec.token_method]
        if spec.token_method == "none" and not method.fixed:
            options = [*self._methods(method), *([str(method.otherwise)] if method.when else [])]
        for option in dict.fromkeys(options):
            raw = {n: v for n, v in self._inverse(spec, option).items() if n in self._known}
            if not method.domain.contains(option):
                raw.pop(method.path, None)
                raw |= {method.path: method.domain.from_unit(0.0)} if method.names else {}
            resolved = self.resolve(raw)
            if resolved.spec == spec:
                return dict(resolved.point)
        made = resolved.spec
        differs = [n for n in ModelSpec.__dataclass_fields__ if made is None or getattr(made, n) != getattr(spec, n)]
        raise UserError(f"the space has no such model: its {differs[0]} cannot be {getattr(spec, differs[0])!r} there")

    def _inverse(self, spec: ModelSpec, method: str) -> dict[str, Scalar]:
        """Returns a point that means ``spec`` if any with ``method`` does."""
        raw: dict[str, Scalar] = {
            f"model.{n}": getattr(spec, n) for n in ("patch", "dim", "overlap", "stem_hidden", "norm", "pool")
        }
        raw |= {"model.depth": len(spec.blocks), "model.token_method": method}
        raw |= {"model.edge_bits": spec.edge_bits, "model.edge_format": spec.edges_in}
        raw |= {f"model.{TRAIN}{name}": value for name, value in spec.training}
        columns = [self._columns(spec, block) for block in spec.blocks]
        for name in columns[0]:
            values = [column[name] for column in columns]
            filled = self._filling(name, values)
            raw |= {f"model.{name}[{i}]": filled if value is None else value for i, value in enumerate(values)}
            raw[f"model.{name}"] = filled
        keep = self.fields["keep"]
        where = reduction_blocks(len(spec.blocks), self._stages, method)
        tokens, counts = spec.patches, []
        for i in where:
            tokens = spec.blocks[i].keep_tokens or tokens
            counts.append(tokens)
        most = _largest(keep.domain)
        shared = schedules(keep.domain, method, spec.patches, len(where)) if keep.repeats is None else {}
        raw["model.keep"] = shared.get(tuple(counts), most)
        for name, (before, after) in zip(keep.names, pairwise((spec.patches, *counts)), strict=False):
            if keep.repeats is not None:
                raw[name] = schedules(keep.domain, method, before, 1).get((after,), most)
        return raw

    def _columns(self, spec: ModelSpec, block: BlockSpec) -> dict[str, Scalar | None]:
        """Returns the values of the fields that make ``block``; None for what it has no use for."""
        hidden = _hidden_choices(self.fields["mlp_ratio"].domain, spec.dim)
        mixer, asked = MIXERS[block.mixer], block.query_heads or block.heads
        every = {name: self.fields[name].domain.contains(0) for name in ("query_heads", "kv_heads")}
        return {
            "mixer": block.mixer,
            "heads": block.heads if mixer.heads else None,
            "query_heads": (block.query_heads or (0 if every["query_heads"] else block.heads)) if mixer.map else None,
            "kv_heads": (block.kv_heads or (0 if every["kv_heads"] else asked)) if mixer.map else None,
            "mlp": block.mlp,
            "mlp_ratio": hidden.get(block.mlp_hidden, block.mlp_hidden / spec.dim) if block.mlp != "none" else None,
            "rank": block.rank or None,
            "sparsity": f"{block.sparsity[0]}:{block.sparsity[1]}",
            "weight_bits": block.weight_bits,
            "activation_bits": block.activation_bits,
            "weight_format": block.weights_in,
            "activation_format": block.activations_in,
        }

    def _filling(self, name: str, values: Sequence[Scalar | None]) -> Scalar:
        """Returns what stands for a field where a block has no use for it: what another block has, or any."""
        domain = self.fields[name].domain
        if name == "rank" and None in values:
            whole = 0 if domain.contains(0) else domain.from_unit(1.0)
            return next((v for v in values if v is not None), whole)
        return next((v for v in values if v is not None), domain.from_unit(0.0))


def _largest(domain: Domain) -> float:
    if isinstance(domain, Choice):
        return max(map(float, domain.options))
    return domain.high if isinstance(domain, Float) and domain.step is None else float(domain.values()[-1])
