"""What proposes points: one ask/tell protocol, and the samplers that speak it."""

from cosearch.samplers.base import Sampler

__all__ = ["Sampler"]
