"""Epsilon of a noise multiplier, and back, under four ways of accounting.

Throughout: add/remove adjacency, sensitivity 1 (the clip norm is the unit), Poisson sampling.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr, ndtr, ndtri

from dpbench.protocol import InputError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

ACCOUNTANTS = ("pld", "prv", "rdp")
TOLERANCE = 1e-3
"""A searched sigma spends between (1 - TOLERANCE) * eps and eps."""
ANALYTIC_RANGE = (1e-9, 1e6)
SIGMA_RANGE = (0.02, 1e6)
SMALLEST_EPS = 1e-4
"""Below it rounding takes over the pld accountant, and the search over minutes."""
GRIDS = (2**15, 2**17)
"""Sizes of the discretised composed loss, coarse to fine; smaller go dp-accounting's slow sparse way."""


def analytic_epsilon(sigma: float, delta: float) -> float:
    """Smallest eps of one Gaussian release at `delta`; inf above 1e9 (Balle & Wang 2018, theorem 8).

    T full-batch releases are one with sigma / sqrt(T).

    Example:
        >>> round(analytic_epsilon(3.7306, 1e-5), 3)
        1.0
    """
    excess = _excess(delta)
    if excess(0.0, sigma) <= 0:
        return 0.0
    high = 1.0
    while excess(high, sigma) > 0:
        high *= 2
        if high > 1e9:
            return math.inf
    return float(brentq(excess, 0.0, high, args=(sigma,), xtol=1e-15, rtol=1e-12))


def analytic_sigma(eps: float, delta: float) -> float:
    """Smallest noise multiplier that makes one Gaussian release (eps, delta)-DP.

    Raises:
        InputError: for an eps outside 1e-9 ... 1e6.

    Example:
        >>> round(analytic_sigma(8, 1e-5), 4)
        0.6002
    """
    low, high = ANALYTIC_RANGE
    if not low <= eps <= high:
        raise InputError(
            f"eps {eps:g} is out of reach for a single release: choose one from {low:g} to {high:g}."
        )
    excess = _excess(delta)
    return math.exp(brentq(lambda x: excess(eps, math.exp(x)), -20.0, 40.0, xtol=1e-13))


def _excess(delta: float) -> Callable[[float, float], float]:
    """(eps, sigma) -> log of a Gaussian release's exact delta less log `delta`: logs do not overflow."""

    def log_ratio(eps: float, sigma: float) -> float:
        with_sample = log_ndtr(0.5 / sigma - eps * sigma)
        exponent = eps + log_ndtr(-0.5 / sigma - eps * sigma) - with_sample
        return float(with_sample + math.log(max(-math.expm1(min(exponent, 0.0)), 1e-300)) - math.log(delta))

    return log_ratio


def loss_distribution(sigma: float, sample_rate: float, steps: int, grid: int) -> PrivacyLossDistribution:
    """The composed privacy loss of `steps` subsampled releases on about `grid` points, rounded upwards.

    The interval is chosen by the spread of the composed loss, so the cost hardly depends on eps or steps.
    Every grid gives a valid upper bound on eps ("connect the dots", Doroshenko et al. 2022), finer ones a
    tighter one.
    """
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    x = np.linspace(-10 * sigma, 1 + 10 * sigma, 4001)
    loss = np.logaddexp(np.log1p(-sample_rate), np.log(sample_rate) + (x - 0.5) / sigma**2)
    absent, present = np.exp(-((x / sigma) ** 2) / 2), np.exp(-(((x - 1) / sigma) ** 2) / 2)
    weight = (1 - sample_rate) * absent + sample_rate * present
    spread = math.sqrt(np.average(loss**2, weights=weight))
    interval = (14 * spread * math.sqrt(steps) + loss[-1]) / grid
    single = from_gaussian_mechanism(
        sigma, value_discretization_interval=interval, sampling_prob=sample_rate, use_connect_dots=True
    )
    return single.self_compose(steps)


def pld_epsilon(sigma: float, delta: float, sample_rate: float, steps: int) -> float:
    """Tight epsilon from the privacy loss distribution (dp-accounting).

    Never below the truth; above it by some 0.2 %, and by 3 % where eps is under 0.1 in half a million steps.
    """
    best = math.inf
    for grid in GRIDS:
        eps = _on_grid(sigma, delta, sample_rate, steps, grid)
        if eps > best * (1 - TOLERANCE):
            return min(eps, best)
        best = eps
    return best


