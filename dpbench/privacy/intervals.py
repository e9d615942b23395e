"""Confidence intervals of shares."""

from __future__ import annotations

from functools import cache

from scipy.stats import binomtest


@cache
def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a success probability (Clopper and Pearson 1934); each side errs alike.

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
