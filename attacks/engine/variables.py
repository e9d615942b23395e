"""The variables of a search, and the normalised pixels that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """The normalised pixels themselves, clamped to images in [0, 1].

    Args:
        mean: per-channel mean of images in [0, 1].
        std: per-channel standard deviation.
        axes: of an image beside its channels: 2 of a picture, 3 of a volume, none of a row of a table.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: int = 2) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(-1, *[1] * axes) for values in (mean, std))
        self.register_buffer("low", (0 - mean) / std)
        self.register_buffer("high", (1 - mean) / std)

    def forward(self, variables: Sequence[Tensor]) -> Tensor:
        """The first of `variables`, normalised pixels [B, C, ...]."""
        return variables[0]

    def project(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """`variables` with every pixel brought back to an image's range."""
        pixels = variables[0]
        return [torch.clamp(pixels, self.low.to(pixels.dtype), self.high.to(pixels.dtype)), *variables[1:]]


COLOURS = (1.0, 0.4, 0.25)
"""Rough standard deviations in photographs of brightness, red minus blue, and green minus both."""


class Frequencies(nn.Module):
    """Cosine coefficients of opponent colours, scaled so that equal steps have a photograph's spectrum.

    Adam moves all variables by about the same amount. In pixels such a step looks like white noise, and the
    search ends in checkerboards; here a coefficient of frequency f is scaled by 1 / f, as in photographs.

    Args:
        mean: per-channel mean of images in [0, 1].
        std: per-channel standard deviation.
        height: of the images, pixels.
        width: likewise.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], height: int, width: int) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.register_buffer("rows", cosines(height))
        self.register_buffer("columns", cosines(width))
        frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width) / width)
        frequency[0, 0] = min(1 / height, 1 / width)
        scale = (1 / frequency).expand(len(mean), height, width)
        colours = torch.eye(len(mean))
        if len(mean) == 3:
            colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
            scale = torch.tensor(COLOURS)[:, None, None] * scale
        self.register_buffer("colours", colours / colours.norm(dim=1, keepdim=True))
        self.register_buffer("scale", scale / scale.square().mean().sqrt())

    def forward(self, variables: Sequence[Tensor]) -> Tensor:
        """Normalised pixels [B, C, H, W] of the first of `variables`, coefficients of the same shape."""
        rows, columns, colours, scale = self._as(variables[0])
        return torch.einsum("oc,bohw->bchw", colours, rows.T @ (variables[0] * scale) @ columns)

    def inverse(self, z: Tensor) -> Tensor:
        """The coefficients of normalised pixels `z`."""
        rows, columns, colours, scale = self._as(z)
        return rows @ torch.einsum("oc,bchw->bohw", colours, z) @ columns.T / scale

    def project(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """`variables` with every pixel brought back to an image's range."""
        z = self(variables)
        # only the excess is transformed: under TF32 the whole would lose digits in every iteration
        excess = self.pixels.project([z])[0] - z
        return [variables[0] + self.inverse(excess), *variables[1:]]

    def _as(self, like: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.to(like.dtype) for t in (self.rows, self.columns, self.colours, self.scale))


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
