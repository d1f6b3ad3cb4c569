"""The sampler that predicts passes the tests that every sampler passes, by itself and inside `split`."""

import pytest

from cosearch.samplers.predicted import ACQUISITIONS, PredictedSampler
from cosearch.samplers.split import SplitSampler
from cosearch.testing import SamplerContract


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
