"""How strongly successes and failures speak for a leak, or against one: e-processes for one noise level.

One image of each of a row of batches is attacked, and each attack succeeds or fails. If nothing leaks, it
succeeds with a chance of exactly `CHANCE`. Evidence is a likelihood ratio: the chance of what was seen under
a bet on a success rate, over its chance at the edge of the hypothesis that is to be refuted.

Why it may be looked at after every batch: for an edge p0, a bet b and a success of chance p given the past,
the expected factor is b/p0 p + (1 - b)/(1 - p0) (1 - p) = 1 + (p - p0)(b - p0) / (p0 (1 - p0)). That is at
most 1 wherever p and b lie on different sides of p0, so under every p of the hypothesis, even one that
changes from batch to batch, the product is a nonnegative supermartingale that starts at 1. By Ville's
inequality it ever reaches 20 with a chance of at most 1/20. Averages of such processes are such processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from scipy.special import logsumexp

CHANCE = 1 / 200
"""The rate of success without any leak: 1 over the size of the gallery."""
MARGIN = 0.05
"""A leak that matters raises the rate of success by this much."""
BETS = (0.05, 0.2, 0.6)
"""Rates on which the evidence for a leak bets, each with a third of the stake."""
ENOUGH = 20.0
"""Evidence at which a hypothesis is refuted; it goes that far by mistake at most once in 20 times."""
MOST = 200
"""Batches at one noise level, at most."""
FEWEST = math.ceil(math.log(ENOUGH) / (math.log1p(-CHANCE) - math.log1p(-CHANCE - MARGIN)))
"""Batches at one noise level without any success after which none is seen."""


MEANING = (
    f"Leak shown: they succeed more often than by chance ({100 * CHANCE:g} %). Not seen: less than "
    f"{100 * MARGIN:g} points above chance, so in less than {100 * (CHANCE + MARGIN):g} % of batches. Each "
    f"verdict is wrong in at most {100 / ENOUGH:g} % of runs (α = {1 / ENOUGH:g})."
)
"""What the verdicts say, for whoever reads them."""


class Verdict(StrEnum):
    """What the batches at one noise level say."""

    LEAK = "leak shown"
    NONE = "not seen by these attacks"
    UNDECIDED = "undecided"


def leak(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Evidence against a rate of `CHANCE` or below: the mean of the likelihood ratios of `BETS`.

    Args:
        successes: whole numbers, any shape.
        trials: of the same shape, or one that broadcasts.

    Returns:
        The e-values, above 0, of the same shape.

    Example:
        >>> [f"{leak(*seen):.3g}" for seen in ((1, 1), (0, 50))]  # one success in one batch; none in fifty
        ['56.7', '0.033']
    """
    ratios = [_log_ratio(bet, CHANCE, successes, trials) for bet in BETS]
    # hundreds of successes are more than a float can hold
    return np.exp(np.minimum(logsumexp(ratios, axis=0) - math.log(len(BETS)), 700.0))


def below(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Evidence against a rate of `CHANCE + MARGIN` or above: a bet on `CHANCE`.

    Args:
        successes: whole numbers, any shape.
        trials: of the same shape, or one that broadcasts.

    Example:
        >>> [f"{below(*seen):.3g}" for seen in ((0, 58), (0, 59))]  # no success yet
        ['19.9', '20.9']
    """
    return np.exp(_log_ratio(CHANCE, CHANCE + MARGIN, successes, trials))


def _log_ratio(bet: float, edge: float, successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    successes, trials = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    return successes * math.log(bet / edge) + (trials - successes) * (math.log1p(-bet) - math.log1p(-edge))


class Watch:
    """Counts the successes of a set of attacks at one noise level until there is a verdict.

    A leak is shown where the mean of the attacks' evidence for one reaches `ENOUGH`: an average of
    e-processes is one, whatever the attacks have in common, so several attacks cost no more errors than one.
    None is seen where every attack's evidence of lying below the margin has reached it; who says so by
    mistake has refuted a true hypothesis about one of the attacks, so that needs no correction either.

    Args:
        attacks: how many attacks there are.
        most: batches after which it stays undecided.
    """

    def __init__(self, attacks: int, most: int = MOST) -> None:
        self.most, self.trials = most, 0
        self.successes = np.zeros(attacks, dtype=int)
        self._silent = np.zeros(attacks, dtype=bool)

    def add(self, succeeded: Sequence[bool]) -> Verdict | None:
        """One more batch: whether each attack succeeded. The verdict, or None where more batches are needed.

        Raises:
            ValueError: for a number of values other than that of the attacks.
        """
        if len(succeeded) != len(self.successes):
            raise ValueError(f"{len(self.successes)} attacks have as many outcomes, not {len(succeeded)}.")
        self.trials += 1
        self.successes += np.asarray(succeeded, dtype=bool)
        self._silent |= below(self.successes, self.trials) >= ENOUGH
        if self.evidence_of_a_leak >= ENOUGH:
            return Verdict.LEAK
        if self._silent.all():
            return Verdict.NONE
        return Verdict.UNDECIDED if self.trials >= self.most else None

    @property
    def evidence_of_a_leak(self) -> float:
        """The mean over the attacks."""
        return float(leak(self.successes, self.trials).mean())

    @property
    def batches_left(self) -> int:
        """How many more are needed if no attack succeeds any more."""
        a_failure = math.log1p(-CHANCE) - math.log1p(-CHANCE - MARGIN)
        open_ones = self.successes[~self._silent]
        lacking = [math.log(ENOUGH) - math.log(below(count, self.trials)) for count in open_ones]
        return min(math.ceil(max(lacking, default=0.0) / a_failure), self.most - self.trials)
