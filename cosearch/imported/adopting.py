"""A vision transformer of another library as a model of ours: its spec, and its weights under our names.

What is adopted is the plain vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) and DeiT
(Touvron et al. 2021, https://arxiv.org/abs/2012.12877): one convolution as stem, a class token, learned positions,
pre-norm blocks with softmax attention and an exact GELU, a linear head on the class token or, as timm offers it beside,
on the mean of the image tokens. Three differences between
libraries are taken into the weights, so that logits stay what they were:

- LayerScale (Touvron et al. 2021, "Going deeper with Image Transformers", https://arxiv.org/abs/2103.17239) multiplies
  what a branch adds to the stream, channel by channel: it becomes part of the branch's last layer.
- The number that LayerNorm adds to the variance: LN of c x with c^2 e is LN of x with e, so a stream that is c times as
  large makes our 1e-6 act as another library's e = 1e-6 / c^2. All that writes to the stream is multiplied by c.
- Pixels: a model that wants (pixel - mean) / std with figures of its own gets the task's, and its stem undoes the
  difference (`with_pixels_of`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.errors import SpecError, UserError
from cosearch.imported.naming import Renamed, renamed
from cosearch.model import VisionTransformer, build_model
from cosearch.spec import BlockSpec, ModelSpec, TaskShape

__all__ = ["AdoptedModel", "adopt", "as_model", "with_pixels_of"]

_EPSILON = 1e-6
"""That of LayerNorm in `cosearch.model`."""

_TOLERANCE = 1e-4
"""Largest difference between a module's logits and those of what was adopted, relative to the largest logit: rounding
in single precision leaves about 1e-6, another activation or pooling 1e-2 or more."""

_HEAD_WIDTH = 64
"""Channels of a head in ViT and DeiT, whatever the size."""

_HEADS_FIELDS = ("num_heads", "num_attention_heads")

_IN_BLOCK = (
    *("norm1.weight", "norm1.bias", "qkv.weight", "proj.weight"),
    *("norm2.weight", "norm2.bias", "fc1.weight", "fc2.weight"),
)
_OUTSIDE = ("stem.weight", "class_token", "position", "norm.weight", "norm.bias", "head.weight")
"""What must be there; biases that a linear layer lacks are 0."""

_NORMS, _KINDS = ("norm1", "norm2"), ("weight", "bias")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdoptedModel:
    """A trained model: floating point, all its tokens.

    Attributes:
        spec: what `cosearch.model.build_model` makes it from.
        weights: by the names of that model.
        origin: whose names it had: ``timm``, ``transformers``, ``torchvision`` or ``cosearch``.
        mean: of each channel, in units of the full range, that it wants taken away from pixels; None for the task's.
        std: what it wants them divided by then, likewise.
    """

    spec: ModelSpec
    weights: Mapping[str, Tensor]
    origin: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def adopt(
    source: nn.Module | Mapping[str, Tensor],
    *,
    heads: int | None = None,
    image: tuple[int, int] | None = None,
    labels: int = 1,
    epsilon: float | None = None,
) -> AdoptedModel:
    """Returns a vision transformer of timm, transformers or torchvision as a model of ours.

    Patch, channels, width, depth, hidden units and classes follow from shapes. Of a module, heads and LayerNorm's
    epsilon are read from its parts, the pixels' mean and deviation from its ``pretrained_cfg`` where it has one, and
    the result is held against it: both must give the same logits on random images.

    Args:
        source: a module, or its parameters by name (``state_dict``).
        heads: of each block; needed for parameters alone.
        image: height and width in pixels; a square, as the positions have it, if left out.
        labels: labels that the head gives; its outputs are shared out among them.
        epsilon: that LayerNorm adds to the variance; the library's own if left out.

    Raises:
        UserError: names are no known library's, some have no place, or the module computes something else.
        SpecError: a parameter is missing or has a shape that makes no sense, or heads or image cannot be told.
    """
    module = source if isinstance(source, nn.Module) else None
    tensors = source.state_dict() if isinstance(source, nn.Module) else source
    found = renamed({name: tensor.detach() for name, tensor in tensors.items()})
    told = _Parts(found, labels)
    spec = told.spec(heads or _heads_of(module), image or _image_of(module))
    said = epsilon if epsilon is not None else _epsilon_of(module)
    scale = math.sqrt(_EPSILON / (found.naming.epsilon if said is None else said))
    mean, std = _pixels_of(module, spec.task.channels)
    adopted = AdoptedModel(spec=spec, weights=told.weights(spec, scale), origin=found.naming.name, mean=mean, std=std)
    if module is not None:
        _compare(module, adopted)
    return adopted


def as_model(adopted: AdoptedModel) -> VisionTransformer:
    """Returns the adopted model, in evaluation mode."""
    model = build_model(adopted.spec)
    model.load_state_dict(dict(adopted.weights))
    return model.eval()


def with_pixels_of(
    adopted: AdoptedModel,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    said: tuple[Sequence[float], Sequence[float]] | None = None,
) -> AdoptedModel:
    """Returns the model for pixels with ``mean`` taken away and divided by ``std``, channel by channel.

    With x the pixels that it wants and z those that it gets, x = z std / std' + (mean - mean') / std': a scale and a
    shift of each channel, which the stem's first layer takes in.

    Args:
        adopted: a model; nothing happens if neither it nor ``said`` says what pixels it wants.
        mean: of each channel of the pixels that it is to take, in units of the full range.
        std: likewise.
        said: mean' and std', in place of the model's own.

    Raises:
        SpecError: the model pads its images with zeros, which a shift would not reach.
    """
    wants = said or (adopted.mean, adopted.std)
    if wants[0] is None or wants[1] is None:
        return adopted
    own_mean, own_std, new_mean, new_std = (
        torch.tensor(tuple(values), dtype=torch.float64) for values in (wants[0], wants[1], mean, std)
    )
    scale, shift = new_std / own_std, (new_mean - own_mean) / own_std
    if adopted.spec.overlap and bool(shift.abs().max() > 0):
        raise SpecError(
            "overlap",
            f"is {adopted.spec.overlap}, so images are padded with zeros, which stand for another colour in pixels of "
            "another mean",
            "train the model on pixels as the task has them",
        )
    weight = adopted.weights["stem.conv.weight"].double()
    by_channel = weight.view(len(weight), len(scale), -1)
    bias = adopted.weights["stem.conv.bias"].double() + (by_channel.sum(2) * shift).sum(1)
    taken = {
        "stem.conv.weight": (by_channel * scale.view(1, -1, 1)).reshape(weight.shape).float(),
        "stem.conv.bias": bias.float(),
    }
    return dataclasses.replace(adopted, weights={**adopted.weights, **taken}, mean=None, std=None)


class _Parts:
    """Parameters under our names, and what their shapes tell."""

    def __init__(self, found: Renamed, labels: int) -> None:
        self._found, self._labels = found, labels
        self._tensors = {name: tensor.to(torch.float32) for name, tensor in found.tensors.items()}
        self._depth = 1 + max(
            (int(name.split(".")[1]) for name in self._tensors if name.startswith("blocks.")), default=-1
        )
        self._join_heads()
        self._pool = "class"
        if "fc_norm.weight" in self._tensors and "norm.weight" not in self._tensors:
            self._pool = "mean"
            for kind in _KINDS:
                self._tensors[f"norm.{kind}"] = self._tensors.pop(f"fc_norm.{kind}")
        for name in (*_OUTSIDE, *(f"blocks.{n}.{part}" for n in range(self._depth) for part in _IN_BLOCK)):
            self._need(name)
        self._check_shapes()

    def _join_heads(self) -> None:
        """Makes one layer of those for queries, keys and values."""
        for block in range(self._depth):
            for kind in ("weight", "bias"):
                names = [f"blocks.{block}.{part}.{kind}" for part in "qkv"]
                given = [name for name in names if name in self._tensors]
                if given:
                    for name in names:
                        self._need(name)
                    self._tensors[f"blocks.{block}.qkv.{kind}"] = torch.cat([self._tensors.pop(name) for name in names])

    def _need(self, name: str) -> None:
        if name not in self._tensors:
            remedy = "give a whole classifier's parameters"
            if name == "class_token":
                remedy = "adopt a model that has one; a class token takes part in every block here"
            raise SpecError(self._found.theirs(name), "is missing", remedy)

    def _check_shapes(self) -> None:
        stem = self._tensors["stem.weight"]
        if stem.dim() != 4 or stem.shape[2] != stem.shape[3]:
            self._refuse("stem.weight", "a convolution with a square kernel")
        dim = len(stem)
        if self._depth < 1:
            raise SpecError("blocks", "are missing", "give a whole classifier's parameters")
        shapes: dict[str, tuple[int, ...]] = {"norm.weight": (dim,), "norm.bias": (dim,), "stem.bias": (dim,)}
        for block in range(self._depth):
            hidden = len(self._tensors[f"blocks.{block}.fc1.weight"])
            for name, shape in (
                *(("norm1.weight", (dim,)), ("norm1.bias", (dim,)), ("norm2.weight", (dim,)), ("norm2.bias", (dim,))),
                *(("qkv.weight", (3 * dim, dim)), ("qkv.bias", (3 * dim,)), ("proj.weight", (dim, dim))),
                *(("proj.bias", (dim,)), ("fc1.weight", (hidden, dim)), ("fc1.bias", (hidden,))),
                *(("fc2.weight", (dim, hidden)), ("fc2.bias", (dim,)), ("scale1", (dim,)), ("scale2", (dim,))),
            ):
                shapes[f"blocks.{block}.{name}"] = shape
        head = self._tensors["head.weight"]
        shapes |= {"head.weight": (len(head), dim), "head.bias": (len(head),)}
        for name, wanted in shapes.items():
            if name in self._tensors and self._tensors[name].shape != wanted:
                self._refuse(name, f"{wanted}, as the others have it")
        if self._labels < 1 or len(head) % self._labels:
            raise SpecError("labels", f"is {self._labels}, but the head has {len(head)} outputs", "write a divisor")

    def _refuse(self, name: str, wanted: str) -> None:
        raise SpecError(
            self._found.theirs(name),
            f"has shape {tuple(self._tensors[name].shape)}, not {wanted}",
            "adopt a plain model",
        )

    def spec(self, heads: int | None, image: tuple[int, int] | None) -> ModelSpec:
        """Returns the model's spec."""
        dim, channels, patch, _ = self._tensors["stem.weight"].shape
        if heads is None:
            guess = f"; with {_HEAD_WIDTH} channels a head, as in ViT and DeiT, it is {dim // _HEAD_WIDTH}"
            raise SpecError(
                "heads", "cannot be told from parameters", f"give it{guess if dim % _HEAD_WIDTH == 0 else ''}"
            )
        task = TaskShape(
            image=self._image(patch, image),
            channels=channels,
            classes=len(self._tensors["head.weight"]) // self._labels,
            labels=self._labels,
        )
        blocks = tuple(
            BlockSpec(heads=heads, mlp_hidden=len(self._tensors[f"blocks.{n}.fc1.weight"])) for n in range(self._depth)
        )
        return ModelSpec(task=task, patch=patch, dim=dim, blocks=blocks, pool=self._pool)

    def _image(self, patch: int, image: tuple[int, int] | None) -> tuple[int, int]:
        """Returns height and width: those given if the positions fit, else the square that they make."""
        rows = self._tensors["position"].flatten(0, -2).shape[0]
        if image is not None:
            patches = (image[0] // patch) * (image[1] // patch)
            if rows not in (patches, patches + 1):
                raise SpecError(
                    "image",
                    f"is {image[0]} x {image[1]}, which has {patches} patches of {patch} pixels, but there are {rows} "
                    "positions",
                    "give the size that the model was trained with",
                )
            return image
        side = next((math.isqrt(n) for n in (rows - 1, rows) if math.isqrt(n) ** 2 == n), None)
        if not side:
            raise SpecError("image", f"cannot be told from {rows} positions, which make no square", "give it")
        return side * patch, side * patch

    def weights(self, spec: ModelSpec, scale: float) -> dict[str, Tensor]:
        """Returns the weights by the names of our model, the stream ``scale`` times as large."""
        mine, dim = self._tensors, spec.dim
        position = mine["position"].reshape(-1, dim)
        if len(position) == spec.patches:  # the class token has none
            position = torch.cat((torch.zeros(1, dim), position))
        found = {
            "class_token": mine["class_token"].reshape(dim) * scale,
            "position": position * scale,
            "stem.conv.weight": mine["stem.weight"].flatten(1) * scale,
            "stem.conv.bias": self._bias("stem", dim) * scale,
            "norm.weight": mine["norm.weight"],
            "norm.bias": mine["norm.bias"],
            "head.weight": mine["head.weight"],
            "head.bias": self._bias("head", len(mine["head.weight"])),
        }
        for index, block in enumerate(spec.blocks):
            found |= self._block(f"blocks.{index}", dim, block.mlp_hidden, scale)
        return {name: tensor.contiguous().clone() for name, tensor in found.items()}

    def _block(self, name: str, dim: int, hidden: int, scale: float) -> dict[str, Tensor]:
        mine, ones = self._tensors, torch.ones(dim)
        first, second = (mine.get(f"{name}.scale{n}", ones) * scale for n in (1, 2))
        return {
            **{f"{name}.{norm}.{kind}": mine[f"{name}.{norm}.{kind}"] for norm in _NORMS for kind in _KINDS},
            f"{name}.mixer.qkv.weight": mine[f"{name}.qkv.weight"],
            f"{name}.mixer.qkv.bias": self._bias(f"{name}.qkv", 3 * dim),
            f"{name}.mixer.proj.weight": mine[f"{name}.proj.weight"] * first.unsqueeze(1),
            f"{name}.mixer.proj.bias": self._bias(f"{name}.proj", dim) * first,
            f"{name}.mlp.fc1.weight": mine[f"{name}.fc1.weight"],
            f"{name}.mlp.fc1.bias": self._bias(f"{name}.fc1", hidden),
            f"{name}.mlp.fc2.weight": mine[f"{name}.fc2.weight"] * second.unsqueeze(1),
            f"{name}.mlp.fc2.bias": self._bias(f"{name}.fc2", dim) * second,
        }

    def _bias(self, layer: str, length: int) -> Tensor:
        """Returns a layer's bias; zeros where it has none."""
        return self._tensors.get(f"{layer}.bias", torch.zeros(length))


def _heads_of(module: nn.Module | None) -> int | None:
    """Returns the heads that all attentions of a module say they have; None where they say nothing, or differ."""
    if module is None:
        return None
    said = {getattr(part, field) for part in module.modules() for field in _HEADS_FIELDS if hasattr(part, field)}
    said = {value for value in said if isinstance(value, int)}
    return said.pop() if len(said) == 1 else None


def _image_of(module: nn.Module | None) -> tuple[int, int] | None:
    """Returns the height and width that a module says it takes, where timm, transformers and torchvision say it."""
    for place, field in (("patch_embed", "img_size"), ("config", "image_size"), ("", "image_size")):
        said = getattr(getattr(module, place, None) if place else module, field, None)
        sides = (said, said) if isinstance(said, int) else said
        if isinstance(sides, tuple | list) and len(sides) == 2:
            return int(sides[0]), int(sides[1])
    return None


def _epsilon_of(module: nn.Module | None) -> float | None:
    """Returns the epsilon of a module's LayerNorms; None where it has none.

    Raises:
        UserError: they differ.
    """
    if module is None:
        return None
    said = {part.eps for part in module.modules() if isinstance(part, nn.LayerNorm)}
    if len(said) > 1:
        raise UserError(f"the module's LayerNorms add {sorted(said)} to the variance; adopt one where all add the same")
    return said.pop() if said else None


def _pixels_of(module: nn.Module | None, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Returns the mean and the deviation of pixels that a module of timm says it was trained with."""
    for field in ("pretrained_cfg", "default_cfg"):
        said = getattr(module, field, None)
        if isinstance(said, dict) and all(len(said.get(name) or ()) == channels for name in ("mean", "std")):
            return tuple(map(float, said["mean"])), tuple(map(float, said["std"]))
    return None, None


@torch.no_grad()
def _compare(module: nn.Module, adopted: AdoptedModel) -> None:
    """Raises `UserError` unless both give the same logits on random images."""
    task = adopted.spec.task
    images = torch.randn(2, task.channels, *task.image, generator=torch.Generator().manual_seed(0))
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        given = module(images)
    except Exception as error:  # whatever the user's own forward raises
        raise UserError(
            f"the module does not take images of {tuple(images.shape)} ({type(error).__name__}: {error}); say which "
            "image it takes"
        ) from error
    finally:
        for part in training:
            part.training = True
    wanted = getattr(given, "logits", given)
    ours = as_model(adopted)(images).flatten(1)
    if not isinstance(wanted, Tensor) or wanted.numel() != ours.numel():
        shape = tuple(wanted.shape) if isinstance(wanted, Tensor) else type(wanted).__name__
        raise UserError(f"the module returns {shape}, not logits of {tuple(ours.shape)}; adopt a classifier")
    difference = float((wanted.reshape(ours.shape) - ours).abs().max() / wanted.abs().max().clamp_min(1e-12))
    if not difference <= _TOLERANCE:
        raise UserError(
            "the module computes something else than the plain vision transformer of its parameters: logits differ by "
            f"{difference:.2g} of the largest; adopt one with an exact GELU, pre-norm blocks and a head on the class "
            "token or on the mean of the others"
        )
