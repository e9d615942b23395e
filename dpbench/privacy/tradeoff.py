"""What any attacker can get from a whole training: its trade-off function (f-DP; Dong, Roth & Su 2022).

Where batches are sampled, an attacker who does not know which of them had the sample. Whoever says "the
sample was in" wrongly with probability alpha, says so rightly with probability 1 - f(alpha) at most. Epsilon
and delta, the membership advantage, the true positive rate at a false positive rate and the bound on
reconstruction are all points of this one curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpbench.privacy.accountants import SIGMA_RANGE, chance_of_inclusion
from dpbench.privacy.checks import check_delta, check_releases
from dpbench.privacy.gaussian import gaussian_delta
from dpbench.privacy.pld import GRIDS, deltas, loss_distribution
from dpbench.privacy.renyi import renyi_log_delta
from dpbench.protocol import InputError

_LINES = 2000
"""Tangents from each way of accounting."""
_LARGEST_EPS = 600.0
"""Slopes up to e^600 are within reach of floating-point numbers; steeper ones matter to nobody."""
_SMALLEST = 1e-60
"""Deltas that are looked for: those of groups multiply."""


@dataclass(frozen=True)
class TradeOff:
    """A bound on 1 - f, for whichever of two neighbouring data sets is the one with the sample more.

    It is concave and piecewise linear, and symmetric: (a, b) lies on it where (1 - b, 1 - a) does. No point
    of it lies below the truth.

    Attributes:
        false_positive: [n], corners from 0 to 1, ascending.
        true_positive: [n], 1 - f there; ascending and at least as large.
    """

    false_positive: np.ndarray
    true_positive: np.ndarray

    def power(self, alpha: float) -> float:
        """1 - f(alpha): the most that can be right where a share `alpha` is wrong.

        Raises:
            InputError: for an alpha outside 0 ... 1.
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"`alpha` must lie from 0 to 1, not {alpha:g}.")
        return float(np.interp(alpha, self.false_positive, self.true_positive))

    @property
    def advantage(self) -> float:
        """Max over alpha of 1 - alpha - f(alpha): true less false positive rate; delta at eps 0."""
        return float((self.true_positive - self.false_positive).max())

    def epsilon(self, delta: float) -> float:
        """The smallest eps, 0 or more, that goes with `delta`; inf where there is none.

        Raises:
            InputError: for a delta outside 1e-100 ... 0.5.
        """
        check_delta(delta)
        above = self.true_positive > delta
        if self.true_positive[0] > delta:
            return math.inf
        log_slopes = np.log(self.true_positive[above] - delta) - np.log(self.false_positive[above])
        return max(float(log_slopes.max()), 0.0)

    def delta(self, eps: float) -> float:
        """The smallest delta that goes with `eps`; above 600 that of 600.

        Raises:
            InputError: for an eps below 0.
        """
        if not eps >= 0:
            raise InputError(f"`eps` must be 0 or more, not {eps:g}.")
        slope = math.exp(min(eps, _LARGEST_EPS))
        return max(float((self.true_positive - slope * self.false_positive).max()), 0.0)


def trade_off(noise_multiplier: float, sample_rate: float = 1.0, steps: int = 1) -> TradeOff:
    """The trade-off function of `steps` releases with Poisson sampling, add/remove adjacency, sensitivity C.

    Each (eps, delta) that holds gives a line below f (Dong et al., proposition 2.5); f is bounded by the
    highest of many. They are from the privacy loss distribution, the larger delta of its two directions, and
    where rounding would decide (delta below 1e-10, or 1e-13 times the steps) from the Rényi bound; above 10
    million steps, from the looser Rényi bound alone. At sample_rate 1 they are exact.

    Args:
        noise_multiplier: sigma, above 0.
        sample_rate: chance of a sample to be in a step's batch, in (0, 1].
        steps: releases seen.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> curve = trade_off(2.45, 0.0128, 2344)
        >>> round(curve.epsilon(1e-5), 2), round(curve.power(0.1), 3), round(curve.advantage, 3)
        (1.0, 0.155, 0.105)
    """
    steps = check_releases(noise_multiplier, sample_rate, steps)
    if sample_rate == 1:
        return _envelope(*_gaussian_lines(math.sqrt(steps) / max(noise_multiplier, 1e-300)))
    chance = chance_of_inclusion(sample_rate, steps)
    eps, delta = np.zeros(1), np.full(1, chance)  # who was in no batch is not found
    low, high = SIGMA_RANGE
    if noise_multiplier >= low:
        sigma = min(noise_multiplier, high)  # more noise never helps the attacker
        for lines in (_convolved_lines(sigma, sample_rate, steps), _renyi_lines(sigma, sample_rate, steps)):
            eps, delta = np.append(eps, lines[0]), np.append(delta, lines[1])
    return _envelope(eps, np.minimum(delta, chance))


