"""Training from scratch: recipes, the loop, reading accuracy, weights as bytes."""

from cosearch.train.batches import normalised
from cosearch.train.loop import Score, Trained, accuracy, predictions, score, train
from cosearch.train.optim import Muon, orthogonalise
from cosearch.train.recipe import OPTIMIZERS, Recipe
from cosearch.train.weights import weights_from_bytes, weights_to_bytes

__all__ = [
    "OPTIMIZERS",
    "Muon",
    "Recipe",
    "Score",
    "Trained",
    "accuracy",
    "normalised",
    "orthogonalise",
    "predictions",
    "score",
    "train",
    "weights_from_bytes",
    "weights_to_bytes",
]
