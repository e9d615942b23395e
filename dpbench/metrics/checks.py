"""What images must be to be scored: anything else would let an attack score with nonsense."""

from __future__ import annotations

from torch import Tensor

from dpbench.protocol import InputError


def checked_pair(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """Both batches detached, on the device of `images`, clamped to [0, 1].

    Args:
        images: floating point [B, 3, H, W], or [B, 1, H, W] for grey images, with B >= 1; or volumes
            [B, C, D, H, W] or rows of a table [B, F].
        originals: the same shape.

    Raises:
        InputError: for another shape, unequal shapes, integer pixels, or NaN and infinity among them.
    """
    for name, batch in (("images", images), ("originals", originals)):
        picture = batch.ndim == 4 and batch.shape[1] in (1, 3)
        if not (picture or batch.ndim in (2, 5)) or batch.numel() == 0:
            raise InputError(
                f"{name} must be a batch [B, 3, H, W] of RGB images, or [B, 1, H, W] of grey ones; got "
                f"{tuple(batch.shape)}."
            )
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


def check_pictures(images: Tensor, metric: str) -> None:
    """InputError where `metric`, which is of height and width, cannot be taken of such inputs."""
    if images.ndim != 4:
        raise InputError(
            f"{metric} is for pictures [B, C, H, W], not for inputs of shape {tuple(images.shape)}."
        )
