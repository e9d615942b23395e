"""Gaussian differential privacy (Dong, Roth & Su 2022): its curve, and the one nearest to a training's.

G_mu is the trade-off function of one normal variable that a sample shifts by mu standard deviations: T
releases of a fixed batch with noise multiplier sigma have mu = sqrt(T) / sigma. A sampled training's own
curve is not Gaussian. How far it is from the nearest G_mu says whether the one number mu tells its privacy.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

from dpbench.privacy.tradeoff import TradeOff

_POINTS = 4001
_REACH = 9.0
"""Standard deviations beyond which a normal variable is not looked for."""


def nearest_gaussian(curve: TradeOff) -> tuple[float, float]:
    """Mu of the Gaussian curve nearest to `curve`, and the distance between the two.

    Returns:
        mu, 0 or more, and the smallest Delta for which f(a + Delta) - Delta <= G_mu(a) and
        G_mu(a + Delta) - Delta <= f(a) for all a (the regret of Gomez et al. 2025, taken both ways).

    Example:
        >>> from dpbench.privacy.tradeoff import trade_off
        >>> mu, apart = nearest_gaussian(trade_off(2.0))
        >>> round(mu, 3), apart < 1e-4
        (0.5, True)
    """
    like = 2 * ndtri(min(0.5 + curve.advantage / 2, 1 - 1e-15))  # that of the same advantage
    # For each direction the distance falls and then rises with mu, and so does the largest of them.
    found = minimize_scalar(
        lambda mu: distance(curve, mu), bounds=(0, 4 * like), method="bounded", options={"xatol": 1e-5 * like}
    )
    return float(found.x), float(found.fun)


def distance(curve: TradeOff, mu: float) -> float:
    """The smallest Delta that moves neither curve past the other, along the diagonal (see above)."""
    return float(np.abs(_gap(curve, mu)).max())


def regret(curve: TradeOff, mu: float) -> float:
    """How much less private than `curve` G_mu is at worst: the same, one way."""
    return float(max(_gap(curve, mu).max(), 0.0))


def _gap(curve: TradeOff, mu: float) -> np.ndarray:
    """Along lines of constant a - f(a): how far up the diagonal `curve` lies above G_mu."""
    threshold = np.linspace(-_REACH, _REACH + mu, _POINTS)
    across, along = _turned(ndtr(-threshold), ndtr(threshold - mu))
    # with little noise some members are found for certain: f falls from 1 where nobody is accused wrongly
    false, true = np.append(0.0, curve.false_positive), np.append(0.0, curve.true_positive)
    own_across, own_along = _turned(false, 1 - true)
    places = np.linspace(-1, 1, _POINTS)
    order = np.argsort(across)
    return np.interp(places, own_across, own_along) - np.interp(places, across[order], along[order])


def _turned(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return alpha - beta, (alpha + beta) / 2
