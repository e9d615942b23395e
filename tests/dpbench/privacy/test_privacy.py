"""Accounting against published values, other accountants, limits in closed form, and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from dpbench import privacy
from dpbench.privacy import calibration, gaussian, pld
from dpbench.protocol import InputError
from dpbench.system import cache

SAMPLED = (1e-5, 256 / 50_000, 2000)
"""delta, sample rate, steps of the reference values."""


@pytest.mark.parametrize(("eps", "sigma"), [(1, 3.7306), (8, 0.6002), (50, 0.1498)])
def test_one_release_has_the_sigma_of_the_analytic_gaussian_mechanism(eps, sigma):
    assert privacy.noise_multiplier(eps, 1e-5) == pytest.approx(sigma, rel=1e-3)
    assert privacy.epsilon(privacy.noise_multiplier(eps, 1e-5), 1e-5) == pytest.approx(eps, rel=1e-9)


@pytest.mark.parametrize(("eps", "sigma"), [(1, 1.133), (8, 0.537)])
def test_sampled_steps_have_opacus_prv_sigma(eps, sigma):
    found = privacy.noise_multiplier(eps, *SAMPLED)
    assert found == pytest.approx(sigma, rel=0.02)
    assert privacy.epsilon(found, *SAMPLED) == pytest.approx(eps, rel=2e-3)


@pytest.mark.parametrize(("eps", "sigma"), [(1, 1.2207), (8, 0.563)])
def test_rdp_is_looser_than_pld_and_prv_agrees_with_it(eps, sigma):
    """Opacus' own accountants check ours: rdp from above, prv within its error."""
    pld = privacy.noise_multiplier(eps, *SAMPLED)
    assert pld < privacy.noise_multiplier(eps, *SAMPLED, accountant="rdp") == pytest.approx(sigma, rel=0.02)
    assert privacy.epsilon(pld, *SAMPLED, accountant="prv") == pytest.approx(eps, abs=0.02)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0])
def test_pld_at_a_sample_rate_of_almost_one_meets_the_closed_form(sigma):
    """Nothing of the analytic formula is in the discretised distribution."""
    composed = privacy.epsilon(sigma, 1e-5, 1 - 1e-9, 10)
    assert composed == pytest.approx(privacy.epsilon(sigma, 1e-5, 1.0, 10), rel=3e-3)


@settings(max_examples=30, deadline=None)
@given(log_eps=st.floats(-9, 4), log_delta=st.floats(-8, -2), steps=st.sampled_from([1, 4, 1000]))
def test_the_analytic_formula_inverts_over_thirteen_decades(log_eps, log_delta, steps):
    eps, delta = 10**log_eps, 10**log_delta
    sigma = privacy.noise_multiplier(eps, delta, 1.0, steps)
    assert privacy.epsilon(sigma, delta, 1.0, steps) == pytest.approx(eps, rel=1e-3)


@pytest.mark.parametrize(("eps", "sigma"), [(0.1, 8.0), (1.0, 1.0), (5.0, 0.7)])
def test_the_analytic_delta_is_the_integral_it_stands_for(eps, sigma):
    """delta = integral of (density with the sample - e^eps density without)+."""

    def gap(x):
        return max(stats.norm.pdf(x, 1, sigma) - math.exp(eps) * stats.norm.pdf(x, 0, sigma), 0)

    threshold = eps * sigma**2 + 0.5
    delta = quad(gap, threshold, threshold + 12 * sigma)[0]
    assert privacy.epsilon(sigma, delta) == pytest.approx(eps, rel=1e-5)


@pytest.mark.parametrize(("delta", "sample_rate", "steps", "eps"), [(1e-5, 1 / 50_000, 500_000, 1000)])
def test_a_long_run_with_a_high_budget_is_within_reach(delta, sample_rate, steps, eps):
    sigma = privacy.noise_multiplier(eps, delta, sample_rate, steps)
    assert sigma == pytest.approx(0.1017, rel=5e-3)


