"""The network of a learned inversion: from a linear estimate to an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 48
"""Channels."""
DEPTH = 4
"""Residual layers."""
BATCH = 32
"""Images of a step."""
RATE = 2e-3
"""Largest step of Adam."""


class Decoder(nn.Module):
    """A residual convolutional network on blocks of 2 x 2 pixels; it starts as the identity.

    Args:
        channels: of an image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * 4 * channels, WIDTH, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(DEPTH))
        self.last = nn.Conv2d(WIDTH, 4 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, estimates: Tensor, means: Tensor) -> Tensor:
        """Images [B, C, H, W], not clamped, of linear estimates and their labels' mean images, likewise."""
        height, width = estimates.shape[2:]
        padded = F.pad(torch.cat([estimates - means, means - 0.5], 1), (0, width % 2, 0, height % 2))
        x = F.relu(self.first(F.pixel_unshuffle(padded * 4, 2)))
        for layer in self.layers:
            x = x + F.relu(layer(x))
        return estimates + F.pixel_shuffle(self.last(x), 2)[:, :, :height, :width] / 4


def trained(
    estimates: Tensor, means: Tensor, images: Tensor, steps: int, report: Callable[[int, float], None]
) -> Decoder:
    """A decoder trained by Adam on the mean squared error of pixels, over random batches.

    Args:
        estimates: [n, C, H, W], each made without its own image.
        means: the mean image of each one's label, likewise.
        images: what they estimate, likewise.
        steps: of Adam.
        report: told the steps done and the mean squared error of a batch every so many steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(images.shape[1]).to(images.device)
    generator = torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(decoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    with torch.enable_grad():
        for step in range(steps):
            chosen = torch.randint(len(images), (BATCH,), generator=generator).to(images.device)
            error = (decoder(estimates[chosen], means[chosen]) - images[chosen]).square().mean()
            adam.zero_grad()
            error.backward()
            adam.step()
            schedule.step()
            if (step + 1) % max(1, steps // 100) == 0 or step + 1 == steps:
                report(step + 1, float(error.detach()))
    return decoder.eval().requires_grad_(False)
