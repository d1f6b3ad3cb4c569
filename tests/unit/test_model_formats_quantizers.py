"""Quantisers of every format: scales found and learned, gradients, state, export."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cosearch.errors import NotFoundError, SpecError
from cosearch.formats import NUMBER_FORMATS, number_format
from cosearch.model.formats import (
    CALIBRATIONS,
    CastQuantizer,
    IntegerQuantizer,
    MXQuantizer,
    Quantizer,
    ScaledQuantizer,
    calibrated_scale,
    quantizer,
)
from cosearch.model.formats.grids import grid_of, integer_grid
from cosearch.model.formats.scaled import fake_quantize_to

SCALED = ["int4", "uint5", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp4_e2m1", "ternary", "pow2_4"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NUMBER_FORMATS)
def test_every_format_has_a_quantiser(name: str) -> None:
    made = quantizer(name, channels=4)
    assert isinstance(made, Quantizer)
    assert made.format is number_format(name)
    kind = {"integer": IntegerQuantizer, "mx": MXQuantizer}.get(made.format.family, ScaledQuantizer)
    assert isinstance(made, CastQuantizer if name in ("fp32", "fp16", "bf16") else kind)
    x = normal(4, 70).abs()
    out = made(x).detach()
    assert out.shape == x.shape
    assert float((out - x).abs().mean()) < 0.5
    if hasattr(made, "scale"):
        assert isinstance(made.scale, nn.Parameter)
        assert made.scale.shape == (4,)
        assert not isinstance(quantizer(name, learned=False).scale, nn.Parameter)
    else:
        assert not list(made.parameters())


def test_more_bits_err_less() -> None:
    x = normal(64, 96)

    def error(name: str) -> float:
        with torch.no_grad():
            return float((quantizer(name)(x) - x).square().mean())

    for family in (
        [f"int{bits}" for bits in range(2, 17)],
        ["fp4_e2m1", "fp6_e2m3", "fp8_e4m3", "fp16", "fp32"],
        ["mxfp4", "mxfp6_e2m3", "mxint8"],
        ["pow2_2", "pow2_3"],
    ):
        errors = [error(name) for name in family]
        assert errors == sorted(errors, reverse=True), family
        assert len(set(errors)) == len(errors)


def test_wrong_requests_have_a_way_out() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'fp8_e4m3'"):
        quantizer("fp8_e4m4")
    with pytest.raises(SpecError, match="channels is 0; write at least 1"):
        quantizer("int8", channels=0)
    with pytest.raises(SpecError, match="calibration is 'absmean', which is for ternary formats; write 'mse'"):
        quantizer("int8", calibration="absmean")
    with pytest.raises(SpecError, match="calibration is 'entropy'; write one of mse, minmax"):
        quantizer("fp8_e4m3", calibration="entropy")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCALED)
def test_minmax_clips_nothing_and_no_smaller_scale_does(name: str) -> None:
    x = normal(3, 500).abs() if name == "uint5" else normal(3, 500)
    grid = grid_of(number_format(name))
    scale = calibrated_scale(x, grid, "minmax", channels=3).unsqueeze(1)
    top = (x.abs() / scale / grid.high).amax(1)
    if grid.power_scales:  # the largest magnitude is nearest to the scale: 3/4 to 3/2 of it
        assert bool(((top >= 0.75) & (top <= 1.5)).all())
    elif grid.low < 0:
        edge = torch.maximum(x.amax(1) / grid.high, x.amin(1) / grid.low)
        torch.testing.assert_close(scale.squeeze(1), edge)
    else:
        torch.testing.assert_close(top, torch.ones(3))


def test_a_percentile_ignores_an_outlier() -> None:
    x = normal(10_000)
    x[17] = 1000.0
    grid = integer_grid(-128, 127)
    widest, clipped = (calibrated_scale(x, grid, method) for method in ("minmax", "percentile"))
    assert float(widest) == pytest.approx(1000 / 127)
    assert 3.0 / 127 < float(clipped) < 4.5 / 127


@pytest.mark.parametrize("name", SCALED)
def test_the_least_squares_scale_errs_least(name: str) -> None:
    x = normal(2, 4000).abs() if name == "uint5" else normal(2, 4000)
    errors = {}
    for method in CALIBRATIONS:
        if method == "absmean" and name != "ternary":
            continue
        made = quantizer(name, channels=2, calibration=method)
        made.calibrate(x)
        with torch.no_grad():
            errors[method] = float((made(x) - x).square().mean())
    assert errors["mse"] == min(errors.values())
    if name == "int4":  # which clips a normal distribution at less than its largest of 4000
        assert errors["mse"] < 0.95 * errors["minmax"]


def test_integers_have_the_search_of_before() -> None:
    x = normal(5, 300)
    made = quantizer("int4", channels=5)
    made.calibrate(x)
    by_grid = calibrated_scale(x, integer_grid(-8, 7), "mse", channels=5)
    torch.testing.assert_close(made.scale.detach(), by_grid)


def test_ternary_scales_are_those_of_their_papers() -> None:
    x = normal(1, 16_384)
    made = quantizer("ternary", calibration="absmean")
    made.calibrate(x)
    assert float(made.scale.detach()) == pytest.approx(float(x.abs().mean()))  # BitNet b1.58
    best = quantizer("ternary")
    best.calibrate(x)
    # a normal distribution's best three levels: threshold 0.612, level 1.224 (Max 1960, table I, N = 3)
    assert float(best.scale.detach()) == pytest.approx(1.224, rel=0.04)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp4_e2m1", "ternary", "pow2_3"])
@pytest.mark.parametrize("channels", [1, 6])
def test_gradients_are_lsqs(name: str, channels: int) -> None:
    grid = grid_of(number_format(name))
    x = normal(6, 5, 4).requires_grad_()
    scale = (torch.full((channels,), 0.25) / (grid.high if name.startswith("fp") else 1)).requires_grad_()
    dy = normal(6, 5, 4, seed=1)
    fake_quantize_to(x, scale, grid).backward(dy)

    v = x.detach() / scale.detach().view(-1, 1, 1)
    inside = (v > grid.low) & (v < grid.high)
    assert 0 < int(inside.sum()) < v.numel()
    slope = torch.where(inside, grid.nearest(v) - v, grid.nearest(v))
    n = x.numel() / channels * grid.positive
    expected = (dy * slope).reshape(channels, -1).sum(1) / n**0.5
    assert x.grad is not None
    assert scale.grad is not None
    assert torch.equal(x.grad, dy * inside)
    torch.testing.assert_close(scale.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "bf16"])
def test_gradients_pass_straight_through_what_has_no_scale(name: str) -> None:
    x = normal(3, 40).requires_grad_()
    dy = normal(3, 40, seed=1)
    quantizer(name)(x).backward(dy)
    assert x.grad is not None
    assert torch.equal(x.grad, dy)


@pytest.mark.parametrize("name", ["int3", "fp4_e2m1", "ternary", "pow2_3"])
def test_a_learned_scale_finds_its_way(name: str) -> None:
    """Trained in the logarithm, as the loop does, a scale eight times too large learns most of its way back."""
    from cosearch.train.optim import ScaleAdam

    x = normal(2000)
    made = quantizer(name)
    made.calibrate(x)
    with torch.no_grad():
        best = float((made(x) - x).square().mean())
        made.scale.mul_(8)
        first = float((made(x) - x).square().mean())
    optimizer = ScaleAdam([made.scale])
    for _ in range(150):
        made.zero_grad()
        (made(x) - x).square().mean().backward()
        optimizer.step(0.03)
    with torch.no_grad():
        last = float((made(x) - x).square().mean())
    assert last - best < 0.1 * (first - best)


@pytest.mark.parametrize("name", ["fp8_e4m3", "ternary", "pow2_4"])
def test_the_first_tensor_sets_the_scale_and_state_is_kept(name: str) -> None:
    made, fresh = quantizer(name), quantizer(name)
    x = normal(50)
    made(x)
    first = made.scale.detach().clone()
    made(x * 64)
    assert torch.equal(made.scale, first)
    fresh.load_state_dict(made.state_dict())
    fresh(x * 64)
    assert torch.equal(fresh.scale, first)
    made.reset()
    made(x * 64)
    torch.testing.assert_close(made.scale.detach(), first * 64)


@pytest.mark.parametrize("name", ["fp8_e4m3", "ternary", "pow2_4", "int4", "mxfp4"])
@pytest.mark.parametrize("calibration", ["mse", "minmax", "percentile"])
def test_all_zero_samples_give_zeros(name: str, calibration: str) -> None:
    made = quantizer(name, calibration=calibration)  # type: ignore[arg-type]
    made.calibrate(torch.zeros(3, 8))
    assert torch.equal(made(torch.zeros(3, 8)), torch.zeros(3, 8))


class Everything(nn.Module):
    """Each format once: the input quantised, times weights quantised by channel."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.weight = nn.Parameter(normal(5, 40, seed=3))
        self.inputs = nn.ModuleList(quantizer(name) for name in names)
        self.weights = nn.ModuleList(quantizer(name, channels=5) for name in names)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.inputs, self.weights, strict=True)
        return tuple(nn.functional.linear(left(x), right(self.weight)) for left, right in pairs)


