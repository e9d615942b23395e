"""Photographs told apart in mixtures of them: independent component analysis of their derivatives.

That images can be unmixed because they are far from Gaussian is the idea of the Cocktail Party attack
(Kariyappa et al., ICML 2023). Differences of neighbouring pixels are much farther from Gaussian than pixels
are, and less alike from image to image; and a mixture of images has the same mixture of differences.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLES = 20_000
"""Differences that are looked at, at most."""
STEPS = 200
"""Steps of the fixed point, at most ..."""
SETTLED = 1e-5
"""... and the cosine short of 1 by which a step moves the direction that moves most, when it ends."""
LEAST = 8
"""Pixels to a side below which there is too little to tell images by."""


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether inputs of that shape have enough neighbouring pixels."""
    return len(shape) == 3 and min(shape[1:]) >= LEAST


def independent(mixtures: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The images behind mixtures, each up to its scale and sign, in an order of their own.

    FastICA (Hyvärinen 1999), symmetric, with the tanh nonlinearity, which suits differences: most are small.

    Args:
        mixtures: float64 [k, n], independent rows; as many as images.
        shape: [C, H, W] of an image.
        generator: on the CPU.

    Returns:
        [k, n], mixtures of `mixtures` again.
    """
    slopes = differences(mixtures.unflatten(1, shape))
    if slopes.shape[1] > SAMPLES:
        seen = torch.randperm(slopes.shape[1], generator=generator)[:SAMPLES]
        slopes = slopes[:, seen.to(slopes.device)]
    axes, sizes, white = torch.linalg.svd(slopes, full_matrices=False)
    sizes, white = sizes.clamp_min(math.ulp(0)), white * math.sqrt(white.shape[1])
    turn = torch.randn(len(white), len(white), generator=generator, dtype=torch.float64).to(white)
    turn = torch.linalg.qr(turn).Q
    for _ in range(STEPS):
        bent = torch.tanh(turn @ white)
        moved = bent @ white.T / white.shape[1] - (1 - bent.square()).mean(1, keepdim=True) * turn
        left, _, right = torch.linalg.svd(moved)
        before, turn = turn, left @ right
        if float((turn * before).sum(1).abs().min()) > 1 - SETTLED:
            break
    return (turn / sizes) @ axes.T @ mixtures


def differences(images: Tensor) -> Tensor:
    """Each pixel of images [k, C, H, W] less its neighbour to the left and above, [k, C (2 H W - H - W)]."""
    across, down = images.diff(dim=3).flatten(1), images.diff(dim=2).flatten(1)
    return torch.cat([across, down], dim=1)
