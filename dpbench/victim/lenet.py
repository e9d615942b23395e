"""The LeNet of "Deep Leakage from Gradients"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpbench.protocol import InputError
from dpbench.victim.layers import Normalise
from dpbench.victim.networks import network


@network("lenet", norm="none")
class LeNet(nn.Module):
    """DLG's LeNet: sigmoids, strides instead of pooling, smooth everywhere (Zhu et al. 2019)."""

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        if norm != "none":
            raise InputError("lenet has no norm layers; use --norm none.")
        self.normalise = Normalise(mean, std)
        self.conv1 = nn.Conv2d(3, 12, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 12, 5, stride=2, padding=2)
        self.conv3 = nn.Conv2d(12, 12, 5, padding=2)
        self.fc = nn.Linear(12 * (-(-size // 4)) ** 2, num_classes)
        for (
            parameter
        ) in self.parameters():  # DLG's own start: with PyTorch's the sigmoids leak next to nothing
            nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.normalise(images)
        for conv in (self.conv1, self.conv2, self.conv3):
            h = torch.sigmoid(conv(h))
        return self.fc(h.flatten(1))
