"""Gradients as short vectors: large tensors by feature hashing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Sketch(nn.Module):
    """A random linear map of gradients to `length` numbers, or fewer where there are no more entries.

    Small tensors stay as they are. Each entry of a larger one goes, with a random sign, to one of the places
    of its tensor (feature hashing, Weinberger et al. 2009), which keeps inner products on average. Places are
    shared out evenly, so that the few entries of a first layer do not drown among those of a last one. The
    gradient is brought to norm 1 before, as its length differs a lot from image to image.

    Args:
        sizes: entries of each tensor.
        length: of a sketch, at least the number of tensors.
        generator: on the CPU; decides places and signs.
    """

    def __init__(self, sizes: Sequence[int], length: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shares = shares(sizes, length)
        begin = 0
        for i, (size, share) in enumerate(zip(sizes, self.shares, strict=True)):
            kept = share == size
            places = torch.arange(size) if kept else torch.randint(share, (size,), generator=generator)
            signs = torch.ones(size) if kept else torch.randint(2, (size,), generator=generator) * 2.0 - 1
            self.register_buffer(f"places{i}", places + begin)
            self.register_buffer(f"signs{i}", signs)
            begin += share
        self.length = begin

    def forward(self, gradients: Sequence[Tensor]) -> Tensor:
        """[length] of one gradient."""
        tiny = torch.finfo(torch.float32).tiny
        norm = torch.stack([g.float().norm() for g in gradients]).norm().clamp_min(tiny)
        found = gradients[0].new_zeros(self.length, dtype=torch.float32)
        for i, g in enumerate(gradients):
            signs = self.get_buffer(f"signs{i}")
            found.index_add_(0, self.get_buffer(f"places{i}"), g.float().flatten() / norm * signs)
        return found


def shares(sizes: Sequence[int], length: int) -> list[int]:
    """How many of `length` places each tensor gets: all it has entries for, or an equal share of the rest.

    Example:
        >>> shares([10, 1000, 500], 210)
        [10, 100, 100]
        >>> shares([10, 20], 100)
        [10, 20]
    """
    found, left = [0] * len(sizes), length
    for done, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        found[i] = min(sizes[i], max(1, left // (len(sizes) - done)))
        left -= found[i]
    return found
