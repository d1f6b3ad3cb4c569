"""Surrogates: what they learn, where they refuse, what they keep, and the evaluator made of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from cosearch_evaluators.analytical import Analytical
from cosearch_evaluators.surrogate import Surrogated
from sklearn.ensemble import GradientBoostingRegressor

from cosearch.errors import EvaluationError, FileError, NotFoundError, UserError
from cosearch.evaluator import Context, Metric
from cosearch.runfile import load_run_file
from cosearch.session import Silent, begin, run
from cosearch.space import load_space
from cosearch.spec import AcceleratorSpec, Candidate, TaskShape, Violation
from cosearch.surrogate import Pairs, Surrogate, fit_surrogate, read_pairs
from cosearch.surrogate.features import Encoding, features
from cosearch.surrogate.regress import KernelShape, fit_kernel, fit_trees, nearest
from cosearch.testing import EvaluatorContract
from cosearch.workload import workload

SYNTHETIC = f"{__file__}:Slow"


class Slow:
    """A slow evaluator that is easy to learn: a product of powers."""

    metrics = (
        Metric(name="time_s", unit="s", direction="min", description="made up"),
        Metric(name="share", unit="", direction="max", description="made up", bounds=(0.0, 1.0)),
    )
    scope = "pair"
    cheap = False

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(self, candidate: Candidate, context: Context) -> Mapping[str, float]:
        self.calls += 1
        given = candidate.accelerator.as_dict()
        time_s = workload(candidate.model).macs / (float(given["rows"]) * float(given["cols"]) ** 0.8 * 1e9)
        return {"time_s": time_s, "share": 1.0}


def candidates(count: int, seed: int = 0) -> list[Candidate]:
    space = load_space("vit_digits_systolic", TaskShape(image=(16, 16), channels=1, classes=10, labels=2))
    rng = np.random.default_rng(seed)
    return [space.decode(space.sample(rng)) for _ in range(count)]


def scored(found: Sequence[Candidate], evaluator: Slow | Analytical) -> Pairs:
    values = [evaluator.evaluate(candidate, Context(seed=0)) for candidate in found]
    names = [metric.name for metric in evaluator.metrics]
    return Pairs(candidates=found, metrics={name: [row[name] for row in values] for name in names})


def altered(candidate: Candidate, **parameters: object) -> Candidate:
    given = candidate.accelerator.as_dict() | parameters
    return dataclasses.replace(candidate, accelerator=AcceleratorSpec.of("systolic", given))


@pytest.fixture(scope="module")
def learnt() -> Surrogate:
    return fit_surrogate(scored(candidates(150), Slow()))


def inside(surrogate: Surrogate, count: int) -> list[Candidate]:
    fresh = candidates(6 * count, seed=1)
    return [c for c, ok in zip(fresh, surrogate.predict(fresh).inside, strict=True) if ok][:count]


def test_it_learns_a_law_and_ranks_fresh_candidates(learnt):
    fresh = candidates(100, seed=1)
    said = learnt.predict(fresh)
    truth = np.array([Slow().evaluate(c, Context(seed=0))["time_s"] for c in fresh])[said.inside]
    error = np.abs(said.values["time_s"][said.inside] / truth - 1)
    assert said.inside.mean() > 0.8
    assert np.median(error) < 0.05
    covered = (said.low["time_s"][said.inside] <= truth) & (truth <= said.high["time_s"][said.inside])
    assert 0.75 <= covered.mean() <= 1.0


def test_its_report_says_what_fresh_candidates_confirm(learnt):
    report = learnt.report.metrics["time_s"]
    assert learnt.report.learnt == 150
    assert 20 <= learnt.report.held_out <= 40
    assert report.relative
    assert 0 < report.median <= report.q90 <= report.q95 <= report.worst < 1
    assert report.rho > 0.98
    assert "| time_s |" in learnt.report.text()


def test_a_metric_that_never_changes_is_learnt_as_such(learnt):
    said = learnt.predict(inside(learnt, 3))
    assert said.values["share"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert learnt.report.metrics["share"].worst < 1e-9


def test_a_systolic_teacher_is_ranked_from_two_hundred_pairs():
    found = candidates(200)
    surrogate = fit_surrogate(scored(found, Analytical()), metrics=("latency_s",))
    assert set(surrogate.targets) == {"latency_s"}
    fresh = inside(surrogate, 60)
    truth = scored(fresh, Analytical()).metrics["latency_s"]
    ranks = [np.argsort(np.argsort(values)) for values in (surrogate.predict(fresh).values["latency_s"], truth)]
    assert np.corrcoef(*ranks)[0, 1] > 0.85


def test_it_is_not_used_outside_its_range(learnt):
    known = inside(learnt, 1)[0]
    wrong = {
        "rows 256 > 64": altered(known, rows=256),
        "clock_hz 1e+07 < 1e+08": altered(known, clock_hz=10_000_000),
        "dataflow 'rs' is none of is, os, ws": altered(known, dataflow="rs"),
        "sparsity was never learnt": altered(known, sparsity=2),
        "rows is 'many', no number": altered(known, rows="many"),
    }
    said = learnt.predict([known, *wrong.values()])
    assert said.inside.tolist() == [True, *[False] * len(wrong)]
    assert said.why == ("", *wrong)
    assert np.isnan(said.values["time_s"][1:]).all()
    assert math.isfinite(said.values["time_s"][0])


def test_a_candidate_in_a_hole_of_the_range_is_outside(learnt):
    known = inside(learnt, 1)[0]
    close = dataclasses.replace(learnt, reach=float(nearest(learnt.rows[:1], learnt.rows)[0]) + 1e-9)
    said = close.predict([known])
    assert not said.inside[0]
    assert "from the nearest learnt pair" in said.why[0]


def test_the_same_seed_learns_the_same_and_one_is_the_batch_of_one(learnt):
    again = fit_surrogate(scored(candidates(150), Slow()))
    fresh = candidates(40, seed=1)
    together, other = learnt.predict(fresh), again.predict(fresh)
    for name, values in together.values.items():
        assert np.array_equal(values, other.values[name], equal_nan=True)
        alone = [learnt.predict([candidate]).values[name][0] for candidate in fresh]
        assert np.array_equal(values, alone, equal_nan=True)


def test_it_comes_back_from_its_file_bit_for_bit(learnt, tmp_path):
    path = tmp_path / "learnt.npz"
    learnt.save(path)
    back, fresh = Surrogate.load(path), candidates(20, seed=2)
    assert back.report == learnt.report
    assert back.encoding == learnt.encoding
    before, after = learnt.predict(fresh), back.predict(fresh)
    assert before.why == after.why
    for part in ("values", "low", "high"):
        for name, values in getattr(before, part).items():
            assert np.array_equal(values, getattr(after, part)[name], equal_nan=True)
    with np.load(path, allow_pickle=False) as file:  # nothing in it runs when it is read
        assert json.loads(file["about"].tobytes())["format"] == "cosearch surrogate/1"


@pytest.mark.parametrize("content", [b"", b"no surrogate", None])
def test_a_file_that_is_no_surrogate_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=r"broken\.npz.*cosearch surrogate fit"):
        Surrogate.load(path)


def test_too_few_pairs_and_unknown_metrics_are_refused():
    pairs = scored(candidates(19), Slow())
    with pytest.raises(UserError, match="19 pairs to learn from, fewer than 20"):
        fit_surrogate(pairs)
    with pytest.raises(UserError, match="19 pairs to learn from"):
        fit_surrogate(Pairs(candidates=[*pairs.candidates] * 2, metrics={"x": [1.0] * 38}))
    with pytest.raises(NotFoundError, match=r"no pair has 'time'; did you mean 'time_s'"):
        fit_surrogate(pairs, metrics=("time",))
    with pytest.raises(UserError, match="x has 1 values for 2 candidates"):
        Pairs(candidates=pairs.candidates[:2], metrics={"x": [1.0]})


def test_no_feature_of_a_model_depends_on_the_accelerator():
    one, other = candidates(2)
    swapped = Candidate(model=one.model, accelerator=other.accelerator)
    assert features(one, pair=False) == features(swapped, pair=False)
    assert features(one, pair=True) != features(swapped, pair=True)


def test_a_parameter_that_some_accelerators_lack_is_a_word():
    one, other = candidates(2)
    rows = [features(one, pair=True), features(altered(other, mode="fast"), pair=True)]
    encoding = Encoding.of(rows)
    assert dict(encoding.names)["accelerator.mode"] == ("fast", "left out")
    assert [encoding.outside(row) for row in rows] == ["", ""]
    assert np.isfinite(encoding.encode(rows)).all()


def test_trees_as_arrays_predict_what_scikit_learn_predicts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5))
    y = x[:, 0] * x[:, 1] + rng.normal(size=80)
    theirs = GradientBoostingRegressor(
        n_estimators=300, max_depth=4, learning_rate=0.08, subsample=0.7, max_features=0.4, random_state=3
    ).fit(x, y)
    fresh = rng.normal(size=(50, 5))
    np.testing.assert_allclose(fit_trees(x, y, 3).predict(fresh), theirs.predict(fresh), rtol=1e-10, atol=1e-12)


def test_a_kernel_without_noise_goes_through_what_it_learnt():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = np.sin(x[:, 0]) + x[:, 1]
    kernel = fit_kernel(x, y, np.ones(3), KernelShape(length=2.0, slope=0.1, noise=1e-9))
    np.testing.assert_allclose(kernel.predict(x), y, atol=1e-5)


@pytest.fixture(scope="module")
def file(learnt, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("learnt") / "surrogate.npz"
    learnt.save(path)
    return str(path)


class TestSurrogatedKeepsTheContract(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def _made(self, file: str, learnt: Surrogate) -> None:
        self.file, self.found = file, inside(learnt, 4)

    def make(self) -> Surrogated:
        return Surrogated(of={"use": SYNTHETIC}, run=self.file)

    def candidates(self) -> Sequence[Candidate]:
        return self.found


def test_the_evaluator_gives_the_metrics_of_the_one_it_stands_for(file, learnt):
    evaluator = Surrogated(of={"use": SYNTHETIC}, run=file)
    assert [(m.name, m.unit, m.direction, m.bounds) for m in evaluator.metrics] == [
        (m.name, m.unit, m.direction, m.bounds) for m in Slow.metrics
    ]
    assert "predicted, median error" in evaluator.metrics[0].description
    assert (evaluator.scope, evaluator.cheap) == ("pair", True)
    assert evaluator.evaluate(inside(learnt, 1)[0], Context(seed=0))["share"] <= 1.0


def test_outside_it_refuses_or_asks_the_slow_one(file, learnt):
    known = inside(learnt, 1)[0]
    beyond = altered(known, rows=256)
    refusing = Surrogated(of={"use": SYNTHETIC}, run=file)
    with pytest.raises(EvaluationError, match="outside its range: rows 256 > 64"):
        refusing.evaluate(beyond, Context(seed=0))
    with pytest.raises(EvaluationError, match="outside its range: rows 256 > 64"):
        refusing.evaluate_batch(known.model, [known.accelerator, beyond.accelerator])
    asking = Surrogated(of={"use": SYNTHETIC}, run=file, outside="evaluate")
    assert not asking.cheap
    assert asking.evaluate(beyond, Context(seed=0)) == Slow().evaluate(beyond, Context(seed=0))
    assert asking.evaluate(known, Context(seed=0)) != Slow().evaluate(known, Context(seed=0))


def test_a_batch_asks_a_slow_one_that_takes_batches_only_for_those_outside(tmp_path):
    surrogate = fit_surrogate(scored(candidates(40), Analytical()), metrics=("latency_s",))
    surrogate.save(tmp_path / "surrogate.npz")
    of = {"use": f"{__file__}:Timed", "options": {"technology": "horowitz_45nm"}}
    evaluator = Surrogated(of=of, run=str(tmp_path), outside="evaluate")
    assert evaluator.cheap
    known = next(c for c in candidates(40) if surrogate.predict([c]).inside[0])
    beyond = altered(known, rows=128, cols=1, ifmap_kib=64, filter_kib=64, ofmap_kib=64)
    batch = evaluator.evaluate_batch(known.model, [known.accelerator, beyond.accelerator])
    real = Analytical().evaluate_batch(known.model, [known.accelerator, beyond.accelerator])
    assert batch["latency_s"][1] == real["latency_s"][1]
    assert batch["latency_s"][0] != real["latency_s"][0]
    assert [violation.limit for violation in evaluator.violations(known)] == ["sram_bytes <= 1"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"outside": "ignore"}, "known: evaluate, refuse"),
        ({"of": {"options": {}}}, "name the evaluator as a run file does"),
        ({"of": {"use": "analytical"}}, "has not learnt 'latency_s'"),
        ({"run": "nowhere"}, "cosearch surrogate fit"),
        ({"of": {"use": f"{__file__}:Blind"}}, "looks at the accelerator"),
    ],
)
def test_bad_options_are_refused_with_a_way_out(file, options, text):
    with pytest.raises(UserError, match=text):
        Surrogated(**({"of": {"use": SYNTHETIC}, "run": file} | options))


class Blind(Slow):
    scope = "model"


class Timed(Analytical):
    metrics = Analytical.metrics[:1]

    def violations(self, candidate: Candidate) -> Sequence[Violation]:
        return (Violation(limit="sram_bytes <= 1", excess=1.0),)


RUN = """
cosearch: run/1
name: costed
space: vit_digits_systolic
seed: 5
task: {{name: digit-pairs, size: 16}}
evaluators:
  time: {{use: "{use}"}}
