"""The sampler that predicts passes the tests that every sampler passes, by itself and inside `split`."""

import pytest

from cosearch.samplers.predicted import ACQUISITIONS, PredictedSampler
from cosearch.testing import SamplerContract


class TestPredicted(SamplerContract):
    models = 12

    @pytest.fixture(autouse=True, params=ACQUISITIONS)
    def _acquisition(self, request):
        self.acquisition = request.param

    def make(self, space, objectives, seed):
        return PredictedSampler(space, objectives, seed, start=5, pool=16, acquisition=self.acquisition)
