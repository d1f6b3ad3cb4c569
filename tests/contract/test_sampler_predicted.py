"""The sampler that predicts passes the tests that every sampler passes, by itself and inside `split`."""

import numpy as np
import pytest

from cosearch.samplers import Brief
from cosearch.samplers.predicted import ACQUISITIONS, PredictedSampler
from cosearch.samplers.split import SplitSampler
from cosearch.spec import Status, canonical_json
from cosearch.testing import SamplerContract
from cosearch.testing.toy import OBJECTIVES, codesign_space, score


class TestPredictedAfterBriefs(SamplerContract):
    models = 12

    @pytest.fixture(autouse=True, params=["predicted", "split"])
    def _outer(self, request):
        self.outer = request.param

    def make(self, space, objectives, seed):
        options = {"start": 5, "pool": 16, "briefs": 2}
        if self.outer == "predicted":
            return PredictedSampler(space, objectives, seed, **options)
        return SplitSampler(space, objectives, seed, inner="predicted", inner_options=options, looks=4)


class TestPredicted(SamplerContract):
    models = 12

    @pytest.fixture(autouse=True, params=ACQUISITIONS)
    def _acquisition(self, request):
        self.acquisition = request.param

    def make(self, space, objectives, seed):
        return PredictedSampler(space, objectives, seed, start=5, pool=16, acquisition=self.acquisition)


@pytest.mark.parametrize("start", [5, 100])
def test_what_is_asked_in_full_promised_more_than_what_was_not(start):
    """By what the brief evaluations said, with predictions (5) and before there are any (100)."""
    sampler = PredictedSampler(codesign_space(), len(OBJECTIVES), 0, start=start, pool=32, briefs=4)
    said, full = {}, []
    for _ in range(120):
        points = sampler.ask(4)
        results = score(points)
        for point, result in zip(points, results, strict=True):
            if isinstance(point, Brief):
                if result.status is Status.OK:
                    said[canonical_json(point)] = result.objectives
            else:
                full.append(canonical_json(point))
        sampler.tell(results)
    values = np.array(list(said.values()))
    values[:, 1:] = np.log10(values[:, 1:])
    ranks = (values.argsort(axis=0).argsort(axis=0) / len(values)).mean(axis=1)
    by_name = dict(zip(said, ranks, strict=True))
    chosen = [by_name[name] for name in full]
    assert len(full) >= 20
    assert 4 * len(full) <= len(said)
    assert np.mean(chosen) < np.mean([rank for name, rank in by_name.items() if name not in full]) - 0.03


def test_brief_results_do_not_lead_to_accelerators():
    options = {"start": 5, "pool": 16, "briefs": 2}
    sampler = SplitSampler(codesign_space(), len(OBJECTIVES), 0, inner="predicted", inner_options=options, looks=8)
    full = False
    while not full:
        points = sampler.ask(2)
        full = any(not isinstance(point, Brief) for point in points)
        if not full:
            sampler.tell(score(points))
            assert sampler._front == []
    sampler.tell(score(points))
    assert sampler._front
