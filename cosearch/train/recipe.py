"""How a model is trained: a recipe, as the run file gives it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosearch.errors import UserError, did_you_mean

__all__ = ["OPTIMIZERS", "Recipe"]

OPTIMIZERS = ("muon", "adamw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe; the defaults suit the small models and images of the embedded tasks.

    Attributes:
        steps: optimiser steps.
        batch: images in a step.
        optimizer: ``muon`` (the stem's and the blocks' matrices by Muon, the rest by AdamW) or ``adamw`` for all.
        lr: AdamW's learning rate at its highest.
        matrix_lr: Muon's learning rate at its highest.
        scale_lr: learning rate of the logarithm of quantisation scales at its highest.
        momentum: Muon's; in a training of a few hundred steps, less than the customary 0.95 learns sooner.
        weight_decay: AdamW's decoupled weight decay, on matrices alone.
        warmup: share of the steps in which the learning rate rises from 0.
        hold: share of the steps, counted from the start, after which it falls in a straight line to 0.
        label_smoothing: share of the target spread over all classes.
        shift: pixels by which an image is moved at random, each way on both axes.
        flip: whether images are mirrored left to right at random (not for digits).
        calibration: images that set the scales of a quantised model before the first step.
    """

    steps: int = 150
    batch: int = 64
    optimizer: str = "muon"
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
    calibration: int = 256

    def __post_init__(self) -> None:
        for name in (field.name for field in dataclasses.fields(self) if isinstance(field.default, float)):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"recipe.{name} is {getattr(self, name)}; write a finite number")
        checks = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "lr": (self.lr > 0, "above 0"),
            "scale_lr": (self.scale_lr >= 0, "0 or more"),
            "matrix_lr": (self.matrix_lr > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup <= 1, "0 to 1"),
            "hold": (self.warmup <= self.hold <= 1, f"warmup ({self.warmup}) to 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 to below 1"),
            "shift": (self.shift >= 0, "0 or more"),
            "calibration": (self.calibration >= 1, "at least 1"),
        }
        for name, (holds, wanted) in checks.items():
            if not holds:
                raise UserError(f"recipe.{name} is {getattr(self, name)!r}; write {wanted}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recipe:
        """Returns the recipe that a run file gives.

        Raises:
            UserError: a field is unknown, of the wrong type or out of range.
        """
        kinds = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        for name, value in config.items():
            if name not in kinds:
                raise UserError(f"recipe.{name} is not a field of a recipe; {did_you_mean(name, kinds)}")
            accepted = (int, float) if kinds[name] is float else (kinds[name],)
            if not isinstance(value, accepted) or (isinstance(value, bool) and kinds[name] is not bool):
                raise UserError(f"recipe.{name} is {value!r}; write {_WORDS[kinds[name]]}")
        return cls(**config)

    def learning_rate_factor(self, step: int) -> float:
        """Returns what the highest learning rates are multiplied by at ``step``: a trapezoid (WSD schedule).

        Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024, section 3.
        """
        done = step / self.steps
        if done < self.warmup:
            return (step + 1) / (self.warmup * self.steps + 1)
        return 1.0 if done < self.hold else (1.0 - done) / (1.0 - self.hold)


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