@pytest.mark.parametrize("sigma", [0.12, 0.1225, 0.125])
def test_no_hole_where_probabilities_underflow(sigma):
    """dp-accounting's own epsilon is infinite in a band above eps 709."""
    delta, rate, steps = 1e-5, 256 / 50_000, 1954
    wider, narrower = (privacy.epsilon(s, delta, rate, steps) for s in (sigma * 1.1, sigma / 1.1))
    assert wider * 1.1 < privacy.epsilon(sigma, delta, rate, steps) < narrower / 1.1


def test_grids_are_upper_bounds_that_tighten():
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    delta, rate, steps = SAMPLED
    single = from_gaussian_mechanism(1.1, value_discretization_interval=1e-4, sampling_prob=rate)
    reference = single.self_compose(steps).get_epsilon_for_delta(delta)
    assert privacy.epsilon(1.1, *SAMPLED) == pytest.approx(reference, rel=2e-3)
    coarse, fine = (
        pld.loss_distribution(1.1, rate, steps, n).get_epsilon_for_delta(delta) for n in (2**12, 2**15)
    )
    assert coarse > fine


@pytest.mark.parametrize(("eps", "gamma"), [(1, 0.155), (2, 0.218), (4, 0.361), (8, 0.650), (16, 0.948)])
def test_reconstruction_bound_of_one_release(eps, gamma):
    sigma = privacy.noise_multiplier(eps, 1e-5)
    assert privacy.reconstruction_bound(sigma, kappa=0.1) == pytest.approx(gamma, abs=1e-3)


@pytest.mark.parametrize(
    ("rate", "steps", "sigma", "gamma"),
    [(0.01, 100, 0.6, 0.183), (0.1, 100, 2.0, 0.228), (0.01, 1000, 1.0, 0.194)],
)
def test_reconstruction_bound_of_sampled_steps(rate, steps, sigma, gamma):
    assert privacy.reconstruction_bound(sigma, rate, steps, 0.1) == pytest.approx(gamma, abs=5e-3)


@pytest.mark.parametrize(("sigma", "steps", "kappa"), [(0.34, 1, 0.1), (3.0, 9, 0.4), (0.6, 1, 1e-6)])
def test_duality_meets_the_closed_form(sigma, steps, kappa):
    """At sigma 0.34 the optimal eps is negative."""
    sampled = privacy.reconstruction_bound(sigma, 1 - 1e-9, steps, kappa)
    assert sampled == pytest.approx(
        privacy.reconstruction_bound(sigma, 1.0, steps, kappa), rel=5e-3, abs=1e-9
    )


def test_the_best_distinguisher_comes_near_the_sampled_bound_and_not_above():
    """Simulated likelihood-ratio test, as in Hayes et al.: threshold without the sample, power with it."""
    rate, steps, sigma, kappa, n = 0.1, 20, 1.0, 0.1, 40_000
    rng = np.random.default_rng(0)

    def log_ratio(present):
        x = rng.normal(0, sigma, (n, steps)) + present
        return np.log1p(rate * np.expm1((x - 0.5) / sigma**2)).sum(1)

    threshold = np.quantile(log_ratio(0), 1 - kappa)
    power = (log_ratio(rng.random((n, steps)) < rate) > threshold).mean()
    bound = privacy.reconstruction_bound(sigma, rate, steps, kappa)
    assert power == pytest.approx(bound, abs=4 * math.sqrt(0.25 / n) * 2)


def calibrated(**changed):
    usual = {
        "eps": 1.0,
        "noise_multiplier": None,
        "eps_scope": "training",
        "delta": 1e-5,
        "train_size": 50_000,
        "train_batch_size": 256,
        "epochs": 10,
        "max_grad_norm": 2.0,
    }
    return privacy.calibrate(**usual | changed)


