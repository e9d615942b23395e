"""The success of the informed attacker's likelihood, from the inner products of its candidates alone."""

from __future__ import annotations

import math

import numpy as np

CHUNK = 10_000


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
    """
    values, vectors = np.linalg.eigh(gram)
    assert values[0] > -1e-4, "no matrix of inner products"
    assert gram.diagonal().max() < 1 + 1e-3, "to be divided by C^2"
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