Lines = tuple[np.ndarray, np.ndarray]
"""eps [n] and delta [n]."""


def _gaussian_lines(mu: float) -> Lines:
    eps = _spread(mu * (mu / 2 + 17))
    return eps, gaussian_delta(mu, eps)


def _convolved_lines(sigma: float, sample_rate: float, steps: int) -> Lines:
    composed = loss_distribution(sigma, sample_rate, steps, GRIDS[1])
    if composed is None:
        return np.zeros(0), np.zeros(0)
    sound = max(1e-10, 1e-13 * steps)
    top = composed.get_epsilon_for_delta(sound)
    eps = _spread(top)
    delta = deltas(composed, eps)
    return eps[delta >= sound], delta[delta >= sound]


def _renyi_lines(sigma: float, sample_rate: float, steps: int) -> Lines:
    log_delta = renyi_log_delta(sigma, sample_rate, steps)
    rough = np.geomspace(1e-6, _LARGEST_EPS, 300)
    enough = rough[log_delta(rough) < math.log(_SMALLEST)]
    eps = _spread(enough[0] if len(enough) else _LARGEST_EPS)
    return eps, np.exp(log_delta(eps))


def _spread(top: float) -> np.ndarray:
    """Eps from 0 to `top`, closer together near 0, where the curve of few sampled steps bends."""
    top = min(top, _LARGEST_EPS)
    if top == 0:
        return np.zeros(1)
    return np.union1d(np.linspace(0, top, 2 * _LINES // 3), np.geomspace(1e-4 * top, top, _LINES // 3))


def _envelope(eps: np.ndarray, delta: np.ndarray) -> TradeOff:
    """The lowest of the lines delta + e^eps alpha, mirrored.

    Whatever is lowest somewhere has its slope in order, so one pass finds them (the convex hull trick).
    """
    kept: list[tuple[float, float]] = []
    corners: list[float] = []  # where each line meets the one before it, falling
    for slope, height in sorted(zip(np.exp(eps).tolist(), delta.tolist(), strict=True)):
        if kept and height >= kept[-1][1]:
            continue
        while kept:
            corner = (kept[-1][1] - height) / (slope - kept[-1][0])
            if not corners or corner < corners[-1]:
                corners.append(corner)
                break
            kept.pop()
            corners.pop()
        kept.append((slope, height))
    slopes, heights = (np.array(each[::-1]) for each in zip(*kept, strict=True))
    false = np.append(0.0, corners[::-1])
    true = np.append(heights[0], heights[:-1] + slopes[:-1] * false[1:])
    half = false + true <= 1
    false, true = false[half], true[half]
    # the line that is lowest there ends at the axis of symmetry, false + true = 1
    slope, height = slopes[half.sum() - 1], heights[half.sum() - 1]
    end = max((1 - height) / (1 + slope), false[-1])  # with little noise `height` rounds to 1
    false, true = np.append(false, end), np.append(true, 1 - end)
    mirrored = np.maximum(1 - true[::-1], end)  # and so does `true`
    return TradeOff(np.concatenate([false, mirrored, [1.0]]), np.concatenate([true, 1 - false[::-1], [1.0]]))
