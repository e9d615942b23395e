"""What the tests of the noise need to know of many releases, gathered batch by batch."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

BINS = 50
LAGS = 5
BLOCK = 250
"""Releases of each world that are compared with one another, every pair of them."""


class Moments:
    """Sums over releases of several pairs of worlds, without and with a canary.

    Residuals are releases less the mean of their world. Standardised ones have unit variance in every entry
    and world, so that sums of them tell of dependence and shape alone.

    Attributes:
        scatter: [d, d], sum of the residuals' outer products.
        freedom: how many independent residuals that is worth.
        halves: the same two things for the first half of each world and for the second, each with its mean.
        worlds: of each world, the sum of its squared residuals and their number, in degrees of freedom.
        shifts: of each pair, the squared distance of the worlds' means and its variance for each entry, in
            units of a release's variance.
        lagged: [LAGS], sums of products of standardised residuals so many releases apart, in units of the
            standard deviation that independent ones give.
        crossed: such sums for each two worlds in succession, of releases made at the same place.
        bins: [BINS], how many standardised residuals lie in each of as many equally likely parts of N(0, 1).
        lengths: squared length of every standardised residual.
        likeness: of each way to divide the entries, how many there are in a part, the largest squared cosine
            between parts of two standardised residuals, and how many pairs that is the largest of. The ways
            are: not at all, and into tensors, which may have noise in common in different releases.
        repeats: tensors that are equal to the same tensor of an earlier release of their world.
        count: of all tensors of all releases.

    Args:
        size: d.
        tensors: how many equal parts the entries belong to.
    """

    def __init__(self, size: int, tensors: int) -> None:
        self.scatter, self.freedom = np.zeros((size, size)), 0
        self.halves = [(np.zeros((size, size)), 0), (np.zeros((size, size)), 0)]
        self.worlds: list[tuple[float, int]] = []
        self.shifts: list[tuple[float, float]] = []
        self.lagged, self._lagged_variance = np.zeros(LAGS), 0.0
        self.crossed: list[float] = []
        self.bins = np.zeros(BINS)
        self.lengths = np.zeros(0)
        self.likeness = {1: (size, 0.0, 0), tensors: (size // tensors, 0.0, 0)}
        self.repeats = self.count = 0
        self._last: np.ndarray | None = None

    def add(self, absent: np.ndarray, present: np.ndarray) -> None:
        """Two worlds of equally many releases [n, d], in the order in which they were made."""
        apart = present.mean(0) - absent.mean(0)
        self.shifts.append((float(apart @ apart), 2 / len(absent)))
        absent, present = self._world(absent), self._world(present)
        for start in range(0, len(absent), BLOCK):
            rows = np.concatenate([absent[start : start + BLOCK], present[start : start + BLOCK]])
            for parts in self.likeness:
                self._compare(rows, parts)

    @property
    def standardised_lags(self) -> np.ndarray:
        """`lagged`, standard normal for independent releases."""
        return self.lagged / np.sqrt(max(self._lagged_variance, 1.0))

    def _world(self, rows: np.ndarray) -> np.ndarray:
        """Count one world in; its standardised residuals."""
        n, d = rows.shape
        centred = rows - rows.mean(0)
        scatter = centred.T @ centred
        self.scatter += scatter
        self.freedom += n - 1
        self.worlds.append((float(np.trace(scatter)), (n - 1) * d))
        for i, part in enumerate((rows[: n // 2], rows[n // 2 :])):
            known, freedom = self.halves[i]
            part = part - part.mean(0)
            self.halves[i] = (known + part.T @ part, freedom + len(part) - 1)
        deviations = np.sqrt(np.diag(scatter) / n)
        unit = centred / np.where(deviations > 0, deviations, 1.0)
        for lag in range(1, LAGS + 1):  # residuals sum to 0: the second term undoes it
            self.lagged[lag - 1] += (unit[lag:] * unit[:-lag]).sum() + (n - lag) * d / (n - 1)
        self._lagged_variance += n * d
        if self._last is not None and len(self._last) == n:
            self.crossed.append(float((unit * self._last).sum() / np.sqrt(n * d)))
        self._last = unit
        parts = np.minimum((ndtr(unit) * BINS).astype(np.int64), BINS - 1)
        self.bins += np.bincount(parts.ravel(), minlength=BINS)
        self.lengths = np.append(self.lengths, (unit**2).sum(1))
        tensors = max(self.likeness)
        for part in np.split(rows, tensors, axis=1):
            self.repeats += n - len({row.tobytes() for row in part})
        self.count += n * tensors
        return unit

    def _compare(self, rows: np.ndarray, parts: int) -> None:
        size, likeness, pairs = self.likeness[parts]
        rows = rows.reshape(-1, size)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, 0.0)
        largest = float(max(cosines.max(), -cosines.min())) ** 2
        self.likeness[parts] = size, max(likeness, largest), pairs + len(rows) * (len(rows) - 1) // 2
