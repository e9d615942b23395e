"""Predicted successes against published figures, the bound, a simulation in gradient space, and integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from dpbench import privacy
from dpbench.privacy.expected_success import psnr_unbiased_probe
from tests.helpers.candidates import candidate_success


@pytest.mark.parametrize(("eps", "share"), [(1, 0.148), (2, 0.200), (4, 0.317), (8, 0.565), (16, 0.888)])
def test_ten_orthogonal_candidates(eps, share):
    """The published figures, and the integral of phi(z - mu) Phi(z)^9 that they are."""
    sigma = privacy.noise_multiplier(eps, 1e-5)
    found, error = candidate_success(np.eye(10), sigma)
    exact, _ = integrate.quad(lambda z: stats.norm.pdf(z - 1 / sigma) * stats.norm.cdf(z) ** 9, -10, 20)
    assert exact == pytest.approx(share, abs=2e-3)
    assert abs(found - exact) < 3 * error
    assert found < privacy.reconstruction_bound(sigma, kappa=0.1)


@pytest.mark.parametrize(("eps", "share"), [(1, 0.606), (8, 0.952)])
@pytest.mark.parametrize("releases", [1, 4])
def test_an_antipodal_pair_meets_the_bound(eps, share, releases):
    sigma = privacy.noise_multiplier(eps, 1e-5, steps=releases)
    found, error = candidate_success(np.array([[1.0, -1.0], [-1.0, 1.0]]), sigma, releases)
    assert abs(found - share) < 3 * error + 5e-4
    assert abs(found - privacy.reconstruction_bound(sigma, steps=releases, kappa=0.5)) < 3 * error


def test_the_gram_matrix_is_enough():
    """Candidates of unequal norm, attacked in gradient space release by release."""
    rng, sigma, releases, n = np.random.default_rng(1), 1.2, 3, 20_000
    candidates = rng.standard_normal((5, 30)) + 1.0
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True) * np.linspace(1, 3, 5)[:, None]
    truth = rng.integers(5, size=n)
    seen = candidates[truth] * releases
    seen = seen + sum(sigma * rng.standard_normal(seen.shape) for _ in range(releases))
    scores = seen @ candidates.T - releases * (candidates**2).sum(1) / 2
    measured = (scores.argmax(1) == truth).mean()
    found, error = candidate_success(candidates @ candidates.T, sigma, releases)
    assert abs(measured - found) < 3 * np.hypot(error, 0.5 / np.sqrt(n))


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.1])
def test_the_probe_is_the_error_of_the_division(sigma):
    """g = (delta x^T, delta) clipped, noised, divided by delta and the clip factor: 40 draws."""
    rng, bound = np.random.default_rng(2), 0.7
    x, delta = rng.random(3072), rng.standard_normal(10)
    norm = np.linalg.norm(delta) * np.sqrt(1 + x @ x)
    factor = bound / norm
    errors = []
    for _ in range(40):
        seen = factor * np.outer(delta, x) + sigma * bound * rng.standard_normal((10, 3072))
        estimate = delta @ seen / (delta @ delta * factor)
        errors.append(-10 * np.log10(np.mean((estimate - x) ** 2)))
    assert np.mean(errors) == pytest.approx(psnr_unbiased_probe(sigma, norm, np.linalg.norm(delta)), abs=0.1)
