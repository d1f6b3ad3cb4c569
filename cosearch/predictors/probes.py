"""Zero-cost scores that look at an untrained model in torch; `cosearch.predictors.scores` has them by name.

A quantised model is scored as it is, calibrated, with straight-through gradients; `synflow` and `dss`, whose weights
are made positive, score its twin in floating point, which is what they are defined for. All give a logarithm where the
score spans orders of magnitude, which leaves ranks alone.

Single batches have `BATCH` images of the training split, drawn from the seed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cosearch.data import Task
from cosearch.model import Linear, VisionTransformer, build_model, calibrate
from cosearch.model.mlp import MLP
from cosearch.model.norms import ProgressiveBatchNorm
from cosearch.spec import ModelSpec
from cosearch.train.batches import Batches
from cosearch.train.loop import one_thread
from cosearch.train.twins import float_twin

__all__ = ["BATCH", "PROBES", "dss", "gradient_norm", "naswot", "synflow", "zico"]

BATCH = 64
"""Images of a batch."""

_TINY = 1e-12


def gradient_norm(spec: ModelSpec, task: Task, seed: int) -> float:
    """Returns log10 of the sum over layers of the norm of the loss's gradient.

    Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", https://arxiv.org/abs/2101.08134.
    """
    with one_thread():
        model, batches = _fresh(spec, task, seed, 1)
        grads = _gradients(model, *batches[0])
        return math.log10(sum(float(grad.norm()) for grad in grads) + _TINY)


def synflow(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001 - it sees no image
    """Returns log10 of the synaptic flow: the sum of |dR/dw w| over all weights, R the sum of outputs.

    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    https://arxiv.org/abs/2006.05467: weights by their magnitude, an image of ones. Normalisations, which
    would divide the flow out, are passed by; the softmax stays. A flow beyond double precision, as deep models with
    many tokens have, is taken for the largest number there is.
    """
    with one_thread():
        model = _positive(spec, seed)
        with _without_norms(model):
            _flow(model)
        flows = [float(_saliency(layer)) for layer in _layers(model)]
        total = sum(flows)
        return math.log10(total + _TINY if math.isfinite(total) else sys.float_info.max)


def dss(spec: ModelSpec, task: Task, seed: int) -> float:  # noqa: ARG001 - it sees no image
    """Returns log10 of the synaptic diversity of attention plus the synaptic saliency of MLPs.

    Zhou et al. 2022, "Training-free Transformer Architecture Search", CVPR, https://arxiv.org/abs/2203.12217:
    of each matrix around attention the nuclear norm of its gradient times that of its weights, of
    each MLP's the sum of gradient times weight. Weights by their magnitude and an image of ones, as for `synflow`;
    normalisation and softmax stay.
    """
    with one_thread():
        model = _positive(spec, seed)
        _flow(model)
        total = 0.0
        for block in model.blocks:
            of_mlps = {id(layer) for part in block.modules() if isinstance(part, MLP) for layer in _layers(part)}
            for layer in _layers(block):
                total += float(_saliency(layer) if id(layer) in of_mlps else _diversity(layer))
        return math.log10(total + _TINY)


def naswot(spec: ModelSpec, task: Task, seed: int) -> float:
    """Returns log |K|, K_ij the number of units whose sign agrees for images i and j.

    Mellor et al. 2021, "Neural Architecture Search without Training", https://arxiv.org/abs/2006.04647. A unit's code
    there is whether its rectifier passes; here it is the sign of what enters any GELU, rectifier or sigmoid, summed
    over tokens first so that codes do not depend on the number of tokens. One is added to K's diagonal, so that a model
    without such units has a score, 0.
    """
    with one_thread(), torch.no_grad():
        model, batches = _fresh(spec, task, seed, 1)
        with _PreActivations() as seen:
            model.eval()(batches[0][0])
        kernel = torch.eye(BATCH, dtype=torch.float64)
        for values in seen.found:
            code = (values > 0).double()
            kernel += code @ code.T + (1 - code) @ (1 - code).T
        return float(torch.linalg.slogdet(kernel).logabsdet)


def zico(spec: ModelSpec, task: Task, seed: int) -> float:
    """Returns the sum over layers of the log of the summed ratios of mean to deviation of gradients' magnitudes.

    Li et al. 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR,
    https://arxiv.org/abs/2301.11300, over two batches.
    """
    with one_thread():
        model, batches = _fresh(spec, task, seed, 2)
        each = [[grad.abs() for grad in _gradients(model, *batch)] for batch in batches]
        total = 0.0
        for grads in zip(*each, strict=True):
            both = torch.stack(grads)
            deviation, mean = both.std(0, correction=0), both.mean(0)
            moving = deviation > 0
            ratio = float((mean[moving] / deviation[moving]).sum())
            total += math.log(ratio) if ratio > 0 else 0.0
        return total


PROBES: Mapping[str, Callable[[ModelSpec, Task, int], float]] = MappingProxyType(
    {"gradient_norm": gradient_norm, "synflow": synflow, "dss": dss, "naswot": naswot, "zico": zico}
)
"""Every score of this module by name."""


def _fresh(spec: ModelSpec, task: Task, seed: int, count: int) -> tuple[VisionTransformer, list[tuple[Tensor, Tensor]]]:
    """Returns a calibrated model and ``count`` batches of images and labels."""
    generator, batches = torch.Generator().manual_seed(seed), Batches(task.train, task)
    model = build_model(spec, seed)
    drawn = [torch.randint(len(batches), (BATCH,), generator=generator) for _ in range(count)]
    found = [(batches.images(picked), batches.labels[picked]) for picked in drawn]
    calibrate(model, found[0][0])
    return model.train(), found


def _layers(module: nn.Module) -> list[Linear]:
    return [part for part in module.modules() if isinstance(part, Linear)]


def _gradients(model: VisionTransformer, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Returns the gradient of the loss on each linear layer's weights."""
    weights = [layer.weight for layer in _layers(model)]
    loss = F.cross_entropy(model(images).flatten(0, 1), labels.flatten())
    grads = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(w) if grad is None else grad for w, grad in zip(weights, grads, strict=True)]