@pytest.mark.slow
def test_onnxruntime_gives_the_same(tmp_path: Path) -> None:
    names = ["int4", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp4_e2m1", "mxfp4", "mxfp8_e4m3", "mxint8"]
    names += ["ternary", "pow2_4", "bf16", "fp16"]
    model, x = Everything(names).eval(), normal(32, 40)
    with torch.no_grad():
        expected = model(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations are not ours
            program = torch.onnx.export(
                model, (x[:2],), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
    assert program is not None
    program.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for name, ours, theirs in zip(names, expected, got, strict=True):
        assert float((ours - torch.from_numpy(theirs)).abs().max()) < 1e-4, name
        assert float(ours.std()) > 0.1


def test_exporting_before_calibration_is_refused() -> None:
    with pytest.raises(Exception, match="run `calibrate` on some images"):
        torch.export.export(quantizer("fp8_e4m3"), (normal(4),))


@pytest.mark.parametrize("name", ["int8", "uint8", "int4", "fp8_e4m3", "pow2_4"])
@pytest.mark.parametrize("width", [8, 16, 20, 24, 32, 48, 64, 80, 96, 100, 128])
def test_a_scale_is_fitted_to_all_columns_of_a_large_tensor(name: str, width: int) -> None:
    """A part of the values is looked at; were it the same columns of every row, errors would be a thousandfold."""
    columns = 10.0 ** torch.linspace(-2, 1, width)[torch.randperm(width, generator=torch.Generator().manual_seed(1))]
    x = (normal(1 << 17) * columns.repeat((1 << 17) // width + 1)[: 1 << 17]).view(1, -1)
    x = x.abs() if name == "uint8" else x

    def error(seen: Tensor) -> float:
        made = quantizer(name)
        made.calibrate(seen)
        return float((made(x).detach() - x).square().mean())

    whole = quantizer(name)
    whole.scale.data.copy_(_exhaustive(whole, x))
    whole._ready = True
    assert error(x) < 5 * float((whole(x).detach() - x).square().mean())


def _exhaustive(made: Quantizer, x: Tensor) -> Tensor:
    """Returns the scale of the least squared error on every value, of those that calibration tries."""
    widest = float(x.abs().max()) / grid_of(made.format).high
    tried = [widest * 2.0**-k for k in range(8)] if made.format.family == "power_of_two" else []
    tried = tried or [widest * k / 48 for k in range(1, 49)]
    errors = []
    for scale in tried:
        made.scale.data.fill_(scale)
        made._ready = True
        errors.append(float((made(x).detach() - x).square().mean()))
    return torch.tensor([tried[errors.index(min(errors))]])
