"""Releases without a defence, knowledge, photographs and small networks for tests of attacks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dpbench.data import draw_batch, load_data
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import Knowledge
from dpbench.testing.scenes import (  # noqa: F401 (tests of attacks take them from here)
    Painter,
    noise_release,
    plain_release,
    psnr,
    smooth_images,
)
from dpbench.victim.networks import FrozenBatchNorm2d


def know(model, labels=None, shape=(3, 32, 32), classes=10, **more):
    """What the attacker is told of a victim with cross-entropy loss."""
    return Knowledge(model, F.cross_entropy, shape, classes, CIFAR10_MEAN, CIFAR10_STD, labels, **more)


def photograph(seed, batch=1):
    """Images [batch, 3, 32, 32] and distinct labels."""
    drawn = draw_batch(load_data("samples"), batch, seed, "distinct")
    return drawn.images, drawn.labels


class Tiny(nn.Module):
    """Smooth, 8 px, 4 classes: attacks solve it in a second."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 64, 4)

    def forward(self, x):
        return self.fc(torch.sigmoid(self.conv((x - 0.5) / 0.25)).flatten(1))


class Normed(nn.Module):
    """The same with frozen batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3, padding=1), FrozenBatchNorm2d(8), nn.Linear(512, 4)

    def forward(self, x):
        return self.fc(torch.sigmoid(self.bn(self.conv((x - 0.5) / 0.25))).flatten(1))
