"""Intervals of paired differences: a bootstrap over groups of batches, and exact ones of shares."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest, norm, t

from dpbench.privacy.intervals import clopper_pearson

LEVEL = 0.95
LEAST = 6
"""Groups from which on there is an interval: the means of five values, drawn with replacement, reach from the
smallest to the largest of them, and both ends together miss a median in 1 of 16 cases."""
RESAMPLES = 10_000
_AT_ONCE = 2_000_000  # numbers held at a time


def bootstrap(differences: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean difference, groups drawn with replacement.

    It is the percentile interval, its tails widened for the number of groups as Student's t is wider than the
    normal distribution (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.3).

    Args:
        differences: [n], one for each pair.
        groups: [n], what is drawn together: pairs of one batch, and of batches that share a photograph.

    Returns:
        Its ends, the same on every call; NaN where there are fewer than `LEAST` groups.

    Example:
        >>> low, high = bootstrap(np.arange(10.0), np.arange(10))
        >>> 2 < low < 3 and 6 < high < 7
        True
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, differences), np.bincount(place)
    count = len(sums)
    if count < LEAST:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    means = []
    for done in range(0, RESAMPLES, chunk := max(1, _AT_ONCE // count)):
        drawn = rng.integers(count, size=(min(chunk, RESAMPLES - done), count))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    widened = t.ppf((1 + LEVEL) / 2, count - 1) * math.sqrt(count / (count - 1))
    low, high = np.quantile(np.concatenate(means), norm.cdf((-widened, widened)))
    return float(low), float(high)


def alike(value: float, count: int) -> tuple[float, float]:
    """The interval of a mean in [-1, 1], at least 95 %, where all groups have the same value.

    There is nothing to draw from, but groups that were not seen may differ: the share that has this value
    is known by its exact interval, and the others may have any.

    Args:
        value: of each group.
        count: of groups.

    Example:
        >>> [round(end, 2) for end in alike(0.25, 20)]
        [0.04, 0.38]
    """
    share = clopper_pearson(count, count, LEVEL)[0]
    return share * value - (1 - share), share * value + (1 - share)


def share_difference(only_first: int, only_second: int, pairs: int) -> tuple[float, float]:
    """The 95 % interval of how much larger the second share is, over pairs of yes and no.

    The shares of pairs in which only one of the two says yes have exact intervals at 97.5 % each; both hold
    together in at least 95 %, and then their difference lies between the ends. It is wider than need be.

    Args:
        only_first: pairs in which the first says yes and the second no.
        only_second: the reverse.
        pairs: all.

    Example:
        >>> [round(end, 2) for end in share_difference(0, 10, 20)]
        [0.05, 0.75]
        >>> [round(end, 2) for end in share_difference(0, 0, 20)]
        [-0.2, 0.2]
    """
    first, second = (clopper_pearson(n, pairs, (1 + LEVEL) / 2) for n in (only_first, only_second))
    return second[0] - first[1], second[1] - first[0]


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p value of McNemar's test: the chance of such a split if both are alike."""
    pairs = only_first + only_second
    return float(binomtest(only_first, pairs).pvalue) if pairs else 1.0


def groups(batches: pd.Series, photographs: pd.Series) -> np.ndarray:
    """Number the batches, those that share a photograph alike: they are no independent evidence.

    Args:
        batches: [n], the batch of each row.
        photographs: [n], its photograph.

    Returns:
        int64 [n].

    Example:
        >>> groups(pd.Series([0, 0, 1, 2]), pd.Series(["a", "b", "b", "c"])).tolist()
        [0, 0, 0, 1]
    """
    batch, photograph = pd.factorize(batches)[0], pd.factorize(photographs)[0]
    total = batch.max(initial=-1) + 1 + photograph.max(initial=-1) + 1
    edges = coo_array((np.ones(len(batch)), (batch, batch.max(initial=-1) + 1 + photograph)), (total, total))
    return connected_components(edges, directed=False)[1][batch]
