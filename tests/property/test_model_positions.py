"""What the position embedding begins with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.model.positions import wave_positions

sides = st.integers(1, 16)


@settings(deadline=None)
@given(sides, sides, st.integers(1, 200))
def test_every_place_has_its_own_and_none_is_long(rows: int, columns: int, dim: int) -> None:
    found = wave_positions(rows, columns, dim)
    assert found.shape == (rows * columns, dim)
    assert found.abs().max() <= 2**0.5 + 1e-6
    if dim >= 4:
        apart = torch.cdist(found.double(), found.double()) + torch.eye(len(found))
        assert apart.min() > 0.05


@settings(deadline=None)
@given(sides, sides, st.integers(1, 100), st.integers(0, 100))
def test_a_narrow_one_is_the_beginning_of_a_wide_one(rows: int, columns: int, dim: int, more: int) -> None:
    wide = wave_positions(rows, columns, dim + more)
    torch.testing.assert_close(wide[:, :dim], wave_positions(rows, columns, dim), rtol=0, atol=0)


@pytest.mark.parametrize("side", [4, 8, 14])
@pytest.mark.parametrize("dim", [16, 64, 192])
def test_it_is_as_large_as_embedded_patches(side: int, dim: int) -> None:
    assert wave_positions(side, side, dim).square().mean().item() == pytest.approx(1.0, abs=1e-3)


def test_neighbours_are_alike_and_places_far_apart_are_not() -> None:
    found = torch.nn.functional.normalize(wave_positions(1, 8, 64), dim=1)
    alike = (found[:1] @ found.T)[0]
    assert alike[1] > alike[2] > alike[4]
    assert alike[2:].max() < alike[1], "with short waves alone places a wave apart would be alike"


def test_sides_are_told_apart() -> None:
    right, down = wave_positions(2, 2, 16)[[1, 2]]
    assert not torch.allclose(right, down)
