"""Accountants over the whole range of budgets: promises kept, order kept, and never a traceback."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dpbench import privacy
from dpbench.privacy import pld, renyi
from dpbench.protocol import InputError

EPS = (0.01, 0.1, 1.0, 8.0, 100.0, 1e4)
DELTA = (1e-3, 1e-5, 1e-9, 1e-12, 1e-14, 1e-16)
RATE = (1e-4, 0.01, 0.5, 1.0)
STEPS = (1, 100, 10**4, 10**6)
GRID = tuple(itertools.product(EPS, DELTA, RATE, STEPS))


def answered(function, *arguments, **named):
    """The answer, or None where one sentence refuses it."""
    try:
        return function(*arguments, **named)
    except InputError as refusal:
        sentence = str(refusal)
    assert "\n" not in sentence
    assert "at most 0." not in sentence
    return None


def keeps_its_promise(accountant, eps, delta, rate, steps):
    sigma = answered(privacy.noise_multiplier, eps, delta, rate, steps, accountant)
    if sigma is None:
        return False
    spent = privacy.epsilon(sigma, delta, rate, steps, accountant)
    assert spent <= eps
    less = privacy.epsilon(sigma * 0.999, delta, rate, steps, accountant)
    assert less >= 0.998 * eps, "the noise is not the smallest"
    if accountant == "pld":
        assert spent <= privacy.epsilon(sigma, delta, rate, steps, "rdp")
    return True


@pytest.mark.parametrize("part", range(2))
def test_rdp_spends_at_most_what_it_was_given(part):
    kept = [keeps_its_promise("rdp", *point) for point in GRID[part::37]]
    assert sum(kept) > len(kept) / 2


@pytest.mark.parametrize("first", [0, 108])
def test_pld_spends_at_most_what_it_was_given_and_no_more_than_rdp(first):
    """Point 1 takes as long as all others and is left out; the proposals below are of smaller budgets."""
    kept = [keeps_its_promise("pld", *point) for point in GRID[first::107]]
    assert sum(kept) > len(kept) / 2


@pytest.mark.slow
@pytest.mark.parametrize("accountant", ["pld", "rdp", "prv"])
@pytest.mark.parametrize("eps", EPS)
def test_the_whole_grid(accountant, eps):
    kept = [keeps_its_promise(accountant, *point) for point in GRID if point[0] == eps]
    assert any(kept)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize(
    ("varied", "values"),
    [
        (0, (1e3, 30.0, 3.0, 1.0, 0.5, 0.1, 1e-2)),
        (1, (1e-3, 1e-5, 1e-8, 1e-9, 1e-10, 1e-11, 1e-13, 1e-14, 1e-15, 1e-16)),
        (2, (1e-6, 1e-4, 1e-2, 0.1, 0.9, 1.0)),
        (3, (1, 10, 1000, 10**4, 10**5, 10**6, 10**8, 10**12, 2**62)),
    ],
)
def test_epsilon_grows_with_less_noise_smaller_delta_and_more_sampling(accountant, varied, values):
    found = []
    for value in values:
        arguments = [1.0, 1e-6, 0.01, 1000]
        arguments[varied] = value
        found.append(privacy.epsilon(*arguments, accountant))
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(found))
    assert found[0] < found[-1]


@pytest.mark.parametrize("delta", [1e-13, 1e-14, 1e-15, 1e-16])
def test_pld_is_never_above_rdp_where_rounding_would_decide(delta):
    """It was infinite at 1e-16."""
    assert privacy.epsilon(1.0, delta, 0.01, 1000) <= privacy.epsilon(1.0, delta, 0.01, 1000, "rdp") < 6


@pytest.mark.parametrize("delta", [1e-5, 1e-8, 1e-10, 1e-12, 1e-14, 1e-16])
@pytest.mark.parametrize(("sigma", "steps"), [(5.0, 10), (50.0, 1000), (500.0, 10**5), (500.0, 10**6)])
def test_pld_is_never_below_the_truth(sigma, steps, delta):
    """With a rate of almost 1 the truth is known; rounding took pld below it at 1e5 steps and delta 1e-12."""
    truth = privacy.epsilon(sigma, delta, 1.0, steps)
    assert truth * (1 - 1e-6) <= privacy.epsilon(sigma, delta, 1 - 1e-9, steps) <= truth * 1.35


def test_rdp_reaches_small_budgets():
    """Opacus' accountant broke off with a traceback in the search."""
    sigma = privacy.noise_multiplier(0.05, 1e-5, 0.01, 1000, "rdp")
    assert sigma == pytest.approx(20.4, rel=0.01)
    assert sigma > privacy.noise_multiplier(0.05, 1e-5, 0.01, 1000)


