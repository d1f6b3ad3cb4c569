"""Contract tests that authors of samplers and evaluators run on their own.

Subclass, say how to make one, and let pytest collect it:

    from cosearch.testing import SamplerContract

    class TestMySampler(SamplerContract):
        def make(self, space, objectives, seed):
            return MySampler(space, objectives, seed)

A run file that names the sampler (``my_package.module:MySampler``) then works.
"""

from cosearch.testing.evaluators import EvaluatorContract
from cosearch.testing.samplers import SamplerContract
from cosearch.testing.toy import OBJECTIVES, ToyParameter, ToySpace, codesign_space, score

__all__ = [
    "OBJECTIVES",
    "EvaluatorContract",
    "SamplerContract",
    "ToyParameter",
    "ToySpace",
    "codesign_space",
    "score",
]
