"""One network that holds the parameters of all models of a space: trained once, then every model is read from it.

Parameters are shared over depth, width, heads, MLP, patches, tokens and bits (`cosearch.supernet.places`); what
differs in kind has its own. A model read from it is an ordinary `cosearch.model.VisionTransformer`.
"""

from __future__ import annotations

from cosearch.supernet.checkpoint import load_supernet, resume_training, save_training
from cosearch.supernet.choices import Choices
from cosearch.supernet.places import Place, places
from cosearch.supernet.reading import FINETUNE, Reading, read
from cosearch.supernet.recipe import STRATEGIES, SupernetRecipe
from cosearch.supernet.training import Supernet, SupernetTraining, train_supernet
from cosearch.supernet.weights import SharedWeights, Subnet

__all__ = [
    "FINETUNE",
    "STRATEGIES",
    "Choices",
    "Place",
    "Reading",
    "SharedWeights",
    "Subnet",
    "Supernet",
    "SupernetRecipe",
    "SupernetTraining",
    "load_supernet",
    "places",
    "read",
    "resume_training",
    "save_training",
    "train_supernet",
]
