"""Many synthetic runs of a noise level at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpbench.frontier.evidence import ENOUGH, MOST, Verdict, below, leak

RUNS = 2000


def successes(rates: Sequence[float], runs: int = RUNS, seed: int = 0) -> np.ndarray:
    """Independent outcomes, bool [runs, MOST, attacks]."""
    return np.random.default_rng(seed).random((runs, MOST, len(rates))) < np.array(rates)


def simulated(rates: Sequence[float], runs: int = RUNS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The verdict of each run, and how many batches it took; written without `Watch`, as a check of it."""
    counts = successes(rates, runs, seed).cumsum(1)
    trials = np.arange(1, MOST + 1)[None, :, None]
    leaks = leak(counts, trials).mean(2) >= ENOUGH
    silent = np.maximum.accumulate(below(counts, trials) >= ENOUGH, axis=1).all(2)
    ended = leaks | silent
    last = np.where(ended.any(1), ended.argmax(1), MOST - 1)
    rows = np.arange(runs)
    verdicts = np.where(leaks[rows, last], Verdict.LEAK, Verdict.NONE)
    return np.where(ended.any(1), verdicts, Verdict.UNDECIDED), last + 1
