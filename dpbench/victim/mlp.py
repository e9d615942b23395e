"""A network whose first layer takes the pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError
from dpbench.victim.layers import Normalise
from dpbench.victim.networks import network

WIDTH = 512


@network("mlp", norm="none")
class MLP(nn.Module):
    """Two fully connected layers with ReLU between them."""

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        if norm != "none":
            raise InputError("mlp has no norm layers; use --norm none.")
        self.normalise = Normalise(mean, std)
        self.fc1 = nn.Linear(3 * size**2, WIDTH)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.fc(F.relu(self.fc1(self.normalise(images).flatten(1))))
