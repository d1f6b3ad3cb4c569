"""What a few trainings of a model say of its mean; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "Estimate", "estimate", "kendall_tau", "posterior_means"]

LEVEL = 0.95
"""Confidence of the intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        n: trainings.
        mean: over them.
        sd: their standard deviation, n - 1 in the denominator.
        low: lower end of the interval that the mean of infinitely many trainings lies in.
        high: upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Estimate:
    """Returns the mean of ``values`` with its 95 % interval.

    The ends are mean ± t s / sqrt(n), with t the 97.5 % point of Student's distribution with n - 1 degrees of freedom
    (IUPAC Gold Book, "confidence limits (about the mean)", C01247; Student 1908). It assumes that seeds scatter
    normally. Where all trainings gave the same, it has no width.

    Args:
        values: at least two.
        bounds: smallest and largest possible value; an interval is cut there, since no mean lies beyond.

    Raises:
        ValueError: there are fewer than two values.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        raise ValueError(f"{n} values: the scatter of a training takes at least 2")
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(t.ppf(0.5 + LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    low, high = bounds or (-math.inf, math.inf)
    return Estimate(n=n, mean=mean, sd=sd, low=max(low, mean - reach), high=min(high, mean + reach))


def posterior_means(found: Estimate, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns draws of what the mean of infinitely many trainings may be, shape (draws,).

    mean + s / sqrt(n) times Student's t with n - 1 degrees of freedom: the posterior of a normal mean where nothing was
    known before (Gelman et al., "Bayesian Data Analysis", 3rd edition, section 3.2), the same distribution that gives
    the interval of `estimate`.
    """
    return found.mean + found.sd / math.sqrt(found.n) * rng.standard_t(found.n - 1, draws)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Returns Kendall's rank correlation (tau-b, which allows for ties: Kendall 1945); None where it has no value.

    It has none for fewer than two entries, or if one side is all the same.
    """
    from scipy.stats import kendalltau

    if len(first) < 2 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(kendalltau(first, second).statistic)
