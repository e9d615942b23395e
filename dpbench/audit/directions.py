"""Learns from releases with and without a canary where to look for it.

Noise that is missing or correlated somewhere shows off the canary's direction, so its direction alone is not
enough. Whatever is learned here is only a guess; `statistics.lower_bound` tries it on other releases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RIDGE = 1e-8
"""Share of the mean variance that keeps inverses finite."""


@dataclass(frozen=True)
class Score:
    """A number for each release, higher (or lower) with the canary.

    Attributes:
        name: for the table.
        of: rows [n, d] -> scores [n].
    """

    name: str
    of: Callable[[np.ndarray], np.ndarray]


def ledoit_wolf(centred: np.ndarray) -> np.ndarray:
    """The covariance [d, d] of centred rows [n, d], shrunk towards a multiple of the identity.

    The weight is the one that minimises the expected squared error (Ledoit & Wolf 2004, A well-conditioned
    estimator for large-dimensional covariance matrices, section 3.3).

    Example:
        >>> ledoit_wolf(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    n, d = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / d * np.eye(d)
    dispersion = ((sample - target) ** 2).sum() / d
    error = ((centred**2).sum(1) ** 2).sum() / n**2 / d - (sample**2).sum() / n / d
    weight = min(error / dispersion, 1.0) if dispersion > 0 else 1.0
    return weight * target + (1 - weight) * sample


def learn(absent: np.ndarray, present: np.ndarray, canary: np.ndarray) -> list[Score]:
    """Ways to look for the canary, its own direction first.

    Args:
        absent: [n, d + p], releases without it: d entries of the gradient, p published numbers.
        present: the same with it.
        canary: [d], unit vector along its gradient.

    Returns:
        Projections on the canary, on the whitened mean difference (the inverse within-class covariance times
        the difference of the means: Fisher 1936) with and without shrinkage, on the principal direction and
        on the entry that show the difference best; the likelihood ratio of Gaussians fitted to each world,
        for a noise that depends on the batch; and every published number that varies.
    """
    d = len(canary)
    worlds = [rows[:, :d] for rows in (absent, present)]
    means = [rows.mean(0) for rows in worlds]
    centred = np.concatenate([rows - mean for rows, mean in zip(worlds, means, strict=True)])
    difference = means[1] - means[0]
    rounding = (np.finfo(np.float32).eps * np.abs(means).max()) ** 2
    variances, axes = _spectrum(centred.T @ centred / len(centred), rounding)
    along = axes.T @ difference
    principal = axes[:, (along**2 / variances).argmax()]
    entry = np.eye(d)[(difference**2 / np.maximum((centred**2).mean(0), variances[0])).argmax()]
    shrunk, shrunk_axes = _spectrum(ledoit_wolf(centred), rounding)
    found = [
        _projection("canary", canary),
        _projection("whitened, shrunk", shrunk_axes @ (shrunk_axes.T @ difference / shrunk)),
        _projection("whitened", axes @ (along / variances)),
        _projection("principal direction", principal),
        _projection("entry", entry),
        _likelihood_ratio(worlds, means, rounding),
    ]
    for column in range(d, absent.shape[1]):
        if np.ptp(np.concatenate([absent[:, column], present[:, column]])) > 0:
            found.append(Score("published number", lambda rows, i=column: rows[:, i]))
    return found


def _spectrum(covariance: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, kept off 0 and above the variance that rounding explains, and eigenvectors as columns."""
    variances, axes = np.linalg.eigh(covariance)
    floor = max(RIDGE * variances.mean(), rounding, 1e-100)
    return np.maximum(variances, floor), axes


def _projection(name: str, direction: np.ndarray) -> Score:
    scale = np.abs(direction).max()
    unit = direction / scale if scale > 0 else direction
    return Score(name, lambda rows: rows[:, : len(unit)] @ unit)


def _likelihood_ratio(worlds: list[np.ndarray], means: list[np.ndarray], rounding: float) -> Score:
    whitening = []
    for rows, mean in zip(worlds, means, strict=True):
        variances, axes = _spectrum(ledoit_wolf(rows - mean), rounding)
        whitening.append(axes / np.sqrt(variances))

    def score(rows: np.ndarray) -> np.ndarray:
        absent, present = (
            (((rows[:, : len(mean)] - mean) @ white) ** 2).sum(1)
            for mean, white in zip(means, whitening, strict=True)
        )
        return (absent - present) / 2

    return Score("likelihood ratio", score)
