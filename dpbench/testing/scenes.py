"""Small victims, releases and knowledge, on which a check takes a fraction of a second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import Attack
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.data.image_statistics import fit
from dpbench.protocol import Candidates, Knowledge, PublicImages, Release
from dpbench.victim.batch_norm import statistics

SHAPE, CLASSES = (3, 8, 8), 4
LABELS = torch.tensor([2, 0, 3])


class Convolutional(nn.Module):
    """Smooth, with real batch norm: an attack that sets it to training mode changes its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Linear(512, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, CLASSES] of images [B, *SHAPE]."""
        return self.fc(torch.sigmoid(self.bn(self.conv((images - 0.5) / 0.25))).flatten(1))


class Painter(nn.Module):
    """A generator that is linear in its latent vector and class, so that the answer can be found."""

    latent_dim, num_classes, image_shape = 6, CLASSES, SHAPE

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(8)
        self.register_buffer("basis", torch.randn(6, 192, generator=generator))
        self.register_buffer("classes", torch.randn(CLASSES, 192, generator=generator))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images [B, *SHAPE] of latent vectors [B, 6] and one-hot classes."""
        return torch.sigmoid((z @ self.basis + y @ self.classes) / 2).unflatten(1, SHAPE)


@dataclass(frozen=True)
class Scene:
    """One victim, its batch, the release and what the attacker is told."""

    model: nn.Module
    images: Tensor
    release: Release
    knowledge: Knowledge


def scene(kind: type[Attack], batch: int, known: bool = True) -> Scene:
    """What the class flags of an attack ask for: `threat_models` decides the victim, `needs` the knowledge.

    Args:
        kind: the attack.
        batch: number of images, 1 to 3.
        known: whether the attacker is told the labels, where it can do without.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        linear = kind.threat_models[0] == "malicious-linear"
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)) if linear else Convolutional()
    model.eval()
    images, labels, more = smooth_images(batch), LABELS[:batch], {}
    if "image_generator" in kind.needs:
        latent = torch.randn(batch, Painter.latent_dim, generator=torch.Generator().manual_seed(4))
        more["image_generator"] = Painter()
        images = more["image_generator"](latent, F.one_hot(labels, CLASSES).float())
    others = smooth_images(170)[10:]
    if "public_images" in kind.needs:
        more["public_images"] = PublicImages(others, torch.arange(160) % CLASSES)
    if "image_statistics" in kind.needs:
        more["image_statistics"] = fit((others * 255).byte(), others.mean(0))
    if "candidates" in kind.needs:
        more["candidates"] = _candidates(model, images, labels)
    knowledge = Knowledge(
        model,
        F.cross_entropy,
        SHAPE,
        CLASSES,
        CIFAR10_MEAN,
        CIFAR10_STD,
        labels if known or "labels" in kind.needs else None,
        bn_stats="exact",
        statistics=statistics(model, images, "exact"),
        **more,
    )
    return Scene(model, images, plain_release(model, images, labels), knowledge)


def _candidates(model: nn.Module, images: Tensor, labels: Tensor) -> Candidates:
    """The batch's first image and seven others; the attacker knows the rest of the batch."""
    others = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1))
    choice, classes = torch.cat([images[:1], others]), torch.cat([labels[:1], torch.arange(7) % CLASSES])
    single = [
        torch.cat([g.flatten() for g in plain_release(model, x[None], y[None]).gradients])
        for x, y in [*zip(choice, classes, strict=True), *zip(images[1:], labels[1:], strict=True)]
    ]
    return Candidates(choice, classes, torch.stack(single[:8]), sum(single[8:], torch.zeros_like(single[0])))


def plain_release(model: nn.Module, images: Tensor, labels: Tensor) -> Release:
    """The gradient of the mean loss, as it is."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(trained.values()))
    return Release(tuple(trained), tuple(g.detach() for g in gradients), len(images))


def noise_release(release: Release, seed: int = 5) -> Release:
    """Gaussian noise of each tensor's norm: it holds nothing of the images."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(g.shape, generator=generator) for g in release.gradients]
    scaled = tuple(n * g.norm() / n.norm() for n, g in zip(noise, release.gradients, strict=True))
    return Release(release.names, scaled, release.batch_size)


def psnr(images: Tensor, originals: Tensor) -> float:
    """Mean over the batch, image by image in the order they stand, dB."""
    return float((-10 * (images - originals).square().mean((1, 2, 3)).log10()).mean())


def smooth_images(batch: int = 2, size: int = 8) -> Tensor:
    """Random images as smooth as photographs."""
    coarse = torch.rand(batch, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True)
