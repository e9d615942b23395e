"""The public matrix behind correlated noise: C of a matrix factorisation, a lower triangular Toeplitz matrix.

Release t carries the noise (C^-1 z)_t, z independent. So all releases together are C^-1 (C g + z): what they
give away is the sensitivity of C g against plain Gaussian noise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coefficients(size: int, bands: int) -> Tensor:
    """First column of C, float64 [size]: the square root of the prefix-sum matrix, cut after `bands` entries.

    c_0 = 1 and c_k = c_(k-1) (2k - 1) / 2k (Fichtenberger, Henzinger and Upadhyay 2023). One band is the
    identity: independent noise, as in DP-SGD.

    Example:
        >>> coefficients(4, 3).tolist()
        [1.0, 0.5, 0.375, 0.0]
    """
    steps = torch.arange(1, min(size, bands), dtype=torch.float64)
    kept = torch.cat([torch.ones(1, dtype=torch.float64), ((2 * steps - 1) / (2 * steps)).cumprod(0)])
    return torch.nn.functional.pad(kept[:size], (0, size - len(kept[:size])))


def sensitivity(size: int, bands: int) -> float:
    """|C 1|: how far a sample moves C g that is in each of `size` releases with a gradient of norm 1.

    As no entry of C is negative, gradients that all point in one direction are the worst case.

    Example:
        >>> sensitivity(4, 1)
        2.0
    """
    return float(coefficients(size, bands).cumsum(0).norm())


def best_weights(size: int, bands: int) -> Tensor:
    """Weights, float64 [size], of the unbiased mean of `size` releases of one gradient with least noise.

    They are C^T C 1 / |C 1|^2 (generalised least squares); the noise on that mean is 1 / |C 1| of z's.

    Example:
        >>> best_weights(2, 1).tolist()
        [0.5, 0.5]
    """
    column = coefficients(size, bands)
    sums = column.cumsum(0)
    # (C^T v)_s = sum over t of c_t v_(s+t): a correlation, by FFTs of twice the length
    spectrum = torch.fft.rfft(sums, 2 * size) * torch.fft.rfft(column, 2 * size).conj()
    return torch.fft.irfft(spectrum, 2 * size)[:size] / sums.square().sum()
