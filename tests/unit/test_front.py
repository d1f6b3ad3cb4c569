"""The front: dominance, hypervolume against closed forms and other implementations, picking, front.json."""

import itertools
import json
import math

import numpy as np
import pytest
from pymoo.indicators.hv import HV
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from cosearch.errors import NotFoundError, UserError
from cosearch.front import (
    Front,
    FrontBuilder,
    Member,
    Objective,
    Scale,
    front_from_json,
    front_text,
    front_to_json,
    hypervolume,
    non_dominated,
    pick,
)
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape

ACCURACY = Objective("accuracy", "max")
LATENCY = Objective("latency_s", "min", "s")
AREA = Objective("area_mm2", "min", "mm²")
TASK = TaskShape(image=(16, 16), channels=1, classes=10)


def candidate(number: int) -> Candidate:
    model = ModelSpec(task=TASK, patch=4, dim=8 * (number + 1), blocks=(BlockSpec(heads=2, mlp_hidden=16),))
    return Candidate(model=model, accelerator=AcceleratorSpec.of("systolic", {"rows": 8, "columns": 4}))


def member(number: int, **metrics: float) -> Member:
    return Member(candidate(number), metrics)


def two_objective_front() -> Front:
    values = [(0.6, 1e-6), (0.8, 1e-5), (0.9, 1e-3), (0.5, 1e-4), (0.8, 2e-5)]
    members = [member(i, accuracy=a, latency_s=t, area_mm2=1.0 + i) for i, (a, t) in enumerate(values)]
    return Front.of((ACCURACY, LATENCY), members)


