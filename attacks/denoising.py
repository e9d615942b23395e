"""The denoiser that an attacker is told, for attacks that use one, and what stands in for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.gaussian_prior import Whitening
from dpbench.protocol import InputError, Knowledge

TRIED = 32
"""Public images that a denoiser's errors are measured on, about."""
WITHOUT_DENOISER = "There is no denoiser for such images, so a Wiener filter took its place."


def denoiser_of(knowledge: Knowledge, instead: str) -> nn.Module:
    """The denoiser that an attacker is told.

    Args:
        knowledge: with `image_denoiser`.
        instead: the parameter and the value to use where there is none.

    Raises:
        InputError: where there is none.
    """
    if knowledge.image_denoiser is None:
        raise InputError(
            f"There is no denoiser for images of shape {knowledge.image_shape}, only for colour images of "
            f"32 x 32: use {instead}."
        )
    return knowledge.image_denoiser


class Wiener(nn.Module):
    """The expected image given the image under white noise, if images are Gaussian fields about a mean.

    Args:
        whitening: their statistics.
        means: mean image of each label, [K, C, H, W].
    """

    def __init__(self, whitening: Whitening, means: Tensor) -> None:
        super().__init__()
        self.whitening = whitening
        self.register_buffer("means", means)

    def forward(self, noisy: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        """Expected images [B, C, H, W], given noisy ones, the noise's deviation [B] and int64 labels [B]."""
        means, power = self.means[labels], self.whitening.get_buffer("deviation").square()
        gain = power / (power + noise.square()[:, None, None, None])
        return means + self.whitening.turned(gain * self.whitening.coefficients(noisy - means))


def denoiser_or_wiener(
    knowledge: Knowledge, whitening: Whitening, labels: Tensor, means: Tensor
) -> nn.Module:
    """The denoiser that an attacker is told, or the Wiener filter for images of these labels.

    Args:
        knowledge: with `image_denoiser`, or None there.
        whitening: statistics of images.
        labels: int64 [B].
        means: mean image of each, [B, C, H, W].
    """
    if knowledge.image_denoiser is not None:
        return knowledge.image_denoiser
    each = means.new_zeros(knowledge.num_classes, *means.shape[1:])
    return Wiener(whitening, each.index_copy(0, labels, means))


def tried_on(knowledge: Knowledge, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Public images [n, C, H, W] of these labels to measure a denoiser's errors on, and their labels."""
    classes = labels.unique()
    most = max(2, TRIED // len(classes))
    each = [knowledge.public_images.of(int(label), most).to(labels.device) for label in classes]
    lengths = torch.tensor([len(images) for images in each], device=labels.device)
    return torch.cat(each), classes.repeat_interleave(lengths)
