"""The layers that victim networks share: each treats every sample by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError

NORMS = ("none", "frozen-bn", "gn", "bn")


class Normalise(nn.Module):
    """Maps images in [0, 1] to zero mean and unit variance per channel; owns buffers only."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise `images` [B, C, H, W]."""
        return (images - self.mean) / self.std


class FrozenBatchNorm2d(nn.Module):
    """Batch norm that always uses its stored public statistics, with a trainable affine map.

    Each sample's output depends on that sample only, so per-sample gradients (and DP-SGD) are well defined.
    State-dict names are those of `nn.BatchNorm2d`.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalised(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W] with the stored statistics taken out, before the affine map."""
        scale = torch.rsqrt(self.running_var + self.eps)
        return x * scale[:, None, None] - (self.running_mean * scale)[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """What `nn.BatchNorm2d` gives in evaluation mode."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def under_vmap(self, x: Tensor) -> Tensor:
        """What `forward` gives, for weights of each sample's own, where batch norm is many operations.

        On a CPU each operation has a price under `torch.func.vmap`, views too, so there are as few as can be.
        """
        scale, places = self.weight * torch.rsqrt(self.running_var + self.eps), [1] * (x.dim() - 2)
        return x * scale.view(-1, *places) + (self.bias - self.running_mean * scale).view(-1, *places)


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """The constructor `channels -> module` of a norm in `NORMS`; `bn` is for training victims only."""
    if norm not in NORMS:
        raise InputError(f"Unknown norm {norm!r}; choose one of {', '.join(NORMS[:-1])}.")
    return {
        "none": lambda channels: nn.Identity(),
        "frozen-bn": FrozenBatchNorm2d,
        "gn": lambda channels: nn.GroupNorm(min(32, channels // 4), channels),
        "bn": nn.BatchNorm2d,
    }[norm]
