"""A small convolutional network without surprises."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.victim.layers import Normalise, norm_layer
from dpbench.victim.networks import network


@network("convnet", norm="none")
class ConvNet(nn.Module):
    """Three 3x3 convolutions of stride 2, ReLU, one linear layer."""

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        layer, widths = norm_layer(norm), (32, 64, 96)
        self.normalise = Normalise(mean, std)
        for i, (before, after) in enumerate(zip((3, *widths), widths, strict=False), 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.add_module(f"norm{i}", layer(after))
        self.fc = nn.Linear(widths[-1] * (-(-size // 8)) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        h = self.normalise(images)
        for i in (1, 2, 3):
            h = F.relu(self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(h)))
        return self.fc(h.flatten(1))
