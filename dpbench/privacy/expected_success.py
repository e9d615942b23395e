"""What an attacker whose success can be computed is expected to get: to be set beside what is measured."""

from __future__ import annotations

import math


def psnr_unbiased_probe(noise_multiplier: float, gradient_norm: float, delta_norm: float) -> float:
    """PSNR of the unbiased estimate of one input of a linear layer from its noised gradient (B = 1), in dB.

    The layer's weight gradient is delta x^T, delta the loss gradient of its output. Clipped to C, noised with
    sigma C and divided by the known delta and clip factor C / ||g||, each pixel errs by
    sigma * ||g|| / ||delta|| whatever C is (Riess et al. 2024, 2402.12861). A calibration of the probe and
    **not a bound**: an estimate that uses a prior beats it.

    Args:
        noise_multiplier: sigma, above 0.
        gradient_norm: ||g|| of the whole gradient that was clipped, biases and other layers included; C
            where it is less, as nothing was clipped then.
        delta_norm: ||delta||, above 0; times the gain, where the layer is fed a multiple of the pixels.

    Returns:
        -20 log10(sigma * ||g|| / ||delta||), for inputs in [0, 1] and an estimate that is not clamped.

    Example:
        >>> round(psnr_unbiased_probe(0.001, gradient_norm=28.8, delta_norm=1.0), 1)
        30.8
    """
    return -20 * math.log10(noise_multiplier * gradient_norm / delta_norm)
