"""Training from scratch: recipes, the loop, alone or in a stack, reading accuracy, weights as bytes."""

from cosearch.train.batches import normalised
from cosearch.train.loop import Score, Trained, accuracy, predictions, score, train
from cosearch.train.optim import Muon, orthogonalise
from cosearch.train.recipe import DTYPES, OPTIMIZERS, SCHEDULES, Recipe
from cosearch.train.stack import STACK, stackable, stacks, train_stack
from cosearch.train.weights import model_from_file, weights_from_bytes, weights_to_bytes

__all__ = [
    "DTYPES",
    "OPTIMIZERS",
    "SCHEDULES",
    "STACK",
    "Muon",
    "Recipe",
    "Score",
    "Trained",
    "accuracy",
    "model_from_file",
    "normalised",
    "orthogonalise",
    "predictions",
    "score",
    "stackable",
    "stacks",
    "train",
    "train_stack",
    "weights_from_bytes",
    "weights_to_bytes",
]
