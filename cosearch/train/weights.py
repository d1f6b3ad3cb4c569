"""Weights as bytes: safetensors, which holds numbers and text and nothing that runs."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from cosearch.errors import UserError
from cosearch.model import VisionTransformer, build_model
from cosearch.spec import ModelSpec, canonical_json, from_json

__all__ = ["model_from_file", "tensors_from_file", "weights_from_bytes", "weights_to_bytes"]

_SPEC = "cosearch.model"
"""Key of a model's spec among the file's texts."""


def weights_to_bytes(model: nn.Module) -> bytes:
    """Returns every parameter and buffer of ``model`` as a safetensors file; the same weights give the same bytes.

    The spec of a model that has one stands in the file's metadata, as JSON.
    """
    spec = getattr(model, "spec", None)
    texts = {_SPEC: canonical_json(spec)} if isinstance(spec, ModelSpec) else None
    return save({name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}, metadata=texts)


def weights_from_bytes(model: nn.Module, data: bytes) -> None:
    """Sets the weights of ``model`` to those in ``data``.

    Raises:
        UserError: they are another model's.
    """
    try:
        model.load_state_dict(load(data))
    except Exception as error:
        reason = str(error).partition("\n")[2].strip().partition("\n")[0] or str(error)
        raise UserError(f"these weights are not this model's ({reason}); take both from the same run") from error


def tensors_from_file(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name.

    Raises:
        UserError: there is no such file, or it is none.
    """
    return _opened(path)[0]


def model_from_file(path: str | Path) -> VisionTransformer:
    """Returns the model whose weights and spec a file holds, in evaluation mode.

    Raises:
        UserError: there is no such file, or it holds no spec.
    """
    tensors, texts = _opened(path)
    if _SPEC not in texts:
        raise UserError(f"{path} holds weights but not the model's spec; give weights that a run left in its artifacts")
    model = build_model(from_json(ModelSpec, json.loads(texts[_SPEC])))
    model.load_state_dict(tensors)
    return model.eval()


def _opened(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not Path(path).is_file():
        raise UserError(f"{path} is not a file; give the path of weights that a run left in its artifacts")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is no safetensors file ({error}); give weights that a run left in its artifacts"
        ) from error
