"""Fewer tokens and fewer bits for a model that was trained with all of them, without training it.

Weights stay what they are, or are rounded up or down; the scales of number formats are set by a few images. Token
methods that add no weights (`cosearch.spec.TokenMethod.after_training`) take effect as they stand: ToMe (Bolya et al.
2023, section 4, https://arxiv.org/abs/2210.09461) and HiRED (Arif et al. 2024) were proposed for this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cosearch.errors import EvaluationError, SpecError
from cosearch.model import Linear, VisionTransformer, build_model, calibrate
from cosearch.model.formats import (
    CALIBRATIONS,
    Calibration,
    IntegerQuantizer,
    Quantizer,
    ScaledQuantizer,
    adaround,
)
from cosearch.model.linear import keep_largest
from cosearch.spec import TOKEN_METHODS, ModelSpec
from cosearch.train.twins import float_twin, unreduced

__all__ = ["ROUNDINGS", "Rounding", "quantise", "with_weights", "without_reductions"]

Rounding = Literal["nearest", "adaround"]

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

_DENSE = (1, 1)


def without_reductions(spec: ModelSpec, tensors: Mapping[str, Tensor]) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Returns a trained model in floating point and with all its tokens: its spec, and its weights without scales.

    Weights that sparsity left out are 0 then.

    Raises:
        SpecError: weights are missing, or its token method has weights of its own.
    """
    plain = dataclasses.replace(_dense(unreduced(float_twin(spec))), training=())
    kept, own = _layout(plain), _layout(spec)
    missing = sorted(set(kept) - set(tensors))
    if missing:
        raise SpecError(missing[0], "is missing", "give the weights of a whole model")
    extra = sorted(set(own) - set(kept) - _scales(spec))
    if extra or any(kept[name] != tensors[name].shape for name in kept):
        name = extra[0] if extra else next(name for name in kept if kept[name] != tensors[name].shape)
        raise SpecError(
            name,
            f"has shape {tuple(tensors[name].shape if name in tensors else own[name])}, which has no place in the "
            "model with all its tokens",
            f"give weights that were trained without {spec.token_method!r}",
        )
    weights = {name: tensors[name] for name in kept}
    for path, layer in _meta(spec).named_modules():
        if isinstance(layer, Linear) and layer.sparsity != _DENSE:
            weights[f"{path}.weight"] = keep_largest(weights[f"{path}.weight"], layer.sparsity)
    return plain, weights


def with_weights(spec: ModelSpec, source: ModelSpec, weights: Mapping[str, Tensor]) -> VisionTransformer:
    """Returns the model that ``spec`` describes, with weights of one that differs in tokens, bits and sparsity alone.

    Args:
        spec: what is wanted.
        source: what was trained, in floating point and with all its tokens.
        weights: its weights.

    Raises:
        EvaluationError: the models differ in something else, or the token method needs training.
    """
    _check(spec, source)
    model = build_model(spec)
    own, scales = model.state_dict(), _scales(spec)
    untrained = sorted(name for name in own if name not in weights and name not in scales)
    if untrained:
        raise EvaluationError(
            f"{untrained[0]} is a weight that was never trained; take a token method and number formats without "
            "weights of their own, or train the model (evaluator 'trained')"
        )
    model.load_state_dict({**own, **weights})
    return model.eval()


