"""The evaluator that predicts, and the sampler that predicts on real spaces."""

import numpy as np
import pytest
from cosearch_evaluators.predicted import Predicted

from cosearch.errors import EvaluationError, NotFoundError, UserError
from cosearch.evaluator import Context
from cosearch.predictors import GaussianProcess, encode_models, make_predictor, names, save_predictor
from cosearch.samplers.predicted import PredictedSampler
from cosearch.samplers.split import INNER, SplitSampler
from cosearch.spec import AcceleratorSpec, BlockSpec, Candidate, ModelSpec, Result, Status, TaskShape
from cosearch.testing import EvaluatorContract, SamplerContract, codesign_space
from cosearch.testing.models import random_model

ACCELERATORS = [AcceleratorSpec(template="systolic", parameters=(("rows", rows),)) for rows in (8, 16)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    x = encode_models([random_model(seed) for seed in range(40)])
    macs = x[:, names().index("total.macs")]
    predictor = GaussianProcess(link="logit")
    predictor.fit(x, 0.2 + 0.6 * (macs - macs.min()) / np.ptp(macs))
    path = tmp_path_factory.mktemp("predictor") / "p.safetensors"
    save_predictor(predictor, path)
    return path


class TestPredictedEvaluator(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def _file(self, file):
        self.file = file

    def make(self):
        return Predicted(str(self.file))

    def candidates(self):
        return [Candidate(model=random_model(seed), accelerator=ACCELERATORS[seed]) for seed in range(2)]


def test_it_refuses_what_it_has_not_learnt(file):
    task = TaskShape(image=(224, 224), channels=3, classes=1000)
    deit_tiny = ModelSpec(task=task, patch=16, dim=192, blocks=(BlockSpec(heads=3, mlp_hidden=768),) * 12)
    far = Candidate(model=deit_tiny, accelerator=ACCELERATORS[0])
    with pytest.raises(EvaluationError, match="unlike all that it has learnt"):
        Predicted(str(file)).evaluate(far, Context(seed=0))
    said = Predicted(str(file), outside="answer").evaluate(far, Context(seed=0))
    assert 0 <= said["accuracy"] <= 1
    with pytest.raises(UserError, match="refuse, answer"):
        Predicted(str(file), outside="guess")


class TestPredictedInsideSplit(SamplerContract):
    models = 12

    @pytest.fixture(autouse=True)
    def _known(self, monkeypatch):
        monkeypatch.setitem(INNER, "predicted", PredictedSampler)

    def make(self, space, objectives, seed):
        return SplitSampler(space, objectives, seed, inner="predicted", inner_options={"start": 5, "pool": 12}, looks=4)


def test_it_sees_models_as_workloads_where_a_space_makes_specs():
    from cosearch.data import task_shape
    from cosearch.space import load_space

    space = load_space("vit_digits_systolic", task_shape({"name": "digit-pairs", "size": 16}))
    for part, accelerator in ((space.side("model"), False), (space, True)):
        sampler = PredictedSampler(part, 2, 0, start=5, pool=16)
        asked = []
        for _ in range(4):
            points = sampler.ask(2)
            asked += points
            sampler.tell([_result(space, index, point) for index, point in enumerate(points)])
        row = sampler._features.of(asked)
        assert np.array_equal(row[:, : len(names())], encode_models([space.model(point) for point in asked]))
        assert (row.shape[1] > len(names())) == accelerator


def _result(space, index, point):
    model = space.model(point)
    return Result(index=index, point=point, status=Status.OK, objectives=(-float(model.dim), float(len(model.blocks))))


def test_it_finds_what_a_random_search_does_not():
    """A single optimum in fifteen dimensions: predictions lead towards it, on average over five seeds."""
    space = codesign_space().side("model")

    def value(point):
        return sum((p.domain.to_unit(point[p.name]) - 0.3) ** 2 for p in space.parameters if p.name in point)

    best, chance = [], []
    for seed in range(5):
        sampler, rng, found = PredictedSampler(space, 1, seed, start=8, pool=64), np.random.default_rng(seed), []
        for index in range(28):
            (point,) = sampler.ask(1)
            found.append(value(point))
            sampler.tell([Result(index=index, point=point, status=Status.OK, objectives=(found[-1],))])
        assert np.mean(found[-10:]) < np.mean(found[:8])
        best.append(min(found))
        chance.append(min(value(space.canonical(space.sample(rng))) for _ in range(28)))
    assert np.mean(best) < np.mean(chance)


def test_names_that_lead_nowhere_are_told():
    space = codesign_space()
    with pytest.raises(NotFoundError, match="improvement"):
        PredictedSampler(space, 2, 0, acquisition="improve")
    with pytest.raises(NotFoundError, match="gaussian_process"):
        PredictedSampler(space, 2, 0, predictor="gaussian")
    with pytest.raises(UserError, match="at least 5 and 2"):
        PredictedSampler(space, 2, 0, start=1)
    assert make_predictor("boosted_trees").kind == "boosted_trees"
