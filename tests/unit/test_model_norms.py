"""Normalisation that training changes, and what the head reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cosearch.model import build_model
from cosearch.model.norms import ProgressiveBatchNorm, make_norm
from cosearch.model.pooling import GroupGeneralisedMean, make_pool
from cosearch.spec import BlockSpec, ModelSpec, TaskShape


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(dim: int) -> ProgressiveBatchNorm:
    norm = ProgressiveBatchNorm(dim)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.5 * numbers(parameter.numel(), *parameter.shape))
        norm.mean.copy_(numbers(11, dim))
        norm.variance.copy_(0.5 + numbers(12, dim).abs())
    return norm


@pytest.mark.parametrize("training", [True, False])
def test_at_the_start_it_is_layernorm(training: bool) -> None:
    norm, x = shaken(6).train(training), 3 + 2 * numbers(0, 4, 5, 6)
    norm.progress(0.0)
    plain = nn.LayerNorm(6, eps=1e-6)
    plain.load_state_dict(norm.layer.state_dict())
    torch.testing.assert_close(norm(x), plain(x))


@pytest.mark.parametrize("done", [0.5, 1.0])
def test_in_the_end_it_is_one_scale_and_shift_a_channel_whatever_the_batch(done: float) -> None:
    norm, x = shaken(6).eval(), numbers(0, 4, 5, 6)
    norm.progress(done)
    scale = norm.weight / (norm.variance + 1e-6).sqrt() + norm.eta
    shift = norm.bias - norm.mean * norm.weight / (norm.variance + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), x * scale + shift, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(torch.cat((x, 100 * x)))[:4], norm(x))
    # affine: the middle of two inputs goes to the middle of their outputs, which LayerNorm does not
    torch.testing.assert_close(norm((x[0] + x[1]) / 2), (norm(x[0]) + norm(x[1])) / 2, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(norm.layer((x[0] + x[1]) / 2), (norm.layer(x[0]) + norm.layer(x[1])) / 2, atol=1e-2)


@pytest.mark.parametrize(("done", "gamma"), [(0.0, 1.0), (0.125, 0.75), (0.25, 0.5), (0.5, 0.0), (0.9, 0.0)])
def test_between_it_is_a_mixture(done: float, gamma: float) -> None:
    norm, x = shaken(6).train(), numbers(0, 4, 5, 6)
    norm.progress(done)
    assert float(norm.gamma) == pytest.approx(gamma)
    mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    batch = (x - mean) / (variance + 1e-6).sqrt() * norm.weight + norm.bias + norm.eta * x
    expected = gamma * norm.layer(x) + (1 - gamma) * batch
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)


def test_statistics_come_from_training_alone() -> None:
    norm = ProgressiveBatchNorm(3)
    norm.progress(0.0)
    for step in range(80):  # also while LayerNorm is all there is
        norm.train()(2 + 3 * numbers(step, 64, 4, 3))
    torch.testing.assert_close(norm.mean, torch.full((3,), 2.0), rtol=0, atol=0.3)
    torch.testing.assert_close(norm.variance, torch.full((3,), 9.0), rtol=0.2, atol=0)
    before = norm.mean.clone()
    norm.eval()(numbers(0, 8, 4, 3))
    assert torch.equal(norm.mean, before)


def test_loading_brings_how_far_a_training_was() -> None:
    norm, x = shaken(6).eval(), numbers(0, 2, 3, 6)
    norm.progress(0.6)
    other = ProgressiveBatchNorm(6).eval()
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(x), norm(x))


def test_a_model_tells_all_its_norms() -> None:
    block = BlockSpec(heads=1, mlp_hidden=4)
    task = TaskShape(image=(4, 4), channels=1, classes=2)
    model = build_model(ModelSpec(task=task, patch=2, dim=4, blocks=(block, block), norm="batchnorm"))
    model.progress(0.25)
    norms = [m for m in model.modules() if isinstance(m, ProgressiveBatchNorm)]
    assert len(norms) == 5
    assert {float(norm.gamma) for norm in norms} == {0.5}
    assert isinstance(make_norm("layernorm", 4), nn.LayerNorm)


@pytest.mark.parametrize("dim", [16, 6])
def test_generalised_mean_with_exponent_one_is_the_mean_of_clamped_values(dim: int) -> None:
    pool, x = GroupGeneralisedMean(dim), numbers(0, 3, 9, dim)
    with torch.no_grad():
        pool.exponent.fill_(1.0)
    torch.testing.assert_close(pool(x), x[:, 1:].clamp_min(1e-6).mean(1))


def test_generalised_mean_is_its_formula_in_each_group_and_goes_to_the_maximum() -> None:
    pool, x = GroupGeneralisedMean(16), numbers(0, 3, 9, 16)
    assert pool.exponent.shape == (2,)
    with torch.no_grad():
        pool.exponent.copy_(torch.tensor([2.0, 5.0]))
    out, positive = pool(x), x[:, 1:].clamp_min(1e-6)
    torch.testing.assert_close(out[:, :8], positive[..., :8].square().mean(1).sqrt())
    torch.testing.assert_close(out[:, 8:], (positive[..., 8:] ** 5).mean(1) ** 0.2)
    out.sum().backward()
    assert bool((pool.exponent.grad != 0).all())
    with torch.no_grad():
        pool.exponent.fill_(40.0)
    torch.testing.assert_close(pool(x.abs() + 0.5), (x[:, 1:].abs() + 0.5).amax(1), rtol=0.06, atol=0)


def test_other_pools() -> None:
    x = numbers(0, 3, 9, 8)
    assert torch.equal(make_pool("class", 8)(x), x[:, 0])
    torch.testing.assert_close(make_pool("mean", 8)(x), x[:, 1:].mean(1))
