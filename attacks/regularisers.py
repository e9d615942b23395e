"""Penalties that say which images are plausible, whatever the gradient.

A regulariser is a module. Its weight and its statistics are buffers, so that one compiled iteration serves
searches with other values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Regulariser(nn.Module, ABC):
    """A differentiable scalar penalty on normalised pixels [B, C, H, W] and what the network makes of them.

    Attributes:
        weight: its weight, a scalar buffer.
        watches: whether `penalty` wants the inputs of the network's batch-norm layers.
        squares: it is half a sum of squares, which `residuals(z)` gives, weighted and differentiable.
    """

    watches = False
    squares = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(float(weight)))

    @abstractmethod
    def penalty(self, z: Tensor, activations: Sequence[Tensor]) -> Tensor:
        """The unweighted penalty; `activations` are empty unless the regulariser watches."""

    def forward(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """The weighted penalty, a scalar."""
        return self.weight.to(z.dtype) * self.penalty(z, activations)


class TotalVariation(Regulariser):
    """Mean absolute difference of neighbours, summed over the axes (anisotropic TV, Geiping et al. 2020).

    Of pictures the axes are the vertical and the horizontal one; volumes and signals have three and one. Rows
    of a table have no neighbours and no total variation.

    Example:
        >>> TotalVariation(2.0)(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor(2.)
    """

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over all neighbours."""
        first, *more = (z.diff(dim=axis).abs().mean() for axis in range(2, z.ndim))
        return sum(more, first)


class L2(Regulariser):
    """Mean squared pixel."""

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over all pixels."""
        return z.square().mean()


class DiagonalVariation(Regulariser):
    """Sum of the norms of four differences: to the right, down, and along both diagonals.

    Total variation as in GradInversion and DeepInversion (Yin et al. 2020, 2021), a sum: it grows with the
    number of images and pixels.
    """

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Over all images at once."""
        right, down = z[..., 1:] - z[..., :-1], z[..., 1:, :] - z[..., :-1, :]
        falling, rising = z[..., 1:, 1:] - z[..., :-1, :-1], z[..., 1:, :-1] - z[..., :-1, 1:]
        return _length(right) + _length(down) + _length(falling) + _length(rising)


class ImageNorm(Regulariser):
    """Mean over the images of each one's l2 norm (GradInversion's R_l2)."""

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Mean over the batch."""
        return torch.stack([_length(image) for image in z]).mean()


SMALL_MEAN = 1e-3
"""Share of the standard deviations below which a layer's means are no measure of distances."""


class BatchNormStatistics(Regulariser):
    """How far the batch's statistics at every batch-norm layer are from those the attacker was given.

    sum over layers of |mean - mean*| + |variance - variance*|, biased variance (GradInversion, eq. 10; from
    DeepInversion, Yin et al. 2020). With `relative` each norm is divided by the target's norm and averaged
    over the layers, so that one weight suits networks of any depth and width. A mean that is next to nothing,
    as in a network that was never trained, is no measure: its distance is divided by the standard deviations.

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
            own, spread = _length(mean), _length(variance.sqrt())
            self.register_buffer(f"mean_scale{i}", own if bool(own > SMALL_MEAN * spread) else spread)
            self.register_buffer(f"variance_scale{i}", _length(variance))

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Over all layers; `activations` [B, channels, H, W] are the layers' inputs."""
        terms = []
        for i, x in enumerate(activations):
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            for found, name in ((mean, "mean"), (variance, "variance")):
                length = _length(found - self.get_buffer(f"{name}{i}"))
                terms.append(length / self.get_buffer(f"{name}_scale{i}") if self.relative else length)
        total = torch.stack(terms).sum()
        return total / len(activations) if self.relative else total


class GroupConsistency(Regulariser):
    """Distance to the consensus of several seeds: |x - consensus| (GradInversion, eq. 11).

    With `relative` the norm is divided by the root of the number of pixels, so that one weight suits images
    and batches of any size.

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
