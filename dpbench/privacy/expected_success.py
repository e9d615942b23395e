"""What attackers whose success can be computed are expected to get: to be set beside what is measured."""

from __future__ import annotations

import math

import numpy as np

from dpbench.protocol import InputError

CHUNK = 10_000


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


def candidate_success(
    gram: np.ndarray, noise_multiplier: float, releases: int = 1, draws: int = 100_000, seed: int = 0
) -> tuple[float, float]:
    """How often the likelihood picks the right one of n equally likely candidates (Hayes et al. 2023).

    The attacker knows the rest of the batch and the candidates' clipped gradients c. Its score for one,
    sum over releases of <g_t, c> - ||c||^2 / 2, depends on the truth and the noise through the inner products
    alone, which is all that is drawn here.

    Args:
        gram: [n, n], inner products of the clipped gradients in units of C^2: the diagonal is 1 at most.
        noise_multiplier: sigma, above 0.
        releases: noisy gradients of the same batch (q = 1), at least 1.
        draws: how often the truth and the noise are drawn.
        seed: of the draws.

    Returns:
        The share of right answers and its standard error.

    Raises:
        InputError: for a matrix that is not one of inner products of clipped gradients.

    Example:
        >>> round(candidate_success(np.eye(10), 0.6002)[0], 1)  # eps 8, orthogonal candidates
        0.6
    """
    gram = np.asarray(gram, dtype=float)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.allclose(gram, gram.T, atol=1e-5):
        raise InputError(f"gram must be a symmetric [n, n] matrix of inner products, not {gram.shape}.")
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -1e-4 or gram.diagonal().max() > 1 + 1e-3:
        raise InputError("gram must hold inner products of gradients clipped to norm 1: divide by C^2.")
    root = vectors * np.sqrt(values.clip(0))  # root @ root.T is gram
    rng, right = np.random.default_rng(seed), 0
    for begin in range(0, draws, CHUNK):
        count = min(CHUNK, draws - begin)
        truth = rng.integers(len(gram), size=count)
        noise = rng.standard_normal((count, len(gram))) @ root.T
        scores = (
            releases * (gram[truth] - gram.diagonal() / 2) + math.sqrt(releases) * noise_multiplier * noise
        )
        right += int((scores.argmax(1) == truth).sum())
    share = right / draws
    return share, math.sqrt(share * (1 - share) / draws)
