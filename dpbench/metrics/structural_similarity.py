"""SSIM, by torchmetrics."""

from __future__ import annotations

from torch import Tensor

from dpbench.metrics.base import Scored, metric
from dpbench.metrics.checks import check_pictures, checked_pair
from dpbench.protocol import InputError
from dpbench.store.columns import Column

SIDE = 11
"""Height and width of the window, px, and so of the smallest image."""


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
        InputError: for images smaller than the window, and for what are no pictures; see `checked_pair` for
            the rest.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 16, 16)
        >>> ssim(image, image)
        tensor([1.], dtype=torch.float64)
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    images, originals = (batch.double() for batch in checked_pair(images, originals))
    check_pictures(images, "SSIM")
    height, width = images.shape[2:]
    if min(height, width) < SIDE:
        raise InputError(f"SSIM needs images of at least {SIDE} x {SIDE} px; these are {height} x {width}.")
    _, each = structural_similarity_index_measure(
        images, originals, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    border = SIDE // 2  # there torchmetrics pads by reflection
    return each[..., border:-border, border:-border].mean((1, 2, 3))


@metric(
    "ssim",
    columns=(
        Column("ssim", "float64", "measured", "structural similarity, Gaussian window, border cropped"),
    ),
    better="higher",
)
def of_scored(scored: Scored) -> dict[str, Tensor]:
    """The column `ssim`."""
    return {"ssim": ssim(scored.images, scored.originals)}
