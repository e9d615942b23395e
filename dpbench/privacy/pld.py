"""Epsilon from the privacy loss distribution of dp-accounting: tight, by discrete convolution.

The convolution uses fast Fourier transforms, whose rounding errors add up over the steps. Where they would
decide the result, and where the distribution would take minutes, the Rényi bound is given instead: it holds
everywhere and is looser, usually by 5 to 30 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from dpbench.privacy.gaussian import LARGEST_EPS
from dpbench.privacy.renyi import renyi_epsilon

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

GRIDS = (2**15, 2**17)
"""Points of the discretised composed loss, coarse to fine."""
CLOSE = 1e-3
"""Two grids whose epsilons are this near need no finer one."""
MOST_STEPS = 10**7
"""More are not convolved."""
LARGEST_CONVOLVED = 1e5
"""Where the Rényi bound passes it, nobody needs a tighter one."""


def is_sound(delta: float, steps: int) -> bool:
    """Whether rounding, some 1e-16 in each step and 1e-15 at the end, is far below `delta`."""
    return steps <= MOST_STEPS and delta >= max(1e-10, 1e-13 * steps)


def loss_distribution(
    sigma: float, sample_rate: float, steps: int, grid: int
) -> PrivacyLossDistribution | None:
    """The composed privacy loss of `steps` sampled releases on about `grid` points, rounded upwards.

    The interval is chosen by the spread of the composed loss, so the cost hardly depends on eps. Every grid
    gives a valid upper bound on eps ("connect the dots", Doroshenko et al. 2022), finer ones a tighter one.
    None above `MOST_STEPS`, and where the losses spread beyond the range of floating-point numbers.
    """
    if steps > MOST_STEPS:
        return None
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism

    x = np.linspace(-10 * sigma, 1 + 10 * sigma, 4001)
    loss = np.logaddexp(np.log1p(-sample_rate), np.log(sample_rate) + (x - 0.5) / sigma**2)
    absent, present = np.exp(-((x / sigma) ** 2) / 2), np.exp(-(((x - 1) / sigma) ** 2) / 2)
    weight = (1 - sample_rate) * absent + sample_rate * present
    spread = math.sqrt(np.average(loss**2, weights=weight))
    interval = (14 * spread * math.sqrt(steps) + loss[-1]) / grid
    try:
        single = from_gaussian_mechanism(
            sigma, value_discretization_interval=interval, sampling_prob=sample_rate, use_connect_dots=True
        )
    except (ArithmeticError, ValueError):  # dp-accounting's exponentials overflow, or logarithms cancel
        return None
    # Losses of few points are sparse, and raise their number of points to the power of `steps` as an integer.
    dense = PrivacyLossDistribution(single._pmf_remove.to_dense_pmf(), single._pmf_add.to_dense_pmf())
    return dense.self_compose(steps)


def deltas(composed: PrivacyLossDistribution, eps: np.ndarray) -> np.ndarray:
    """Delta at each of many eps, 0 or more, [n]: the larger of the two directions.

    It is what `composed.get_delta_for_epsilon` gives, which takes a second for so many.
    """
    found = np.zeros(len(eps))
    for one_way in (composed._pmf_remove, composed._pmf_add):
        dense = one_way.to_dense_pmf()
        losses = (dense._lower_loss + np.arange(dense.size)) * dense._discretization
        losses, probabilities = losses[losses > 0], dense._probs[losses > 0]
        # sums over all losses from each on, and nothing beyond the last
        share = np.append(np.cumsum(probabilities[::-1])[::-1], 0)
        without = np.append(np.cumsum((probabilities * np.exp(-losses))[::-1])[::-1], 0)
        first = np.searchsorted(losses, eps, side="right")
        found = np.maximum(found, dense._infinity_mass + share[first] - np.exp(eps) * without[first])
    return found


def pld_epsilon(
    sigma: float, delta: float, sample_rate: float, steps: int, grids: Sequence[int] = GRIDS
) -> float:
    """The smaller of the privacy loss distribution's epsilon, where that is sound, and of the Rényi bound.

    Never below the truth. Where the distribution is sound, above it by some 0.2 %, and by 3 % where eps is
    under 0.1 in half a million steps.
    """
    best = renyi_epsilon(sigma, delta, sample_rate, steps)
    if best == 0 or best > LARGEST_CONVOLVED or not is_sound(delta, steps):
        return best
    coarser = math.inf
    for grid in grids:
        eps = _on_grid(sigma, delta, sample_rate, steps, grid)
        best = min(best, eps)
        if eps > coarser * (1 - CLOSE):
            break
        coarser = eps
    return best


@lru_cache(maxsize=1024)  # the last sigma of a search is asked for again, by others
def _on_grid(sigma: float, delta: float, sample_rate: float, steps: int, grid: int) -> float:
    composed = loss_distribution(sigma, sample_rate, steps, grid)
    if composed is None:
        return math.inf
    with np.errstate(over="ignore"):
        eps = composed.get_epsilon_for_delta(delta)
    if math.isfinite(eps) or composed.get_delta_for_epsilon(LARGEST_EPS) > delta:
        return float(eps)
    # Near eps 710 dp-accounting divides by a probability that underflows; its delta has no such hole.
    return float(brentq(lambda x: composed.get_delta_for_epsilon(x) - delta, 0.0, LARGEST_EPS, rtol=1e-6))
