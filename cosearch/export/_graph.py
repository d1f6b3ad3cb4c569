"""From a trained model to an ONNX graph that takes pixels and gives logits.

Integer weights are kept as the codes that the accelerator multiplies, followed by Cast and Mul with their scales.
Weights of other formats (small floats, MX, ternary, powers of two) stay float32, each a value that the format has:
ONNX has no codes for most of them. Sparse weights are stored whole, their zeros with them.
Activations are quantised by Div, Clip, Round and Mul, the very steps of `cosearch.model.formats`. QuantizeLinear and
DequantizeLinear would say the same, but onnxruntime replaces them around a product by integer kernels that round
differently (a DequantizeLinear of weights alone makes it quantise the activations once more), and they have no 3, 5, 6
or 7 bits.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosearch.model import Linear, VisionTransformer
from cosearch.model.formats import IntegerQuantizer

__all__ = ["OPSET", "SMALLEST_SCALE", "PixelModel", "onnx_graph"]

OPSET = 20
"""ONNX operator set of the graph: the first with Gelu; onnxruntime 1.17 and later read it."""

_EXPORT_BATCH = 2
SMALLEST_SCALE = 1e-8
"""What a scale at or below zero acts as (`cosearch.model.formats`)."""


class PixelModel(nn.Module):
    """A model with its normalisation in front: raw pixels in, logits out.

    Weights are quantised once and for all, so that every rounding left is one of an activation.

    Args:
        model: a trained model; it is copied, not changed.
        mean: of each channel, of pixels scaled to 0..1.
        std: likewise, the standard deviation.
    """

    def __init__(self, model: VisionTransformer, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.eval().requires_grad_(False)
        for layer in self.model.modules():
            if isinstance(layer, Linear):
                layer.weight.copy_(layer.quantized_weight())
                layer.weight_quantizer, layer.sparsity = None, (1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (batch, labels, classes) of uint8 images (batch, height, width, channels)."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        logits: Tensor = self.model((pixels - self.mean) / self.std)
        return logits


def onnx_graph(
    model: VisionTransformer, mean: Sequence[float], std: Sequence[float], facts: Mapping[str, str]
) -> bytes:
    """Returns an ONNX file: input ``image`` uint8 (batch, height, width, channels), output ``logits`` float32
    (batch, labels, classes), any batch.

    Args:
        model: a trained model, its scales set.
        mean: of each channel, of pixels scaled to 0..1; normalisation is part of the graph.
        std: likewise, the standard deviation.
        facts: written into the file's metadata.
    """
    height, width = model.spec.task.image
    example = torch.zeros(_EXPORT_BATCH, height, width, model.spec.task.channels, dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        pixel_model = PixelModel(model, mean, std)
        pixel_model(example)  # quantisers look at their scales on the first call; that must not be traced
        program = torch.onnx.export(
            pixel_model,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    proto: onnx.ModelProto = program.model_proto
    _strip(proto)
    _store_codes(proto, [_Weight.of(name, layer) for name, layer in _quantised(model)])
    proto.producer_name = "cosearch"
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def _stable_sort(x: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
    # TopK of all: "given two equivalent values, this operator uses the indices along the axis as a tiebreaker"
    from onnxscript import opset18 as op

    length = op.Shape(x, start=dim, end=dim + 1)
    return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's warnings and log lines out of the terminal."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _strip(proto: onnx.ModelProto) -> None:
    """Takes out what the exporter notes of each node: stack traces with paths of this machine."""
    graph = proto.graph
    for item in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.name = "cosearch"


def _quantised(model: VisionTransformer) -> Iterator[tuple[str, Linear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, Linear) and isinstance(layer.weight_quantizer, IntegerQuantizer):
            yield name, layer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weight:
    """Weights of one layer: ``value`` is codes times scale, all of shape (outputs, inputs); scale (outputs,)."""

    name: str
    codes: NDArray[np.generic]
    scale: NDArray[np.float32]
    value: NDArray[np.float32]

    @classmethod
    def of(cls, name: str, layer: Linear) -> _Weight:
        quantizer = layer.weight_quantizer
        assert isinstance(quantizer, IntegerQuantizer)
        codes = quantizer.codes(layer.kept_weight().detach()).numpy()
        scale = quantizer.scale.detach().clamp_min(SMALLEST_SCALE).numpy()
        width = np.int8 if quantizer.bits <= 8 else np.int16
        value = codes.astype(np.float32) * scale[:, None]
        return cls(name=name, codes=codes.astype(width), scale=scale, value=value)

    def codes_like(self, constant: NDArray[np.float32]) -> tuple[NDArray[np.generic], int] | None:
        """Returns codes in the shape of ``constant`` and the axis of their scales, if the constant is this weight."""
        if constant.size != self.value.size:
            return None
        if constant.shape[0] == len(self.scale) and np.array_equal(constant.reshape(self.value.shape), self.value):
            return self.codes.reshape(constant.shape), 0
        if np.array_equal(constant, self.value.T):
            return np.ascontiguousarray(self.codes.T), 1
        return None


def _store_codes(proto: onnx.ModelProto, weights: Sequence[_Weight]) -> None:
    """Replaces the constants that are quantised weights by codes, scales, a Cast and a Mul."""
    graph, left = proto.graph, list(weights)
    for constant in list(graph.initializer):
        if constant.data_type != onnx.TensorProto.FLOAT or len(constant.dims) < 2:
            continue
        array = onnx.numpy_helper.to_array(constant)
        for weight in left:
            found = weight.codes_like(array)
            if found is not None:
                _store(graph, constant, weight, *found)
                left.remove(weight)
                break
    if left:
        raise RuntimeError(f"the exported graph does not hold the weights of {', '.join(w.name for w in left)}")


def _store(
    graph: onnx.GraphProto, constant: onnx.TensorProto, weight: _Weight, codes: NDArray[np.generic], axis: int
) -> None:
    old, name = constant.name, f"{weight.name}.weight"
    graph.initializer.remove(constant)
    graph.initializer.append(onnx.numpy_helper.from_array(codes, f"{name}.codes"))
    shape = [1] * codes.ndim
    shape[axis] = len(weight.scale)
    graph.initializer.append(onnx.numpy_helper.from_array(weight.scale.reshape(shape), f"{name}.scale"))
    for node in graph.node:
        for position, read in enumerate(node.input):
            if read == old:
                node.input[position] = name
    cast = onnx.helper.make_node(
        "Cast", [f"{name}.codes"], [f"{name}.float"], name=f"{name}.cast", to=onnx.TensorProto.FLOAT
    )
    graph.node.insert(0, cast)
    graph.node.insert(
        1, onnx.helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name], name=f"{name}.scaled")
    )
    for value in list(graph.value_info):
        if value.name == old:
            graph.value_info.remove(value)
