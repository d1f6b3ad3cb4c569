"""What no workload can be made of is refused with its place and a way out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cosearch.errors import SpecError, UserError
from cosearch.imported import workload_of
from cosearch.workload import OperatorKind


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"spectrum": Spectrum()})
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner["spectrum"](x))


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).real


def test_unknown_operators_are_named_with_their_place():
    with pytest.raises(SpecError, match=r"aten\._fft_\w+\.default in inner\.spectrum.*unknown='free'"):
        workload_of(Unknown(), (torch.zeros(1, 8),))
    load = workload_of(Unknown(), (torch.zeros(1, 8),), unknown="free")
    (product,) = [op for op in load.operators if op.kind is OperatorKind.MATMUL]
    assert (product.m, product.k, product.n, product.count) == (1, 8, 2, 1)
    assert load.operators[0].inputs[0] == "x"


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x + 1


class Cond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))


class Count(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0] + 1.0


@pytest.mark.parametrize(
    ("module", "inputs", "text"),
    [
        (nn.Linear(4, 2), None, "example_inputs are missing"),
        (nn.Linear(4, 2), (), "example_inputs are missing"),
        (nn.Linear(4, 2), (torch.zeros(2, 4),), r"example_inputs\[0\] has shape \(2, 4\).*batch of 1"),
        (nn.Linear(4, 2), (torch.zeros(1, 4, dtype=torch.int64),), "dtype int64.*give floating point"),
        (nn.Linear(4, 2), (3.0,), "is a float, not a tensor"),
        (nn.Identity(), (torch.zeros(1, 4),), "Identity computes nothing"),
        (Branch(), (torch.zeros(1, 4),), "Branch cannot be exported.*depend on the values of the image"),
        (Cond(), (torch.zeros(1, 4),), "torch.cond.*control flow that depends on the values of the image"),
        (Count(), (torch.zeros(1, 4),), "depends? on the values of the image"),
        (nn.Linear(4, 2), (torch.zeros(1, 5),), "Linear cannot be exported"),
        (lambda x: x, (torch.zeros(1, 5),), "is a function, not a module"),
    ],
)
def test_what_is_no_static_model_of_one_image_is_refused(module, inputs, text):
    with pytest.raises(UserError, match=text):
        workload_of(module, inputs)


@pytest.mark.parametrize("field", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [1, 17, 0])
def test_widths_that_do_not_exist_are_refused(field, bits):
    with pytest.raises(SpecError, match=f"{field} is {bits}"):
        workload_of(nn.Linear(4, 2), (torch.zeros(1, 4),), **{field: bits})
