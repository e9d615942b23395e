"""Guesses that need no gradient: a reconstruction counts only if it beats these floors.

A constant image reaches 11-13 dB PSNR on photographs, and at 32 px noise alone can look good to LPIPS. So
each floor is scored exactly as the attacks are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dpbench.protocol import InputError, Release


def mean_image(batch_size: int, mean_image: Tensor) -> Tensor:
    """The public mean image of other people's data, as the guess for every image of the batch.

    Args:
        batch_size: B.
        mean_image: [C, H, W] in [0, 1] (or of another kind of input), computed on images disjoint from the
            attacked ones.

    Returns:
        [B, C, H, W], a copy.

    Raises:
        InputError: for a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"The batch must be at least 1, not {batch_size}.")
    return mean_image.repeat(batch_size, *[1] * mean_image.ndim)


def constant_image(originals: Tensor) -> Tensor:
    """Each original's own mean colour: the constant image of the highest PSNR.

    It is an oracle, as it is made from the original. No guess of a single colour can beat it.

    Args:
        originals: [B, C, H, W] in [0, 1]; volumes or signals; or rows of a table [B, F].

    Returns:
        The same shape, constant over each image and channel; of a row of a table, over its features.

    Example:
        >>> constant_image(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
        tensor([[[[0.5000, 0.5000]]]])
    """
    axes = tuple(range(min(2, originals.ndim - 1), originals.ndim))
    return originals.mean(axes, keepdim=True).expand_as(originals).clone()


def noise_release(release: Release, seed: int) -> Release:
    """A release with Gaussian noise in place of each gradient tensor, scaled to that tensor's own l2 norm.

    Only the size of each tensor is kept, so that step sizes and stopping rules work as usual. Whatever an
    attack makes of it comes from its priors. The noise is drawn on the CPU, so it is the same for every
    device. The description of the defence stays, because an adaptive attack needs it to run. The guarantee is
    dropped.

    Args:
        release: the one that the attack would have been given.
        seed: decides the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for gradient in release.gradients:
        noise = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        norm = gradient.double().norm()
        gradients.append((noise.to(norm.device) * (norm / noise.norm())).to(gradient.dtype))
    return replace(release, gradients=tuple(gradients), guarantee=None, repeats=())
