"""Learned rounding: never worse than rounding to the nearest, at most one code from it, the same each time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from cosearch.errors import SpecError
from cosearch.model import Linear
from cosearch.model.formats import adaround, quantizer


def problem(outputs: int = 6, inputs: int = 24, rows: int = 200) -> tuple[nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator))
        layer.bias.copy_(torch.randn(outputs, generator=generator))
    # correlated inputs: errors of weights can cancel
    mix = torch.randn(5, inputs, generator=generator)
    x = torch.randn(rows, 5, generator=generator) @ mix + 0.3 * torch.randn(rows, inputs, generator=generator)
    return layer, x


@pytest.mark.parametrize("name", ["int2", "int3", "int4", "int8", "ternary"])
def test_outputs_err_less_and_codes_move_by_at_most_one(name: str) -> None:
    layer, x = problem()
    before = layer.weight.detach().clone()
    found = adaround(layer, x, name, steps=300)
    assert torch.equal(layer.weight, before)
    scales = quantizer(name, channels=6)
    scales.calibrate(layer.weight)
    nearest = scales.codes(layer.weight)
    assert int((found.codes - nearest).abs().max()) == 1
    assert torch.equal(found.weight, found.quantizer(found.weight).detach())
    assert torch.equal(found.quantizer.codes(found.weight), found.codes)

    def error(weight: Tensor) -> float:
        return float(((weight - before) @ x.T).square().sum(0).mean())

    assert found.nearest_error == pytest.approx(error(scales.decode(nearest)), rel=1e-3)
    assert found.error == pytest.approx(error(found.weight), rel=1e-3)
    assert found.error < 0.8 * found.nearest_error


def test_it_comes_near_the_best_of_all_roundings() -> None:
    layer, x = problem(outputs=2, inputs=8)
    found = adaround(layer, x, "int3", steps=1000)
    step = found.quantizer.decode(torch.ones(2, 8, dtype=torch.int32))
    floor = (layer.weight.detach() / step).floor()
    gram = x.T @ x / len(x)
    best = 0.0
    for row in range(2):
        ups = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)))
        weights = (floor[row] + ups).clamp(-4, 3) * step[row]
        delta = weights - layer.weight[row].detach()
        best += float(((delta @ gram) * delta).sum(1).min())
    assert best <= found.error * 1.0001
    assert found.error - best < 0.25 * (found.nearest_error - best)


def test_the_same_arguments_give_the_same_weights_whatever_the_seed() -> None:
    layer, x = problem()
    torch.manual_seed(1)
    first = adaround(layer, x, "int3", steps=50)
    torch.manual_seed(2)
    assert torch.equal(adaround(layer, x, "int3", steps=50).codes, first.codes)
    with torch.no_grad():
        assert torch.equal(adaround(layer, x, "int3", steps=50).codes, first.codes)


def test_no_steps_is_rounding_to_the_nearest() -> None:
    layer, x = problem()
    found = adaround(layer, x, "int4", steps=0)
    assert found.error == pytest.approx(found.nearest_error)


def test_targets_make_up_for_errors_of_the_inputs() -> None:
    layer, x = problem()
    coarse = quantizer("int3")(x).detach()
    with torch.no_grad():
        wanted = layer(x)
    found = adaround(layer, coarse, "int4", steps=300, targets=wanted)
    plain = adaround(layer, coarse, "int4", steps=300)

    def error(weight: Tensor) -> float:
        with torch.no_grad():
            return float((nn.functional.linear(coarse, weight, layer.bias) - wanted).square().sum(1).mean())

    assert found.error == pytest.approx(error(found.weight), rel=1e-3)
    assert error(found.weight) < error(plain.weight)


def test_it_takes_the_models_own_layers_and_their_scales() -> None:
    layer = Linear(16, 8, rows=4, formats=("int3", "int8"))
    x = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    layer(x)
    assert layer.weight_quantizer is not None
    found = adaround(layer, x, "int3", steps=50, scales=layer.weight_quantizer)
    assert found.quantizer is layer.weight_quantizer
    layer.weight.data.copy_(found.weight)
    assert torch.equal(layer.weight_quantizer.codes(layer.weight), found.codes)


def test_what_does_not_fit_is_refused() -> None:
    layer, x = problem()
    with pytest.raises(SpecError, match="format is fp8_e4m3; learn the rounding of an integer or ternary format"):
        adaround(layer, x, "fp8_e4m3")
    with pytest.raises(SpecError, match="inputs are 23 wide, but the layer takes 24"):
        adaround(layer, x[:, 1:], "int4")
    with pytest.raises(SpecError, match=r"targets are \(199, 6\); give one row for each input, 6 wide"):
        adaround(layer, x, "int4", targets=torch.zeros(199, 6))
    with pytest.raises(SpecError, match="layer has no weight"):
        adaround(nn.ReLU(), x, "int4")
    with pytest.raises(SpecError, match="scales are of int8, not int4"):
        adaround(layer, x, "int4", scales=quantizer("int8"))
