"""A small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError
from dpbench.victim.layers import Normalise
from dpbench.victim.networks import network

SIDE = 8
"""Patches on a side of the image."""
WIDTH = 96
HEADS = 3
BLOCKS = 4


class Block(nn.Module):
    """Attention and a two-layer network, each on normalised tokens and added to them (pre-norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, `WIDTH`], as they came."""
        tokens = tokens + self.attended(self.norm1(tokens))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))

    def attended(self, tokens: Tensor) -> Tensor:
        """Multi-head self-attention, written out: fused kernels have no second derivative."""
        batch, count, _ = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


@network("vit", norm="none")
class ViT(nn.Module):
    """Dosovitskiy et al., ICLR 2021, in small: a class token and a learned position embedding.

    8 x 8 patches, width 96, three heads, four blocks: 0.3 million weights.
    """

    def __init__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        if norm != "none":
            raise InputError("vit has layer norm, which does not change; use --norm none.")
        if size % SIDE:
            raise InputError(f"vit cuts images into {SIDE} x {SIDE} patches; {size} pixels are no multiple.")
        patch = size // SIDE
        self.normalise = Normalise(mean, std)
        self.patches = nn.Conv2d(3, WIDTH, patch, stride=patch)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + SIDE**2, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes]."""
        patches = self.patches(self.normalise(images)).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1) + self.position
        return self.fc(self.norm(self.blocks(tokens))[:, 0])