def test_training_scope_accounts_for_the_run_and_the_release():
    guarantee = calibrated()
    assert (guarantee.steps, guarantee.sample_rate) == (1954, 256 / 50_000)
    assert (guarantee.eps, guarantee.accountant, guarantee.eps_scope) == (1.0, "pld", "training")
    assert guarantee.eps_release == privacy.epsilon(guarantee.noise_multiplier, 1e-5) > 3
    assert guarantee.rero_release == privacy.reconstruction_bound(guarantee.noise_multiplier)
    assert guarantee.max_grad_norm == 2.0
    back = calibrated(eps=None, noise_multiplier=guarantee.noise_multiplier)
    assert back.eps == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, "pld"),
        ({"delta": 1e-13}, "rdp"),  # rounding would decide
        ({"accountant": "prv"}, "prv"),
        ({"accountant": "rdp"}, "rdp"),
        ({"eps_scope": "release", "inclusion": 0.5}, "pld"),
        ({"eps_scope": "release", "inclusion": 0.5, "delta": 1e-13}, "rdp"),
    ],
)
def test_the_accountant_is_the_one_that_computed_the_epsilon(changed, named):
    guarantee = calibrated(eps=None, noise_multiplier=1.0, **changed)
    assert guarantee.accountant == named


def test_release_scope_accounts_for_one_release():
    guarantee = calibrated(eps=8.0, eps_scope="release")
    assert (guarantee.eps, guarantee.sample_rate, guarantee.steps) == (None, 1.0, 1)
    assert guarantee.accountant == "analytic"
    assert guarantee.eps_release == pytest.approx(8, rel=1e-9)
    assert guarantee.noise_multiplier == pytest.approx(0.6002, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"eps": 0.0}, "`eps` must be a finite number above 0"),
        ({"eps": -1.0}, "`eps` must be a finite number above 0"),
        ({"eps": math.nan}, "`eps` must be a finite number above 0"),
        ({"eps": math.inf}, "`eps` must be a finite number above 0"),
        ({"eps": 1e7}, "choose at most 1e\\+06"),
        ({"eps": 1e7, "eps_scope": "release"}, "choose one from 1e-09 to 1e\\+06"),
        ({"eps": 1e-10, "eps_scope": "release"}, "choose one from 1e-09 to 1e\\+06"),
        ({"delta": 0.51}, "`delta` must lie from 1e-100 to 0.5"),
        ({"delta": math.nan}, "`delta` must lie from 1e-100 to 0.5"),
        ({"noise_multiplier": 1.0}, "either `eps` or `noise_multiplier`"),
        ({"eps": None}, "either `eps` or `noise_multiplier`"),
        ({"eps": None, "noise_multiplier": 0.0}, "`noise_multiplier` must be a finite number above 0"),
        ({"eps_scope": "run"}, "must be one of training, release"),
        ({"accountant": "gdp"}, "must be one of pld, prv, rdp"),
        ({"train_batch_size": 60_000}, "training set of 50000 samples has no batches of 60000"),
        ({"train_batch_size": 0}, "`train_batch_size` must be a whole number of at least 1"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm`"),
        ({"epochs": 0}, "`epochs`"),
        ({"releases": 0}, "`releases` must be a whole number"),
        ({"releases": 1.5}, "`releases` must be a whole number"),
    ],
)
def test_bad_values_get_one_sentence_each(changed, match):
    with pytest.raises(InputError, match=match) as caught:
        calibrated(**changed)
    assert "\n" not in str(caught.value)


def test_an_eps_below_reach_says_what_is_within():
    with pytest.raises(InputError, match="choose at least"):
        privacy.noise_multiplier(1e-9, 1e-5, 0.5, 1000)


def test_bad_steps_rates_and_priors():
    for rate in (0.0, 1.5):
        with pytest.raises(InputError, match="sample rate must lie above 0 and be at most 1"):
            privacy.epsilon(1.0, 1e-5, rate)
    for steps in (0, 1.5):
        with pytest.raises(InputError, match="number of steps must be a whole number of at least 1"):
            privacy.epsilon(1.0, 1e-5, 0.5, steps)
    with pytest.raises(InputError, match="kappa"):
        privacy.reconstruction_bound(1.0, kappa=1.0)


def test_searches_are_remembered_and_a_corrupt_entry_is_computed_again(monkeypatch, tmp_path):
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))
    answers = iter(range(1, 9))
    monkeypatch.setattr(calibration, "sampled_sigma", lambda *_: float(next(answers)))
    assert [privacy.noise_multiplier(5, 1e-5, 0.01, 10) for _ in range(3)] == [1, 1, 1]
    assert privacy.noise_multiplier(5, 1e-5, 0.01, 11) == 2
    (tmp_path / "privacy").rename(tmp_path / "gone")
    assert privacy.noise_multiplier(5, 1e-5, 0.01, 10) == 3
    (entry,) = (cache.folder() / "privacy").iterdir()
    junk = ("", "{", "[]", json.dumps({"arguments": "of another search", "value": 1.0}))
    for expected, text in enumerate(junk, 4):
        entry.write_text(text)
        assert privacy.noise_multiplier(5, 1e-5, 0.01, 10) == expected
    assert list((cache.folder() / "privacy").iterdir()) == [entry]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "sampled_sigma", lambda *_: 1.5)
    assert privacy.noise_multiplier(5, 1e-5, 0.01, 10) == 1.5


@pytest.mark.parametrize(("eps", "replaced"), [(1, 2.15), (8, 19.1)])
def test_replacing_a_sample_costs_the_epsilon_of_twice_the_sensitivity(eps, replaced):
    sigma = privacy.noise_multiplier(eps, 1e-5)
    assert privacy.eps_replace(sigma, 1e-5) == pytest.approx(replaced, rel=3e-3)
    assert calibrated(eps=float(eps), eps_scope="release").eps_replace == pytest.approx(replaced, rel=3e-3)


@pytest.mark.parametrize("releases", [1, 10])
def test_attacked_releases_add_up(releases):
    """T releases of one batch are one release with sqrt(T) times less noise; the training budget stays."""
    guarantee = calibrated(releases=releases)
    sigma = guarantee.noise_multiplier
    assert (guarantee.eps, guarantee.releases, sigma) == (1.0, releases, calibrated().noise_multiplier)
    single = gaussian.analytic_epsilon(sigma / math.sqrt(releases), 1e-5)
    assert guarantee.eps_release == pytest.approx(single, rel=1e-9)
    mu = math.sqrt(releases) / sigma
    assert guarantee.rero_release == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.1) + mu), rel=1e-9)


def test_a_release_budget_is_of_all_attacked_releases_together():
    guarantee = calibrated(eps=8.0, eps_scope="release", releases=4)
    assert guarantee.eps_release == pytest.approx(8, rel=1e-9)
    assert guarantee.noise_multiplier == pytest.approx(2 * 0.6002, rel=1e-3)
    assert guarantee.rero_release == pytest.approx(0.650, abs=1e-3)
    assert (guarantee.sample_rate, guarantee.steps, guarantee.accountant) == (1.0, 1, "analytic")


def test_no_distribution_is_composed_twice_for_one_account(monkeypatch):
    composed = []

    def noted(*given, compose=pld.loss_distribution):
        composed.append(given)
        return compose(*given)

    monkeypatch.setattr(pld, "loss_distribution", noted)
    pld._on_grid.cache_clear()
    calibration.calibrate(
        eps=2.0,
        noise_multiplier=None,
        eps_scope="training",
        delta=1e-5,
        train_size=5_000,
        train_batch_size=100,
        epochs=2,
        max_grad_norm=1.0,
    )
    assert len(composed) == len(set(composed)) > 3
