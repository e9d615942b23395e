"""The public matrix behind correlated noise: C of a matrix factorisation, lower triangular and Toeplitz."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factorisation:
    """C for several releases: the square root of the prefix-sum matrix, banded.

    Release t carries the noise (C^-1 z)_t, z independent. So all releases together are C^-1 (C g + z): what
    they give away is the sensitivity of C g against plain Gaussian noise.

    Attributes:
        size: how many releases, at least 1.
        bands: entries of its first column that are kept; 1 is the identity: independent noise, as in DP-SGD.
    """

    size: int
    bands: int

    def coefficients(self) -> Tensor:
        """First column of C, float64 [size].

        c_0 = 1 and c_k = c_(k-1) (2k - 1) / 2k (Fichtenberger, Henzinger and Upadhyay 2023).

        Example:
            >>> Factorisation(4, bands=3).coefficients().tolist()
            [1.0, 0.5, 0.375, 0.0]
        """
        steps = torch.arange(1, min(self.size, self.bands), dtype=torch.float64)
        column = torch.zeros(self.size, dtype=torch.float64)
        column[0] = 1
        column[1 : len(steps) + 1] = ((2 * steps - 1) / (2 * steps)).cumprod(0)
        return column

    def sensitivity(self) -> float:
        """|C 1|: how far a sample moves C g that is in each release with a gradient of norm 1.

        As no entry of C is negative, gradients that all point in one direction are the worst case.

        Example:
            >>> Factorisation(4, bands=1).sensitivity()
            2.0
        """
        return float(self.coefficients().cumsum(0).norm())

    def best_weights(self) -> Tensor:
        """Weights, float64 [size], of the unbiased mean of releases of one gradient with least noise.

        They are C^T C 1 / |C 1|^2 (generalised least squares); the noise on that mean is 1 / |C 1| of z's.

        Example:
            >>> Factorisation(2, bands=1).best_weights().tolist()
            [0.5, 0.5]
        """
        column = self.coefficients()
        sums = column.cumsum(0)
        # (C^T v)_s = sum over t of c_t v_(s+t): a correlation, by FFTs of twice the length
        spectrum = torch.fft.rfft(sums, 2 * self.size) * torch.fft.rfft(column, 2 * self.size).conj()
        return torch.fft.irfft(spectrum, 2 * self.size)[: self.size] / sums.square().sum()
