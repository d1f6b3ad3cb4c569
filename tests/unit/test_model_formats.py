"""Integer formats: every code, the gradients, the search for a scale."""

from __future__ import annotations

import pytest
import torch

from cosearch.errors import SpecError
from cosearch.model.formats import IntegerQuantizer, code_range, codes, fake_quantize, fit_scale

WIDTHS = [2, 3, 4, 5, 6, 7, 8, 16]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_code_is_hit_and_is_a_fixed_point(bits: int, signed: bool) -> None:
    low, high = code_range(bits, signed=signed)
    assert high - low + 1 == 2**bits
    expected = torch.arange(low, high + 1)
    scale = torch.tensor([0.037])
    values = expected * scale
    torch.testing.assert_close(codes(values, scale, bits, signed=signed), expected.int(), rtol=0, atol=0)
    torch.testing.assert_close(fake_quantize(values, scale, bits, signed=signed), values, rtol=0, atol=0)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_value_is_exactly_scale_times_code(bits: int, signed: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(40, 50, generator=generator) * 3
    low, high = code_range(bits, signed=signed)
    for scale in (torch.tensor([4.0 / high]), torch.rand(40, generator=generator) * 4 / high + 1e-4):
        got = codes(x, scale, bits, signed=signed)
        assert int(got.min()) >= low
        assert int(got.max()) <= high
        shaped = scale if scale.numel() == 1 else scale.view(-1, 1)
        for context in (torch.no_grad(), torch.enable_grad()):
            with context:
                assert torch.equal(fake_quantize(x, scale, bits, signed=signed), got * shaped)


def test_halves_round_to_even_and_values_out_of_range_are_clipped() -> None:
    x = torch.tensor([-9.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 9.0])
    assert codes(x, torch.ones(1), 3).tolist() == [-4, -2, -2, 0, 0, 2, 2, 3]
    assert codes(x, torch.ones(1), 3, signed=False).tolist() == [0, 0, 0, 0, 0, 2, 2, 7]


@pytest.mark.parametrize("bits", [1, 17, 32])
def test_a_width_without_codes_is_refused(bits: int) -> None:
    with pytest.raises(SpecError, match=f"bits is {bits}, but integers have 2 to 16 bits; write 2 to 16"):
        code_range(bits, signed=True)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("signed", [True, False])
def test_gradients_are_those_of_lsq(channels: int, signed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, 4, generator=generator, requires_grad=True)
    scale = (torch.rand(channels, generator=generator) * 0.3 + 0.1).requires_grad_()
    dy = torch.randn(6, 5, 4, generator=generator)
    low, high = code_range(3, signed=signed)
    fake_quantize(x, scale, 3, signed=signed).backward(dy)

    # equations 3 and 5 of LSQ, written out
    shaped = scale.detach().view(-1, 1, 1)
    v = x.detach() / shaped
    inside = (v > low) & (v < high)
    slope = torch.where(inside, v.round() - v, v.clamp(low, high))
    expected = (dy * slope).reshape(channels, -1).sum(1) / (x.numel() / channels * high) ** 0.5
    assert x.grad is not None
    assert scale.grad is not None
    assert torch.equal(x.grad, dy * inside)
    torch.testing.assert_close(scale.grad, expected)


def test_a_scale_that_stepped_below_zero_still_gives_finite_values() -> None:
    out = fake_quantize(torch.ones(3, requires_grad=True), torch.tensor([-0.1], requires_grad=True), 4)
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_fitted_scale_has_less_error_than_its_neighbours_and_than_no_clipping(bits: int) -> None:
    x = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [5.0], [20.0]])
    scale = fit_scale(x, bits, channels=4)

    def error(factor: float) -> torch.Tensor:
        return (fake_quantize(x, scale * factor, bits) - x).square().mean(1)

    for factor in (0.8, 1.25):
        assert bool((error(1.0) < error(factor)).all())
    widest = x.abs().amax(1) / code_range(bits)[1]
    assert bool((error(1.0) <= (fake_quantize(x, widest, bits) - x).square().mean(1)).all())


def test_the_first_tensor_sets_the_scale_and_later_ones_do_not() -> None:
    quantizer = IntegerQuantizer(4)
    x = torch.linspace(-1, 1, 101)
    quantizer(x)
    first = quantizer.scale.detach().clone()
    torch.testing.assert_close(first, fit_scale(x, 4))
    quantizer(x * 100)
    assert torch.equal(quantizer.scale, first)
    quantizer.reset()
    quantizer(x * 100)
    torch.testing.assert_close(quantizer.scale.detach(), first * 100)


def test_loaded_scales_are_kept() -> None:
    trained, fresh = IntegerQuantizer(4), IntegerQuantizer(4)
    trained(torch.linspace(-1, 1, 101))
    fresh.load_state_dict(trained.state_dict())
    fresh(torch.linspace(-9, 9, 101))
    assert torch.equal(fresh.scale, trained.scale)


def test_all_zero_input_gives_a_positive_scale() -> None:
    assert float(fit_scale(torch.zeros(10), 4)) > 0
