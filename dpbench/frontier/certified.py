"""The noise that is certified to be enough, whatever the attacker does: the frontier that needs no attack."""

from __future__ import annotations

from scipy.special import ndtri

from dpbench.frontier.evidence import MARGIN
from dpbench.privacy import PRIOR_SUCCESS
from dpbench.protocol import InputError


def certified_sigma(kappa: float = PRIOR_SUCCESS, margin: float = MARGIN, sensitivity: float = 1.0) -> float:
    """The noise multiplier from which on no attacker gains more than `margin` (ReRo; Hayes et al. 2023).

    The bound Phi(Phi^-1(kappa) + sensitivity / sigma) equals kappa + margin there.

    Args:
        kappa: success of the attacker without the releases; with `margin` below 1.
        margin: what it may gain, above 0.
        sensitivity: how far a sample moves all attacked releases together, in units of the clip norm.

    Raises:
        InputError: where kappa and margin are no such chances.

    Example:
        >>> round(certified_sigma(0.1), 2), round(certified_sigma(1 / 200), 2)
        (4.08, 1.02)
    """
    if kappa <= 0 or margin <= 0 or kappa + margin >= 1:
        raise InputError(f"kappa and margin must be above 0 and below 1 together, not {kappa:g}, {margin:g}.")
    return sensitivity / float(ndtri(kappa + margin) - ndtri(kappa))