@pytest.mark.parametrize(("sigma", "rate"), [(1.0, 0.01), (0.3, 0.01), (0.05, 0.999), (5.0, 0.1), (2.0, 0.5)])
@pytest.mark.parametrize("order", [2, 5, 32])
def test_moments_of_whole_orders_are_those_of_opacus(sigma, rate, order):
    from opacus.accountants.analysis.rdp import compute_rdp

    theirs = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=float(order))
    assert renyi.log_moment(sigma, rate, order) / (order - 1) == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize(("sigma", "rate"), [(1.0, 0.01), (0.3, 0.01), (50.0, 1e-4), (1e3, 0.5), (1e6, 0.5)])
def test_the_second_moment_in_closed_form(sigma, rate):
    exact = math.log1p(rate**2 * math.expm1(1 / sigma**2))
    assert renyi.log_moment(sigma, rate, 2) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("order", [1.01, 1.5, 2.7, 8.3])
def test_moments_of_fractional_orders_by_simulation(order):
    """Fractional orders are where Opacus' series stops early."""
    sigma, rate = 2.0, 0.1
    x = np.random.default_rng(0).normal(0, sigma, 4_000_000)
    ratio = 1 + rate * np.expm1((x - 0.5) / sigma**2)
    values = ratio**order - 1 - order * (ratio - 1)
    error = values.std() / math.sqrt(len(x))
    assert math.expm1(renyi.log_moment(sigma, rate, order)) == pytest.approx(values.mean(), abs=4 * error)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.01, 1000), (0.6, 0.005, 2000), (5.0, 0.1, 500)])
def test_pld_agrees_with_opacus_prv(sigma, rate, steps):
    ours, theirs = (privacy.epsilon(sigma, 1e-5, rate, steps, name) for name in ("pld", "prv"))
    assert theirs - 0.03 <= ours <= theirs + 0.01


def test_prv_refuses_what_it_cannot_compute():
    for arguments in (
        (0.03, 1e-5, 0.01, 1000),
        (1e6, 1e-5, 0.5, 1),
        (1.0, 1e-13, 0.01, 1000),
        (1.0, 1e-5, 0.01, 10**9),
    ):
        with pytest.raises(InputError, match="use pld"):
            privacy.epsilon(*arguments, "prv")


@pytest.mark.parametrize(("sigma", "least"), [(0.0272, 760), (0.028, 720)])
def test_prv_is_refused_where_losses_pass_the_largest_exponential(sigma, least):
    """Opacus counts them all as log(1.8e308) = 709.78: it said so of what spends 765."""
    delta, rate = 6.5e-3, 0.9995
    threshold = 0.5 + sigma**2 * (least - math.log(rate))  # of x, where the loss is `least` or a little more
    power = rate * stats.norm.sf((threshold - 1) / sigma)
    assert power - math.exp(least + stats.norm.logsf(threshold / sigma)) > delta
    with pytest.raises(InputError, match="use pld"):
        privacy.epsilon(sigma, delta, rate, 1, "prv")
    assert privacy.epsilon(sigma, delta, rate, 1) > least


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_a_hundred_million_steps_are_answered(accountant):
    sigma = privacy.noise_multiplier(1.0, 1e-5, 0.01, 10**8, accountant)
    # by the central limit theorem they are one release with sqrt(steps) * rate / sigma
    assert sigma == pytest.approx(privacy.noise_multiplier(1.0, 1e-5) * 1e4 * 0.01, rel=0.15)


