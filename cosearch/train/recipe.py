"""How a model is trained: a recipe, as the run file gives it and as a model's spec may change it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cosearch.errors import UserError, did_you_mean
from cosearch.spec import Scalar

__all__ = ["DTYPES", "LARGE", "OPTIMIZERS", "SCHEDULES", "SELF", "Recipe"]

OPTIMIZERS = ("muon", "adamw")
SCHEDULES = ("wsd", "cosine", "linear")
DTYPES = ("float32", "bfloat16")

SELF = "self"
"""A teacher, or a start: the candidate's twin in floating point with all its tokens (`cosearch.train.twins`)."""

LARGE = "large"
"""A teacher: the one model of `cosearch.train.teachers` for the task, trained once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe; the defaults suit the small models and images of the embedded tasks.

    Attributes:
        steps: optimiser steps.
        batch: images in a step.
        optimizer: ``muon`` (the stem's and the blocks' matrices by Muon, the rest by AdamW) or ``adamw`` for all.
        schedule: what the learning rates do after the warm-up: ``wsd`` (hold, then fall in a straight line), ``cosine``
            or ``linear`` (fall from the start).
        lr: AdamW's learning rate at its highest.
        matrix_lr: Muon's learning rate at its highest.
        scale_lr: learning rate of the logarithm of quantisation scales at its highest.
        momentum: Muon's; in a training of a few hundred steps, less than the customary 0.95 learns sooner.
        weight_decay: AdamW's decoupled weight decay, on matrices alone.
        warmup: share of the steps in which the learning rate rises from 0.
        hold: share of the steps, counted from the start, after which it falls in a straight line to 0 (``wsd``).
        label_smoothing: share of the target spread over all classes.
        shift: pixels by which an image is moved at random, each way on both axes.
        flip: whether images are mirrored left to right at random (not for digits).
        mixup: share of the batches whose images are averaged with others of the batch, and their labels with them.
        cutmix: share of the batches whose images get a rectangle of others of the batch, likewise.
        erase: share of the images of which a rectangle becomes noise.
        calibration: images that set the scales of a quantised model before the first step.
        distill: weight of the teacher's part of the loss; 0 is none.
        teacher: who that is: ``self``, ``large``, or a path to weights with their model's spec in them, which
            `cosearch.train.weights_to_bytes` writes.
        temperature: of the softmax that student and teacher are compared by; 0 takes the teacher's choice as label.
        warm_start: whose weights the model begins with where shapes fit: ``self``, or a path; empty for none.
        reduce_from: share of the steps after which tokens are reduced; 1 only once training is over.
        quantise_from: share of the steps after which numbers are quantised; 1 only once training is over.
        patience: steps in which the loss has to fall by 1 %, or the learning rates begin to fall (``wsd``); the
            training is then as if ``steps`` were fewer. 0 never looks.
        dtype: ``bfloat16`` computes products in it, where the processor does; weights stay in single precision.
        compile: whether the model is compiled by ``torch.compile``.
    """

    steps: int = 150
    batch: int = 64
    optimizer: str = "muon"
    schedule: str = "wsd"
    lr: float = 6e-3
    matrix_lr: float = 0.03
    scale_lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.01
    warmup: float = 0.06
    hold: float = 0.3
    label_smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    calibration: int = 256
    distill: float = 0.0
    teacher: str = SELF
    temperature: float = 3.0
    warm_start: str = ""
    reduce_from: float = 0.0
    quantise_from: float = 0.0
    patience: int = 0
    dtype: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in (field.name for field in dataclasses.fields(self) if isinstance(field.default, float)):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"recipe.{name} is {getattr(self, name)}; write a finite number")
        for name, (holds, wanted) in {**self._rates(), **self._images(), **self._course()}.items():
            if not holds:
                raise UserError(f"recipe.{name} is {getattr(self, name)!r}; write {wanted}")

    def _rates(self) -> dict[str, tuple[bool, str]]:
        """Returns, by field, whether its value is sound, and what it should be."""
        return {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "lr": (self.lr > 0, "above 0"),
            "scale_lr": (self.scale_lr >= 0, "0 or more"),
            "matrix_lr": (self.matrix_lr > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup <= 1, "0 to 1"),
            "hold": (self.warmup <= self.hold <= 1 or self.schedule != "wsd", f"warmup ({self.warmup}) to 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 to below 1"),
        }

    def _images(self) -> dict[str, tuple[bool, str]]:
        return {
            "shift": (self.shift >= 0, "0 or more"),
            "mixup": (0 <= self.mixup <= 1, "0 to 1"),
            "cutmix": (0 <= self.cutmix <= 1 - self.mixup, f"0 to 1 - mixup ({1 - self.mixup:g})"),
            "erase": (0 <= self.erase <= 1, "0 to 1"),
            "calibration": (self.calibration >= 1, "at least 1"),
        }

    def _course(self) -> dict[str, tuple[bool, str]]:
        known = f"{SELF}, or a path to a .safetensors file"
        return {
            "distill": (0 <= self.distill <= 1, "0 to 1"),
            "teacher": (_names_weights(self.teacher, LARGE), f"{LARGE}, {known}"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "warm_start": (not self.warm_start or _names_weights(self.warm_start), f"{known}, or nothing"),
            "reduce_from": (0 <= self.reduce_from <= 1, "0 to 1"),
            "quantise_from": (0 <= self.quantise_from <= 1, "0 to 1"),
            "patience": (
                self.patience == 0 or (self.patience > 0 and self.schedule == "wsd" and self.hold > 0),
                "0, or more with schedule wsd and hold above 0",
            ),
            "dtype": (self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recipe:
        """Returns the recipe that a run file gives.

        Raises:
            UserError: a field is unknown, of the wrong type or out of range.
        """
        _check_types(config)
        return cls(**config)

    def overridden(self, changes: Iterable[tuple[str, Scalar]]) -> Recipe:
        """Returns the recipe with some fields changed, as `cosearch.spec.ModelSpec.training` has them.

        Raises:
            UserError: as `from_config`.
        """
        changed: dict[str, Any] = dict(changes)
        _check_types(changed)
        return dataclasses.replace(self, **changed) if changed else self

    @property
    def stackable(self) -> bool:
        """Whether models can be trained by it in a stack: in one piece, at one pace, from their labels alone."""
        plain = {"distill", "warm_start", "reduce_from", "quantise_from", "patience", "dtype", "compile"}
        return all(
            getattr(self, field.name) == field.default for field in dataclasses.fields(self) if field.name in plain
        )

    def learning_rate_factor(self, step: float, steps: int | None = None) -> float:
        """Returns what the highest learning rates are multiplied by at ``step``.

        ``wsd`` is a trapezoid (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
        Durations", 2024, section 3), ``cosine`` half a wave without restarts (Loshchilov & Hutter, "SGDR", ICLR 2017,
        equation 5); all rise in a straight line first.

        Args:
            step: from 0.
            steps: of the whole training; the recipe's if left out.
        """
        total = self.steps if steps is None else steps
        done = step / total
        if done < self.warmup:
            return (step + 1) / (self.warmup * total + 1)
        if self.schedule == "wsd":
            return 1.0 if done < self.hold else (1.0 - done) / (1.0 - self.hold)
        left = (1.0 - done) / (1.0 - self.warmup)
        return left if self.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _names_weights(name: str, *others: str) -> bool:
    return name in (SELF, *others) or name.endswith(".safetensors")


def _check_types(config: Mapping[str, Any]) -> None:
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Recipe)}
    for name, value in config.items():
        if name not in kinds:
            raise UserError(f"recipe.{name} is not a field of a recipe; {did_you_mean(name, kinds)}")
        accepted = (int, float) if kinds[name] is float else (kinds[name],)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kinds[name] is not bool):
            raise UserError(f"recipe.{name} is {value!r}; write {_WORDS[kinds[name]]}")
