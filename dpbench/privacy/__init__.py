"""Noise for a budget, budgets for noise, and what no attacker can do under either."""

from dpbench.privacy.bounds import PRIOR_SUCCESS, gaussian_claim, membership_bound, reconstruction_bound
from dpbench.privacy.budget import Budget
from dpbench.privacy.calibration import calibrate, delta_note, eps_replace, epsilon, noise_multiplier

__all__ = [
    "PRIOR_SUCCESS",
    "Budget",
    "calibrate",
    "delta_note",
    "eps_replace",
    "epsilon",
    "gaussian_claim",
    "membership_bound",
    "noise_multiplier",
    "reconstruction_bound",
]
