"""The likelihood against densities written out, and its success against published figures and the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.prior_aware import log_likelihood, scores
from dpbench import privacy
from dpbench.protocol import Candidates, InputError, Knowledge, Release, Stage, combined


@pytest.mark.parametrize("inclusion", [0.05, 0.5, 1.0])
def test_ratio_of_densities(inclusion):
    """N(c, s^2) mixed with N(0, s^2) over N(0, s^2), each release and entry on its own."""
    rng, noise = np.random.default_rng(0), 0.7
    sums, candidates = rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    expected = np.zeros(3)
    for n, c in enumerate(candidates):
        for g in sums:
            present = math.exp(stats.norm.logpdf(g, c, noise).sum())
            absent = math.exp(stats.norm.logpdf(g, 0, noise).sum())
            expected[n] += math.log((inclusion * present + (1 - inclusion) * absent) / absent)
    found = log_likelihood(torch.tensor(sums), torch.tensor(candidates), noise, inclusion)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_without_noise_the_true_gradient_wins_and_only_members_are_members():
    candidates = torch.tensor([[1.0, 0.0], [3.0, 1.0], [0.2, 0.1]])
    for truth in range(3):
        assert int(log_likelihood(candidates[truth : truth + 1], candidates, 0.0).argmax()) == truth
    assert (log_likelihood(torch.zeros(1, 2), candidates, 0.0) < 0).all()


def test_after_pruning_only_the_kept_entries_are_compared():
    """Of three releases, each with a support of its own; the known part is large where it was pruned."""
    rng = np.random.default_rng(1)
    kept, candidates = rng.random((3, 8)) < 0.5, rng.standard_normal((2, 8))
    known = torch.tensor(np.where(kept[0], 0.0, 100.0))
    sums = rng.standard_normal((3, 8))
    expected = sum(
        log_likelihood(torch.tensor(s[k])[None], torch.tensor(candidates[:, k]), 0.7, 0.5)
        for s, k in zip(sums, kept, strict=True)
    )
    seen = torch.tensor(np.where(kept, (sums + known.numpy()) / 2, 0))
    described = (Stage("noise", {"noise_std": 0.35}), Stage("prune"))
    release = Release(("weight",), (seen.mean(0),), 2, described, repeats=tuple((s,) for s in seen))
    found = scores(release, known, torch.tensor(candidates), 0.5)
    torch.testing.assert_close(found, expected)


def test_correlated_noise_is_whitened():
    """Against densities with the covariance of dp-ftrl's noise, which weighs early releases more."""
    rng, noise, column = np.random.default_rng(2), 0.7, [1.0, 0.5, 0.375]
    root = np.array([[column[i - j] if i >= j else 0.0 for j in range(3)] for i in range(3)])
    covariance = noise**2 * np.linalg.inv(root.T @ root)
    sums, candidates = rng.standard_normal((3, 6)), rng.standard_normal((2, 6))
    density = stats.multivariate_normal(cov=covariance)
    expected = [
        sum(density.logpdf(g - c) - density.logpdf(g) for g, c in zip(sums.T, candidate, strict=True))
        for candidate in candidates
    ]
    described = (Stage("dp-ftrl", {"noise_multiplier": noise, "max_grad_norm": 1.0, "bands": 3}),)
    each = [Release(("weight",), (torch.tensor(s + 5) / 2,), 2, described) for s in sums]
    found = scores(combined(each), torch.full((6,), 5.0), torch.tensor(candidates))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def attacked(candidates: torch.Tensor, sigma: float, trials: int, releases: int = 1, known: float = 0.0):
    """Share of trials in which the attack itself, fed releases of a batch of two, picks the truth."""
    model = nn.Linear(candidates.shape[1] - 1, 1)
    others = torch.full((candidates.shape[1],), known)
    images = torch.arange(len(candidates)).float()[:, None, None, None]
    given = Candidates(images, torch.arange(len(candidates)), candidates, others)
    knowledge = Knowledge(model, F.cross_entropy, (1, 1, 1), 1, (0.0,), (1.0,), candidates=given)
    described = (Stage("dp", {"noise_multiplier": sigma, "max_grad_norm": 1.0}),)
    attack = attacks.create("prior-aware")
    generator = torch.Generator().manual_seed(0)
    right = 0
    for trial in range(trials):
        truth = trial % len(candidates)
        noise = sigma * torch.randn(releases, candidates.shape[1], generator=generator)
        seen = [((candidates[truth] + others + n) / 2).split([candidates.shape[1] - 1, 1]) for n in noise]
        each = tuple((w[None], b) for w, b in seen)
        mean = tuple(torch.stack(g).mean(0) for g in zip(*each, strict=True))
        release = Release(("weight", "bias"), mean, 2, described, None, each if releases > 1 else ())
        right += int(attack(release, knowledge, seed=0).labels) == truth
    return right / trials


@pytest.mark.parametrize(("eps", "share"), [(1, 0.606), (8, 0.952)])
@pytest.mark.parametrize("releases", [1, 3])
def test_an_antipodal_pair_meets_the_bound(eps, share, releases):
    sigma, trials = privacy.noise_multiplier(eps, 1e-5, steps=releases), 2000
    assert privacy.reconstruction_bound(sigma, steps=releases, kappa=0.5) == pytest.approx(share, abs=1e-3)
    pair = torch.tensor([[0.6, 0.0, 0.8], [-0.6, 0.0, -0.8]])
    found = attacked(pair, sigma, trials, releases, known=5.0)
    assert abs(found - share) < 3 * math.sqrt(share * (1 - share) / trials)


@pytest.mark.parametrize(("eps", "share"), [(1, 0.148), (4, 0.317), (16, 0.888)])
def test_ten_orthogonal_candidates(eps, share):
    trials = 2000
    found = attacked(torch.eye(10, 12), privacy.noise_multiplier(eps, 1e-5), trials)
    assert abs(found - share) < 3 * math.sqrt(share * (1 - share) / trials) + 1e-3


def test_without_candidates_there_is_nothing_to_choose():
    model = nn.Linear(2, 1)
    knowledge = Knowledge(model, F.cross_entropy, (1, 1, 1), 1, (0.0,), (1.0,))
    release = Release(("weight", "bias"), (torch.zeros(1, 2), torch.zeros(1)), 1)
    with pytest.raises(InputError, match="`threat_model` informed"):
        attacks.create("prior-aware")(release, knowledge, seed=0)


@pytest.mark.parametrize("inclusion", [0.0, 1.5, float("nan")])
def test_a_chance_that_is_none(inclusion):
    with pytest.raises(InputError, match="inclusion"):
        attacks.create("prior-aware", inclusion=inclusion)
