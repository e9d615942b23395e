"""What is believed of a layer's inputs before anything is released: Gaussians."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dpbench.protocol import ImageStatistics

ROUNDING = 1 / 12 / 255**2
"""Variance that 8-bit pixels carry whatever they show."""


class Prior(Protocol):
    """A Gaussian over inputs [C, pixels]."""

    def precision(self, basis: Tensor) -> Tensor:
        """The inverse covariance [C * w, C * w] of coefficients along the columns of `basis`, [pixels, w]."""

    def pull(self, values: Tensor) -> Tensor:
        """Inverse covariance times (mean - values), [C, pixels]."""


class Wide:
    """Independent values around zero.

    Args:
        variance: of each.
        channels: C.
    """

    def __init__(self, variance: float, channels: int) -> None:
        self.each, self.channels = 1 / max(variance, torch.finfo(torch.float64).tiny), channels

    def precision(self, basis: Tensor) -> Tensor:
        """See `Prior`; `basis` is orthonormal."""
        return self.each * torch.eye(self.channels * basis.shape[1], dtype=basis.dtype)

    def pull(self, values: Tensor) -> Tensor:
        """See `Prior`."""
        return -self.each * values


class Images:
    """A stationary field around the mean image, seen through gain * image + offset.

    Args:
        statistics: of public images.
        gain: [C, H, W].
        offset: [C, H, W].
    """

    def __init__(self, statistics: ImageStatistics, gain: Tensor, offset: Tensor) -> None:
        self.mean, self.colours, spectrum = (
            x.double().cpu() for x in (statistics.mean_image, statistics.colours, statistics.spectrum)
        )
        self.gain, self.offset, self.power = gain, offset, spectrum + ROUNDING

    def precision(self, basis: Tensor) -> Tensor:
        """See `Prior`."""
        channels, height, width = self.gain.shape
        count = basis.shape[1]
        images = basis.T.reshape(1, count, height, width) / self.gain[:, None]
        waves = torch.fft.fft2(images, norm="ortho").flatten(2)  # [C, w, frequencies]
        total = basis.new_zeros(channels, count, channels, count)
        for colour, power in zip(self.colours, self.power.flatten(1), strict=True):
            mixed = colour[:, None, None] * waves / power.sqrt()
            parts = torch.cat([mixed.real, mixed.imag], 2).reshape(channels * count, -1)
            total += (parts @ parts.T).view_as(total)
        return total.view(channels * count, channels * count)

    def pull(self, values: Tensor) -> Tensor:
        """See `Prior`."""
        images = (values.reshape(self.gain.shape) - self.offset) / self.gain
        waves = torch.fft.fft2(torch.einsum("kc,chw->khw", self.colours, self.mean - images), norm="ortho")
        fields = torch.fft.ifft2(waves / self.power, norm="ortho").real
        return (torch.einsum("kc,khw->chw", self.colours, fields) / self.gain).flatten(1)
