"""What proposes points: one ask/tell protocol, and the samplers that speak it."""

from cosearch.samplers.base import Brief, Sampler

__all__ = ["Brief", "Sampler"]
