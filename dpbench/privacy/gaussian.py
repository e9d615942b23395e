"""The Gaussian mechanism without sampling, in closed form.

Add/remove adjacency, sensitivity 1 (the clip norm is the unit). T releases of one batch are one release with
sigma / sqrt(T).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from dpbench.protocol import InputError

EPS_RANGE = (1e-9, 1e6)
LARGEST_EPS = 1e9
"""Above it an epsilon counts as infinite."""


def analytic_epsilon(sigma: float, delta: float) -> float:
    """Smallest eps of one Gaussian release at `delta`; inf above 1e9 (Balle & Wang 2018, theorem 8).

    Example:
        >>> round(analytic_epsilon(3.7306, 1e-5), 3)
        1.0
    """
    if sigma < 1e-6:  # eps is near 1 / (2 sigma^2)
        return math.inf
    excess = _excess(delta)
    if excess(0.0, sigma) <= 0:
        return 0.0
    high = 1.0
    while excess(high, sigma) > 0:
        if high >= LARGEST_EPS:
            return math.inf
        high = min(2 * high, LARGEST_EPS)
    return float(brentq(excess, 0.0, high, args=(sigma,), xtol=1e-24, rtol=1e-13))


def analytic_sigma(eps: float, delta: float) -> float:
    """Smallest noise multiplier that makes one Gaussian release (eps, delta)-DP.

    Raises:
        InputError: for an eps outside 1e-9 ... 1e6.

    Example:
        >>> round(analytic_sigma(8, 1e-5), 4)
        0.6002
    """
    low, high = EPS_RANGE
    if not low <= eps <= high:
        raise InputError(
            f"`eps` {eps:g} is out of reach for a single release: choose one from {low:g} to {high:g}."
        )
    excess = _excess(delta)
    sigma = math.exp(brentq(lambda x: excess(eps, math.exp(x)), -20.0, 40.0, xtol=1e-13))
    more = 1e-12
    while analytic_epsilon(sigma, delta) > eps:  # by rounding only
        sigma, more = sigma * (1 + more), 2 * more
    return sigma


def gaussian_delta(mu: float, eps: np.ndarray) -> np.ndarray:
    """Delta at each eps where one sample moves a normal variable by `mu` standard deviations.

    Dong, Roth & Su 2022, corollary 1; by logarithms, which do not overflow.

    Args:
        mu: sqrt(T) / sigma for T releases, above 0.
        eps: [n], 0 or more.

    Example:
        >>> gaussian_delta(1 / 3.7306, np.array([1.0])).round(7)
        array([1.e-05])
    """
    larger = log_ndtr(mu / 2 - eps / mu)
    exponent = eps + log_ndtr(-mu / 2 - eps / mu) - larger
    return np.exp(larger) * -np.expm1(np.minimum(exponent, 0))


def _excess(delta: float) -> Callable[[float, float], float]:
    """(eps, sigma) -> log of a Gaussian release's exact delta less log `delta`: logs do not overflow."""

    def log_ratio(eps: float, sigma: float) -> float:
        with_sample = log_ndtr(0.5 / sigma - eps * sigma)
        exponent = eps + log_ndtr(-0.5 / sigma - eps * sigma) - with_sample
        return float(with_sample + math.log(max(-math.expm1(min(exponent, 0.0)), 1e-300)) - math.log(delta))

    return log_ratio
