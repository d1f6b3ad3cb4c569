"""L-Mul: a floating-point product whose mantissas are added, not multiplied.

Luo & Sun, "Addition is All You Need for Energy-efficient Language Models", 2024, https://arxiv.org/abs/2410.00907:
with x = (1 + xm) 2**xe and y likewise, both of m mantissa bits,

    L-Mul(x, y) = (1 + xm + ym + 2**-l(m)) 2**(xe + ye),  l(m) = m for m <= 3, 3 for m = 4, 4 for m > 4

in place of (1 + xm + ym + xm ym) 2**(xe + ye). Hardware adds the bit patterns as integers, less an offset, and a carry
out of the mantissas raises the exponent: where xm + ym + 2**-l(m) >= 1 the product is 2 (xm + ym + 2**-l(m))
2**(xe + ye), nearer to the true one than the equation. That is what is emulated here (secondary source for the
integer form: public kernels of the paper's method). Signs multiply; a product with zero is zero.

This is an emulation for small shapes, to see what the arithmetic costs in accuracy; it is slower than a product.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from cosearch.errors import SpecError

__all__ = ["lmul", "lmul_matmul", "lmul_offset"]

_MANTISSA = 23
_ONE = 127 << _MANTISSA
_LARGEST = 0x7F7FFFFF
_SMALLEST_NORMAL = 1 << _MANTISSA
_MAGNITUDE = 0x7FFFFFFF
_CHUNK = 1 << 22
"""Products that are formed at a time."""


def lmul_offset(mantissa_bits: int) -> int:
    """Returns l(m).

    Raises:
        SpecError: ``mantissa_bits`` is not 1 to 23.
    """
    if not 1 <= mantissa_bits <= _MANTISSA:
        raise SpecError("mantissa_bits", f"is {mantissa_bits}", f"write 1 to {_MANTISSA}, the most that fp32 has")
    return mantissa_bits if mantissa_bits <= 3 else 3 if mantissa_bits == 4 else 4


def lmul(x: Tensor, y: Tensor, mantissa_bits: int) -> Tensor:
    """Returns L-Mul of ``x`` and ``y``, which are broadcast, elementwise.

    Operands are rounded to ``mantissa_bits`` first (nearest, ties to even), with the exponent range of fp32. Operands
    and products below the smallest normal number become 0, products above the largest number become it; where an
    operand is no finite number, the result is that of an ordinary product.
    """
    offset = lmul_offset(mantissa_bits)
    return _product(_patterns(x, mantissa_bits), _patterns(y, mantissa_bits), offset, x, y)


def _patterns(x: Tensor, mantissa_bits: int) -> Tensor:
    """Returns bit patterns of ``x`` rounded, int64, the sign as the number's sign; 0 for zero and subnormals."""
    bits = x.detach().to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    magnitude = bits & _MAGNITUDE
    dropped = _MANTISSA - mantissa_bits
    if dropped:
        even = (magnitude >> dropped) & 1
        magnitude = (magnitude + ((1 << (dropped - 1)) - 1) + even) >> dropped << dropped
    magnitude = torch.where(magnitude < _SMALLEST_NORMAL, 0, magnitude.clamp_max(_LARGEST))
    return torch.where(bits < 0, -magnitude, magnitude)


def _product(a: Tensor, b: Tensor, offset: int, x: Tensor, y: Tensor) -> Tensor:
    magnitude = _magnitude(a, b, offset)
    result = magnitude.to(torch.int32).view(torch.float32) * (a.sign() * b.sign()).to(torch.float32)
    finite = torch.isfinite(x) & torch.isfinite(y)
    return torch.where(finite, result, x * y)


def _magnitude(a: Tensor, b: Tensor, offset: int) -> Tensor:
    total = a.abs() + b.abs() - _ONE + (1 << (_MANTISSA - offset))
    total = total.clamp_max(_LARGEST)
    return torch.where((total < _SMALLEST_NORMAL) | (a == 0) | (b == 0), 0, total)


def lmul_matmul(a: Tensor, b: Tensor, mantissa_bits: int) -> Tensor:
    """Returns the matrix product of ``a`` and ``b`` with every product by L-Mul, summed in single precision.

    Gradients are those of the ordinary product. Time and the number of emulated products grow with m k n.

    Args:
        a: finite values, shape (..., m, k).
        b: finite values, shape (..., k, n); leading dimensions are broadcast.
        mantissa_bits: m of the module's docstring.

    Raises:
        SpecError: the shapes do not fit, or a value is no finite number.
    """
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
        raise SpecError("b", f"is {tuple(b.shape)} behind {tuple(a.shape)}", "give matrices (m, k) and (k, n)")
    if not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
        raise SpecError("a and b", "hold infinities or NaN", "find where the model's values stop being numbers")
    return cast(Tensor, _MatMul.apply(a, b, mantissa_bits))  # type: ignore[no-untyped-call]


class _MatMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, mantissa_bits: int) -> Tensor:
        ctx.save_for_backward(a, b)
        offset = lmul_offset(mantissa_bits)
        left, right = _patterns(a, mantissa_bits), _patterns(b, mantissa_bits)
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
        rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
        left = left.expand(*lead, rows, inner).reshape(-1, rows, inner)
        right = right.expand(*lead, inner, columns).reshape(-1, inner, columns)
        out = a.new_zeros(left.shape[0], rows, columns)
        step = max(1, _CHUNK // max(1, rows * inner * columns))
        for start in range(0, left.shape[0], step):
            out[start : start + step] = _sums(left[start : start + step], right[start : start + step], offset)
        return out.view(*lead, rows, columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        da = (grads[0] @ b.transpose(-1, -2)).sum_to_size(a.shape)
        db = (a.transpose(-1, -2) @ grads[0]).sum_to_size(b.shape)
        return da, db, None


def _sums(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Returns shape (batch, m, n) from patterns of shape (batch, m, k) and (batch, k, n)."""
    batch, rows, inner = a.shape
    columns = b.shape[-1]
    total = torch.zeros(batch, rows, columns, device=a.device)
    step = max(1, _CHUNK // max(1, batch * rows * columns))
    for start in range(0, inner, step):
        x, y = a[:, :, start : start + step, None], b[:, None, start : start + step, :]
        products = _magnitude(x, y, offset).to(torch.int32).view(torch.float32)
        total += (products * (x.sign() * y.sign()).to(torch.float32)).sum(2)
    return total
