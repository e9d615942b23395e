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
