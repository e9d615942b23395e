"""A victim whose gradient is its image, so that the best linear estimate is known in closed form."""

from __future__ import annotations

import torch
from torch import nn

from dpbench.data.image_statistics import fit
from dpbench.protocol import Knowledge, PublicImages, Release, Stage

SHAPE, CLASSES = (3, 2, 2), 3
PIXELS = 12


def own_logit(logits, labels):
    """A loss whose gradient for an image x of label y is x in row y of the weight, and 1 in its bias."""
    return logits.gather(1, labels[:, None]).mean()


class Linear(nn.Module):
    """The logits of flat images."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(PIXELS, CLASSES)

    def forward(self, images):
        return self.fc(images.flatten(1))


def covariance(label):
    """Of the images of a label, [12, 12]."""
    generator = torch.Generator().manual_seed(10 + label)
    root = torch.randn(PIXELS, PIXELS, generator=generator, dtype=torch.float64) * 0.05
    return root @ root.T


def mean(label):
    """Of the images of a label, [12]."""
    generator = torch.Generator().manual_seed(20 + label)
    return 0.4 + 0.2 * torch.rand(PIXELS, generator=generator, dtype=torch.float64)


def draw(labels, seed=0):
    """One Gaussian image for each label, [n, 3, 2, 2]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), PIXELS, generator=generator, dtype=torch.float64)
    rows = [
        mean(y) + torch.linalg.cholesky(covariance(y)) @ z
        for y, z in zip(labels.tolist(), noise, strict=True)
    ]
    return torch.stack(rows).float().unflatten(1, SHAPE)


def told(labels=None, each=40):
    """What the attacker knows: `each` public images of every label."""
    torch.manual_seed(0)
    classes = torch.arange(CLASSES * each) % CLASSES
    images = draw(classes, seed=1)
    statistics = fit((images * 255).round().byte(), images.mean(0))
    model, grey, deviation = Linear(), (0.5,) * 3, (0.3,) * 3
    more = {"public_images": PublicImages(images, classes), "image_statistics": statistics}
    return Knowledge(model, own_logit, SHAPE, CLASSES, grey, deviation, labels, **more)


def gradients(images, labels):
    """Each image's gradient, flat, [n, 39]: the weight's rows, then the bias."""
    weight = torch.zeros(len(images), CLASSES, PIXELS, dtype=images.dtype)
    weight[torch.arange(len(images)), labels] = images.flatten(1)
    bias = nn.functional.one_hot(labels, CLASSES).to(images)
    return torch.cat([weight.flatten(1), bias], 1)


def released(images, labels, noise=0.0, seed=2, clip=None, copies=1):
    """The mean gradient with noise of that standard deviation on the sum, in each of `copies` releases."""
    rows, generator = gradients(images, labels), torch.Generator().manual_seed(seed)
    if clip is not None:
        rows = rows * (clip / rows.norm(dim=1, keepdim=True)).clamp(max=1)
    drawn = [rows.sum(0) + noise * torch.randn(rows.shape[1], generator=generator) for _ in range(copies)]
    flat = [each / len(images) for each in drawn]
    stage = Stage("noise", {"noise_std": noise / len(images)})
    if clip is not None:
        stage = Stage("dp", {"noise_multiplier": noise / clip, "max_grad_norm": clip})
    shaped = [(f[: CLASSES * PIXELS].view(CLASSES, PIXELS), f[CLASSES * PIXELS :]) for f in flat]
    mean = tuple(torch.stack(same).mean(0) for same in zip(*shaped, strict=True))
    repeats = tuple(shaped) if copies > 1 else ()
    return Release(("fc.weight", "fc.bias"), mean, len(images), (stage,), repeats=repeats)
