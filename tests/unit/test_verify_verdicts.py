"""What becomes of a front's points, on fronts made by hand."""

import itertools
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosearch.front import Front, Member, Objective
from cosearch.runfile import parse_limit
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, TaskShape
from cosearch.verification import ModelFigures, estimate, judge, verification_text

ACCURACY = Objective("accuracy", "max")
LATENCY, ENERGY = Objective("latency_s", "min", "s"), Objective("energy_j", "min", "J")
TASK = TaskShape(image=(8, 8), channels=1, classes=10)


def member(dim, accuracy, latency_s, rows=8, **metrics):
    model = ModelSpec(task=TASK, patch=4, dim=dim, blocks=(BlockSpec(heads=1, mlp_hidden=4),))
    candidate = Candidate(model=model, accelerator=AcceleratorSpec.of("toy", {"rows": rows}))
    return Member(candidate, {"accuracy": accuracy, "latency_s": latency_s, **metrics})


def figures(front, values):
    """Trainings by dim, as `ModelFigures` by model id."""
    out = {}
    for one in front.members:
        model, own = one.candidate.model, values.get(one.candidate.model.dim)
        if own is not None:
            out[model.id] = ModelFigures(
                model_id=model.id,
                steps=4,
                search={"accuracy": one.metrics["accuracy"]},
                values={"accuracy": tuple(own)},
                estimates={"accuracy": estimate(own)} if len(own) > 1 else {},
                test={},
                failed=() if len(own) > 1 else ("training diverged",),
            )
    return out


SMALL, LARGE = member(8, 0.8, 1.0), member(16, 0.9, 2.0)
FRONT = Front.of((ACCURACY, LATENCY), [SMALL, LARGE])


def judged(values, front=FRONT, limits=()):
    found = judge(front, figures(front, values), ["accuracy"], [parse_limit(text) for text in limits])
    return found, {dim_of(front, one.id): one for one in found.members}


def dim_of(front, ident):
    return next(m.candidate.model.dim for m in front.members if m.candidate.id == ident)


def test_points_far_apart_survive():
    found, of = judged({8: [0.80, 0.81, 0.79], 16: [0.90, 0.91, 0.92]})
    assert [one.verdict for one in found.members] == ["survives", "survives"]
    assert all(one.on_front and not one.dominated_by for one in found.members)
    assert of[8].falls == 0  # nothing is faster
    assert 0 < of[16].falls < 0.05
    assert found.tau == {"accuracy": 1.0}


def test_a_slower_model_that_is_no_better_after_all_falls():
    found, of = judged({8: [0.90, 0.91, 0.90], 16: [0.85, 0.84, 0.85]})
    assert (of[16].verdict, of[16].on_front) == ("falls", False)
    assert of[16].dominated_by == (SMALL.candidate.id,)
    assert [rival.id for rival in of[16].rivals] == [SMALL.candidate.id]
    assert of[16].rivals[0].probability == of[16].falls > 0.95
    assert of[8].verdict == "survives"
    assert found.tau == {"accuracy": -1.0}


def test_what_two_seeds_cannot_tell_apart_stays_open():
    for best in (0.86, 0.88):  # whichever side of the other mean it falls on
        _, of = judged({8: [0.85, 0.89], 16: [0.85, best + 0.02]})
        assert of[16].verdict == "open"
        assert 0.05 < of[16].falls < 0.95
        assert of[16].on_front == (best == 0.88)


def test_more_seeds_settle_what_few_leave_open():
    rng = np.random.default_rng(0)
    small, large = rng.normal(0.86, 0.01, 40).tolist(), rng.normal(0.84, 0.01, 40).tolist()
    few, many = (judged({8: small[:n], 16: large[:n]})[1][16] for n in (2, 40))
    assert (few.verdict, many.verdict) == ("open", "falls")


def test_pairs_of_one_model_never_dominate_each_other():
    fast, frugal = (
        member(16, 0.9, latency, rows, energy_j=energy) for latency, rows, energy in ((1.0, 8, 2.0), (2.0, 4, 1.0))
    )
    front = Front.of((ACCURACY, LATENCY, ENERGY), [fast, frugal])
    found = judge(front, figures(front, {16: [0.5, 0.9, 0.7]}), ["accuracy"])
    assert [one.falls for one in found.members] == [0.0, 0.0]
    assert len(found.models) == 1
    assert found.tau == {"accuracy": None}


