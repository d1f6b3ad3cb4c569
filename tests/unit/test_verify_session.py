"""Verification of a run: what it asks for, what it keeps, how it goes on; on a toy evaluator that takes no time."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient

from cosearch import session
from cosearch.errors import NotFoundError, StoreError, UserError
from cosearch.plugins import PluginRef
from cosearch.runfile import load_run_file
from cosearch.search import training_seed
from cosearch.session import Plan, Silent, Unheard
from cosearch.session.verify import _work
from cosearch.store import read_state
from cosearch.track.location import quiet

TOY = """
import hashlib
from cosearch.errors import EvaluationError
from cosearch.evaluator import Metric

class Toy:
    metrics = (Metric(name="accuracy", unit="", direction="max", description="toy", bounds=(0.0, 1.0)),)
    scope, cheap = "model", False
    def __init__(self, noise=0.05, fails=""):
        self.noise, self.fails = noise, fails
    def evaluate(self, candidate, context):
        if self.fails == "always" or (self.fails == "sometimes" and context.seed % 3 == 0):
            raise EvaluationError("diverged at step 3")
        draw = hashlib.sha256(f"{context.seed}/{candidate.model.id}".encode()).digest()[0] / 255 - 0.5
        return {"accuracy": 0.9 - 4 / candidate.model.dim + self.noise * draw}
"""
RUN = """
cosearch: run/1
name: toy
space: vit_digits_systolic
seed: 3
task: {name: digit-pairs, size: 16}
evaluators:
  quality: {use: "toy.py:Toy"}
  cost: {use: analytical}
objectives: [accuracy, latency_s, energy_j]
search: {sampler: random, trainings: 40, window: 4}
pool: {workers: 0}
mlflow: {enabled: false}
"""


def searched(folder, run=RUN):
    (folder / "toy.py").write_text(TOY)
    (folder / "run.yaml").write_text(run)
    return session.run(session.begin(load_run_file(folder / "run.yaml"), folder / "runs"), Silent()).folder


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def run(run_once, tmp_path):
    """A copy of one finished run."""
    shutil.copytree(run_once.parent.parent, tmp_path / "project")
    folder = tmp_path / "project" / "runs" / "toy"
    state = read_state(folder)
    state["origin"] = str(tmp_path / "project")
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def verify(run, listener=None, **plan):
    return session.verify(session.reopen(run), Plan(**plan), listener or Unheard())


def lines(run):
    path = run / "verify.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def models_of(run):
    return list(dict.fromkeys(m.candidate.model.id for m in session.read_front(run).members))


# --- what it does -----------------------------------------------------------------------------------------------------


def test_every_model_is_evaluated_with_as_many_seeds_none_of_them_the_searchs(run):
    found = verify(run, seeds=3)
    models = models_of(run)
    assert len(models) > 2
    assert [model.model_id for model in found.verification.models] == models
    assert len(lines(run)) == 3 * len(models) == found.trained
    assert len({line["seed"] for line in lines(run)}) == 3 * len(models)
    for model in found.verification.models:
        own = [line["metrics"]["accuracy"] for line in lines(run) if model.model_id in line["key"]]
        assert model.values["accuracy"] == tuple(own)
        assert model.search["accuracy"] not in own
        assert model.steps is None
    assert {member.id for member in found.verification.members} == {
        m.candidate.id for m in session.read_front(run).members
    }
    assert json.loads((run / "verified.json").read_text()) == json.loads(found.text)


def test_the_run_itself_stays_as_it_was(run):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    verify(run, seeds=2)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_nothing_is_trained_twice_and_seeds_can_be_added(run):
    first = verify(run, seeds=2)
    again = verify(run, seeds=2)
    assert (again.trained, again.reused, again.text) == (0, first.trained, first.text)
    more = verify(run, seeds=4)
    assert (more.trained, more.reused) == (first.trained, first.trained)
    keys = [line["key"] for line in lines(run)]
    assert len(keys) == len(set(keys))
    assert verify(run, seeds=2).text == first.text  # the first two seeds, whatever else is there


def test_one_model_or_a_few(run):
    models = models_of(run)
    knee = verify(run, seeds=2, models="knee").verification
    assert len(knee.models) == 1
    assert knee.front_size == len(session.read_front(run))
    few = verify(run, seeds=2, models="2").verification
    assert [model.model_id for model in few.models] == [models[0], models[-1]]
    assert len(verify(run, seeds=2, models="1").verification.models) == 1
    assert len(verify(run, seeds=2, models="999").verification.models) == len(models)


def test_steps_that_a_models_spec_asks_for_are_made_longer_too(tmp_path):
    """A spec may change the recipe (`cosearch.spec.ModelSpec.training`); its steps count, not the run's."""
    run = RUN.replace('"toy.py:Toy"', "trained, options: {recipe: {steps: 30, batch: 32}}")
    (tmp_path / "run.yaml").write_text(run)
    problem = session.begin(load_run_file(tmp_path / "run.yaml"), tmp_path).problem
    plain = problem.space.decode(problem.space.sample(np.random.default_rng(0)))
    own = dataclasses.replace(plain, model=dataclasses.replace(plain.model, training=(("lr", 0.01), ("steps", 50))))
    for plan, candidate, steps in [
        (Plan(), plain, 120),
        (Plan(longer=1.5), plain, 45),
        (Plan(steps=7), plain, 7),
        (Plan(), own, 200),
        (Plan(steps=7), own, 7),
    ]:
        work = _work(problem, "quality", problem.costly["quality"], candidate, plan)
        trains_by = work.evaluator.evaluator().recipe.overridden(work.candidate.model.training)
        assert (work.steps, trains_by.steps, trains_by.batch) == (steps, steps, 32)
        assert work.model_id == candidate.model.id
        assert dict(work.candidate.model.training).get("lr") == dict(candidate.model.training).get("lr")
        assert len(set(work.seeds.values())) == plan.seeds
        assert training_seed(problem.seed, candidate.model.id) not in work.seeds.values()


