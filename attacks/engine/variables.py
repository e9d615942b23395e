"""What a search moves, and how normalised pixels follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """The normalised pixels themselves, held to images in [0, 1].

    Args:
        mean: per-channel mean of images in [0, 1].
        std: per-channel standard deviation.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        self.register_buffer("low", (0 - mean) / std)
        self.register_buffer("high", (1 - mean) / std)

    def forward(self, variables: Sequence[Tensor]) -> Tensor:
        """The first of `variables`, normalised pixels [B, C, H, W]."""
        return variables[0]

    def project(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """`variables` with every pixel brought back to an image's range."""
        pixels = variables[0]
        return [torch.clamp(pixels, self.low.to(pixels.dtype), self.high.to(pixels.dtype)), *variables[1:]]


class Frequencies(nn.Module):
    """Cosine coefficients of opponent colours, the low frequencies searched in larger steps.

    Adam moves every variable by about as much per iteration. In pixels that is white noise; here it is noise
    with the spectrum of photographs, as a coefficient of frequency f counts f^-slope.

    Args:
        mean: per-channel mean of images in [0, 1], three channels.
        std: per-channel standard deviation.
        height: of the images, pixels.
        width: likewise.
        slope: how fast what a step moves falls with the frequency.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], height: int, width: int, slope: float = 1.0
    ) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        for name, size in (("rows", height), ("columns", width)):
            self.register_buffer(name, cosines(size))
        colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        self.register_buffer("colours", colours / colours.norm(dim=1, keepdim=True))
        frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width) / width)
        falls = frequency.clamp_min(1 / max(height, width)) ** -slope
        scale = torch.tensor(COLOURS)[:, None, None] * falls
        self.register_buffer("scale", scale / scale.square().mean().sqrt())

    def forward(self, variables: Sequence[Tensor]) -> Tensor:
        """Normalised pixels [B, 3, H, W] of the coefficients [B, 3, H, W] that are the first of `variables`."""
        planes = self.rows.T @ (variables[0] * self.scale) @ self.columns
        return torch.einsum("oc,bohw->bchw", self.colours, planes)

    def backward_from(self, z: Tensor) -> Tensor:
        """The coefficients of normalised pixels `z`."""
        planes = torch.einsum("oc,bchw->bohw", self.colours, z)
        return self.rows @ planes @ self.columns.T / self.scale

    def project(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """`variables` with every pixel brought back to an image's range."""
        return [self.backward_from(self.pixels.project([self(variables)])[0]), *variables[1:]]


COLOURS = (1.0, 0.4, 0.25)
"""How much brightness, red against blue, and green against both vary in photographs, relative to the first."""


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II, [size, size]: a row for each frequency.

    Example:
        >>> cosines(2)
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]])
    """
    places = torch.arange(size, dtype=torch.float64) + 0.5
    rows = torch.cos(torch.pi / size * torch.arange(size, dtype=torch.float64)[:, None] * places)
    return (rows / rows.norm(dim=1, keepdim=True)).float()
