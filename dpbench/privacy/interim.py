"""To be replaced by bounds.py within the hour."""

from __future__ import annotations

import math

from scipy.special import ndtr

from dpbench.privacy.predictions import psnr_unbiased_probe

__all__ = ["delta_note", "gaussian_claim", "membership_bound", "psnr_unbiased_probe"]


def gaussian_claim(noise_std: float, batch_size: int, max_grad_norm: float) -> float:
    """Sigma of clipping and noise."""
    return noise_std * batch_size / max_grad_norm


def membership_bound(noise_multiplier: float, sample_rate: float = 1.0, steps: int = 1) -> float:
    """At q = 1."""
    return float(ndtr(math.sqrt(steps) / (2 * noise_multiplier)))


def delta_note(delta: float, train_size: int) -> str | None:
    """A caution."""
    return None
