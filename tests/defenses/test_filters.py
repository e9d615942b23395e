"""Filters of products: Flower's local differential privacy and NVFlare's sparse vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import defenses
from attacks.prior_aware import scores
from attacks.reading import linear
from defenses.local_dp import LocalDP
from defenses.sparse_vector import SparseVector
from dpbench.protocol import Release

torch.set_num_threads(1)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def test_local_dp_clips_the_whole_update_and_adds_the_noise_that_was_typed_in():
    long = (torch.full((200, 200), 3.0), torch.full((10_000,), -4.0))
    noise = LocalDP(clipping_norm=2.0, nominal_sensitivity=0.1, nominal_eps=5.0, nominal_delta=1e-6)
    deviation = 0.1 * math.sqrt(2 * math.log(1.25e6)) / 5
    assert noise.noise_std == pytest.approx(deviation)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in long))
    for gradients, factor in ((long, 2 / norm), (tuple(g / norm for g in long), 1.0)):
        after = noise.process(gradients, fresh())
        drawn = torch.cat([(a - factor * g).flatten() for a, g in zip(after, gradients, strict=True)])
        assert float(drawn.std()) == pytest.approx(deviation, rel=0.02)
        assert abs(float(drawn.mean())) < 5 * deviation / math.sqrt(len(drawn))
    still = LocalDP(nominal_sensitivity=1e-30).process((torch.zeros(3),), fresh())
    assert bool(torch.cat(still).abs().max() < 1e-20)


@pytest.mark.parametrize("name", ["local-dp", "sparse-vector"])
def test_a_filter_claims_what_its_makers_say_and_carries_no_guarantee(name):
    chain = defenses.create(f"clip+{name}+prune")
    assert chain.guarantee is None
    claim = chain.claim(1000)
    expected = {"local-dp": (10.0, 1e-5, 1e-4), "sparse-vector": (0.1 + 100 * 0.1, 0.0, None)}[name]
    assert (claim.eps, claim.delta, claim.sensitivity) == pytest.approx(expected)
    assert defenses.create("clip+prune").claim(1000) is None


def test_sparse_vector_sends_so_many_entries_with_laplace_noise_on_each():
    gradients = (torch.linspace(-2e-5, 2e-5, 10_000), torch.full((100, 100), 1e-5))
    clipped = torch.cat([g.flatten() for g in gradients]).double().clamp(-1e-5, 1e-5)
    for replace in (False, True):
        filtered = SparseVector(svt_replace=replace).process(gradients, fresh())
        assert [g.shape for g in filtered] == [g.shape for g in gradients]
        sent = torch.cat([g.flatten() for g in filtered]).double()
        kept = sent != 0
        # 2,000 draws with replacement among about 10,000 accepted leave out a tenth of them
        assert int(kept.sum()) == 2000 if not replace else 1700 < int(kept.sum()) < 1900
        noise = (sent - clipped)[kept].numpy()
        assert stats.kstest(noise, stats.laplace(scale=2e-5 / 0.1).cdf).pvalue > 1e-3


def sent_and_read(seed, **given):
    """Entries of the gradient, and what a release of them says."""
    gradient = torch.randn(400, generator=fresh(seed)) * 1e-5
    stage = SparseVector(svt_fraction=0.5, svt_replace=False, **given)
    sent = stage.process((gradient,), fresh(seed + 1))
    return gradient, linear(Release(("weight",), sent, 2, (stage.stage(),)))


def test_sparse_vector_says_its_noise_and_where_only_a_bound_is_known():
    errors, said, kept = [], [], 0
    for seed in range(20):
        gradient, seen = sent_and_read(2 * seed, svt_noise_var=100.0)
        assert (gradient.abs()[seen.kept] < 1e-5).all()
        errors.append(((seen.values - 2 * gradient)[seen.kept]).square())
        said.append(seen.noise**2)
        kept += int(seen.kept.sum())
    assert kept > 1000
    assert float(torch.cat(errors).mean()) == pytest.approx(float(np.mean(said)), rel=0.25)
    _, seen = sent_and_read(0)  # noise 20 times gamma
    assert not seen.kept.any()


def test_an_informed_attacker_expects_clamped_entries():
    """Gradients far above gamma, of which the signs are left, under noise of gamma's size."""
    known, candidates = torch.zeros(300), torch.randn(8, 300, generator=fresh(3))
    right = 0
    for truth in range(8):
        stage = SparseVector(svt_fraction=1.0, svt_replace=False, svt_noise_var=2.0)
        sent = stage.process((candidates[truth],), fresh(truth))
        release = Release(("weight",), sent, 1, (stage.stage(),))
        found = scores(release, known, candidates)
        right += int(found.argmax()) == truth
        assert float(found[truth]) > 0
    assert right == 8


def test_sparse_vector_leaves_a_number_without_dimensions_as_it_is():
    number, _ = SparseVector().process((torch.tensor(3.0), torch.zeros(50)), fresh())
    assert number == 3.0


def test_sparse_vector_ends_where_the_threshold_is_out_of_reach():
    (sent,) = SparseVector(svt_tau=1.0, svt_replace=False).process((torch.zeros(50),), fresh())
    assert int((sent != 0).sum()) == 5


def passes(magnitudes, count, eps, gamma, tau, random):
    """The rule pass by pass: which entries are accepted."""
    first = eps / (1 + (2 * count) ** (2 / 3))
    threshold = tau + random.laplace(scale=gamma / first)
    accepted = np.zeros(len(magnitudes), dtype=bool)
    while accepted.sum() < count:
        noise = random.laplace(scale=2 * count * gamma / (eps - first), size=len(magnitudes))
        accepted |= magnitudes + noise >= threshold
    return accepted


@pytest.mark.parametrize(("count", "tau"), [(1, 0.5), (2, 3.0), (4, 0.0)])
def test_entries_are_accepted_as_in_passes_one_after_the_other(count, tau):
    """Every set of accepted entries is as frequent, by a chi-squared test of 3,000 draws of each kind."""
    magnitudes, eps, draws = np.array([0.0, 0.3, 0.7, 1.0]), 6.0, 3000
    random, generator = np.random.default_rng(count), fresh(count)
    rule = SparseVector(nominal_eps=eps, svt_gamma=1.0, svt_tau=tau)
    weights = 2 ** np.arange(4)
    table = np.zeros((2, 16))
    for _ in range(draws):
        table[0, passes(magnitudes, count, eps, 1.0, tau, random) @ weights] += 1
        table[1, rule._accepted(torch.from_numpy(magnitudes), count, generator).numpy() @ weights] += 1
    seen = table[:, table.sum(0) > 20]
    assert stats.chi2_contingency(seen).pvalue > 1e-3 if seen.shape[1] > 1 else count == 4
