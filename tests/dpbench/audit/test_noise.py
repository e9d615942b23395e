"""The checks of the noise on plain Gaussian numbers: their size, and what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dpbench.audit.moments import Moments
from dpbench.audit.noise import checks

SIGMA, C = 2.0, 1.5
D = 24


def moments(rng, rows=100, pairs=3, shift=C, scale=1.0):
    made = Moments(D, 2)
    for _ in range(pairs):
        absent, present = scale * SIGMA * C * rng.standard_normal((2, rows, D))
        present[:, 0] += shift
        made.add(absent + 5, present + 5)
    return made


def test_each_check_accuses_a_correct_mechanism_no_more_often_than_its_level():
    """Also where the canary moves the mean by C, as far as it may."""
    rng, runs = np.random.default_rng(0), 300
    found = [checks(moments(rng), SIGMA, C, 0.05) for _ in range(runs)]
    for each in zip(*found, strict=True):
        accused = sum(check.p < 0.05 for check in each)
        assert accused <= stats.binom.ppf(0.999, runs, 0.05), each[0].name
    assert sum(any(check.failed for check in each) for each in found) <= stats.binom.ppf(0.999, runs, 0.05)


def test_checks_share_the_error_and_use_it():
    found = checks(moments(np.random.default_rng(1)), SIGMA, C, 0.08)
    assert [check.level for check in found] == pytest.approx([0.01] * 8)
    assert not any(check.failed for check in found)
    assert len({check.name for check in found}) == 8


def test_sizes_are_told():
    found = checks(moments(np.random.default_rng(2), rows=4000, scale=0.9), SIGMA, C, 0.05)
    failed = {check.name: check.found for check in found if check.failed}
    assert failed.keys() == {"size", "quietest direction"}
    assert failed["quietest direction"].startswith(("0.89", "0.90"))


@pytest.mark.parametrize(("shift", "scale"), [(1.3 * C, 1.0), (3 * C, 1e-4)])
def test_a_mean_that_moves_too_far_is_told(shift, scale):
    """By the noncentral distribution and, where there is hardly any noise, by its normal limit."""
    found = checks(moments(np.random.default_rng(3), 4000, shift=shift, scale=scale), SIGMA * scale, C, 0.05)
    assert {check.name for check in found if check.failed} == {"shift of the mean"}
    assert float(found[-1].found.split()[1]) == pytest.approx(shift / C, rel=0.1)


def test_the_normal_limit_of_the_shift_is_not_above_its_level():
    rng = np.random.default_rng(4)
    p = [checks(moments(rng, scale=1e-3), SIGMA * 1e-3, C, 0.05)[-1].p for _ in range(200)]
    assert sum(each < 0.05 for each in p) <= stats.binom.ppf(0.999, 200, 0.05)


def test_without_a_claim_entries_are_compared_with_the_median_entry():
    made = moments(np.random.default_rng(5), scale=7.0)
    assert not any(check.failed for check in checks(made, None, C, 0.05))
    made.scatter[3, 3] = 0
    size = checks(made, None, C, 0.05)[0]
    assert size.failed
    assert size.found.startswith("1 of 24 entries not noised")


def test_equal_tensors_are_counted_within_a_world_only():
    rng, made = np.random.default_rng(6), Moments(D, 2)
    rows = rng.standard_normal((50, D))
    made.add(rows, rows + 1)
    assert made.repeats == 0
    assert made.likeness[1][1] == pytest.approx(1)
    twice = np.concatenate([rows, rows[:7]])
    half = rng.standard_normal((57, D))
    half[3, : D // 2] = half[1, : D // 2]
    made.add(twice, half)
    assert (made.repeats, made.count) == (15, 428)
