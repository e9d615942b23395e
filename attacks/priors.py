"""What an attacker believes of images before seeing a gradient.

A prior is a module; its weight and its statistics are buffers, so that a compiled iteration serves others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Prior(nn.Module, ABC):
    """A differentiable scalar penalty on normalised pixels [B, C, H, W] and what the network makes of them.

    Attributes:
        weight: its weight, a scalar buffer.
        watches: whether `penalty` wants the inputs of the network's batch-norm layers.
    """

    watches = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(float(weight)))

    @abstractmethod
    def penalty(self, z: Tensor, activations: Sequence[Tensor]) -> Tensor:
        """The unweighted penalty; `activations` are empty unless the prior watches."""

    def forward(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """The weighted penalty, a scalar."""
        return self.weight.to(z.dtype) * self.penalty(z, activations)


class TotalVariation(Prior):
    """Mean absolute difference of vertical plus horizontal neighbours (anisotropic TV, Geiping et al. 2020).

    Example:
        >>> TotalVariation(2.0)(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor(2.)
    """

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over all neighbours."""
        return (z[..., 1:, :] - z[..., :-1, :]).abs().mean() + (z[..., 1:] - z[..., :-1]).abs().mean()


class L2(Prior):
    """Mean squared pixel."""

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over all pixels."""
        return z.square().mean()


class DiagonalVariation(Prior):
    """Sum of the norms of four differences: to the right, down, and along both diagonals.

    Total variation as GradInversion and DeepInversion weigh it (Yin et al. 2020, 2021): it grows with the
    batch and the image.
    """

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Over all images at once."""
        right, down = z[..., 1:] - z[..., :-1], z[..., 1:, :] - z[..., :-1, :]
        falling, rising = z[..., 1:, 1:] - z[..., :-1, :-1], z[..., 1:, :-1] - z[..., :-1, 1:]
        return _length(right) + _length(down) + _length(falling) + _length(rising)


class ImageNorm(Prior):
    """Mean over the images of each one's l2 norm (GradInversion's R_l2)."""

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over the batch."""
        return torch.stack([_length(image) for image in z]).mean()


class BatchNormStatistics(Prior):
    """How far the batch's statistics at every batch-norm layer are from those the attacker was told.

    sum over layers of |mean - mean*| + |variance - variance*|, biased variance (GradInversion, eq. 10; from
    DeepInversion, Yin et al. 2020). With `relative` each norm is divided by the target's and the mean over
    the layers is taken, so that a weight carries from one network to another.

    Args:
        weight: its weight.
        statistics: mean and variance [channels] of each batch-norm layer's input, in the network's order.
        relative: see above.
    """

    watches = True

    def __init__(
        self, weight: float, statistics: Sequence[tuple[Tensor, Tensor]], relative: bool = False
    ) -> None:
        super().__init__(weight)
        self.relative = relative
        for i, (mean, variance) in enumerate(statistics):
            self.register_buffer(f"mean{i}", mean)
            self.register_buffer(f"variance{i}", variance)

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Over all layers; `activations` [B, channels, H, W] are the layers' inputs."""
        terms = []
        for i, x in enumerate(activations):
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            for seen, told in ((mean, f"mean{i}"), (variance, f"variance{i}")):
                goal = self.get_buffer(told)
                length = _length(seen - goal)
                terms.append(length / _length(goal) if self.relative else length)
        total = torch.stack(terms).sum()
        return total / len(activations) if self.relative else total


class GroupConsistency(Prior):
    """Distance to what several seeds agree upon: |x - consensus| (GradInversion, eq. 11).

    With `relative` the norm is divided by the root of the number of pixels, so that a weight carries from one
    size of image and batch to another.

    Args:
        weight: its weight.
        consensus: normalised pixels [B, C, H, W]; changed in place as the seeds move.
        relative: see above.
    """

    def __init__(self, weight: float, consensus: Tensor, relative: bool = False) -> None:
        super().__init__(weight)
        self.relative = relative
        self.register_buffer("consensus", consensus)

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Over all pixels."""
        length = _length(z - self.consensus)
        return length / z.numel() ** 0.5 if self.relative else length


def _length(x: Tensor) -> Tensor:
    """The l2 norm, with a finite gradient at zero."""
    return (x.square().sum() + torch.finfo(x.dtype).tiny).sqrt()
