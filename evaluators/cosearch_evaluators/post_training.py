"""Accuracy of a trained model after its tokens and bits were reduced, without training.

Beside the metrics an evaluation leaves two artifacts: ``weights.safetensors``, the weights with their scales and the
model's spec, as the evaluator ``trained`` leaves them, and ``post_training.json``:

    {"calibration": "mse", "images": 64, "rounding": "nearest", "weights": "<sha256 of the file>"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cosearch.data import Task, load_task
from cosearch.errors import EvaluationError, UserError, did_you_mean
from cosearch.evaluator import Context, Metric
from cosearch.imported import ROUNDINGS, AdoptedModel, adopted_from_file, quantise, with_pixels_of, with_weights
from cosearch.imported.post_training import Rounding
from cosearch.spec import Candidate
from cosearch.train import normalised, score, weights_to_bytes
from cosearch.train.loop import one_thread
from cosearch_evaluators.trained import Trained

__all__ = ["PostTraining"]

Calibration = Literal["mse", "minmax", "percentile"]


class PostTraining:
    """Puts a model's fixed weights into each candidate, sets its scales, and reads the validation split.

    Candidates may differ from the model that was trained in tokens, bits, number formats and sparsity; everything else
    is fixed by the weights, and a candidate that differs there has failed. Nothing is random: the calibration images
    lie evenly spread over the training split.

    Args:
        weights: a safetensors file with the model's spec: what ``cosearch adopt`` wrote, or ``weights.safetensors`` of
            a run's artifacts. A relative path starts at the run file's folder, or else where cosearch is called.
        images: training images that set the scales.
        calibration: how they do: ``mse``, ``minmax`` or ``percentile`` (`cosearch.model.formats.calibration`).
        rounding: ``nearest``, or ``adaround``, which learns to round weights up or down from the same images.
        steps: of AdaRound, for each layer.
        mean: of each channel, 0 to 1, that the model wants taken away from pixels; as the file says if left out, else
            the task's.
        std: that it wants them divided by, likewise.

    Raises:
        UserError: an option makes no sense, or the file holds no such model.
    """

    metrics: tuple[Metric, ...] = Trained.metrics
    scope: Literal["model", "pair"] = "model"
    cheap = False
    paths = ("weights",)

    def __init__(
        self,
        weights: str,
        images: int = 64,
        calibration: str = "mse",
        rounding: str = "nearest",
        steps: int = 300,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        for name, value, known in (
            ("calibration", calibration, get_args(Calibration)),
            ("rounding", rounding, ROUNDINGS),
        ):
            if value not in known:
                raise UserError(f"{name} is {value!r}; {did_you_mean(str(value), known)}")
        for name, count in (("images", images), ("steps", steps)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UserError(f"{name} is {count!r}; write a whole number of at least 1")
        if (mean is None) != (std is None):
            raise UserError(f"{'std' if std is None else 'mean'} is missing; give both or neither")
        if std is not None and min(std, default=0) <= 0:
            raise UserError(f"std is {std}; write numbers above 0, one for each channel")
        self.weights, self.images, self.steps = weights, images, steps
        self.calibration: Calibration = calibration  # type: ignore[assignment]  # checked above
        self.rounding: Rounding = rounding  # type: ignore[assignment]
        self.mean, self.std = mean, std
        _loaded(weights, *_stamp(weights))

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        """Returns accuracy, exact and loss; leaves the weights as an artifact.

        Raises:
            EvaluationError: the weights are another model's, or the token method needs training.
        """
        task = load_task(context.task)
        with one_thread():
            source = self._source(task)
            model = with_weights(candidate.model, source.spec, source.weights)
            places = np.linspace(0, len(task.train) - 1, min(self.images, len(task.train))).round().astype(int)
            seen = normalised(task.train.images[places], task)
            quantise(model, seen, calibration=self.calibration, rounding=self.rounding, steps=self.steps)
            found = score(model, task.validation, task)
        context.artifacts["weights.safetensors"] = weights_to_bytes(model)
        how = {
            "calibration": self.calibration,
            "images": len(seen),
            "rounding": self.rounding,
            "weights": hashlib.sha256(Path(self.weights).read_bytes()).hexdigest(),
        }
        context.artifacts["post_training.json"] = (json.dumps(how, indent=1) + "\n").encode()
        return {"accuracy": found.accuracy, "exact": found.exact, "loss": found.loss}

    def _source(self, task: Task) -> AdoptedModel:
        """Returns the trained model, for pixels as the task has them."""
        source = _loaded(self.weights, *_stamp(self.weights))
        mean, std = self.mean or source.mean, self.std or source.std
        if mean is None or std is None:
            return source
        channels = source.spec.task.channels
        if len(mean) != channels or len(std) != channels or len(task.mean) != channels:
            raise EvaluationError(
                f"mean and std have {len(mean)} and {len(std)} values and the task {len(task.mean)} channels, but "
                f"{self.weights} takes {channels}; give one value for each"
            )
        return with_pixels_of(source, task.mean, task.std, said=(tuple(mean), tuple(std)))


def _stamp(path: str) -> tuple[int, int]:
    """Returns what changes when a file does: its time and its size."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise UserError(f"weights: {path} cannot be read ({error.strerror}); check the path") from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=2)
def _loaded(path: str, modified_ns: int, size: int) -> AdoptedModel:  # noqa: ARG001 a file that changed is read again
    return adopted_from_file(path)
