"""The bounds against exact intervals, and their error rate on mechanisms whose privacy loss is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dpbench.audit.statistics import epsilon_bound, error_rate_limits, lower_bound, mu_bound


@pytest.mark.parametrize("errors", [0, 1, 17, 100])
def test_limits_are_the_ends_of_exact_binomial_intervals(errors):
    scores = np.where(np.arange(100) < errors, 1.0, 0.0)
    false_positive, false_negative = error_rate_limits(scores, 1 - scores, np.array([0.5]), 0.1)
    exact = stats.binomtest(errors, 100).proportion_ci(0.9, method="exact").high
    assert false_positive[0] == pytest.approx(exact)
    assert false_negative[0] == pytest.approx(exact)


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_gaussian_bound_is_seldom_above_the_truth_and_comes_near(mu):
    rng, alpha = np.random.default_rng(0), 0.2
    bounds = np.array(
        [
            lower_bound(rng.standard_normal(400), mu + rng.standard_normal(400), mu_bound, alpha).value
            for _ in range(300)
        ]
    )
    assert (bounds > mu).mean() <= alpha
    many = lower_bound(rng.standard_normal(40_000), mu + rng.standard_normal(40_000), mu_bound, 0.05).value
    assert max(mu - 0.1, 0) <= many <= mu


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("eps", [0.5, 3.0])
def test_epsilon_bound_of_randomised_response(eps, flipped):
    """The mechanism that spends eps exactly; the score may point either way."""
    rng, keep = np.random.default_rng(1), math.exp(eps) / (1 + math.exp(eps))
    absent, present = (rng.random(20_000) < p for p in (1 - keep, keep))
    if flipped:
        absent, present = ~absent, ~present
    bound = lower_bound(absent.astype(float), present.astype(float), epsilon_bound(0.0), 0.05).value
    assert eps - 0.25 < bound <= eps


@pytest.mark.parametrize("worlds", [1, -1])
def test_a_leak_of_probability_delta_is_within_delta(worlds):
    """One world shows itself once in fifty times: (0, 0.02)-DP, in either direction."""
    rng = np.random.default_rng(2)
    plain, leaking = np.zeros(20_000), (rng.random(20_000) < 0.02).astype(float)
    absent, present = (plain, leaking) if worlds == 1 else (leaking, plain)
    assert lower_bound(absent, present, epsilon_bound(0.03), 0.05).value == 0
    assert lower_bound(absent, present, epsilon_bound(1e-5), 0.05).value > 2


def test_threshold_and_evidence_are_different_halves():
    """A difference that only the first half has is no evidence."""
    rng = np.random.default_rng(3)
    absent, present = rng.standard_normal(2000), rng.standard_normal(2000)
    present[:1000] += 5
    assert lower_bound(absent, present, mu_bound, 0.05).value < 0.1


def test_what_cannot_be_told_apart_has_no_loss_and_what_always_can_has_a_finite_one():
    same, other = np.zeros(1000), np.ones(1000)
    for bound in (mu_bound, epsilon_bound(1e-5)):
        assert lower_bound(same, same, bound, 0.05).value == 0
        assert 4 < lower_bound(same, other, bound, 0.05).value < 10


def test_the_best_of_many_columns_is_chosen_and_costs_nothing():
    """Chosen on other scores than it is tried on: the bound is that of the column alone."""
    rng = np.random.default_rng(4)
    absent, present = rng.standard_normal((2, 4000, 30))
    assert lower_bound(absent, present, mu_bound, 0.05).value < 0.1
    present[:, 7] += 2
    found = lower_bound(absent, present, mu_bound, 0.05)
    assert found == (lower_bound(absent[:, 7], present[:, 7], mu_bound, 0.05).value, 7)
    assert 1.7 < found.value < 2


def test_as_many_scores_choose_as_are_said_to():
    rng = np.random.default_rng(5)
    absent, present = rng.standard_normal((2, 2000))
    present[:500] += 5
    assert lower_bound(absent, present, mu_bound, 0.05, choosing=500).value < 0.1
    assert lower_bound(absent, present, mu_bound, 0.05, choosing=250).value > 0.1
