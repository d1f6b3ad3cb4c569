"""Means over seeds: the interval, what it covers, and draws that agree with it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import t

from cosearch.verification import Estimate, estimate, kendall_tau, posterior_means


def test_three_trainings_by_hand():
    """Student's 97.5 % point for 2 degrees of freedom is 4.30 (NIST Technical Note 1297, table B.1)."""
    found = estimate([0.80, 0.82, 0.84])
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.82), pytest.approx(0.02))
    assert found.high - found.mean == pytest.approx(4.30 * 0.02 / math.sqrt(3), rel=2e-3)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(0.7, 0.1, (4000, 4))
    held = sum(found.low <= 0.7 <= found.high for found in map(estimate, samples.tolist()))
    assert held / 4000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_an_interval_ends_where_values_end():
    found = estimate([0.99, 0.95, 1.0], (0.0, 1.0))
    assert found.high == 1.0
    assert found.low == estimate([0.99, 0.95, 1.0]).low > 0


def test_equal_trainings_have_no_width():
    assert estimate([0.5, 0.5, 0.5]) == Estimate(n=3, mean=0.5, sd=0.0, low=0.5, high=0.5)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_training_has_no_scatter(values):
    with pytest.raises(ValueError, match="at least 2"):
        estimate(values)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_mean_lies_in_its_interval(values):
    found = estimate(values, (0.0, 1.0))
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_draws_of_the_mean_have_the_interval_as_their_quantiles():
    found = estimate([0.80, 0.82, 0.85, 0.79])
    draws = posterior_means(found, 200_000, np.random.default_rng(0))
    assert np.quantile(draws, 0.025) == pytest.approx(found.low, abs=1e-3)
    assert np.quantile(draws, 0.975) == pytest.approx(found.high, abs=1e-3)


def test_draws_of_two_means_differ_as_their_distributions_say():
    """The chance that one is above the other, against the integral over both densities (Behrens and Fisher)."""
    a, b = estimate([0.80, 0.82, 0.84]), estimate([0.83, 0.83, 0.86, 0.84])
    rng = np.random.default_rng(0)
    drawn = (posterior_means(a, 200_000, rng) > posterior_means(b, 200_000, rng)).mean()
    of_a = t(a.n - 1, a.mean, a.sd / math.sqrt(a.n))
    of_b = t(b.n - 1, b.mean, b.sd / math.sqrt(b.n))
    expected = quad(lambda x: of_a.pdf(x) * of_b.cdf(x), 0.5, 1.2, limit=200, points=[a.mean, b.mean])[0]
    assert drawn == pytest.approx(expected, abs=4e-3)


def test_tau_by_hand():
    assert kendall_tau([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)  # 2 pairs agree, 1 does not


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [1]), ([1, 1], [1, 2]), ([1, 2], [3, 3])])
def test_tau_of_what_has_no_order_is_none(first, second):
    assert kendall_tau(first, second) is None