# --- going on ---------------------------------------------------------------------------------------------------------


class StopAfter:
    """The user's Ctrl-C once so many trainings are done."""

    def __init__(self, trainings):
        self.trainings = trainings

    def progress(self, done, total):
        if done >= self.trainings:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 4])
def test_what_was_trained_before_an_interruption_is_kept(run, tmp_path, stop):
    shutil.copytree(run, tmp_path / "project" / "runs" / "whole")
    whole = verify(tmp_path / "project" / "runs" / "whole", seeds=3)
    with pytest.raises(KeyboardInterrupt):
        verify(run, StopAfter(stop), seeds=3)
    kept = lines(run)
    assert len(kept) == stop
    assert not (run / "verified.json").exists()
    rest = verify(run, seeds=3)
    assert (rest.trained, rest.reused) == (whole.trained - stop, stop)
    assert lines(run)[:stop] == kept
    assert rest.text == whole.text


def test_a_torn_line_is_made_again(run):
    whole = verify(run, seeds=2)
    path = run / "verify.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = verify(run, seeds=2)
    assert (again.trained, again.text) == (1, whole.text)


def test_a_line_that_is_none_is_named(run):
    verify(run, seeds=2)
    path = run / "verify.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(StoreError, match=r"verify\.jsonl: line 1 is not JSON"):
        verify(run, seeds=2)
    path.write_text('{"a": 1}\n')
    with pytest.raises(StoreError, match=r"verify\.jsonl: line 1 is no training; remove it"):
        verify(run, seeds=2)


# --- what fails -------------------------------------------------------------------------------------------------------


def with_options(run, monkeypatch, **options):
    """Lets the run's evaluator be made with other options than in the search."""
    prepared = session.reopen(run)
    ref = prepared.problem.costly["quality"]
    changed = PluginRef(group=ref.group, use=ref.use, options=options, source=ref.source)
    prepared.problem.costly["quality"] = changed
    return prepared


def test_seeds_that_fail_are_told_and_not_counted(run, monkeypatch):
    found = session.verify(with_options(run, monkeypatch, fails="sometimes"), Plan(seeds=12), Unheard())
    failed = [reason for model in found.verification.models for reason in model.failed]
    assert failed
    assert set(failed) == {"diverged at step 3"}
    for model in found.verification.models:
        assert len(model.values["accuracy"]) + len(model.failed) == 12
        assert model.estimates["accuracy"].n == len(model.values["accuracy"])


def test_models_that_always_fail_have_no_verdict(run, monkeypatch):
    found = session.verify(with_options(run, monkeypatch, fails="always"), Plan(seeds=2), Unheard())
    assert {member.verdict for member in found.verification.members} == {"failed"}
    assert found.verification.tau == {"accuracy": None}
    json.loads(found.text)


def test_an_evaluator_without_noise_gives_intervals_without_width(run, monkeypatch):
    found = session.verify(with_options(run, monkeypatch, noise=0.0), Plan(seeds=2), Unheard())
    assert all(model.estimates["accuracy"].sd == 0 for model in found.verification.models)
    assert not found.verification.count("open")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"seeds": 1}, r"^--seeds is 1; an interval takes at least 2 trainings of a model$"),
        ({"seeds": 0}, r"^--seeds is 0; "),
        ({"steps": 0}, r"^--steps is 0; write at least 1$"),
        ({"longer": 0.0}, r"^--longer is 0; write a number above 0"),
        ({"longer": float("nan")}, r"^--longer is nan; "),
        ({"steps": 5, "longer": 2.0}, r"^--steps and --longer both say how long to train; give one"),
        ({"models": "best"}, r"^--models is 'best'; write 'all', 'knee', or how many"),
        ({"models": "0"}, r"^--models is '0'; "),
        ({"models": "-1"}, r"^--models is '-1'; "),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan, message):
    with pytest.raises(UserError, match=message):
        Plan(**plan)


