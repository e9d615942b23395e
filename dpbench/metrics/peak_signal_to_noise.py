"""PSNR, by torchmetrics."""

from __future__ import annotations

from torch import Tensor

from dpbench.metrics.base import Scored, metric
from dpbench.metrics.checks import checked_pair
from dpbench.store.columns import Column


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio with peak 1, in dB, higher is closer: -10 log10(mean squared error).

    The mean is over all pixels and channels of one image; never average errors over a batch before the
    logarithm.

    Args:
        images: [B, 3, H, W] in [0, 1]; or volumes [B, C, D, H, W], or rows of a table [B, F].
        originals: the same shape, aligned.

    Returns:
        float64 [B], from 0 (black against white) to infinity (identical).

    Raises:
        InputError: see `checked_pair`.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> psnr(grey + 0.1, grey)
        tensor([20.0000], dtype=torch.float64)
    """
    # here and not above: its import takes seconds
    from torchmetrics.functional.image import peak_signal_noise_ratio

    images, originals = (batch.double() for batch in checked_pair(images, originals))
    axes = tuple(range(1, images.ndim))
    return peak_signal_noise_ratio(images, originals, data_range=1.0, reduction="none", dim=axes)


@metric(
    "psnr",
    columns=(
        Column(
            "psnr", "float64", "measured", "peak signal-to-noise ratio, peak 1; infinite for a copy", "dB"
        ),
    ),
    better="higher",
    floor=True,
)
def of_scored(scored: Scored) -> dict[str, Tensor]:
    """The column `psnr`."""
    return {"psnr": psnr(scored.images, scored.originals)}
