"""The small generator that dpbench trains itself (`scripts/train_generator.py`) and ships for CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError
from dpbench.victim.weights import load_weights, read


class ClassNorm(nn.Module):
    """Group norm whose scale and shift are linear in the class weights (De Vries et al. 2017)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels, affine=False)
        self.affine = nn.Linear(num_classes, 2 * channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` [B, C, H, W] in the style of the classes `y` [B, K]."""
        scale, shift = self.affine(y)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class UpBlock(nn.Module):
    """Twice the size by a transposed convolution, then a residual 3x3 convolution."""

    def __init__(self, before: int, after: int, num_classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
        self.norm = ClassNorm(after, num_classes)
        self.conv = nn.Conv2d(after, after, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, before, H, W] -> [B, after, 2H, 2W]."""
        h = self.norm(self.up(F.silu(x)), y)
        return h + self.conv(F.silu(h))


class ConvGenerator(nn.Module):
    """Starts from 4 x 4 features, doubles them in every block, and once more by shuffling channels to pixels.

    Smooth everywhere (SiLU, sigmoid), so a search by gradient descent meets no kinks.

    Args:
        latent_dim: length of `z`.
        num_classes: length of `y`.
        widths: channels at 4 x 4, 8 x 8, ...; images have 4 * 2^len(widths) pixels a side.
    """

    def __init__(
        self, latent_dim: int = 128, num_classes: int = 10, widths: Sequence[int] = (80, 96, 48)
    ) -> None:
        super().__init__()
        size = 4 * 2 ** len(widths)
        self.latent_dim, self.num_classes, self.image_shape = latent_dim, num_classes, (3, size, size)
        self.fc = nn.Linear(latent_dim + num_classes, widths[0] * 16)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(UpBlock(before, after, num_classes) for before, after in pairs)
        self.shuffle = nn.Conv2d(widths[-1], 64, 3, padding=1)
        self.rgb = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of latents `z` [B, latent_dim] and class weights `y` [B, K]."""
        h = self.fc(torch.cat([z, y], 1)).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            h = block(h, y)
        return torch.sigmoid(self.rgb(F.silu(F.pixel_shuffle(self.shuffle(F.silu(h)), 2))))


def from_file(path: Path | str) -> ConvGenerator:
    """The generator in a file of its weights, whose shapes say how wide it is.

    Raises:
        InputError: where the file is missing, damaged, not finite, or holds another network.
    """
    weights = read(path)
    state = weights.tensors
    try:
        classes = state["blocks.0.norm.affine.weight"].shape[1]
        first, before = state["fc.weight"].shape
        depth = sum(name.endswith(".up.weight") for name in state)
        later = [state[f"blocks.{i}.up.weight"] for i in range(depth)]
        model = ConvGenerator(before - classes, classes, (first // 16, *(w.shape[1] for w in later)))
    except (KeyError, IndexError, ValueError, RuntimeError, ArithmeticError):
        raise InputError(f"{path} holds no generator that scripts/train_generator.py wrote.") from None
    return load_weights(model, weights)
