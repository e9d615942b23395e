"""Intervals that hold as often as they say."""

import numpy as np
import pandas as pd
import pytest

from dpbench.report.compare.intervals import LEAST, bootstrap, groups, mcnemar, share_difference


def held(count, each, between, rng, *, ignore_groups=False, repeats=200):
    """How often the interval holds a true mean of 1, images of a batch having a part in common."""
    place = np.repeat(np.arange(count), each)
    inside = 0
    for _ in range(repeats):
        values = 1 + between * rng.normal(size=count)[place] + rng.normal(size=count * each)
        low, high = bootstrap(values, np.arange(len(values)) if ignore_groups else place)
        inside += low <= 1 <= high
    return inside / repeats


@pytest.mark.parametrize("count", [8, 20])
def test_the_bootstrap_holds_in_95_of_100_runs(count):
    assert 0.92 <= held(count, 4, 1.0, np.random.default_rng(1)) <= 0.985


def test_images_of_one_batch_are_not_independent():
    assert held(20, 8, 1.0, np.random.default_rng(2), ignore_groups=True, repeats=50) < 0.8


def test_few_batches_have_no_interval():
    values = np.arange(LEAST - 1.0)
    assert np.isnan(bootstrap(values, values)).all()
    assert not np.isnan(bootstrap(np.arange(float(LEAST)), np.arange(LEAST))).any()


def test_the_bootstrap_says_the_same_twice():
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap(values, np.arange(40) // 4) == bootstrap(values, np.arange(40) // 4)


def test_large_runs_are_drawn_in_parts():
    low, high = bootstrap(np.random.default_rng(0).normal(size=5_000), np.arange(5_000))
    assert -0.05 < low < 0 < high < 0.05


@pytest.mark.parametrize("chances", [(0.1, 0.1), (0.02, 0.3), (0.4, 0.05)])
def test_the_interval_of_shares_holds(chances):
    rng, (first, second) = np.random.default_rng(3), chances
    counts = rng.multinomial(25, [first, second, 1 - first - second], size=150)
    ends = [share_difference(int(a), int(b), 25) for a, b, _ in counts]
    assert np.mean([low <= second - first <= high for low, high in ends]) >= 0.95


def test_mcnemar_is_exact():
    assert mcnemar(0, 5) == pytest.approx(2 * 0.5**5)
    assert mcnemar(0, 0) == 1


def test_batches_that_share_a_photograph_are_drawn_together():
    batches = pd.Series([1, 1, 2, 2, 3, 3, 4])
    assert groups(batches, pd.Series(list("abbcdee"))).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert groups(pd.Series([], dtype="Int64"), pd.Series([], dtype="Int64")).tolist() == []
