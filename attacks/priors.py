"""What an attacker believes of images before seeing a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Prior(ABC):
    """A penalty on normalised pixels [B, C, H, W]; differentiable, a scalar."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @abstractmethod
    def penalty(self, z: Tensor) -> Tensor:
        """The unweighted penalty."""

    def __call__(self, z: Tensor) -> Tensor:
        """The weighted penalty, a scalar."""
        return self.weight * self.penalty(z)


class TotalVariation(Prior):
    """Mean absolute difference of vertical plus horizontal neighbours (anisotropic TV, Geiping et al. 2020).

    Example:
        >>> import torch
        >>> TotalVariation(2.0)(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
        tensor(2.)
    """

    def penalty(self, z: Tensor) -> Tensor:
        """Mean over all neighbours."""
        return (z[..., 1:, :] - z[..., :-1, :]).abs().mean() + (z[..., 1:] - z[..., :-1]).abs().mean()


class L2(Prior):
    """Mean squared pixel."""

    def penalty(self, z: Tensor) -> Tensor:
        """Mean over all pixels."""
        return z.square().mean()
