"""What a filter's epsilon is worth, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import integrate, stats

from dpbench.privacy import local_dp_epsilon, sparse_vector_epsilon
from dpbench.privacy.gaussian import analytic_epsilon
from dpbench.protocol import InputError


@pytest.mark.parametrize(("eps", "delta"), [(0.9, 1e-5), (10, 1e-5), (20, 1e-6)])
def test_classical_noise_has_exactly_this_epsilon(eps, delta):
    """By integrating the densities of two clipped updates that point in opposite directions."""
    found = local_dp_epsilon(eps, delta, nominal_sensitivity=2.0)
    assert (found < eps) == (eps < 1)
    sigma = 2 * math.sqrt(2 * math.log(1.25 / delta)) / eps
    near, far = stats.norm(1, sigma), stats.norm(-1, sigma)
    start = found * sigma**2 / 2  # where the privacy loss passes eps
    reached, _ = integrate.quad(
        lambda x: near.pdf(x) - math.exp(found) * far.pdf(x), start, start + 12 * sigma, epsabs=1e-14
    )
    assert reached == pytest.approx(delta, rel=1e-4)


def test_an_epsilon_between_half_a_billion_and_a_billion_is_no_infinity():
    assert analytic_epsilon(1 / math.sqrt(2 * 9e8), 1e-5) == pytest.approx(9e8, rel=1e-3)
    assert analytic_epsilon(1 / math.sqrt(2 * 1.1e9), 1e-5) == math.inf


@pytest.mark.parametrize("entries", [480, 20_000])
def test_values_at_delta_are_little_above_the_privacy_loss_distribution(entries):
    found = sparse_vector_epsilon(entries)
    one = pld.from_laplace_mechanism(1 / 0.1, value_discretization_interval=1e-4)
    tight = one.self_compose(found.sent).get_epsilon_for_delta(1e-5)
    assert tight <= found.values_at_delta <= 1.1 * tight
    assert found.values == pytest.approx(found.sent * 0.1)


@pytest.mark.parametrize("eps", [0.1, 1.0, 4.0])
def test_no_set_of_accepted_entries_costs_more_than_the_bound(eps):
    """Two entries, one to send: the chance of each set, with the threshold integrated out."""
    first = eps / (1 + 2 ** (2 / 3))
    scale, bound = 2 / (eps - first), sparse_vector_epsilon(2, svt_fraction=0.5, nominal_eps=eps).selection
    thresholds = np.linspace(-60, 60, 400_001) / first
    density = stats.laplace(scale=1 / first).pdf(thresholds)

    def chances(magnitudes):
        p, q = (stats.laplace(scale=scale).sf(thresholds - m) for m in magnitudes)
        more = p + q - p * q  # the pass accepts something
        sets = (p * (1 - q) / more, q * (1 - p) / more, p * q / more)
        return np.array([integrate.trapezoid(density * each, thresholds) for each in sets])

    updates = [chances((a, b)) for a in (0, 1) for b in (0, 1)]
    losses = [np.log(one / other).max() for one in updates for other in updates]
    assert 0.2 * bound < max(losses) <= bound


def test_what_is_out_of_range_is_refused():
    for given in ({"nominal_eps": 0.0}, {"clipping_norm": -1.0}, {"nominal_delta": 0.7}, {"distance": 0.0}):
        with pytest.raises(InputError, match=r"must"):
            local_dp_epsilon(**given)
    for given in ({"svt_fraction": 1.5}, {"nominal_eps": 0.0}, {"svt_noise_var": -1.0}, {"delta": 0.0}):
        with pytest.raises(InputError, match=r"must"):
            sparse_vector_epsilon(10, **given)
    with pytest.raises(InputError, match="number of entries"):
        sparse_vector_epsilon(0)
