"""PSNR, SSIM and the distance of Fourier magnitudes, one number per image, in float64.

All take RGB batches [B, 3, H, W] on the scale [0, 1]; what lies outside is clamped, as it would be on a
screen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dpbench.protocol import InputError

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5
SSIM_SIDE = 2 * SSIM_RADIUS + 1
"""Height and width of the window, px, and so of the smallest image."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def checked_pair(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """Both batches detached, on the device of `images`, clamped to [0, 1].

    Args:
        images: floating point [B, 3, H, W] with B >= 1.
        originals: the same shape.

    Raises:
        InputError: for another shape, unequal shapes, integer pixels, or NaN and infinity among them.
    """
    for name, batch in (("images", images), ("originals", originals)):
        if batch.ndim != 4 or batch.shape[1] != 3 or batch.numel() == 0:
            raise InputError(f"{name} must be a batch [B, 3, H, W] of RGB images; got {tuple(batch.shape)}.")
        if not batch.is_floating_point():
            raise InputError(
                f"{name} must be floating point in [0, 1]; got {batch.dtype}: divide by 255 first."
            )
        if not batch.isfinite().all():
            raise InputError(f"{name} hold NaN or infinite pixels, which no metric can score.")
    if images.shape != originals.shape:
        raise InputError(
            f"images {tuple(images.shape)} and originals {tuple(originals.shape)} must have the same shape."
        )
    originals = originals.to(images.device)
    return images.detach().clamp(0, 1), originals.detach().clamp(0, 1)


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio with peak 1, in dB, higher is closer: -10 log10(mean squared error).

    The mean is over all pixels and channels of one image; never average errors over a batch before the
    logarithm.

    Args:
        images: [B, 3, H, W] in [0, 1].
        originals: the same shape, aligned.

    Returns:
        float64 [B], from 0 (black against white) to infinity (identical).

    Raises:
        InputError: see `checked_pair`.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> psnr(grey + 0.1, grey)
        tensor([20.0000], dtype=torch.float64)
    """
    images, originals = checked_pair(images, originals)
    return -10 * (images.double() - originals.double()).square().mean((1, 2, 3)).log10()


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), higher is closer: 11 x 11 Gaussian window, sigma 1.5.

    Variances are the window's own (biased), K1 = 0.01, K2 = 0.03, data range 1; only windows wholly inside
    the image count, and channels are averaged. This equals scikit-image's
    `structural_similarity(channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`; its defaults give another number.

    Args:
        images: [B, 3, H, W] in [0, 1], at least 11 x 11.
        originals: the same shape, aligned.

    Returns:
        float64 [B] in [-1, 1]; 1 if identical.

    Raises:
        InputError: for images smaller than the window; see `checked_pair` for the rest.

    Example:
        >>> image = torch.rand(1, 3, 16, 16)
        >>> ssim(image, image)
        tensor([1.], dtype=torch.float64)
    """
    images, originals = checked_pair(images, originals)
    height, width = images.shape[2:]
    if min(height, width) < SSIM_SIDE:
        raise InputError(
            f"SSIM needs images of at least {SSIM_SIDE} x {SSIM_SIDE} px; these are {height} x {width}."
        )
    x, y = images.double(), originals.double()
    at = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=x.dtype, device=x.device)
    window = torch.softmax(-at.square() / (2 * SSIM_SIGMA**2), 0)

    def local_mean(z: Tensor) -> Tensor:
        z = F.conv2d(z.flatten(0, 1)[:, None], window.view(1, 1, -1, 1))
        return F.conv2d(z, window.view(1, 1, 1, -1)).squeeze(1).unflatten(0, x.shape[:2])

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x, var_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    return (luminance * structure).mean((1, 2, 3))


def fft2d(images: Tensor, originals: Tensor) -> Tensor:
    """Mean squared difference of the magnitudes of the 2-D Fourier transforms, lower is closer.

    The transform is orthonormal and taken per channel; the mean is over frequencies and channels.
    GradInversion (Yin et al. 2021) reports a "FFT2D" distance whose normalisation we could not read: this one
    is our own and its values must not be set beside theirs. By Parseval it is at most the mean squared error,
    and it is blind to phase: an image moved around the border scores 0.

    Args:
        images: [B, 3, H, W] in [0, 1].
        originals: the same shape, aligned.

    Returns:
        float64 [B] in [0, 1]; 0 if identical.

    Raises:
        InputError: see `checked_pair`.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> bool(fft2d(image.roll(3, dims=-1), image) < 1e-12)
        True
    """
    images, originals = checked_pair(images, originals)
    x, y = (torch.fft.fft2(batch.double(), norm="ortho").abs() for batch in (images, originals))
    return (x - y).square().mean((1, 2, 3))
