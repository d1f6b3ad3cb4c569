"""What points mean: canonical form, decode, encode and size, against brute force on small random spaces."""

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosearch.errors import CosearchError, SpecError
from cosearch.hardware import TEMPLATES
from cosearch.space import build_space, load_space
from cosearch.space.side import Side
from cosearch.spec import TaskShape

TASKS = {
    "vit_digits_systolic": TaskShape(image=(16, 16), channels=1, classes=10, labels=2),
    "vit_cifar_systolic": TaskShape(image=(32, 32), channels=3, classes=10),
    "deit_tiny_edge": TaskShape(image=(224, 224), channels=3, classes=1000),
}
ARRAY = {
    "template": "systolic",
    "rows": 4,
    "cols": {"choice": [4, 8]},
    "dataflow": "ws",
    "ifmap_kib": 8,
    "filter_kib": 8,
    "ofmap_kib": 8,
    "dram_bytes_per_s": 1_000_000_000,
    "clock_hz": 100_000_000,
    "pe_bits": {"choice": [4, 8], "when": "accelerator.cols == 8", "otherwise": 8},
}


def subsets(values, least=1):
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique=True)


@st.composite
def models(draw, continuous=False):
    methods = draw(subsets(["none", "prune", "merge"]))
    stages = draw(st.integers(2, 3)) if methods != ["none"] else 1
    model = {
        "template": "vit",
        "patch": {"choice": draw(subsets([2, 3, 4, 6, 12]))},
        "dim": {"choice": draw(subsets([4, 6, 8]))},
        "depth": {"choice": draw(subsets([1, 2, 3]))},
        "heads": draw(st.sampled_from([1, 2, {"choice": [1, 2]}])),
        "mlp_ratio": {"choice": draw(subsets([1, 1.05, 1.5, 2]))},
        "token_method": methods[0] if methods == ["none"] else {"choice": methods},
        "stages": stages,
    }
    if stages > 1:
        keep = {"choice": draw(subsets([0.3, 0.5, 0.55, 0.9, 1.0], 2))} if not continuous else {"float": [0.3, 1.0]}
        shared, condition = draw(st.booleans()), draw(st.sampled_from(["", "!= 'none'", "== 'prune'"]))
        keep |= {} if shared else {"per": "stage"}
        keep |= {"when": f"model.token_method {condition}"} if condition else {}
        keep |= {"otherwise": draw(st.sampled_from([0.5, 1.0]))} if condition == "== 'prune'" else {}
        model["keep"] = keep
    if draw(st.booleans()):
        model["weight_bits"] = {"per": "block", "choice": [4, 8]}
    if draw(st.booleans()):
        model["edge_bits"] = {"choice": [4, 8], "otherwise": 8} | {
            "when": draw(st.sampled_from(["model.token_method == 'prune'", "model.depth > 1", "model.tokens > 9"]))
        }
    return model


def make(model, image=12, **more):
    data = {"cosearch": "space/1", "name": "small", "model": model, "accelerator": ARRAY, **more}
    return build_space(data, "small.yaml", TaskShape(image=(image, image), channels=1, classes=2), TEMPLATES)


def every_point(side: Side):
    domains = [parameter.domain.values() for parameter in side.parameters]
    assert math.prod(map(len, domains)) <= 100_000
    for values in itertools.product(*domains):
        yield {p.name: value for p, value in zip(side.parameters, values, strict=True)}


def frozen(point):
    return frozenset(point.items())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(models())