def pld_sigma(eps: float, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier that spends `eps`, by the privacy loss distribution.

    Raises:
        InputError: where no noise multiplier within reach spends it; the sentence says what is within reach.
    """

    def on(grid: int) -> Callable[[float], float]:
        return lambda sigma: _on_grid(sigma, delta, sample_rate, steps, grid)

    if eps < SMALLEST_EPS:
        raise InputError(
            f"eps {eps:g} is out of reach of the pld accountant over a training: "
            f"choose at least {SMALLEST_EPS:g}, or --eps-scope release."
        )
    coarse = on(GRIDS[0])
    sigma, value = 1.0, coarse(1.0)
    factor = 2.0 if value > eps else 0.5
    seen = [value]
    while (value > eps) == (factor > 1):
        sigma *= factor
        if not SIGMA_RANGE[0] <= sigma <= SIGMA_RANGE[1]:
            break
        value = coarse(sigma)
        if (value - seen[-1]) * (1 - factor) <= 0:  # rounding has taken over: no tighter bound this way
            break
        seen.append(value)
    if (seen[-1] > eps) == (factor > 1):
        side = f"at least {min(seen):.3g}" if factor > 1 else f"at most {max(seen):.3g}"
        raise InputError(
            f"eps {eps:g} is out of reach of the pld accountant at delta {delta:g}, sample rate "
            f"{sample_rate:.3g} and {steps} steps: choose {side}."
        )
    low, high = sorted((sigma, sigma / factor))
    sigma = math.exp(
        brentq(
            lambda x: math.log(max(coarse(math.exp(x)), 1e-12) / eps),
            math.log(low),
            math.log(high),
            rtol=1e-3,
        )
    )
    slope = math.log(max(coarse(sigma * 1.02), 1e-12) / max(coarse(sigma), 1e-12)) / math.log(1.02)
    for i, grid in enumerate(GRIDS):
        finer, slope = _refine(on(grid), eps, sigma, slope)
        if i and finer > sigma * (1 - TOLERANCE):
            return min(finer, sigma)
        sigma = finer
    return sigma


def _on_grid(sigma: float, delta: float, sample_rate: float, steps: int, grid: int) -> float:
    composed = loss_distribution(sigma, sample_rate, steps, grid)
    with np.errstate(over="ignore"):
        eps = composed.get_epsilon_for_delta(delta)
    if math.isfinite(eps) or composed.get_delta_for_epsilon(1e9) > delta:
        return float(eps)
    # Near eps 710 dp-accounting divides by a probability that underflows; its delta has no such hole.
    return float(brentq(lambda x: composed.get_delta_for_epsilon(x) - delta, 0.0, 1e9, rtol=1e-6))


def opacus_epsilon(name: str, sigma: float, delta: float, sample_rate: float, steps: int) -> float:
    """Epsilon from Opacus' `prv` or `rdp` accountant.

    Raises:
        InputError: where `prv` gives no answer.
    """
    from opacus.accountants import PRVAccountant, RDPAccountant

    history = [(sigma, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "rdp":
            accountant = RDPAccountant()
            accountant.history = history
            # Opacus' own orders start at 1.1, far above the best one where eps is in the hundreds.
            orders = [1 + x / 1000 for x in range(1, 100, 3)] + RDPAccountant.DEFAULT_ALPHAS
            return float(accountant.get_epsilon(delta, alphas=orders))
        accountant = PRVAccountant()
        accountant.history = history
        try:
            return float(accountant.get_epsilon(delta))
        except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
            raise InputError(
                f"The prv accountant gives no answer at noise multiplier {sigma:.3g}, sample rate "
                f"{sample_rate:.3g} and {steps} steps; use pld."
            ) from error


def opacus_sigma(name: str, eps: float, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier that spends `eps` by Opacus' `prv` or `rdp`; the search sets out from pld's."""
    start = pld_sigma(eps, delta, sample_rate, steps)
    return _refine(lambda sigma: opacus_epsilon(name, sigma, delta, sample_rate, steps), eps, start, -2.0)[0]


def _refine(spent: Callable[[float], float], eps: float, sigma: float, slope: float) -> tuple[float, float]:
    """From a near `sigma` to one that spends just under `eps`: secant steps, bisection where they stray.

    All in logarithms; `slope` is that of log eps over log sigma; returned refreshed beside the sigma found.
    """
    goal, before = math.log(eps * (1 - TOLERANCE / 2)), None
    low, high = 0.0, math.inf  # the largest sigma known to spend more than eps, the smallest to spend less
    while True:
        value = spent(sigma)
        if eps * (1 - TOLERANCE) <= value <= eps:
            return sigma, slope
        low, high = (max(low, sigma), high) if value > eps else (low, min(high, sigma))
        if high <= low * (1 + TOLERANCE / 10):
            return high, slope
        here = (math.log(sigma), math.log(max(value, 1e-12)))
        if (
            before and abs(here[0] - before[0]) > TOLERANCE
        ):  # nearer together, rounding decides the difference
            slope = (here[1] - before[1]) / (here[0] - before[0])
        before, slope = here, min(slope, -0.1)
        sigma = math.exp(here[0] + min(max((goal - here[1]) / slope, -0.5), 0.5))
        if not low < sigma < high:
            sigma = math.sqrt(low * high)


def blow_up(sigma: float, sample_rate: float, steps: int, kappa: float) -> float:
    """The most probability an event of probability `kappa` without the sample can have with it.

    Lagrangian duality over the privacy loss distribution: min over eps of delta(eps) + e^eps * kappa, every
    term of which is an upper bound (eps below 0 included; above -log kappa the second term passes 1).
    """
    if sample_rate == 1:
        return float(ndtr(ndtri(kappa) + math.sqrt(steps) / sigma))
    composed = loss_distribution(sigma, sample_rate, steps, GRIDS[1])
    bound = minimize_scalar(
        lambda eps: composed.get_delta_for_epsilon(eps) + math.exp(eps) * kappa,
        bounds=(-40.0, -math.log(kappa)),
        method="bounded",
    )
    return float(min(bound.fun, 1.0))