def test_a_delta_that_needs_no_noise_is_refused():
    """The message was: choose at most 0."""
    assert privacy.epsilon(1e-9, 1e-3, 1e-4, 1) == 0
    with pytest.raises(InputError, match="choose a smaller `delta`"):
        privacy.noise_multiplier(1.0, 1e-3, 1e-4, 1)


@pytest.mark.parametrize("steps", [1, 1000])
def test_what_a_message_proposes_is_within_reach(steps):
    with pytest.raises(InputError, match="choose at least") as caught:
        privacy.noise_multiplier(1e-6, 1e-5, 0.01, steps)
    proposed = float(str(caught.value).split("choose at least ")[1].removesuffix("."))
    assert (
        privacy.epsilon(privacy.noise_multiplier(proposed, 1e-5, 0.01, steps), 1e-5, 0.01, steps) <= proposed
    )


HUGE = (1e308, 2.0**62, 5e-324, 1e-300)


@pytest.mark.parametrize("sigma", HUGE)
@pytest.mark.parametrize("rate", [1.0, 0.5, 1e-300])
@pytest.mark.parametrize("accountant", ["pld", "prv", "rdp"])
def test_any_noise_is_answered_or_refused(sigma, rate, accountant):
    for steps in (1, 10**9, 2**63 - 1):
        for found in (
            answered(privacy.epsilon, sigma, 1e-5, rate, steps, accountant),
            answered(privacy.reconstruction_bound, sigma, rate, steps),
            answered(privacy.membership_bound, sigma, rate, steps),
            answered(privacy.eps_replace, sigma, 1e-5, steps),
        ):
            assert found is None or found >= 0


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 1e308},
        {"train_size": 2**63 - 1},
        {"train_size": 2**63 - 1, "epochs": 1e-300},
        {"train_size": 2**63},
        {"releases": 10**9},
        {"releases": 10**400},
        {"max_grad_norm": 10**400},
        {"eps": None, "noise_multiplier": 1e308},
        {"eps": None, "noise_multiplier": 5e-324},
        {"delta": 1e-300},
        {"inclusion": 5e-324, "releases": 10**9},
    ],
)
@pytest.mark.parametrize("scope", ["training", "release"])
def test_budgets_without_an_upper_end_are_answered_or_refused(changed, scope):
    usual = {"eps": 1.0, "noise_multiplier": None, "delta": 1e-5, "train_size": 50_000, "epochs": 10.0}
    usual |= {"train_batch_size": 256, "max_grad_norm": 1.0, "eps_scope": scope, "accountant": "rdp"}
    guarantee = answered(privacy.calibrate, **usual | changed)
    assert guarantee is None or guarantee.noise_multiplier > 0


def test_a_note_where_delta_allows_to_publish_a_sample():
    assert privacy.delta_note(1e-5, 50_000) is None
    assert "`delta` 2e-05 is not below 1 / `train_size`" in privacy.delta_note(1 / 50_000, 50_000)


def test_rounding_limits_of_the_distribution():
    assert pld.is_sound(1e-5, 10**7)
    assert not pld.is_sound(1e-5, 10**7 + 1)
    assert not pld.is_sound(1e-9, 10**5)
    assert not pld.is_sound(1e-11, 1)


def test_simulated_deltas_meet_the_rdp_bound():
    """The probability of losses above eps, weighted as in delta, is at most the delta that eps is for."""
    sigma, rate, steps, delta, n = 1.5, 0.2, 10, 0.01, 200_000
    eps = privacy.epsilon(sigma, delta, rate, steps, "rdp")
    rng = np.random.default_rng(0)
    x = rng.normal(0, sigma, (n, steps)) + (rng.random((n, steps)) < rate)
    loss = np.log1p(rate * np.expm1((x - 0.5) / sigma**2)).sum(1)
    simulated = np.maximum(-np.expm1(eps - loss), 0)
    assert simulated.mean() - 3 * stats.sem(simulated) < delta
    tight = np.maximum(-np.expm1(privacy.epsilon(sigma, delta, rate, steps) - loss), 0)
    assert tight.mean() == pytest.approx(delta, abs=4 * stats.sem(tight) + 1e-4)
