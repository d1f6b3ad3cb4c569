"""Muon: orthogonal updates, the same whether matrices are taken together or alone."""

import pytest
import torch
from torch import nn

from cosearch.train import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 64)])
def test_singular_values_come_close_to_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.max() < 1.25
    assert values.median() > 0.65


def test_singular_vectors_stay():
    matrix = torch.randn(8, 12, generator=torch.Generator().manual_seed(2))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalise(matrix) @ vh.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-4


def test_a_gradient_of_zero_moves_nothing():
    assert not orthogonalise(torch.zeros(2, 4, 4)).any()


def moved(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    muon = Muon(parameters, 0.9)
    for _ in range(3):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        muon.step(0.1)
    return [parameter.detach() for parameter in parameters]


def test_matrices_of_one_shape_move_as_they_would_alone():
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(shape, generator=generator) for shape in [(8, 4), (8, 4), (4, 8), (8, 4)]]
    for together, gradient in zip(moved(gradients), gradients, strict=True):
        torch.testing.assert_close(together, moved([gradient])[0])


def test_steps_go_downhill_and_tall_matrices_go_further():
    gradient = torch.randn(16, 4, generator=torch.Generator().manual_seed(4))
    tall, wide = moved([gradient])[0], moved([gradient.T.contiguous()])[0]
    assert (tall * gradient).sum() < 0
    torch.testing.assert_close(tall, 2 * wide.T)
