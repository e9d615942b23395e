"""Releases without a defence, knowledge, photographs and small networks for tests of attacks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dpbench.data import draw_batch, load_data
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import Knowledge, Release
from dpbench.victim.networks import FrozenBatchNorm2d


def plain_release(model, images, labels):
    """The gradient of the mean loss, as it is."""
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    names = tuple(name for name, _ in model.named_parameters())
    return Release(names, tuple(g.detach() for g in gradients), len(images))


def noise_release(release, seed=5):
    """Gaussian noise of each tensor's norm: it holds nothing of the images."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(g.shape, generator=generator) for g in release.gradients]
    scaled = tuple(n * g.norm() / n.norm() for n, g in zip(noise, release.gradients, strict=True))
    return Release(release.names, scaled, release.batch_size)


def know(model, labels=None, shape=(3, 32, 32), classes=10, **more):
    """What the attacker is told of a victim with cross-entropy loss."""
    return Knowledge(model, F.cross_entropy, shape, classes, CIFAR10_MEAN, CIFAR10_STD, labels, **more)


def psnr(images, originals):
    """Mean over the batch, image by image in the order they stand, dB."""
    return float((-10 * (images - originals).square().mean((1, 2, 3)).log10()).mean())


def photograph(seed, batch=1):
    """Images [batch, 3, 32, 32] and distinct labels."""
    drawn = draw_batch(load_data("samples"), batch, seed, "distinct")
    return drawn.images, drawn.labels


def smooth_images(batch=2, size=8):
    """Random images as smooth as photographs."""
    coarse = torch.rand(batch, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True)


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


class Painter(nn.Module):
    """A generator that is linear in its latent vector and class, so that the answer can be found."""

    latent_dim, num_classes, image_shape = 6, 4, (3, 8, 8)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(8)
        self.register_buffer("basis", torch.randn(6, 192, generator=generator))
        self.register_buffer("classes", torch.randn(4, 192, generator=generator))

    def forward(self, z, y):
        return torch.sigmoid((z @ self.basis + y @ self.classes) / 2).unflatten(1, (3, 8, 8))
