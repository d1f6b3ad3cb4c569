"""Every sampler that comes with cosearch passes the tests that a stranger's sampler has to pass."""

import pytest

from cosearch.samplers.optuna import OptunaSampler
from cosearch.samplers.pymoo import PymooSampler
from cosearch.samplers.random import RandomSampler
from cosearch.samplers.split import SplitSampler
from cosearch.testing import SamplerContract


class TestRandom(SamplerContract):
    def make(self, space, objectives, seed):
        return RandomSampler(space, objectives, seed)


class TestPymoo(SamplerContract):
    @pytest.fixture(autouse=True, params=["NSGA2", "NSGA3", "UNSGA3", "SPEA2", "SMSEMOA"])
    def _algorithm(self, request):
        self.algorithm = request.param

    def make(self, space, objectives, seed):
        return PymooSampler(space, objectives, seed, algorithm=self.algorithm, population=4)


class TestOptuna(SamplerContract):
    @pytest.fixture(
        autouse=True, params=["NSGAIISampler", "NSGAIIISampler", "TPESampler", "RandomSampler", "QMCSampler"]
    )
    def _sampler(self, request):
        self.sampler = request.param

    def make(self, space, objectives, seed):
        options = {"population_size": 4} if self.sampler.startswith("NSGA") else {}
        return OptunaSampler(space, objectives, seed, sampler=self.sampler, sampler_options=options)


class TestSplit(SamplerContract):
    @pytest.fixture(autouse=True, params=["optuna", "pymoo", "random"])
    def _inner(self, request):
        self.inner = request.param

    def make(self, space, objectives, seed):
        return SplitSampler(space, objectives, seed, inner=self.inner, looks=8)
