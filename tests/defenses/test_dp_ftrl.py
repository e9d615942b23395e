"""Correlated noise: its distribution, what all releases together give away, and what is claimed of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid
from torch import nn
from torch.nn import functional as F

import defenses
from defenses.base import Aggregator
from defenses.dp_ftrl import DPFTRL
from dpbench.cell import parts
from dpbench.protocol import Factorisation, InputError, Release, Stage, combined
from tests.helpers.cells import cell, part

torch.set_num_threads(1)
SIGMA, BOUND, COUNT = 0.8, 0.5, 5


def matrix(size, bands):
    """Lower triangular Toeplitz, from binomials instead of the recursion."""
    column = [math.comb(2 * k, k) / 4**k if k < bands else 0.0 for k in range(size)]
    return np.array([[column[i - j] if i >= j else 0.0 for j in range(size)] for i in range(size)])


@pytest.fixture(scope="module")
def draws():
    """bands -> noise [n, COUNT] in units of sigma C: releases less the clipped sum, a coordinate a row."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(40, 10)
    images, labels = torch.rand(2, 40), torch.tensor([0, 1])

    def drawn(bands, calls=60):
        clipped = defenses.create("clip", max_grad_norm=BOUND).release(
            model, F.cross_entropy, images, labels, seed=0
        )
        chain = defenses.create("dp-ftrl", noise_multiplier=SIGMA, max_grad_norm=BOUND, bands=bands)
        rows = []
        for seed in range(calls):
            made = chain.releases(model, F.cross_entropy, images, labels, seed=seed, count=COUNT)
            noise = [
                torch.cat([(g - c).flatten() for g, c in zip(r.gradients, clipped.gradients, strict=True)])
                for r in made
            ]
            rows.append(torch.stack(noise, 1) * 2 / (SIGMA * BOUND))
        return torch.cat(rows).double().numpy()

    known = {}
    return lambda bands: known.setdefault(bands, drawn(bands))


def test_the_square_root_is_the_root_of_the_prefix_sums():
    root = matrix(9, 9)
    np.testing.assert_allclose(root @ root, np.tril(np.ones((9, 9))))
    for size, bands in ((1, 4), (6, 2), (9, 9), (9, 40)):
        np.testing.assert_allclose(
            Factorisation(size, bands).coefficients().numpy(), matrix(size, bands)[:, 0]
        )


@pytest.mark.parametrize("bands", [1, 2, 16])
def test_filtered_by_the_matrix_the_noise_is_white_and_normal(draws, bands):
    noise = draws(bands)
    white = noise @ matrix(COUNT, bands).T
    n = len(white)
    covariance = white.T @ white / n
    assert np.abs(covariance - np.eye(COUNT)).max() < 4.5 * math.sqrt(2 / n)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    inverse = np.linalg.inv(matrix(COUNT, bands))
    np.testing.assert_allclose(noise.T @ noise / n, inverse @ inverse.T, atol=6 * math.sqrt(2 / n))
    if bands > 1:  # what later releases take back
        assert (noise.T @ noise / n)[0, 1] < -0.3


def test_the_best_weights_are_generalised_least_squares():
    for size, bands in ((1, 5), (4, 1), (7, 3), (40, 64)):
        root, ones = matrix(size, bands), np.ones(size)
        inverse = root.T @ root
        np.testing.assert_allclose(
            Factorisation(size, bands).best_weights().numpy(), inverse @ ones / (ones @ inverse @ ones)
        )
        assert Factorisation(size, bands).sensitivity() == pytest.approx(math.sqrt(ones @ inverse @ ones))


@pytest.mark.parametrize("bands", [1, 16])
def test_several_releases_are_combined_with_least_noise_and_say_how_much(draws, bands):
    noise = draws(bands)
    given = {"noise_multiplier": SIGMA, "max_grad_norm": BOUND, "bands": bands}
    releases = [
        Release(("w",), (torch.from_numpy(column),), 3, (Stage("dp-ftrl", given),)) for column in noise.T
    ]
    found = combined(releases)
    expected = 1 / Factorisation(COUNT, bands).sensitivity()
    assert float(found.gradients[0].std()) == pytest.approx(expected, rel=0.03)
    assert found.noise_on_sum() / math.sqrt(COUNT) == pytest.approx(SIGMA * BOUND * expected)
    assert releases[0].noise_on_sum() == pytest.approx(SIGMA * BOUND)
    if bands > 1:
        assert float(found.gradients[0].std()) < 0.97 * noise.mean(1).std()


