from __future__ import annotations

import pytest
from scipy.stats import beta

from dpbench.privacy.intervals import clopper_pearson


@pytest.mark.parametrize(("right", "trials"), [(1, 5), (37, 100), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_against_quantiles_of_the_beta_distribution(right, trials, confidence):
    tail = (1 - confidence) / 2
    low, high = beta.ppf(tail, right, trials - right + 1), beta.ppf(1 - tail, right + 1, trials - right)
    assert clopper_pearson(right, trials, confidence) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("trials", [1, 5, 400])
def test_nothing_right_or_everything_right(trials):
    bound = 1 - 0.025 ** (1 / trials)
    assert clopper_pearson(0, trials) == pytest.approx((0.0, bound))
    assert clopper_pearson(trials, trials) == pytest.approx((1 - bound, 1.0))


@pytest.mark.parametrize(("right", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(right, trials):
    with pytest.raises(ValueError, match="must"):
        clopper_pearson(right, trials)


def test_without_a_trial_nothing_is_known():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, -0.1])
def test_impossible_confidences_are_refused(confidence):
    with pytest.raises(ValueError, match="must"):
        clopper_pearson(1, 5, confidence)