@pytest.mark.parametrize("plan", [{"steps": 100}, {"longer": 2.0}])
def test_steps_of_an_evaluator_without_a_recipe_are_refused(run, plan):
    with pytest.raises(UserError, match=r"changes a recipe, which 'toy\.py:Toy' does not have; leave it out"):
        verify(run, **plan)
    assert not (run / "verify.jsonl").exists()


def test_a_run_without_a_front_says_how_to_get_one(run):
    (run / "front.json").unlink()
    with pytest.raises(StoreError, match=r"has no front\.json yet; .*cosearch run --resume toy"):
        verify(run)


def test_an_empty_front_says_so(run):
    data = json.loads((run / "front.json").read_text())
    (run / "front.json").write_text(json.dumps({**data, "members": []}))
    with pytest.raises(NotFoundError, match=r"^the front is empty, so there is nothing to verify; "):
        verify(run)


def test_a_run_that_trains_nothing_says_so(tmp_path):
    run = RUN.replace('quality: {use: "toy.py:Toy"}', "").replace("[accuracy, latency_s,", "[latency_s,")
    folder = searched(tmp_path, run.replace("trainings: 40", "trainings: 40, points: 8"))
    with pytest.raises(UserError, match=r"nothing in this run is trained, so there is nothing to verify; search with"):
        verify(folder)


def test_a_run_in_use_is_left_alone(run):
    from cosearch.store import Store

    store = Store.open(run)
    with pytest.raises(StoreError, match="in use by another cosearch"):
        verify(run, seeds=2)
    store.close()


# --- MLflow -----------------------------------------------------------------------------------------------------------


def test_the_searchs_page_in_mlflow_gets_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = searched(tmp_path, RUN.replace("mlflow: {enabled: false}", ""))
    found = verify(run, seeds=2)
    assert found.warnings == ()
    with quiet():
        client = MlflowClient(f"sqlite:///{(tmp_path / 'runs').resolve()}/mlflow.db")
        parent = client.get_run(read_state(run)["mlflow_run"])
        assert parent.info.status == "FINISHED"
        assert "verified.json" in {file.path for file in client.list_artifacts(parent.info.run_id)}
        metrics = parent.data.metrics
        own = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        children = client.search_runs([parent.info.experiment_id], own)
    assert metrics["verified_survives"] == found.verification.count("survives")
    assert metrics["verified_tau_accuracy"] == pytest.approx(found.verification.tau["accuracy"])
    means = {model.model_id: model.estimates["accuracy"].mean for model in found.verification.models}
    assert children
    for child in children:
        assert child.data.metrics["verified_accuracy"] == pytest.approx(means[child.data.tags["cosearch.model"]])
    (tmp_path / "runs" / "mlflow.db").unlink()
    (tmp_path / "runs" / "mlflow.db").mkdir()  # no database can be there
    again = verify(run, seeds=2)
    assert again.text == found.text
    assert len(again.warnings) == 1
    assert "verified.json holds everything" in again.warnings[0]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_every_point_and_loads_nothing(run):
    found = verify(run, seeds=2)
    page = (run / "verified.html").read_text()
    assert "Verified front of toy" in page
    for member in found.verification.members:
        assert f'data-id="{member.id}"' in page
    own = page[: page.index("plotly.js v")] + page[page.rindex("<script>") :]
    assert not re.search(r"https?:|//cdn|@import|url\(", own)
    drawn = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', page)
    assert [name for name, _ in drawn] == ["verified-latency_s", "verified-energy_j"]
    means = {model.model_id: model.estimates["accuracy"] for model in found.verification.models}
    for _, text in drawn:
        traces = [t for t in json.loads(text)["data"] if t["meta"].get("part") == "members"]
        seen = [ident for trace in traces for ident in trace.get("customdata", [])]
        assert sorted(seen) == sorted(member.id for member in found.verification.members)
        for trace in traces:
            for ident, y, up in zip(trace["customdata"], trace["y"], trace["error_y"]["array"], strict=True):
                own_model = next(m.model_id for m in found.verification.members if m.id == ident)
                assert y == pytest.approx(means[own_model].mean)
                assert y + up == pytest.approx(means[own_model].high)


def test_a_page_of_failures_alone_can_be_made(run, monkeypatch):
    session.verify(with_options(run, monkeypatch, fails="always"), Plan(seeds=2), Unheard())
    assert "failed" in (run / "verified.html").read_text()