@pytest.mark.parametrize(("size", "bands"), [(5, 1), (5, 16), (40, 16)])
def test_noise_that_is_added_later_counts_as_the_weighted_mean_leaves_it(size, bands):
    """`dp-ftrl+noise`: the second noise is independent, and the mean is weighted for the first."""
    root = matrix(size, bands)
    weights = root.T @ root @ np.ones(size) / np.square(root.sum(1)).sum()
    inverse = np.linalg.inv(root)
    expected = SIGMA**2 * BOUND**2 * np.square(weights @ inverse).sum() + (0.7 * 3) ** 2 * weights @ weights
    given = {"noise_multiplier": SIGMA, "max_grad_norm": BOUND, "bands": bands}
    stages = (Stage("dp-ftrl", given), Stage("noise", {"noise_std": 0.7}))
    found = combined([Release(("w",), (torch.zeros(2),), 3, stages)] * size)
    assert found.noise_on_sum() ** 2 / size == pytest.approx(expected)
    drawn = torch.randn(size, 4000, generator=torch.Generator().manual_seed(0))
    own = combined([Release(("w",), (row,), 3, stages) for row in drawn]).gradients[0]
    assert float(own.var()) == pytest.approx(weights @ weights, rel=0.1)


@pytest.mark.parametrize("bands", [1, 3, 16])
def test_the_bound_is_what_the_best_test_reaches(draws, bands):
    """The likelihood ratio of a sample whose gradient has norm C, along one coordinate, at level kappa = .1.

    The bound is Phi(Phi^-1(kappa) + |Cu| / sigma); a better answer does not exist, and this one reaches it.
    """
    noise = draws(bands) * SIGMA
    covariance = np.linalg.inv(matrix(COUNT, bands).T @ matrix(COUNT, bands)) * SIGMA**2
    along = np.linalg.solve(covariance, np.ones(COUNT))
    without = noise @ along
    threshold = stats.norm.isf(0.1) * math.sqrt(along @ covariance @ along)
    assert float((without > threshold).mean()) == pytest.approx(0.1, abs=4.5 * math.sqrt(0.09 / len(noise)))
    power = float(((noise + 1) @ along > threshold).mean())
    given = part("dp-ftrl", eps=None, noise_multiplier=SIGMA, bands=bands, eps_scope="release")
    claim = claimed(given, COUNT)
    assert power == pytest.approx(claim.rero_release, abs=4.5 * math.sqrt(0.25 / len(noise)))
    far = Factorisation(COUNT, bands).sensitivity() / SIGMA
    assert claim.rero_release == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.1) + far), rel=1e-9)


def claimed(given, releases=1):
    at = cell("dlg", given, part("honest", releases=releases))
    return parts.guarantee_of(at, parts.defence_of(at))


@pytest.mark.parametrize(("eps", "releases", "bands"), [(1.0, 1, 16), (8.0, 4, 16), (3.0, 6, 2), (8.0, 4, 1)])
def test_the_budget_is_spent_exactly_by_a_second_account(eps, releases, bands):
    """delta(eps) integrated from the densities of the filtered sums with the sample and without."""
    claim = claimed(part("dp-ftrl", eps=eps, eps_scope="release", bands=bands), releases)
    root = matrix(releases, bands)
    shift = np.linalg.norm(root @ np.ones(releases)) / claim.noise_multiplier
    x = np.linspace(-12, 12 + shift, 400_001)
    lost = np.maximum(stats.norm.pdf(x, shift) - math.exp(claim.eps_release) * stats.norm.pdf(x), 0)
    assert claim.eps_release == pytest.approx(eps, rel=1e-9)
    assert trapezoid(lost, x) == pytest.approx(claim.delta, rel=1e-4)
    twice = np.maximum(stats.norm.pdf(x, 2 * shift) - math.exp(claim.eps_replace) * stats.norm.pdf(x), 0)
    assert trapezoid(twice[x < 12 + shift], x[x < 12 + shift]) == pytest.approx(claim.delta, rel=1e-3)
    assert (claim.releases, claim.eps, claim.eps_scope) == (releases, None, "release")


def test_one_band_claims_what_dp_claims_and_more_bands_need_more_noise():
    dp, one, more = (
        claimed(part(name, eps=8.0, eps_scope="release", **given), 4)
        for name, given in (("dp", {}), ("dp-ftrl", {"bands": 1}), ("dp-ftrl", {}))
    )
    assert one.noise_multiplier == pytest.approx(dp.noise_multiplier)
    assert one.rero_release == pytest.approx(dp.rero_release)
    assert more.noise_multiplier > 1.3 * dp.noise_multiplier


def test_nobody_else_s_correlated_noise_counts_as_independent():
    class Silent(DPFTRL):
        sensitivity = Aggregator.sensitivity

    assert Silent(noise_multiplier=1.0).sensitivity(1) == 1
    with pytest.raises(InputError, match="override `sensitivity`"):
        Silent(noise_multiplier=1.0).sensitivity(2)


def test_what_has_no_account_is_refused():
    with pytest.raises(InputError, match="use `eps_scope` release"):
        claimed(part("dp-ftrl", eps=8.0))
    sampled = cell("prior-aware", part("dp-ftrl", eps_scope="release"), part("informed", inclusion=0.5))
    with pytest.raises(InputError, match="`inclusion` 1"):
        parts.defence_of(sampled)
