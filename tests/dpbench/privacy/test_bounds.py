"""The bound on membership against integrals, simulation and closed forms; noise on a mean as a mechanism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from dpbench import privacy
from dpbench.privacy import pld, renyi
from dpbench.protocol import InputError


@pytest.mark.parametrize(("eps", "accuracy"), [(1, 0.553), (8, 0.798)])
def test_one_full_batch_release(eps, accuracy):
    sigma = privacy.noise_multiplier(eps, 1e-5)
    assert privacy.membership_bound(sigma) == pytest.approx(accuracy, abs=1e-3)


@pytest.mark.parametrize(("sigma", "steps"), [(0.6, 1), (2.0, 4), (30.0, 1000)])
def test_the_best_threshold_reaches_the_closed_form(sigma, steps):
    """Half the accuracy with the sample, half without, at the threshold where both are equally likely."""
    distance = math.sqrt(steps) / sigma
    right = (stats.norm.cdf(distance / 2) + stats.norm.sf(distance / 2, loc=distance)) / 2
    assert privacy.membership_bound(sigma, 1.0, steps) == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize(("sigma", "rate"), [(0.3, 0.01), (1.0, 0.1), (0.6, 0.5), (5.0, 0.9)])
def test_one_sampled_release_is_the_integral_of_the_difference(sigma, rate):
    def difference(x):
        return abs(rate * (stats.norm.pdf(x, 1, sigma) - stats.norm.pdf(x, 0, sigma)))

    variation = quad(difference, -10 * sigma, 0.5)[0] / 2 + quad(difference, 0.5, 1 + 10 * sigma)[0] / 2
    found = privacy.membership_bound(sigma, rate)
    assert found >= 0.5 + variation / 2 - 1e-9
    assert found == pytest.approx(0.5 + variation / 2, abs=1e-4)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.1, 20), (0.5, 0.05, 50), (2.0, 0.5, 10)])
def test_the_likelihood_ratio_test_reaches_the_sampled_bound(sigma, rate, steps):
    rng, n = np.random.default_rng(0), 60_000

    def says_present(present):
        x = rng.normal(0, sigma, (n, steps)) + present
        return np.log1p(rate * np.expm1((x - 0.5) / sigma**2)).sum(1) > 0

    right = (says_present(rng.random((n, steps)) < rate).mean() + (~says_present(0)).mean()) / 2
    bound = privacy.membership_bound(sigma, rate, steps)
    assert right == pytest.approx(bound, abs=4 * 0.5 / math.sqrt(2 * n))


@pytest.mark.parametrize(("sigma", "steps"), [(0.6, 1), (2.0, 9), (30.0, 1000), (1000.0, 10**6)])
def test_a_rate_of_almost_one_meets_the_closed_form(sigma, steps):
    sampled = privacy.membership_bound(sigma, 1 - 1e-9, steps)
    exact = privacy.membership_bound(sigma, 1.0, steps)
    assert exact - 1e-6 <= sampled <= exact + 0.01


def test_nobody_finds_a_sample_that_was_in_no_batch():
    assert privacy.membership_bound(1e-6, 0.01, 2) == pytest.approx(0.5 + (1 - 0.99**2) / 2)
    assert privacy.membership_bound(1e-6) == 1.0


def test_membership_grows_with_sampling_steps_and_less_noise():
    usual = privacy.membership_bound(1.0, 0.01, 100)
    assert 0.5 < privacy.membership_bound(2.0, 0.01, 100) < usual
    assert usual < privacy.membership_bound(1.0, 0.02, 100)
    assert usual < privacy.membership_bound(1.0, 0.01, 200)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.01, 1000), (3.0, 0.1, 50)])
def test_renyi_bounds_hold_and_are_looser(sigma, rate, steps):
    """They are what is left above ten million steps."""
    composed = pld.loss_distribution(sigma, rate, steps, pld.GRIDS[1])
    assert composed.get_delta_for_epsilon(0.0) < renyi.renyi_variation(sigma, rate, steps) < 1
    tight = privacy.reconstruction_bound(sigma, rate, steps)
    assert tight <= renyi.renyi_blow_up(sigma, rate, steps, 0.1) < 2 * tight


def test_more_steps_than_are_convolved_have_bounds_too():
    steps = 2 * pld.MOST_STEPS
    sigma, exact = 0.01 * math.sqrt(steps), 1.0  # like one release with sigma 1
    assert privacy.membership_bound(exact) < privacy.membership_bound(sigma, 0.01, steps) < 0.85
    assert privacy.reconstruction_bound(exact) * 0.99 < privacy.reconstruction_bound(sigma, 0.01, steps) < 0.7


def test_noise_on_the_mean_of_clipped_gradients_is_the_gaussian_mechanism():
    rng, bound, batch, noise_std = np.random.default_rng(0), 2.0, 8, 0.3
    clipped = rng.standard_normal((batch, 50))
    clipped *= bound / np.linalg.norm(clipped, axis=1, keepdims=True)
    sums = batch * (clipped.mean(0) + noise_std * rng.standard_normal((4000, 50)))
    sigma = privacy.gaussian_claim(noise_std, batch, bound)
    assert np.std(sums - clipped.sum(0)) / bound == pytest.approx(sigma, rel=0.01)
    guarantee = privacy.calibrate(
        eps=None,
        noise_multiplier=sigma,
        eps_scope="release",
        delta=1e-5,
        train_size=50_000,
        train_batch_size=batch,
        epochs=10,
        max_grad_norm=bound,
    )
    assert guarantee.eps_release == privacy.epsilon(sigma, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 4, 1.0), "`noise_std` must be a finite number above 0"),
        ((math.nan, 4, 1.0), "`noise_std` must be a finite number above 0"),
        ((0.1, 0, 1.0), "`batch_size` must be a finite number above 0"),
        ((0.1, 4, 0.0), "`max_grad_norm` must be a finite number above 0"),
        ((1e308, 1e10, 1e-3), "`noise_std` and `max_grad_norm` are too far apart"),
    ],
)
def test_a_claim_needs_numbers_in_range(arguments, said):
    with pytest.raises(InputError, match=said):
        privacy.gaussian_claim(*arguments)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "kappa"),
    [(2.451, 0.0128, 2344, 0.1), (1.0, 0.3, 4, 0.02), (5.0, 0.9, 30, 0.5)],
)
def test_who_knows_the_batches_reaches_the_mean_over_their_number(sigma, rate, steps, kappa):
    """The likelihood ratio test of each number of batches, simulated."""
    rng, trials = np.random.default_rng(0), 400_000
    count = rng.binomial(steps, rate, trials)
    seen = rng.normal(np.sqrt(count) / sigma, 1.0)
    found = float((seen > stats.norm.isf(kappa)).mean())
    bound = privacy.reconstruction_bound(sigma, rate, steps, kappa, batches_known=True)
    assert found == pytest.approx(bound, abs=4 * math.sqrt(bound * (1 - bound) / trials))
    assert bound > privacy.reconstruction_bound(sigma, rate, steps, kappa)


def test_with_full_batches_there_is_nothing_to_know():
    bound = privacy.reconstruction_bound(3.0, 1.0, 7)
    assert privacy.reconstruction_bound(3.0, 1.0, 7, batches_known=True) == bound


@pytest.mark.parametrize(("rate", "steps"), [(0.3, 10**9), (1e-9, 10), (0.5, 2**40), (0.999, 3)])
def test_very_many_and_very_rare_batches_have_a_bound(rate, steps):
    """Where their number hardly varies, that of the mean number."""
    sigma = max(1.0, math.sqrt(rate * steps))
    bound = privacy.reconstruction_bound(sigma, rate, steps, batches_known=True)
    mean = stats.norm.cdf(stats.norm.ppf(0.1) + math.sqrt(rate * steps) / sigma)
    if rate * steps > 1e6:
        assert bound == pytest.approx(mean, abs=1e-3)
    elif rate < 1e-6:
        assert bound == pytest.approx(0.1, abs=1e-7)
    else:  # 0.997 of the samples are in all three
        assert bound == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.1) + math.sqrt(3) / sigma), abs=2e-3)
    assert 0.1 <= bound <= 1
