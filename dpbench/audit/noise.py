"""Is the noise of the releases what a Gaussian guarantee says: N(0, (sigma C)^2) on every entry of the sum?

A bound on epsilon sees missing noise only where it hides the canary; these tests look at all of it. Each is a
test at its own level, so that all together accuse a correct mechanism no more often than the levels' sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from dpbench.audit.moments import Moments

UNNOISED = 1e-3
"""Entries with less than this share of the expected standard deviation are called not noised."""
SLACK = 1e-5
"""Relative rounding allowed in the length of a clipped gradient."""


@dataclass(frozen=True)
class Check:
    """One test of the noise.

    Attributes:
        name: what was tested.
        found: in words, for the table.
        p: chance of a correct mechanism to look at least so bad, or a bound on it.
        level: the check fails where `p` is below.
    """

    name: str
    found: str
    p: float
    level: float

    @property
    def failed(self) -> bool:
        """The noise is not what is claimed."""
        return self.p < self.level


def checks(moments: Moments, sigma: float | None, max_grad_norm: float, error: float) -> tuple[Check, ...]:
    """All tests of the noise.

    Args:
        moments: of releases times the batch size.
        sigma: claimed noise multiplier; None where nothing is claimed: then entries are compared with the
            median entry, and the shift of the mean is not judged.
        max_grad_norm: C.
        error: chance that any of them fails a correct mechanism, at most.

    Returns:
        In a fixed order; a single one where there is no noise at all and none is claimed.
    """
    variances = np.diag(moments.scatter) / moments.freedom
    variance = float(np.median(variances)) if sigma is None else (sigma * max_grad_norm) ** 2
    if sigma is None and not variance > 0:
        share = f"{(variances > 0).sum()} of {len(variances)} entries carry noise"
        return (Check("size", share, 0.0, error),)
    found = [
        ("size", *_size(moments, variance, sigma is not None)),
        ("quietest direction", *_quietest(moments, variance)),
        ("entries independent", *_entries(moments)),
        ("releases independent", *_serial(moments)),
        ("releases distinct", *_distinct(moments)),
        ("worlds independent", *_worlds(moments)),
        ("shape", *_shape(moments)),
    ]
    if sigma is not None:
        found.append(("shift of the mean", *_shift(moments, variance, max_grad_norm)))
    return tuple(Check(name, said, min(1.0, float(p)), error / len(found)) for name, said, p in found)


def _size(moments: Moments, variance: float, claimed: bool) -> tuple[str, float]:
    """Too little noise in an entry or in a world; more than claimed is no breach, and is only told."""
    sums = np.diag(moments.scatter) / variance
    ratios = np.sqrt(sums / moments.freedom)
    of = "claimed" if claimed else "median"
    found = f"{ratios.min():.3f} to {ratios.max():.3f} of the {of} standard deviation"
    if silent := int((ratios < UNNOISED).sum()):
        found = f"{silent} of {len(ratios)} entries not noised; " + found
    low = [stats.chi2.cdf(sums, moments.freedom)]
    if claimed:
        low.append([stats.chi2.cdf(total / variance, freedom) for total, freedom in moments.worlds])
    low = np.concatenate(low)
    return found, len(low) * low.min()


def _quietest(moments: Moments, variance: float) -> tuple[str, float]:
    """Too little noise along the direction with least of it; one half finds it, the other is tested."""
    (first, _), (second, freedom) = moments.halves
    axis = np.linalg.eigh(first)[1][:, 0]
    total = float(axis @ second @ axis) / variance
    found = f"{np.sqrt(max(total, 0.0) / freedom):.3f} of the expected standard deviation"
    return found, stats.chi2.cdf(total, freedom)


def _entries(moments: Moments) -> tuple[str, float]:
    """The largest correlation between two entries, and the sum of the squares of all (Schott 2005)."""
    deviations = np.sqrt(np.diag(moments.scatter))
    scale = np.where(deviations > 0, deviations, 1.0)
    above = np.triu_indices(len(scale), 1)
    squares = np.minimum((moments.scatter / np.outer(scale, scale))[above] ** 2, 1.0)
    largest = stats.beta.sf(squares.max(), 0.5, (moments.freedom - 1) / 2) * len(squares)
    together = stats.chi2.sf(moments.freedom * squares.sum(), len(squares))
    return f"largest correlation {np.sqrt(squares.max()):.3f}", 2 * min(largest, together)


def _serial(moments: Moments) -> tuple[str, float]:
    """Correlation of releases that follow one another."""
    z = moments.standardised_lags
    return f"{z[np.abs(z).argmax()]:+.1f} standard errors", _two_sided(z)


def _worlds(moments: Moments) -> tuple[str, float]:
    """Correlation of releases made at the same place in two worlds."""
    z = np.array(moments.crossed)
    return f"{z[np.abs(z).argmax()]:+.1f} standard errors", _two_sided(z)


def _two_sided(z: np.ndarray) -> float:
    return len(z) * 2 * float(stats.norm.sf(np.abs(z).max()))


def _distinct(moments: Moments) -> tuple[str, float]:
    """Releases, or tensors of them, that are equal or whose noises are nearly multiples of one another."""
    if moments.repeats:
        return f"{moments.repeats:,} of {moments.count:,} tensors repeat an earlier one", 0.0
    p = [
        pairs * stats.beta.sf(min(likeness, 1.0), 0.5, (size - 1) / 2)
        for size, likeness, pairs in moments.likeness.values()
    ]
    largest = max(likeness for _, likeness, _ in moments.likeness.values())
    return f"largest cosine {np.sqrt(largest):.2f}", len(p) * min(p)


def _shape(moments: Moments) -> tuple[str, float]:
    """Normal entries, and releases as long as independent normal entries make them, the extremes as well.

    Means and variances are estimated, which makes these tests accuse less often than they may.
    """
    entries = stats.chisquare(moments.bins)
    expected = stats.chi2(len(moments.scatter))
    lengths = stats.kstest(moments.lengths, expected.cdf)
    shortest, longest = moments.lengths.min(), moments.lengths.max()
    extreme = len(moments.lengths) * min(expected.cdf(shortest), expected.sf(longest))
    typical = np.sqrt(len(moments.scatter))
    least, most = np.sqrt(shortest) / typical, np.sqrt(longest) / typical
    found = f"entries: chi2 {entries.statistic:.0f}; lengths: {least:.2f} to {most:.2f} of the typical one"
    return found, 4 * min(entries.pvalue, lengths.pvalue, extreme)


def _shift(moments: Moments, variance: float, max_grad_norm: float) -> tuple[str, float]:
    """The canary moves the mean by C at most: the squared distance is a noncentral chi-squared number."""
    actual = np.trace(moments.scatter) / moments.freedom / len(moments.scatter)
    p, longest = [], 0.0
    for squared, share in moments.shifts:
        scale = max(variance, actual) * share
        p.append(_far(squared / scale, len(moments.scatter), (max_grad_norm * (1 + SLACK)) ** 2 / scale))
        longest = max(longest, squared - scale * len(moments.scatter))
    return f"about {np.sqrt(longest) / max_grad_norm:.2f} C", len(p) * min(p)


def _far(value: float, freedom: int, noncentrality: float) -> float:
    """Upper tail of the noncentral chi-squared distribution; far out, of its normal limit."""
    if noncentrality < 1e4:
        return float(stats.ncx2.sf(value, freedom, noncentrality))
    return float(stats.norm.sf(np.sqrt(value) - np.sqrt(noncentrality + freedom - 1)))