objectives: [time_s]
search: {{sampler: random, trainings: 40}}
pool: {{workers: 0}}
mlflow: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("run")
    (place / "run.yaml").write_text(RUN.format(use=SYNTHETIC), encoding="utf-8")
    return run(begin(load_run_file(place / "run.yaml"), place / "runs"), Silent()).folder


def test_a_run_teaches_what_its_costly_evaluator_gave(folder):
    pairs = read_pairs(folder)
    assert pairs.evaluator == "time"
    assert pairs.pair
    assert len(pairs.candidates) == 40
    for candidate, value in zip(pairs.candidates, pairs.metrics["time_s"], strict=True):
        assert value == Slow().evaluate(candidate, Context(seed=0))["time_s"]
    surrogate = fit_surrogate(folder, seed=1)
    surrogate.save(folder / "surrogate.npz")
    evaluator = Surrogated(of={"use": SYNTHETIC}, run=str(folder))
    assert {metric.name for metric in evaluator.metrics} == {"time_s", "share"}


def test_an_evaluator_that_the_run_does_not_have_is_named(folder):
    with pytest.raises(NotFoundError, match=r"no evaluator 'tine'; did you mean 'time'"):
        read_pairs(folder, "tine")


def test_a_search_records_why_the_surrogate_could_not_say(learnt, file, tmp_path):
    text = RUN.format(use="cosearch_evaluators.surrogate:Surrogated").replace(
        "time: {", f'time: {{options: {{of: {{use: "{SYNTHETIC}"}}, run: "{file}"}}, '
    )
    (tmp_path / "run.yaml").write_text(text.replace("trainings: 40", "trainings: 1, points: 200"), encoding="utf-8")
    summary = run(begin(load_run_file(tmp_path / "run.yaml"), tmp_path / "runs"), Silent())
    told = [json.loads(line) for line in (summary.folder / "search.jsonl").read_text(encoding="utf-8").splitlines()]
    failed = [result["reason"] for result in told if result["status"] == "failed"]
    assert len(told) == 200
    assert 0 < len(failed) < 60
    assert all("outside its range" in reason for reason in failed)


def test_models_alone_are_learnt_once_each_and_without_the_accelerator():
    space_candidates = candidates(30)
    twice = [*space_candidates, *(altered(c, rows=8) for c in space_candidates)]
    values = [float(workload(c.model).macs) for c in twice]
    surrogate = fit_surrogate(Pairs(candidates=twice, metrics={"macs": values}, pair=False))
    assert len(surrogate.rows) == len({c.model for c in twice})
    one, other = twice[0], altered(twice[0], rows=4096, of_another_template="x")
    said = surrogate.predict([one, other])
    assert said.inside.all()
    assert said.values["macs"][0] == said.values["macs"][1] == pytest.approx(values[0], rel=0.3)