def quantise(
    model: nn.Module,
    images: Tensor,
    *,
    calibration: Calibration = "mse",
    rounding: Rounding = "nearest",
    steps: int = 300,
) -> None:
    """Sets the scales of a model's number formats, and rounds the weights of its blocks.

    Args:
        model: as `with_weights` returns it.
        images: as the model takes them, shape (images, channels, height, width).
        calibration: how samples set a scale (`cosearch.model.formats.calibration`); formats whose blocks set their own
            scales are left alone.
        rounding: ``nearest``; or ``adaround``, which learns layer by layer, in the order in which they are computed,
            for each weight of an integer or ternary format whether to round it up or down (Nagel et al. 2020,
            https://arxiv.org/abs/2004.10568). The inputs are those that the layers before, rounded already, give; the
            wanted outputs are the layer's own before rounding. Stem, sparse layers and other formats round to the
            nearest.
        steps: of each layer's rounding.

    Raises:
        SpecError: the calibration or the rounding is none.
    """
    if calibration not in CALIBRATIONS or calibration == "absmean":
        offered = ", ".join(name for name in CALIBRATIONS if name != "absmean")
        raise SpecError("calibration", f"is {calibration!r}", f"write one of {offered}")
    if rounding not in ROUNDINGS:
        raise SpecError("rounding", f"is {rounding!r}", f"write one of {', '.join(ROUNDINGS)}")
    for module in model.modules():
        if isinstance(module, IntegerQuantizer | ScaledQuantizer):
            module.calibration = calibration
    calibrate(model, images)
    if rounding == "adaround":
        _round(model, images, steps)


def _check(spec: ModelSpec, source: ModelSpec) -> None:
    """Raises `EvaluationError` unless weights of ``source`` can serve ``spec`` as they are."""
    if spec.training:
        raise EvaluationError(
            f"the model changes its recipe ({spec.training[0][0]}), but nothing is trained; leave model.training out"
        )
    method = TOKEN_METHODS[spec.token_method]
    if not method.after_training:
        ready = ", ".join(name for name, found in TOKEN_METHODS.items() if found.after_training)
        raise EvaluationError(f"token method {method.name!r} needs training; take one of {ready}")
    plain = _dense(unreduced(float_twin(spec)))
    if plain == source:
        return
    if len(plain.blocks) != len(source.blocks):
        raise _other("depth", len(plain.blocks), len(source.blocks))
    for index, (block, trained) in enumerate(zip(plain.blocks, source.blocks, strict=True)):
        for field in dataclasses.fields(block):
            wanted, given = getattr(block, field.name), getattr(trained, field.name)
            if wanted != given:
                raise _other(f"blocks[{index}].{field.name}", wanted, given)
    for field in dataclasses.fields(plain):
        wanted, given = getattr(plain, field.name), getattr(source, field.name)
        if wanted != given:
            raise _other(field.name, wanted, given)


def _other(field: str, wanted: object, given: object) -> EvaluationError:
    return EvaluationError(
        f"{field} is {wanted}, but the weights are those of a model with {given}; fix it in the space, and search "
        "tokens, bits and formats alone"
    )


def _dense(spec: ModelSpec) -> ModelSpec:
    blocks = tuple(dataclasses.replace(block, sparsity=_DENSE) for block in spec.blocks)
    return dataclasses.replace(spec, blocks=blocks)


def _meta(spec: ModelSpec) -> VisionTransformer:
    """Returns the model without values: nothing is drawn or stored."""
    with torch.device("meta"):
        return VisionTransformer(spec)


def _layout(spec: ModelSpec) -> dict[str, torch.Size]:
    """Returns the shape of each parameter and buffer."""
    return {name: tensor.shape for name, tensor in _meta(spec).state_dict().items()}


def _scales(spec: ModelSpec) -> set[str]:
    """Returns the names of all that quantisers hold."""
    return {
        f"{path}.{name}"
        for path, module in _meta(spec).named_modules()
        if isinstance(module, Quantizer)
        for name in module.state_dict()
    }


def _round(model: nn.Module, images: Tensor, steps: int) -> None:
    """Learns the rounding of each layer when it is called, so that one pass does for all."""

    def round_layer(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Linear)
        assert isinstance(layer.weight_quantizer, Quantizer)
        inputs, scales = layer.quantized_input(arguments[0]), layer.weight_quantizer
        found = adaround(layer, inputs, scales.format, steps=steps, scales=scales)
        with torch.no_grad():
            layer.weight.copy_(found.weight)

    layers = [module for module in model.modules() if isinstance(module, Linear) and _can_round(module)]
    handles = [layer.register_forward_pre_hook(round_layer) for layer in layers]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()


def _can_round(layer: Linear) -> bool:
    scales = layer.weight_quantizer
    return scales is not None and scales.format.family in ("integer", "ternary") and layer.sparsity == _DENSE
