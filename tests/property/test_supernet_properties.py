"""Every model can be cut out of shared parameters, and is then an ordinary model."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.model import build_model
from cosearch.supernet import SharedWeights, places
from cosearch.testing.models import random_model
from cosearch.train import orthogonalise

SEEDS = st.integers(0, 10_000)


def images(spec, count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, spec.task.channels, *spec.task.image, generator=generator)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_every_parameter_has_a_place_of_its_own(seed):
    model = build_model(random_model(seed))
    found = places(model)
    parameters = dict(model.named_parameters())
    assert found.keys() == parameters.keys()
    assert len({place.bank for place in found.values()}) == len(found)
    for name, place in found.items():
        assert math.prod(place.view) == parameters[name].numel()


@given(st.lists(SEEDS, min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_any_models_in_any_order_are_cut_run_and_learn(seeds):
    weights = SharedWeights(0)
    for seed in seeds:
        spec = random_model(seed)
        subnet = weights.cut(spec)
        assert weights.known(spec) == 1.0
        logits = subnet.model.train()(images(spec))
        logits.square().sum().backward()
        weights.accumulate(subnet)
        for name, place in subnet.places.items():
            part = weights.values[place.bank][tuple(map(slice, place.view))]
            assert not part.isnan().any(), name
    for bank, gradient in weights.gradients.items():
        assert gradient.shape == weights.values[bank].shape


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_the_first_model_has_the_weights_that_it_would_have_alone(seed):
    spec = random_model(seed)
    cut, alone = SharedWeights(3).cut(spec).model, build_model(spec, 3)
    assert torch.equal(cut.eval()(images(spec)), alone.eval()(images(spec)))


@given(st.integers(1, 5), st.integers(1, 5), SEEDS)
@settings(max_examples=30, deadline=None)
def test_orthogonalising_a_part_is_orthogonalising_the_whole_with_zeros_around_it(rows, columns, seed):
    part = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    whole = torch.zeros(7, 6)
    whole[:rows, :columns] = part
    moved = orthogonalise(whole)
    torch.testing.assert_close(moved[:rows, :columns], orthogonalise(part), atol=2e-4, rtol=2e-4)
    moved[:rows, :columns] = 0
    assert moved.abs().max() < 1e-5
