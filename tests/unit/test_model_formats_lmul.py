"""L-Mul against its definition, in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from cosearch.errors import SpecError
from cosearch.model.formats import lmul, lmul_matmul, lmul_offset


def by_definition(x: float, y: float, m: int) -> Fraction:
    """The paper's product of two m-bit numbers, with the carry of an integer adder."""
    if x == 0 or y == 0:
        return Fraction(0)
    (fx, ex), (fy, ey) = math.frexp(abs(x)), math.frexp(abs(y))
    total = Fraction(fx) * 2 - 1 + Fraction(fy) * 2 - 1 + Fraction(1, 2 ** lmul_offset(m))
    exponent = ex - 1 + ey - 1
    carry = math.floor(total)
    mantissa = total - carry
    return (1 + mantissa) * Fraction(2) ** (exponent + carry) * (1 if (x > 0) == (y > 0) else -1)


def test_the_offset_is_the_papers() -> None:
    assert [lmul_offset(m) for m in (1, 2, 3, 4, 5, 10, 23)] == [1, 2, 3, 3, 4, 4, 4]
    with pytest.raises(SpecError, match="mantissa_bits is 0; write 1 to 23"):
        lmul_offset(0)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 7])
def test_every_pair_of_mantissas(m: int) -> None:
    mantissas = 1 + torch.arange(2**m) / 2**m
    x = torch.cat((mantissas * 2.0**-3, -mantissas * 2.0**5, torch.zeros(1)))
    got = lmul(x[:, None], x[None, :], m)
    for i, left in enumerate(x.tolist()):
        for j, right in enumerate(x.tolist()):
            assert Fraction(float(got[i, j])) == by_definition(left, right, m)


def test_operands_are_rounded_to_even() -> None:
    x = torch.tensor([1 + 1 / 16, 1 + 3 / 16, 1 + 1 / 16 + 1e-4, 1.999])
    rounded = torch.tensor([1.0, 1.25, 1.125, 2.0])
    one = torch.tensor(1.0)
    assert torch.equal(lmul(x, one, 3), lmul(rounded, one, 3))


def test_the_edges_of_the_range() -> None:
    tiny, huge, one = torch.tensor(2.0**-126), torch.tensor(3e38), torch.tensor(1.0)
    assert float(lmul(tiny, torch.tensor(0.25), 4)) == 0.0
    assert float(lmul(huge, huge, 4)) == torch.finfo(torch.float32).max
    assert float(lmul(-huge, huge, 4)) == torch.finfo(torch.float32).min
    assert float(lmul(torch.tensor(math.inf), -one, 4)) == -math.inf
    assert math.isnan(float(lmul(torch.tensor(math.nan), one, 4)))


def test_the_mean_error_is_small_and_less_than_without_the_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (1 + torch.rand(100_000, generator=generator) for _ in range(2))
    true = x * y
    error = (lmul(x, y, 7) - true) / true
    assert abs(float(error.mean())) < 0.03
    plain = ((x - 1) + (y - 1)).where(x + y < 3, (x - 1) + (y - 1))  # Mitchell's product, no offset
    plain = torch.where(plain < 1, 1 + plain, 2 * plain)
    assert abs(float(error.mean())) < abs(float(((plain - true) / true).mean()))


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (3, 4, 5)), ((1, 1), (1, 1))])
def test_a_matrix_product_is_the_sum_of_products(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for shape in shapes)
    got = lmul_matmul(a, b, 3)
    expected = lmul(a.unsqueeze(-1), b.unsqueeze(-3), 3).sum(-2)
    assert got.shape == torch.matmul(a, b).shape
    torch.testing.assert_close(got, expected)
    assert float((got - a @ b).abs().max()) > 0


def test_large_products_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(3, 6, 7), torch.randn(3, 7, 5)
    whole = lmul_matmul(a, b, 4)
    monkeypatch.setattr("cosearch.model.formats.addition._CHUNK", 40)
    torch.testing.assert_close(lmul_matmul(a, b, 4), whole)


def test_gradients_are_those_of_a_product() -> None:
    a, b = torch.randn(2, 3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    dy = torch.randn(2, 3, 5)
    lmul_matmul(a, b, 3).backward(dy)
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, dy @ b.detach().T)
    torch.testing.assert_close(b.grad, (a.detach().transpose(1, 2) @ dy).sum(0))


def test_bad_operands_are_refused() -> None:
    with pytest.raises(SpecError, match=r"b is \(3, 2\) behind \(2, 2\)"):
        lmul_matmul(torch.ones(2, 2), torch.ones(3, 2), 3)
    with pytest.raises(SpecError, match="hold infinities or NaN"):
        lmul_matmul(torch.tensor([[math.nan]]), torch.ones(1, 1), 3)
