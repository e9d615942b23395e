from __future__ import annotations

import pytest
from scipy.stats import binomtest

from dpbench.privacy.intervals import clopper_pearson


@pytest.mark.parametrize(("right", "trials"), [(0, 5), (5, 5), (1, 5), (37, 100), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_against_scipys_exact_test(right, trials, confidence):
    found = binomtest(right, trials).proportion_ci(confidence, "exact")
    assert clopper_pearson(right, trials, confidence) == pytest.approx((found.low, found.high), abs=1e-9)
