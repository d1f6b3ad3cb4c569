"""How a supernet is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosearch.errors import UserError, did_you_mean
from cosearch.train import Recipe

__all__ = ["STRATEGIES", "SupernetRecipe"]

STRATEGIES: Mapping[str, str] = {
    "uniform": "random models alone (single path, uniform: AutoFormer, https://arxiv.org/abs/2107.00651, section 3.2)",
    "sandwich": "the largest, random ones and the smallest; the largest teaches the others in place (BigNAS, "
    "https://arxiv.org/abs/2003.11142, section 3.2)",
}
"""Which models make up a step."""


def _default() -> Recipe:
    return Recipe(steps=1200, lr=2e-3, matrix_lr=4e-3, scale_lr=0.03)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetRecipe:
    """A recipe for shared parameters.

    Attributes:
        strategy: which models make up a step; a name in `STRATEGIES`.
        random: random models in a step.
        in_place: weight of the largest model's outputs in the loss of the others, in a sandwich.
        largest_first: share of the steps in which the largest model is trained alone (delayed shrinking: DepS,
            Annavajjala et al., ECCV 2024, https://arxiv.org/abs/2407.06167).
        first_rate: factor on the learning rates meanwhile: a model alone bears higher ones.
        shrink_until: share of the steps by which all models are equally likely; until then the largest of several is
            drawn, of fewer and fewer.
        shrink_from: of how many the largest is drawn at first.
        base: images in a step, rates, schedule, augmentation. The default rates are well below those of a model
            alone: at these, models that share parameters undo each other's steps, and the loss of ``digit-pairs``
            climbs back to chance (30 CPU-seconds, one seed).
    """

    strategy: str = "uniform"
    random: int = 1
    in_place: float = 0.5
    largest_first: float = 0.0
    first_rate: float = 5.0
    shrink_until: float = 0.0
    shrink_from: int = 8
    base: Recipe = field(default_factory=_default)

    def __post_init__(self) -> None:
        checks = {
            "strategy": (self.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}"),
            "random": (self.random >= 1, "at least 1"),
            "in_place": (0 <= self.in_place <= 1, "0 to 1"),
            "largest_first": (0 <= self.largest_first < 1, "0 to below 1"),
            "first_rate": (self.first_rate > 0, "above 0"),
            "shrink_until": (0 <= self.shrink_until <= 1, "0 to 1"),
            "shrink_from": (self.shrink_from >= 1, "at least 1"),
        }
        for name, (holds, wanted) in checks.items():
            if not holds:
                raise UserError(f"supernet recipe: {name} is {getattr(self, name)!r}; write {wanted}")
        for name in _UNUSED:
            if getattr(self.base, name) != getattr(Recipe(), name):
                raise UserError(f"supernet recipe: {name} means nothing to a supernet; leave it out")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SupernetRecipe:
        """Returns the recipe of a mapping of fields, the base's among them.

        Raises:
            UserError: a field is unknown, of the wrong type or out of range.
        """
        kinds = {f.name: type(f.default) for f in dataclasses.fields(cls) if f.name != "base"}
        own = {name: value for name, value in config.items() if name in kinds}
        for name, value in own.items():
            accepted = (int, float) if kinds[name] is float else (kinds[name],)
            if not isinstance(value, accepted) or isinstance(value, bool):
                raise UserError(f"supernet recipe: {name} is {value!r}; write {kinds[name].__name__}")
        rest = {name: value for name, value in config.items() if name not in kinds}
        known = {f.name for f in dataclasses.fields(Recipe)}
        for name in rest:
            if name not in known:
                raise UserError(f"supernet recipe: {name} is no field; {did_you_mean(name, {*known, *kinds})}")
        defaults = {name: getattr(_default(), name) for name in _BASE}
        return cls(**own, base=Recipe.from_config({**defaults, **rest}))

    def as_config(self) -> dict[str, Any]:
        """Returns the mapping that `from_config` takes."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "base"}
        return {**own, **dataclasses.asdict(self.base)}


_BASE = ("steps", "lr", "matrix_lr", "scale_lr")
_UNUSED = ("distill", "warm_start", "reduce_from", "quantise_from", "patience", "dtype", "compile")