def _saliency(layer: Linear) -> Tensor:
    weight = layer.weight
    if weight.grad is None:
        return torch.zeros(())
    return (weight.grad * weight.detach()).abs().sum()


def _diversity(layer: Linear) -> Tensor:
    weight = layer.weight
    if weight.grad is None:
        return torch.zeros(())
    of_gradient, of_weights = (torch.linalg.matrix_norm(m, "nuc") for m in (weight.grad, weight.detach()))
    product: Tensor = of_gradient * of_weights
    return product


def _positive(spec: ModelSpec, seed: int) -> VisionTransformer:
    """Returns the twin in floating point with all parameters by their magnitude, in double precision."""
    model = build_model(float_twin(spec), seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    return model


def _flow(model: VisionTransformer) -> None:
    """Leaves the gradients of the sum of all outputs for an image of ones."""
    task = model.spec.task
    model.eval().zero_grad()  # a batch of one image has no statistics to normalise by
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of the constants that a forward pass makes
    try:
        model(torch.ones(1, task.channels, *task.image)).sum().backward()
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _without_norms(model: nn.Module) -> Iterator[None]:
    """Passes normalisations by."""

    def passed(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor:  # noqa: ARG001 - torch's hook
        return inputs[0]

    norms = [part for part in model.modules() if isinstance(part, (nn.LayerNorm, ProgressiveBatchNorm))]
    hooks = [norm.register_forward_hook(passed) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


_NONLINEAR = frozenset({F.gelu, F.relu, Tensor.relu, torch.relu, Tensor.sigmoid, torch.sigmoid, F.sigmoid})


class _PreActivations(TorchFunctionMode):
    """Notes what enters each nonlinearity, summed over tokens, whatever module calls it.

    Attributes:
        found: shape (batch, units), in the order of calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _NONLINEAR:
            values = args[0]
            self.found.append(values.flatten(1, -2).sum(1) if values.dim() > 2 else values)
        return func(*args, **(kwargs or {}))