def test_points_and_candidates_agree_one_to_one(model):
    space = make(model)
    side = space.side("model")
    meaning, canonical_of = {}, {}
    for point in itertools.islice(every_point(side), 3000):
        canonical = side.canonical(point)
        assert side.canonical(canonical) == canonical
        assert canonical.items() <= {**point, **canonical}.items()
        try:
            spec = side.spec(point)
        except SpecError:
            assert side.violations(point)
            continue
        assert side.spec(canonical) == spec
        assert side.encode(spec) == canonical
        assert meaning.setdefault(frozen(canonical), spec) == spec
        assert canonical_of.setdefault(spec, canonical) == canonical


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(models())
def test_size_is_what_brute_force_counts(model):
    space = make(model)
    side = space.side("model")
    if math.prod(len(p.domain.values()) for p in side.parameters) > 6000:
        return
    assert side.size() == len({frozen(side.canonical(point)) for point in every_point(side)})
    assert space.side("accelerator").size() == 3
    assert space.size() == 3 * side.size()


@settings(max_examples=40, deadline=None)
@given(models(continuous=True), st.integers(0, 2**32))
def test_continuous_keep_ratios_mean_counts(model, seed):
    space = make(model)
    side, rng = space.side("model"), np.random.default_rng(seed)
    seen = {}
    for _ in range(100):
        point = {p.name: p.domain.sample(rng) for p in side.parameters}
        canonical = side.canonical(point)
        assert side.canonical(canonical) == canonical
        assert side.resolve(point).values["kept"] == side.resolve(canonical).values["kept"]
        if side.resolve(point).spec is not None:
            spec = side.spec(point)
            assert side.encode(spec) == canonical
            assert seen.setdefault(spec, canonical) == canonical


@pytest.mark.parametrize("condition", ["", "model.token_method != 'none'"])
@pytest.mark.parametrize("per", [{}, {"per": "stage"}])
def test_a_continuous_keep_ratio_is_counted_like_a_fine_grid(condition, per):
    def sized(step):
        keep = {"float": [0.3, 1.0], **per, **step} | ({"when": condition} if condition else {})
        fixed = {"template": "vit", "patch": {"choice": [3, 4]}, "dim": 4, "depth": {"int": [1, 4]}, "heads": 1}
        methods = {"choice": ["none", "prune", "merge"]}
        return make(fixed | {"mlp_ratio": 1, "token_method": methods, "stages": 3, "keep": keep}).side("model").size()

    assert sized({}) == sized({"step": 0.0001})


def test_a_continuous_mlp_ratio_is_counted_like_a_fine_grid():
    def sized(step):
        ratio = {"float": [0.6, 2.3], "per": "block", **step}
        fixed = {"template": "vit", "patch": 4, "depth": {"int": [1, 3]}, "heads": 1, "dim": {"choice": [5, 8]}}
        return make(fixed | {"mlp_ratio": ratio}).side("model").size()

    assert sized({}) == sized({"step": 0.001})


@pytest.mark.parametrize("otherwise", [4, 6])
def test_fields_that_hang_on_conditional_fields_are_counted(otherwise):
    model = {
        "template": "vit",
        "patch": 4,
        "depth": {"int": [1, 3]},
        "dim": {"choice": [4, 8], "when": "model.depth > 1", "otherwise": otherwise},
        "heads": 1,
        "mlp_ratio": {"choice": [1, 1.05, 2], "per": "block"},
        "edge_bits": {"choice": [4, 8], "when": f"model.dim == {otherwise}", "otherwise": 6},
        "overlap": {"choice": [0, 1], "when": "model.edge_bits == 6", "otherwise": 1},
    }
    side = make(model).side("model")
    assert side.size() == len({frozen(side.canonical(point)) for point in every_point(side)})


def test_size_is_infinite_where_a_value_is_continuous():
    fixed = {"template": "vit", "patch": 4, "dim": 4, "depth": 1, "heads": 1, "mlp_ratio": 1}
    space = make(fixed, accelerator=ARRAY | {"clock_hz": {"float": [1e8, 2e8]}})
    assert space.size() == math.inf
    assert space.side("model").size() == 1


