"""Homographies refined on pixels, from coarse to fine, by the damped method of Lucas and Kanade (1981).

Coordinates run from -1 to 1 between the outer edges of an image, so a homography is the same at every
resolution. It maps points of the reference to points of the image that is to be warped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 10
"""Damped Gauss-Newton steps at each resolution."""
FINEST, COARSEST = 64, 16
"""Largest and smallest height and width of the pyramid, px. The mean of several seeds holds a faint copy of
each; at a finer resolution a seed would be registered to its own copy."""


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel centres in row order, homogeneous [3, height * width], on the device and in the dtype of `like`.

    Example:
        >>> centres(1, 2, torch.zeros(1))
        tensor([[-0.5000,  0.5000],
                [ 0.0000,  0.0000],
                [ 1.0000,  1.0000]])
    """
    y, x = (
        (2 * torch.arange(side, device=like.device, dtype=like.dtype) + 1) / side - 1
        for side in (height, width)
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()])


def warp(images: Tensor, homographies: Tensor, mode: str = "bilinear") -> tuple[Tensor, Tensor]:
    """Images resampled at the reference's pixels.

    Args:
        images: [N, C, H, W].
        homographies: [N, 3, 3], reference to image.
        mode: `bilinear` or `bicubic`.

    Returns:
        The warped images [N, C, H, W], and bool [N, 1, H, W]: which pixels lie inside the image. The others
        hold the value of its nearest pixel.
    """
    height, width = images.shape[2:]
    mapped = homographies @ centres(height, width, images)
    at = (mapped[:, :2] / mapped[:, 2:]).mT.unflatten(1, (height, width))
    inside = (at.abs() <= 1).all(-1)[:, None]
    return F.grid_sample(images, at, mode, padding_mode="border", align_corners=False), inside


def refine(images: Tensor, references: Tensor, homographies: Tensor) -> Tensor:
    """Homographies of lower squared pixel error, by descent from `homographies`.

    The error is the mean over the pixels that the image covers. Steps that do not lower it are rejected.

    Args:
        images: [N, C, H, W].
        references: the same shape.
        homographies: [N, 3, 3], reference to image, the last entry 1.

    Returns:
        The same shape.
    """
    height, width = images.shape[2:]
    if min(height, width) >= 2 * COARSEST:
        halves = (F.avg_pool2d(x, 2) for x in (images, references))
        homographies = refine(*halves, homographies)
    if max(height, width) > FINEST:
        return homographies
    down, right = torch.gradient(images, dim=(2, 3))
    stack = torch.cat([images, right * width / 2, down * height / 2], 1)
    best = _linearised(stack, references, homographies)
    damping = torch.full((len(images), 1, 1), 1e-3, device=images.device, dtype=images.dtype)
    for _ in range(STEPS):
        damped = best.curvature + damping * torch.diag_embed(best.curvature.diagonal(dim1=1, dim2=2))
        step, _ = torch.linalg.solve_ex(damped, -best.slope)
        trial = homographies + F.pad(step, (0, 1)).unflatten(1, (3, 3))
        found = _linearised(stack, references, trial)
        better = found.error < best.error  # not where either is NaN
        homographies = torch.where(better[:, None, None], trial, homographies)
        best = best.replaced(found, better)
        damping = torch.where(better[:, None, None], damping / 4, damping * 8)
    return homographies


@dataclass(frozen=True)
class _Linearised:
    """The mean squared error [N], and slope [N, 8] and curvature [N, 8, 8] of half the squared error."""

    error: Tensor
    slope: Tensor
    curvature: Tensor

    def replaced(self, other: _Linearised, where: Tensor) -> _Linearised:
        """`other` for the samples that bool [N] selects, else this."""
        return _Linearised(
            torch.where(where, other.error, self.error),
            torch.where(where[:, None], other.slope, self.slope),
            torch.where(where[:, None, None], other.curvature, self.curvature),
        )


def _linearised(stack: Tensor, references: Tensor, homographies: Tensor) -> _Linearised:
    """Of the first eight entries of `homographies`; `stack` is images and their slopes, [N, 3 C, H, W]."""
    sampled, inside = warp(stack, homographies)
    value, right, down = sampled.flatten(2).chunk(3, 1)
    inside = inside.flatten(2)
    residual = (value - references.flatten(2)) * inside
    points = centres(*stack.shape[2:], stack)
    mapped = homographies @ points
    x, y = ((mapped[:, i] / mapped[:, 2])[:, None] for i in (0, 1))
    rays = points / mapped[:, 2:]  # [N, 3, P]
    # The chain rule through x = h_0 p / h_2 p and y = h_1 p / h_2 p; the ninth entry is fixed.
    along = [right, down, -(right * x + down * y)]
    jacobian = torch.stack([d * rays[:, i, None] for d in along for i in range(3)][:8], 1) * inside[:, None]
    jacobian = jacobian.flatten(2)
    return _Linearised(
        residual.square().sum((1, 2)) / inside.sum((1, 2)),
        (jacobian @ residual.flatten(1)[..., None]).squeeze(2),
        jacobian @ jacobian.mT,
    )
