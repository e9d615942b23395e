"""Shared by the attack tests: small victims, photographs, releases without a defence."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dpbench.data import draw_batch, load_data
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import Knowledge, Release
from dpbench.victim.networks import build


def plain_release(model, images, labels):
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    names = tuple(name for name, _ in model.named_parameters())
    return Release(names, tuple(g.detach() for g in gradients), len(images))


def noise_release(release, seed=5):
    """Gaussian noise of each tensor's norm: nothing of the images is left."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(g.shape, generator=generator) for g in release.gradients]
    scaled = tuple(n * g.norm() / n.norm() for n, g in zip(noise, release.gradients, strict=True))
    return Release(release.names, scaled, release.batch_size)


def know(model, labels=None, shape=(3, 32, 32), classes=10):
    return Knowledge(model, F.cross_entropy, shape, classes, CIFAR10_MEAN, CIFAR10_STD, labels)


def psnr(images, originals):
    return float((-10 * (images - originals).square().mean((1, 2, 3)).log10()).mean())


def photograph(seed, batch=1):
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


@pytest.fixture
def tiny():
    torch.manual_seed(3)
    return Tiny()


@pytest.fixture(scope="session")
def lenet():
    return build("lenet")


@pytest.fixture(scope="session")
def convnet():
    return build("convnet")
