"""What a model is on the way: a twin in floating point, with all its tokens; and moving weights between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn

from cosearch.errors import EvaluationError
from cosearch.spec import FLOAT_BITS, TOKEN_METHODS, ModelSpec
from cosearch.train.recipe import Recipe
from cosearch.words import describe_model

__all__ = ["check_stages", "copy_fitting", "float_twin", "stage", "twin_recipe", "unreduced", "warm_start"]


def float_twin(spec: ModelSpec) -> ModelSpec:
    """Returns the same model without quantisation."""
    blocks = tuple(
        dataclasses.replace(
            block, weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS, weight_format="", activation_format=""
        )
        for block in spec.blocks
    )
    return dataclasses.replace(spec, blocks=blocks, edge_bits=FLOAT_BITS, edge_format="")


def unreduced(spec: ModelSpec) -> ModelSpec:
    """Returns the same model with all its tokens, all the way."""
    blocks = tuple(dataclasses.replace(block, keep_tokens=None) for block in spec.blocks)
    return dataclasses.replace(spec, blocks=blocks, token_method="none")


def stage(spec: ModelSpec, recipe: Recipe, done: float) -> ModelSpec:
    """Returns what of ``spec`` is trained once a share ``done`` of the steps is done; at 1, the spec itself."""
    if done < recipe.quantise_from:
        spec = float_twin(spec)
    return unreduced(spec) if done < recipe.reduce_from else spec


def twin_recipe(recipe: Recipe) -> Recipe:
    """Returns the recipe of the twin that a candidate learns from: without what needs a twin or means nothing there."""
    changes: dict[str, float | str] = {"distill": 0.0, "warm_start": "", "reduce_from": 0.0, "quantise_from": 0.0}
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def check_stages(spec: ModelSpec, recipe: Recipe) -> None:
    """Raises `EvaluationError` if tokens are to be reduced after training by weights that were never trained."""
    method = TOKEN_METHODS[spec.token_method]
    if recipe.reduce_from >= 1 and not method.after_training:
        ready = ", ".join(name for name, found in TOKEN_METHODS.items() if found.after_training)
        raise EvaluationError(
            f"recipe.reduce_from is {recipe.reduce_from:g}, but token method {spec.token_method!r} needs training; "
            f"write less than 1, or take one of {ready}"
        )


def copy_fitting(model: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """Copies what has the name and the shape of something in ``model``; returns how many parameters that were.

    What does not fit stays as it was drawn.
    """
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict({**own, **fitting})
    return len(fitting)


def warm_start(model: nn.Module, spec: ModelSpec, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies the weights that fit.

    Raises:
        EvaluationError: none does.
    """
    if not copy_fitting(model, tensors):
        shape = next((f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()), "none")
        raise EvaluationError(
            f"recipe.warm_start: no weight of {source} (its first: {shape}) fits {describe_model(spec)}; "
            "give weights of a model that shares a shape with it"
        )
