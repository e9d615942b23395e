"""A data set of noise: small images of two labels, as many as a frontier needs."""

from __future__ import annotations

import torch

from dpbench.data import Dataset
from dpbench.data.image_statistics import fit


def tiny(copies: bool = False, each: int = 420, size: int = 8) -> Dataset:
    """Two labels of `each` images; with `copies` each image is there twice."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * each, 3, size, size), dtype=torch.uint8, generator=generator)
    if copies:
        images = images[: len(images) // 4].repeat(4, 1, 1, 1)
    half, mean_image = (0.5,) * 3, torch.full((3, size, size), 0.5)
    labels = torch.arange(2 * each) % 2
    statistics = fit(images, mean_image)
    # the same whoever registers it: tests do, and the processes that they start
    return Dataset("tiny", images, labels, 2, half, half, mean_image, statistics=statistics, content="")
