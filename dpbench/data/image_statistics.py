"""Statistics of public images, for attackers who believe that theirs look alike."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dpbench.protocol import ImageStatistics

CHUNK = 5000


def fit(images: Tensor, mean_image: Tensor) -> ImageStatistics:
    """Principal colours of the deviations from the mean image, and the power of each at each frequency.

    Args:
        images: uint8 [N, C, H, W], disjoint from whatever is attacked.
        mean_image: [C, H, W] in [0, 1].

    Example:
        >>> images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8)
        >>> fit(images, torch.full((3, 4, 4), 0.5)).spectrum.shape
        torch.Size([3, 4, 4])
    """
    covariance = sum(torch.einsum("nchw,ndhw->cd", part, part) for part in _deviations(images, mean_image))
    colours = torch.linalg.eigh(covariance).eigenvectors.T
    spectrum = sum(
        torch.fft.fft2(torch.einsum("kc,nchw->nkhw", colours, part), norm="ortho").abs().square().sum(0)
        for part in _deviations(images, mean_image)
    )
    return ImageStatistics(mean_image.float(), colours.float(), (spectrum / len(images)).float())


def _deviations(images: Tensor, mean_image: Tensor) -> Iterator[Tensor]:
    return (part.double() / 255 - mean_image.double() for part in images.split(CHUNK))
