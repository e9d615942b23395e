"""Confidence intervals of shares."""

from __future__ import annotations

import math
from functools import cache

from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import binomtest


@cache
def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a success probability (Clopper and Pearson 1934); each side errs alike.

    It holds for a number of trials that was fixed beforehand; see `anytime`.

    Args:
        successes: 0 to `trials`.
        trials: 0 or more; nothing is known of none.
        confidence: chance that the interval holds the truth, at least; in (0, 1).

    Raises:
        ValueError: for a value outside its range.

    Example:
        >>> [round(x, 3) for x in clopper_pearson(5, 10)]
        [0.187, 0.813]
        >>> clopper_pearson(0, 10)[0], clopper_pearson(10, 10)[1]
        (0.0, 1.0)
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"There must be 0 to {trials} successes in {trials} trials, not {successes}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, not {confidence}.")
    if trials == 0:
        return 0.0, 1.0
    found = binomtest(int(successes), int(trials)).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)


@cache
def anytime(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval of the success rate that holds at whatever moment the counting stopped.

    It leaves out the rates against which a Beta(1/2, 1/2) mixture of bets has evidence of
    1 / (1 - confidence), and is wider than Clopper and Pearson's.

    Args:
        successes: 0 to `trials`.
        trials: 0 or more.
        confidence: chance that it holds the rate at all moments together, at least; in (0, 1).

    Example:
        >>> [round(end, 3) for end in anytime(5, 10)]
        [0.118, 0.882]
        >>> anytime(0, 0)
        (0.0, 1.0)
    """
    mixture = betaln(successes + 0.5, trials - successes + 0.5) - betaln(0.5, 0.5)

    def surplus(rate: float) -> float:
        own = xlogy(successes, rate) + xlog1py(trials - successes, -rate)
        return float(mixture - own + math.log(1 - confidence))

    if trials == 0:
        return 0.0, 1.0
    middle, edge = successes / trials, 1e-12
    low = brentq(surplus, edge, middle) if successes and surplus(edge) > 0 else 0.0
    high = brentq(surplus, middle, 1 - edge) if successes < trials and surplus(1 - edge) > 0 else 1.0
    return low, high
