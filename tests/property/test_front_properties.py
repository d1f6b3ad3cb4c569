"""What holds for every front."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosearch.front import Objective, Scale, hypervolume, non_dominated

VALUES = st.one_of(st.integers(0, 5).map(float), st.floats(0.0, 5.0, allow_nan=False, width=32))


def clouds(dimensions: int, most: int = 25):
    return st.integers(1, most).flatmap(lambda n: arrays(np.float64, (n, dimensions), elements=VALUES))


def names(count: int) -> list[str]:
    return [f"{i:04d}" for i in range(count)]


def dominates(a, b) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(st.integers(1, 4).flatmap(clouds))
def test_the_front_is_what_no_point_dominates(points):
    kept = non_dominated(points, names(len(points)))
    for i, point in enumerate(points):
        beaten = any(dominates(other, point) for other in points)
        twin_before = any((points[j] == point).all() for j in range(i))
        assert (i in kept) == (not beaten and not twin_before)


@given(clouds(3), st.randoms(use_true_random=False))
def test_order_does_not_matter(points, random):
    ids = names(len(points))
    turn = list(range(len(points)))
    random.shuffle(turn)
    first = [ids[i] for i in non_dominated(points, ids)]
    shuffled = [ids[turn[i]] for i in non_dominated(points[turn], [ids[i] for i in turn])]
    assert first == shuffled


@given(clouds(3), st.integers(0, 24), arrays(np.float64, 3, elements=st.floats(0.0, 2.0)))
def test_a_dominated_point_changes_nothing(points, which, worse):
    point = points[which % len(points)] + worse
    if not worse.any():
        return
    more = np.vstack([points, point])
    kept = non_dominated(points, names(len(points)))
    if dominates(points[which % len(points)], point):
        assert non_dominated(more, names(len(more))) == kept
    assert hypervolume(more, [6.0] * 3) == pytest.approx(hypervolume(points, [6.0] * 3), rel=1e-12)


@given(clouds(3), arrays(np.float64, 3, elements=VALUES))
def test_hypervolume_never_falls_and_rises_with_a_new_member(points, extra):
    reference = [6.0] * 3
    before = hypervolume(points, reference)
    after = hypervolume(np.vstack([points, extra]), reference)
    assert after >= before * (1 - 1e-12)
    covered = any((other <= extra).all() for other in points)
    if covered:
        assert after == pytest.approx(before, rel=1e-12)


@given(clouds(2, 40))
def test_hypervolume_in_the_plane_is_the_area_under_the_stairs(points):
    area, height = 0.0, 6.0
    for x, y in sorted(map(tuple, points)):
        if y < height:
            area += (6.0 - x) * (height - y)
            height = y
    assert hypervolume(points, [6.0, 6.0]) == pytest.approx(area, rel=1e-9)


@settings(max_examples=50)
@given(clouds(2, 12), clouds(2, 12), st.floats(1e-9, 1e3))
def test_a_common_box_does_not_depend_on_units_or_order(one, other, unit):
    """Costs may be in seconds or microseconds: on a logarithm, the box and what is measured in it stay the same."""
    objectives = (Objective("accuracy", "max"), Objective("latency_s", "min"))
    one, other = (np.column_stack([-p[:, 0], p[:, 1] + 0.1]) for p in (one, other))
    scale = Scale.of_fronts(objectives, one, other)
    factor = np.array([1.0, unit])
    scaled = Scale.of_fronts(objectives, other * factor, one * factor)
    volume = scale.hypervolume(one)
    assert 0.0 <= volume <= 1.0 + 1e-9
    assert scaled.hypervolume(one * factor) == pytest.approx(volume, rel=1e-6, abs=1e-9)
    assert scale.hypervolume(np.vstack([one, other])) >= max(volume, scale.hypervolume(other)) - 1e-12