def test_a_limit_that_the_mean_breaks_takes_a_point_off_and_disarms_it():
    """The small model is as good and faster, so it would dominate, were it allowed."""
    values = {8: [0.90, 0.90, 0.90], 16: [0.90, 0.90, 0.90]}
    assert judged(values)[1][16].verdict == "falls"
    found, of = judged({8: [0.80, 0.80, 0.80], 16: [0.79, 0.79, 0.79]}, limits=["accuracy >= 0.795"])
    assert of[16].broken == ("accuracy >= 0.795",)
    assert of[16].verdict == "falls"
    found, of = judged({8: [0.78, 0.78, 0.78], 16: [0.77, 0.77, 0.77]}, limits=["accuracy <= 0.775"])
    assert (of[8].broken, of[16].broken) == (("accuracy <= 0.775",), ())
    assert (of[16].verdict, of[16].dominated_by) == ("survives", ())
    assert found.count("falls") == 1


def test_equal_means_and_costs_dominate_neither():
    twin = member(16, 0.8, 1.0)
    front = Front((ACCURACY, LATENCY), (SMALL, twin))
    found = judge(front, figures(front, {8: [0.8, 0.8], 16: [0.8, 0.8]}), ["accuracy"])
    assert [one.verdict for one in found.members] == ["survives", "survives"]


def test_a_model_without_two_trainings_fails_and_dominates_nothing():
    found, of = judged({8: [0.99], 16: [0.8, 0.81]})
    assert of[8].verdict == "failed"
    assert of[16].verdict == "survives"
    assert found.models[-1].failed == ("training diverged",)


def test_models_that_were_not_verified_are_left_out():
    found, of = judged({16: [0.8, 0.81]})
    assert list(of) == [16]
    assert found.front_size == 2
    assert found.count("survives") == 1


def test_the_text_hangs_on_the_trainings_alone():
    values = {8: [0.85, 0.88, 0.86], 16: [0.86, 0.84, 0.87]}
    once = verification_text(judged(values)[0], {"seeds": 3})
    figures_again = dict(reversed(figures(FRONT, values).items()))
    assert verification_text(judge(FRONT, figures_again, ["accuracy"]), {"seeds": 3}) == once
    data = json.loads(once)
    assert (data["cosearch"], data["asked"], data["level"]) == ("verified/1", {"seeds": 3}, 0.95)
    assert {one["id"] for one in data["members"]} == {SMALL.candidate.id, LARGE.candidate.id}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=6, unique=True),
    st.lists(st.integers(1, 4), min_size=6, max_size=6),
)
def test_means_leave_on_the_front_what_brute_force_does(points, verified):
    members = [
        member(8 * (i + 1), accuracy / 8, latency, energy_j=energy)
        for i, (accuracy, latency, energy) in enumerate(points)
    ]
    front = Front.of((ACCURACY, LATENCY, ENERGY), members)
    values = {8 * (i + 1): [verified[i] / 8 - 0.01, verified[i] / 8 + 0.01] for i in range(len(points))}
    found, _ = judged(values, front)
    means = {m.candidate.id: round(values[m.candidate.model.dim][0] + 0.01, 9) for m in front.members}
    vectors = {
        m.candidate.id: (-means[m.candidate.id], m.metrics["latency_s"], m.metrics["energy_j"]) for m in front.members
    }
    for one in found.members:
        beaten = {
            other
            for other, vector in vectors.items()
            if vector != vectors[one.id] and all(a <= b for a, b in zip(vector, vectors[one.id], strict=True))
        }
        assert set(one.dominated_by) == beaten
        assert one.on_front == (not beaten)
        assert one.falls <= sum(rival.probability for rival in one.rivals) + 0.05 * len(members)


def test_rivals_come_in_order_of_their_chances():
    members = [member(8 * n, 0.5 + n / 10, float(n)) for n in (1, 2, 3, 4)]
    front = Front.of((ACCURACY, LATENCY), members)
    values = {8: [0.7, 0.72, 0.71], 16: [0.74, 0.70, 0.73], 24: [0.69, 0.73, 0.75], 32: [0.72, 0.70, 0.73]}
    _, of = judged(values, front)
    chances = [rival.probability for rival in of[32].rivals]
    assert len(chances) == 3
    assert all(a >= b for a, b in itertools.pairwise(chances))
    assert of[32].falls >= max(chances)
