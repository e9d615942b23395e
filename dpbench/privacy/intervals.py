"""Confidence intervals of shares."""

from __future__ import annotations

from scipy.stats import beta


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a success probability (Clopper and Pearson 1934); each side errs alike.

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: chance that the interval holds the truth, at least; in (0, 1).

    Example:
        >>> [round(x, 3) for x in clopper_pearson(5, 10)]
        [0.187, 0.813]
        >>> clopper_pearson(0, 10)[0], clopper_pearson(10, 10)[1]
        (0.0, 1.0)
    """
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high
