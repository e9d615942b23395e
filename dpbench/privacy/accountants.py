"""Epsilon of a noise multiplier under sampling by three ways of accounting, and the search the other way.

Throughout: add/remove adjacency, sensitivity 1 (the clip norm is the unit), Poisson sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from dpbench.privacy.pld import GRIDS, pld_epsilon
from dpbench.privacy.prv import prv_epsilon
from dpbench.privacy.renyi import renyi_epsilon
from dpbench.protocol import InputError

ACCOUNTANTS: dict[str, Callable[[float, float, float, int], float]] = {
    "pld": pld_epsilon,
    "prv": prv_epsilon,
    "rdp": renyi_epsilon,
}
"""Name to a function of (sigma, delta, sample rate, steps)."""
EPS_RANGE = (1e-4, 1e6)
"""Below it rounding takes over."""
SIGMA_RANGE = (1e-3, 1e6)
TOLERANCE = 1e-3
"""With that share less noise than was found, more than the budget would be spent."""


def sampled_epsilon(accountant: str, sigma: float, delta: float, sample_rate: float, steps: int) -> float:
    """Epsilon by the accountant of that name; inf below the range of sigma.

    Raises:
        InputError: where `prv` gives no answer.
    """
    low, high = SIGMA_RANGE
    if chance_of_inclusion(sample_rate, steps) <= delta:
        return 0.0
    if sigma < low:
        return math.inf
    # more noise never spends more
    return ACCOUNTANTS[accountant](min(sigma, high), delta, sample_rate, steps)


def sampled_sigma(accountant: str, eps: float, delta: float, sample_rate: float, steps: int) -> float:
    """The smallest noise multiplier that spends at most `eps`, to `TOLERANCE`.

    Raises:
        InputError: where no noise multiplier within reach spends it; the sentence says what is within reach.
    """
    low, high = EPS_RANGE
    if not low <= eps <= high:
        within = f"at least {low:g}" if eps < low else f"at most {high:g}"
        raise InputError(f"`eps` {eps:g} is out of reach over a training: choose {within}.")
    chance = chance_of_inclusion(sample_rate, steps)
    if chance <= delta:
        raise InputError(
            f"`delta` {delta:g} allows what happens without any noise, as a sample is in a batch with "
            f"probability {chance:.3g} only: choose a smaller `delta`."
        )

    def spent(sigma: float) -> float:
        return sampled_epsilon(accountant, sigma, delta, sample_rate, steps)

    def by_renyi(sigma: float) -> float:
        return renyi_epsilon(sigma, delta, sample_rate, steps)

    def roughly(sigma: float) -> float:
        return pld_epsilon(sigma, delta, sample_rate, steps, GRIDS[:1])

    # from the fastest to the most exact, each from where the one before ended
    sigma = 1.0
    for each in {"rdp": (), "pld": (by_renyi, roughly), "prv": (by_renyi,)}[accountant]:
        found, end = _search(each, eps, sigma)
        sigma = found or end
    found, end = _search(spent, eps, sigma)
    if found is not None:
        return found
    side = "at least" if end == SIGMA_RANGE[1] else "at most"
    within = _rounded(spent(end), up=side == "at least")
    raise InputError(
        f"`eps` {eps:g} is out of reach of the {accountant} accountant at delta {delta:g}, sample rate "
        f"{sample_rate:.3g} and {steps} steps: choose {side} {within}."
    )


def chance_of_inclusion(sample_rate: float, steps: int) -> float:
    """How likely a sample is to be in any batch at all."""
    return -math.expm1(steps * math.log1p(-sample_rate)) if sample_rate < 1 else 1.0


def _search(spent: Callable[[float], float], eps: float, start: float) -> tuple[float | None, float]:
    """The smallest sigma that spends at most `eps`; None where the range has none, and the end of the range.

    Growing steps from `start` until the sigma is bracketed, then false position and bisection, in logarithms.
    Each sigma has a discretisation of its own, so epsilon may jump by some 1e-4. Where it jumps over the
    goal, `TOLERANCE` less noise than what is returned spends more than `eps`.
    """
    spent = cache(spent)
    here, factor, too_much = start, 1.01, spent(start) > eps
    while (spent(here) > eps) == too_much:
        if eps * (1 - TOLERANCE) <= spent(here) <= eps:
            return here, here
        before = here
        here = min(max(here * factor if too_much else here / factor, SIGMA_RANGE[0]), SIGMA_RANGE[1])
        if here == before:
            return None, here
        factor = min(factor**2, 8.0)
    low, high = sorted((before, here))
    goal, step = eps * (1 - TOLERANCE / 2), 0
    while high > low * (1 + TOLERANCE / 10) and spent(high) < eps * (1 - TOLERANCE):
        above, below = (math.log(min(max(spent(sigma), 1e-12), 1e12) / goal) for sigma in (low, high))
        share = 0.5 if step % 3 == 2 else min(max(above / (above - below), 0.01), 0.99)
        middle = low * (high / low) ** share
        low, high = (middle, high) if spent(middle) > eps else (low, middle)
        step += 1
    return high, high


def _rounded(value: float, up: bool) -> str:
    """Three digits, rounded so that what a message proposes is within reach."""
    if not 0 < value < math.inf:
        return f"{value:g}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{(math.ceil if up else math.floor)(value / unit) * unit:.3g}"
