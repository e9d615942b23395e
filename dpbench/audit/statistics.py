"""From the scores of releases with and without a canary to a lower bound on the privacy loss.

A test "score above a threshold: the canary is there" errs in two ways. Upper limits on both error rates that
hold together bound epsilon and mu from below, whatever the mechanism (Kairouz et al. 2015; Nasr et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import beta

Bound = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(false positive rates, false negative rates) -> lower bounds on a privacy parameter."""


def error_rate_limits(
    absent: np.ndarray, present: np.ndarray, thresholds: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Upper limits on both error rates of each threshold (Clopper & Pearson 1934).

    Args:
        absent: scores of releases without the canary.
        present: scores of releases with it.
        thresholds: [n]; each pair of limits holds with probability 1 - alpha, not all n pairs together.
        alpha: chance that one of the two limits is wrong, half of it for each.

    Returns:
        Limits [n] on the false positive rate and on the false negative rate.

    Example:
        >>> scores = np.arange(100.0)
        >>> [rate.round(3) for rate in error_rate_limits(scores, scores + 200, np.array([150.0]), 0.05)]
        [array([0.036]), array([0.036])]
    """
    above = len(absent) - np.searchsorted(np.sort(absent), thresholds, side="right")
    below = np.searchsorted(np.sort(present), thresholds, side="right")
    return _upper(above, len(absent), alpha / 2), _upper(below, len(present), alpha / 2)


def _upper(errors: np.ndarray, trials: int, alpha: float) -> np.ndarray:
    return np.where(errors < trials, beta.ppf(1 - alpha, errors + 1, np.maximum(trials - errors, 1)), 1.0)


def epsilon_bound(delta: float) -> Bound:
    """The bound that (epsilon, `delta`)-differential privacy sets on the error rates, solved for epsilon.

    Example:
        >>> float(epsilon_bound(0.0)(np.array([0.1]), np.array([0.2]))[0])  # log(0.8 / 0.1)
        2.0794415416798357
    """

    def bound(false_positive: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
        ratios = [
            np.maximum(1 - one - delta, 1e-300) / other
            for one, other in ((false_negative, false_positive), (false_positive, false_negative))
        ]
        return np.maximum(np.log(np.maximum(*ratios)), 0.0)

    return bound


def mu_bound(false_positive: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
    """The bound that mu-Gaussian differential privacy sets on the error rates, solved for mu.

    One Gaussian release with sensitivity C and noise sigma C is (1 / sigma)-GDP (Dong et al. 2022), and this
    is what it claims; a larger mu refutes it, with far fewer trials than `epsilon_bound` needs.

    Example:
        >>> float(mu_bound(np.array([0.5]), np.array([0.15865525])).round(3)[0])
        1.0
    """
    return np.maximum(ndtri(1 - false_positive) - ndtri(false_negative), 0.0)


class LowerBound(NamedTuple):
    """What was found, and in which column of the scores."""

    value: float
    column: int


def lower_bound(
    absent: np.ndarray, present: np.ndarray, bound: Bound, alpha: float, choosing: int | None = None
) -> LowerBound:
    """The best `bound` to be had from the scores, true but for a chance of `alpha`.

    The first `choosing` scores of each world choose the column, the way to look and the threshold; the others
    are the evidence. So only one test is made on the evidence, and however many columns there are, they cost
    no correction.

    Args:
        absent: [n] or [n, k], k scores of each of n independent releases without the canary.
        present: the same of as many with it.
        bound: `mu_bound` or an `epsilon_bound(delta)`.
        alpha: chance of a bound above the truth.
        choosing: half of them unless given.
    """
    half = len(absent) // 2 if choosing is None else choosing
    absent, present = (scores.reshape(len(scores), -1) for scores in (absent, present))
    best = (-1.0, 0, 1, 0.0)
    for column in range(absent.shape[1]):
        for sign in (1, -1):
            known = sign * absent[:half, column], sign * present[:half, column]
            pooled = np.sort(np.concatenate(known))
            thresholds = (pooled[1:] + pooled[:-1]) / 2
            promises = bound(*error_rate_limits(*known, thresholds, alpha))
            i = promises.argmax()
            if promises[i] > best[0]:
                best = (promises[i], column, sign, thresholds[i])
    _, column, sign, threshold = best
    evidence = sign * absent[half:, column], sign * present[half:, column]
    value = bound(*error_rate_limits(*evidence, np.array([threshold]), alpha))[0]
    return LowerBound(float(value), column)
