"""Weights as bytes: safetensors, which holds numbers and nothing that runs."""

from __future__ import annotations

from safetensors.torch import load, save
from torch import nn

from cosearch.errors import UserError

__all__ = ["weights_from_bytes", "weights_to_bytes"]


def weights_to_bytes(model: nn.Module) -> bytes:
    """Returns every parameter and buffer of ``model`` as a safetensors file; the same weights give the same bytes."""
    return save({name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())})


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
