"""Guesses of what a training would give, for a small part of its cost.

    x = encode_models(trained)                               # (models, columns), whatever space they come from
    predictor = make_predictor("gaussian_process", link="logit")
    predictor.fit(x, accuracies)
    mean, std, inside = predictor.predict(encode_models(others))

`SCORES` has what an untrained model tells by itself (params, bit operations, synflow, ...).
"""

from __future__ import annotations

from cosearch.predictors.base import Link, Prediction, Predictor
from cosearch.predictors.encoding import encode, encode_models, names
from cosearch.predictors.files import PREDICTORS, load_predictor, make_predictor, save_predictor
from cosearch.predictors.gaussian import GaussianProcess
from cosearch.predictors.noise import relative_error
from cosearch.predictors.trees import BoostedTrees
from cosearch.predictors.trend import Trended

__all__ = [
    "PREDICTORS",
    "BoostedTrees",
    "GaussianProcess",
    "Link",
    "Prediction",
    "Predictor",
    "Trended",
    "encode",
    "encode_models",
    "load_predictor",
    "make_predictor",
    "names",
    "relative_error",
    "save_predictor",
]
