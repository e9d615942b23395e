"""Pictures that are tensors, at another size, by the rule of `dpbench.data.decode.resize`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dpbench.data.datasets import check_size


def centre_square(images: Tensor, size: int) -> Tensor:
    """The short side resized to `size` pixels (bilinear, antialiased), then the centre square cut out.

    Args:
        images: float [B, C, H, W] in [0, 1].
        size: pixels.

    Raises:
        InputError: for a size outside its range.

    Example:
        >>> import torch
        >>> centre_square(torch.rand(1, 3, 20, 11), 8).shape
        torch.Size([1, 3, 8, 8])
    """
    check_size(size)
    scale = size / min(images.shape[2:])
    height, width = (max(size, round(side * scale)) for side in images.shape[2:])
    if (height, width) != tuple(images.shape[2:]):
        images = F.interpolate(images, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size].clone()
