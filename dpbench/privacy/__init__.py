"""Noise for a budget, budgets for noise, and what no attacker can do under either."""

from dpbench.privacy.budget import Budget
from dpbench.privacy.calibration import (
    PRIOR,
    calibrate,
    eps_replace,
    epsilon,
    noise_multiplier,
    reconstruction_bound,
)

__all__ = [
    "PRIOR",
    "Budget",
    "calibrate",
    "eps_replace",
    "epsilon",
    "noise_multiplier",
    "reconstruction_bound",
]
from dpbench.privacy.interim import delta_note, gaussian_claim, membership_bound, psnr_unbiased_probe  # noqa