# --- hypervolume ------------------------------------------------------------------------------------------------------


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """The volume of a union of boxes, each from a point to the reference."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * math.prod(np.maximum(reference - np.max(chosen, axis=0), 0.0))
    return total


def test_hypervolume_of_one_point_is_its_box():
    assert hypervolume([[1.0, 2.0, 4.0]], [3.0, 5.0, 6.0]) == pytest.approx(2 * 3 * 2)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_hypervolume_of_a_staircase(steps):
    # the points (i, n - i), i = 0..n, dominate n (n + 1) / 2 + n + ... unit squares below (n + 1, n + 1)
    points = [(i, steps - i) for i in range(steps + 1)]
    assert hypervolume(points, [steps + 1, steps + 1]) == pytest.approx((steps + 1) * (steps + 2) / 2)


def test_hypervolume_of_a_simplex_of_grid_points():
    # points with i + j + k = n below (n+1)^3: one unit cube for each (a, b, c) in 1..n+1 ... with a + b + c > n + 2 - 1
    n = 6
    points = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
    cubes = sum(a + b + c >= n for a, b, c in itertools.product(range(n + 1), repeat=3))
    assert hypervolume(points, [n + 1] * 3) == pytest.approx(cubes)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5])
def test_hypervolume_agrees_with_two_other_implementations(dimensions):
    rng = np.random.default_rng(dimensions)
    reference = np.full(dimensions, 1.05)
    for count in (1, 2, 9):
        points = rng.random((count, dimensions)) * 1.2  # some lie beyond the reference
        ours = hypervolume(points, reference)
        assert ours == pytest.approx(by_inclusion_and_exclusion(points, reference), rel=1e-9, abs=1e-12)
        inside = points[(points < reference).all(axis=1)]
        theirs = HV(ref_point=reference)(inside) if len(inside) else 0.0
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_hypervolume_of_nothing_is_zero():
    assert hypervolume(np.empty((0, 3)), [1, 1, 1]) == 0.0
    assert hypervolume([[2.0, 0.0]], [1, 1]) == 0.0
    assert hypervolume([[1.0, 0.0]], [1, 1]) == 0.0


# --- dominance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3, 4])
def test_non_dominated_agrees_with_pymoo(dimensions):
    rng = np.random.default_rng(dimensions)
    points = rng.integers(0, 12, (300, dimensions)).astype(float)
    points = np.unique(points, axis=0)
    ours = non_dominated(points, [f"{i:04d}" for i in range(len(points))])
    theirs = NonDominatedSorting().do(points, only_non_dominated_front=True)
    assert sorted(ours) == sorted(theirs.tolist())


def test_of_equal_vectors_the_smallest_id_stays():
    members = [member(i, accuracy=0.9, latency_s=1e-3) for i in range(6)]
    front = Front.of((ACCURACY, LATENCY), members)
    assert [m.candidate.id for m in front.members] == [min(m.candidate.id for m in members)]
    assert Front.of((ACCURACY, LATENCY), members[::-1]) == front


def test_members_are_ordered_by_objectives():
    front = two_objective_front()
    assert [m.metrics["accuracy"] for m in front.members] == [0.9, 0.8, 0.6]
    assert front.points().tolist() == [[-0.9, 1e-3], [-0.8, 1e-5], [-0.6, 1e-6]]


@pytest.mark.parametrize(("latency", "text"), [({}, "missing"), ({"latency_s": math.nan}, "nan")])
def test_a_member_without_a_finite_objective_is_refused(latency, text):
    with pytest.raises(UserError, match=f"candidate {candidate(0).id}: latency_s is {text}"):
        Front.of((ACCURACY, LATENCY), [member(0, accuracy=0.5, **latency)])


def test_a_direction_is_min_or_max():
    with pytest.raises(UserError, match="objective accuracy: direction is 'up'; write 'min' or 'max'"):
        Objective("accuracy", "up")
    assert ACCURACY.minimised(0.9) == -0.9
    assert LATENCY.minimised(0.9) == 0.9


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_costs_are_measured_in_decades_and_accuracy_linearly():
    scale = Scale.of_points((ACCURACY, LATENCY), [[-0.5, 1e-6]], {"accuracy": (1.0, 0.0), "latency_s": (1e-6, 1e-2)})
    assert scale.log == (False, True)
    assert scale.unit([[-0.75, 1e-4]]).tolist() == [[pytest.approx(0.25), pytest.approx(0.5)]]
    assert scale.hypervolume([[-0.75, 1e-4]]) == pytest.approx(0.75 * 0.5)
    assert scale.hypervolume([[-1.0, 1e-6]]) == pytest.approx(1.0)


def test_the_box_of_points_holds_them_all_with_a_margin():
    rng = np.random.default_rng(0)
    points = np.column_stack([-rng.random(50), 10 ** -rng.uniform(2, 6, 50)])
    unit = Scale.of_points((ACCURACY, LATENCY), points).unit(points)
    assert unit.min() == pytest.approx(0.0)
    assert unit.max() == pytest.approx(1 / 1.1)


def test_the_box_of_fronts_follows_from_the_union_alone():
    one, other = np.array([[-0.9, 1e-3], [-0.6, 1e-5]]), np.array([[-0.8, 1e-4], [-0.5, 1e-1]])
    scale = Scale.of_fronts((ACCURACY, LATENCY), one, other)
    assert scale == Scale.of_fronts((ACCURACY, LATENCY), other, one, np.empty((0, 2)))
    # (0.5, 1e-1) is dominated in the union, so it does not stretch the box
    assert scale.ideal == (-0.9, 1e-5)
    assert scale.reference == (pytest.approx(-0.57), pytest.approx(10**-2.8))


def test_a_box_without_extent_gets_a_decade_and_a_unit():
    scale = Scale.of_fronts((ACCURACY, LATENCY), [[-0.9, 1e-3]])
    assert scale.reference == (pytest.approx(0.1), pytest.approx(1e-2))
    assert scale.hypervolume([[-0.9, 1e-3]]) == pytest.approx(1.0)


def test_a_cost_of_zero_is_put_at_the_ideal():
    scale = Scale.of_points((LATENCY,), [[1e-3], [1e-1]])
    assert scale.unit([[0.0]]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"latncy_s": (0, 1)}, "bound 'latncy_s' is no objective; did you mean 'latency_s'"),
        (
            {"accuracy": (0.0, 1.0)},
            "bound accuracy: best 0.0 is not better than worst 1.0 where max is wanted",
        ),
    ],
)
def test_bad_bounds_are_refused(bounds, text):
    with pytest.raises(UserError, match=text):
        Scale.of_points((ACCURACY, LATENCY), [[-0.5, 1e-3]], bounds)


def test_a_box_around_nothing_is_refused():
    with pytest.raises(UserError, match="no point was scored"):
        Scale.of_fronts((ACCURACY, LATENCY), np.empty((0, 2)))


# --- growing ----------------------------------------------------------------------------------------------------------


def test_a_grown_front_equals_the_front_of_everything_and_its_hypervolume_never_falls():
    rng = np.random.default_rng(1)
    members = [
        member(i % 40, accuracy=float(rng.integers(50, 99)) / 100, latency_s=10 ** -float(rng.integers(20, 60) / 10))
        for i in range(300)
    ]
    builder, volumes = FrontBuilder((ACCURACY, LATENCY)), []
    for start in range(0, 300, 32):
        joined = builder.add(members[start : start + 32])
        assert 0 <= joined <= len(builder)
        volumes.append(builder.hypervolume)
    assert builder.front == Front.of((ACCURACY, LATENCY), members)
    assert np.array_equal(builder.points, builder.front.points())
    assert volumes == sorted(volumes)
    assert volumes[0] > 0


def test_an_empty_builder_has_no_volume():
    builder = FrontBuilder((ACCURACY, LATENCY), {"accuracy": (1.0, 0.0)})
    assert builder.hypervolume == 0.0
    assert builder.add([]) == 0
    assert builder.scale is None
    assert builder.front == Front((ACCURACY, LATENCY), ())


def test_a_builder_keeps_its_first_box():
    builder = FrontBuilder((ACCURACY, LATENCY), {"accuracy": (1.0, 0.0)})
    builder.add([member(0, accuracy=0.5, latency_s=1e-4), member(1, accuracy=0.4, latency_s=1e-5)])
    box = builder.scale
    builder.add([member(2, accuracy=0.9, latency_s=1e-7)])
    assert builder.scale == box
    assert box.ideal == (-1.0, 1e-5)
    assert builder.hypervolume > 0.9  # it passed the ideal in latency, and that counts


# --- picking ----------------------------------------------------------------------------------------------------------


def accuracy_of(rule: str) -> float:
    return pick(two_objective_front(), rule).metrics["accuracy"]


@pytest.mark.parametrize(
    ("rule", "accuracy"),
    [
        ("knee", 0.8),
        ("max accuracy", 0.9),
        ("min latency_s", 0.6),
        ("  min   latency_s where accuracy >= 0.7 ", 0.8),
        ("min latency_s where accuracy > 0.8", 0.9),
        ("max accuracy where latency_s <= 1e-5 and area_mm2 < 4", 0.8),
        ("max accuracy where latency_s<1e-5", 0.6),
        ("min area_mm2 where area_mm2 = 3", 0.9),
        ("knee where accuracy < 0.8", 0.6),
        ("max area_mm2", 0.9),
    ],
)
def test_rules(rule, accuracy):
    assert accuracy_of(rule) == accuracy


def test_an_id_or_its_beginning_picks_its_member():
    front = two_objective_front()
    for one in front.members:
        assert pick(front, one.candidate.id) is one
    ids = [m.candidate.id for m in front.members]
    assert len({i[:4] for i in ids}) == 3
    assert pick(front, ids[1][:4]) is front.members[1]


def test_an_ambiguous_beginning_names_the_members():
    members = [member(i, accuracy=0.5 + i / 100, latency_s=1e-6 * (i + 1)) for i in range(40)]
    front = Front.of((ACCURACY, LATENCY), members)
    letter = max("0123456789abcdef", key=lambda c: sum(m.candidate.id.startswith(c) for m in front.members))
    with pytest.raises(UserError, match=rf"'{letter}' begins the ids of \d+ members: .*; write more"):
        pick(front, letter)


@pytest.mark.parametrize(
    ("rule", "kind", "text"),
    [
        ("max acuracy", NotFoundError, "no metric 'acuracy' was measured; did you mean 'accuracy'"),
        (
            "min latency_s where accurcy > 0.5",
            NotFoundError,
            "no metric 'accurcy' was measured; did you mean 'accuracy'",
        ),
        ("000000000000", NotFoundError, "no member's id begins with '000000000000'; list the 3 members"),
        ("best", UserError, "pick rule 'best' cannot be read; write 'knee'"),
        ("min latency_s where accuracy", UserError, "condition 'accuracy' cannot be read; write it like"),
        ("min latency_s where accuracy > 1.2.3", UserError, "condition 'accuracy > 1.2.3' cannot be read"),
        ("min", UserError, "pick rule 'min' cannot be read"),
    ],
)
def test_rules_that_lead_nowhere(rule, kind, text):
    with pytest.raises(kind, match=text):
        pick(two_objective_front(), rule)


def test_when_none_qualifies_the_nearest_is_named():
    front = two_objective_front()
    near = front.members[0].candidate.id
    text = "none of the 3 members has accuracy >= 0.95 and area_mm2 < 4; the nearest is {} with accuracy 0.9, area_mm2"
    with pytest.raises(NotFoundError, match=text.format(near)):
        pick(front, "min latency_s where accuracy >= 0.95 and area_mm2 < 4")


def test_nothing_can_be_picked_from_an_empty_front():
    with pytest.raises(NotFoundError, match="the front is empty"):
        pick(Front((ACCURACY, LATENCY), ()), "knee")


def test_the_knee_of_a_bent_front_in_three_objectives():
    corner = [(0.9, 1e-2, 9.0), (0.5, 1e-6, 8.0), (0.6, 1e-2, 0.01), (0.85, 1e-5, 0.02)]
    members = [member(i, accuracy=a, latency_s=t, area_mm2=m) for i, (a, t, m) in enumerate(corner)]
    assert pick(Front.of((ACCURACY, LATENCY, AREA), members), "knee").metrics["accuracy"] == 0.85


def test_the_knee_lies_below_the_plane_through_the_extremes():
    # in the front's unit box the first three are the extremes; by the plane through them the fourth is the knee,
    # by the sum of objectives (the plane through the unit points) it would be the fifth
    places = [(0, 1, 0.1), (1, 0, 0.1), (0.6, 0.6, 0), (0.45, 0.5, 0.05), (0.2, 0.2, 0.55), (0.1, 0.15, 1)]
    members = [member(i, a=1.0 - x, b=1.0 - y, c=1.0 - z) for i, (x, y, z) in enumerate(places)]
    front = Front.of([Objective(name, "max") for name in "abc"], members)
    assert len(front) == 6
    assert pick(front, "knee").metrics == members[3].metrics


def test_the_knee_of_a_straight_front_is_its_first_member():
    members = [member(i, accuracy=0.5 + i / 10, latency_s=10.0 ** (i - 6)) for i in range(4)]
    front = Front.of((ACCURACY, LATENCY), members)
    assert pick(front, "knee") is front.members[0]
    assert pick(Front.of((ACCURACY, LATENCY), members[:1]), "knee").metrics["accuracy"] == 0.5


# --- front.json -------------------------------------------------------------------------------------------------------


def test_a_front_goes_to_json_and_back():
    front = two_objective_front()
    scale = Scale.of_fronts(front.objectives, front.points())
    text = front_text(front, hypervolume=0.5, scale=scale)
    data = json.loads(text)
    assert data["cosearch"] == "front/1"
    assert data["hypervolume"] == 0.5
    assert data["box"]["log"] == [False, True]
    assert data["members"][0]["id"] == front.members[0].candidate.id
    assert data["members"][0]["model_id"] == front.members[0].candidate.model.id
    assert data["objectives"][1] == {"metric": "latency_s", "direction": "min", "unit": "s"}
    again = front_from_json(data)
    assert again == front
    assert front_text(again, hypervolume=0.5, scale=scale) == text


def test_front_text_is_the_same_for_any_order():
    front = two_objective_front()
    turned = [Member(m.candidate, dict(reversed(m.metrics.items()))) for m in reversed(front.members)]
    assert front_text(Front.of(front.objectives, turned)) == front_text(front)
    assert "hypervolume" not in front_to_json(front)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cosearch": "front/2"}, "'cosearch' is 'front/2', not 'front/1'"),
        ({"members": [{"id": "x"}]}, "this front cannot be read"),
        ({"objectives": 3}, "this front cannot be read"),
    ],
)
def test_a_bad_front_file_is_refused(change, text):
    data = {**front_to_json(two_objective_front()), **change}
    with pytest.raises(UserError, match=text):
        front_from_json(data)
    with pytest.raises(UserError, match="this is no front"):
        front_from_json([])