@pytest.mark.parametrize("name", TASKS)
def test_shipped_spaces_keep_their_promises(name):
    space, rng = load_space(name, TASKS[name]), np.random.default_rng(7)
    for _ in range(60):
        point = space.sample(rng)
        assert space.violations(point) == ()
        assert space.canonical(point) == point
        candidate = space.decode(point)
        assert space.encode(candidate) == point
        assert (space.model(point), space.accelerator(point)) == (candidate.model, candidate.accelerator)
        assert space.join(point, space.side("accelerator").canonical(point)) == point
        assert space.from_unit(space.to_unit(point)).keys() == {p.name for p in space.parameters}
        assert space.canonical(space.from_unit(space.to_unit(point))) == point
        assert pickle.loads(pickle.dumps(space)).decode(point) == candidate


@settings(max_examples=25, deadline=None)
@given(models(), st.integers(0, 2**32))
def test_neighbours_are_valid_new_and_one_parameter_away(model, seed):
    try:
        space = make(model, constraints=["model.dim * accelerator.cols != 48"])
        point = space.sample(np.random.default_rng(seed))
    except CosearchError:  # some random domains allow nothing
        return
    neighbours = list(space.neighbours(point))
    assert neighbours == list(space.neighbours(point))
    assert len({frozen(p) for p in (point, *neighbours)}) == len(neighbours) + 1
    for there in neighbours:
        assert space.violations(there) == ()
        assert space.canonical(there) == there
        changed = {n for n in point.keys() & there.keys() if point[n] != there[n]}
        appeared = {n.partition("[")[0] for n in point.keys() ^ there.keys()}
        if changed & {"model.patch", "model.dim", "model.token_method", "model.depth"} or appeared:
            # a keep or MLP ratio may get another stand-in where token counts or widths changed
            changed -= {n for n in changed if n.startswith(("model.keep", "model.mlp_ratio"))}
            if changed & {"model.patch", "model.depth"}:  # nothing may be left to reduce
                changed -= {"model.token_method"}
            assert len(changed) <= 1
        else:
            keeps = {n for n in changed if n.startswith("model.keep")}  # one may give those after it another stand-in
            assert len(changed - keeps) + bool(keeps) == 1


@settings(max_examples=40, deadline=None)
@given(models(), st.integers(0, 2**32))
def test_unit_arrays_round_trip(model, seed):
    side = make(model).side("model")
    array = np.random.default_rng(seed).random(len(side.parameters))
    point = side.from_unit(array)
    assert point.keys() == {p.name for p in side.parameters}
    again = side.from_unit(side.to_unit(point))
    assert side.canonical(again) == side.canonical(point)
    unit = side.to_unit(point)
    assert ((unit >= 0) & (unit <= 1)).all()
    for parameter in side.parameters:
        if parameter.name not in side.resolve(point).read:
            assert point[parameter.name] == parameter.domain.values()[0]


def test_steps_from_a_model_that_reduces_nothing_reach_one_that_does():
    space = load_space("vit_digits_systolic", TASKS["vit_digits_systolic"])
    rng = np.random.default_rng(0)
    point = next(p for p in (space.sample(rng) for _ in range(500)) if p["model.token_method"] == "none")
    methods = [p["model.token_method"] for p in space.side("model").neighbours(point)]
    assert methods.count("prune") == methods.count("merge") == 2  # one for each stage that can reduce
    for there in space.side("model").neighbours(point):
        if there["model.token_method"] != "none":
            assert point in [space.join(back, point) for back in space.side("model").neighbours(there)]


def test_numpy_values_mean_the_same_as_plain_ones():
    space = load_space("vit_digits_systolic", TASKS["vit_digits_systolic"])
    point = space.sample(np.random.default_rng(3))
    wrapped = {name: np.array([value])[0] for name, value in point.items()}
    fresh = load_space("vit_digits_systolic", TASKS["vit_digits_systolic"])
    assert fresh.canonical(wrapped) == point
    assert {type(v) for v in fresh.canonical(wrapped).values()} <= {int, float, str}
    assert fresh.decode(wrapped).id == space.decode(point).id
