"""Adopted models in files, and from references.

The file is a safetensors one: numbers and text, nothing that runs. Beside the weights its metadata hold the model's
spec, as `cosearch.train.weights_to_bytes` writes it, and the pixels that the model wants, if it says so:

    cosearch.model     the spec, canonical JSON
    cosearch.pixels    {"mean": [0.485, ...], "std": [0.229, ...]}
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cosearch.errors import SpecError, UserError
from cosearch.imported.adopting import AdoptedModel, adopt
from cosearch.imported.loading import load_module
from cosearch.imported.post_training import without_reductions
from cosearch.spec import ModelSpec, canonical_json, from_json

__all__ = ["adopted_from_file", "adopted_from_reference", "adopted_to_bytes"]

_SPEC, _PIXELS = "cosearch.model", "cosearch.pixels"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def adopted_to_bytes(adopted: AdoptedModel) -> bytes:
    """Returns the model as a safetensors file; the same model gives the same bytes."""
    texts = {_SPEC: canonical_json(adopted.spec)}
    if adopted.mean is not None and adopted.std is not None:
        texts[_PIXELS] = json.dumps({"mean": list(adopted.mean), "std": list(adopted.std)})
    return _ordered(
        save({name: adopted.weights[name].contiguous() for name in sorted(adopted.weights)}, metadata=texts)
    )


def _ordered(data: bytes) -> bytes:
    """Returns a safetensors file with its texts in order: safetensors writes several in any.

    The file is the header's length (8 bytes, little endian), the header (JSON, filled up with spaces to a multiple of
    8) and the tensors (https://huggingface.co/docs/safetensors, "Format").
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def adopted_from_file(path: str | Path) -> AdoptedModel:
    """Returns the model in a file that holds its spec: one that `adopted_to_bytes` made, or weights that a run left.

    A model that was trained with other bits or fewer tokens comes back in floating point with all its tokens: what
    these were does not matter to its weights.

    Raises:
        UserError: there is no such file, it is none, or holds no spec.
        SpecError: its weights are not those of a model with all its tokens.
    """
    tensors, texts = _opened(Path(path))
    if _SPEC not in texts:
        raise UserError(
            f"{path} holds weights but not the model's spec; adopt it first: cosearch adopt {path} --out "
            "weights.safetensors"
        )
    return _from_texts(tensors, texts, Path(path))


def adopted_from_reference(
    reference: str,
    *,
    heads: int | None = None,
    image: tuple[int, int] | None = None,
    labels: int = 1,
    epsilon: float | None = None,
) -> AdoptedModel:
    """Returns the vision transformer that ``reference`` names.

    Args:
        reference: a safetensors file, or a module as `cosearch.imported.load_module` finds it: ``file.py:factory`` or
            ``package.module:factory``. What a module's author wrote runs then; a safetensors file runs nothing.
        heads: as `adopt`, as the next three.
        image: height and width.
        labels: of the head.
        epsilon: of LayerNorm.

    Raises:
        UserError: it cannot be read, is a pickle, or as `adopt`.
        SpecError: as `adopt`.
    """
    path = Path(reference)
    if path.suffix in _PICKLES:
        raise UserError(
            f"{reference} may be a pickle, which can run anything; save it as safetensors "
            "(safetensors.torch.save_file(model.state_dict(), 'model.safetensors')), or write file.py:factory"
        )
    if path.suffix != ".safetensors":
        module = _module(reference, image)
        return adopt(module, heads=heads, image=image, labels=labels, epsilon=epsilon)
    tensors, texts = _opened(path)
    if _SPEC in texts:
        return _from_texts(tensors, texts, path)
    return adopt(tensors, heads=heads, image=image, labels=labels, epsilon=epsilon)


def _from_texts(tensors: dict[str, Tensor], texts: dict[str, str], path: Path) -> AdoptedModel:
    try:
        spec = from_json(ModelSpec, json.loads(texts[_SPEC]))
        pixels = json.loads(texts.get(_PIXELS, "{}"))
        mean, std = (tuple(map(float, pixels[name])) if name in pixels else None for name in ("mean", "std"))
    except (ValueError, TypeError, SpecError) as error:
        raise UserError(f"{path} holds a model's spec that makes no sense ({error}); make the file again") from error
    try:
        plain, weights = without_reductions(spec, tensors)
    except SpecError as error:
        raise SpecError(f"{path}: {error.field}", error.problem, error.remedy) from error
    return AdoptedModel(spec=plain, weights=weights, origin="cosearch", mean=mean, std=std)


def _module(reference: str, image: tuple[int, int] | None) -> nn.Module:
    # three channels stand for any number: the image is only there for what needs an example input
    found = load_module(reference, image=(3, *image) if image else (3, 1, 1))
    if not isinstance(found.module, nn.Module):
        raise UserError(
            f"{reference} is an exported program, whose weights have no names to know them by; give the module itself"
        )
    return found.module


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} is not a file; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error}); make it by safetensors.torch.save_file") from error
