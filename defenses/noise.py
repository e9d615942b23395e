"""Gaussian noise on the gradient, with nothing clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from defenses.base import Gradients, PostProcessor, defense
from dpbench.protocol import InputError


@defense("noise")
@dataclass(frozen=True, kw_only=True)
class Noise(PostProcessor):
    """N(0, noise_std^2) on every entry of the released gradient.

    **Not differential privacy.** Without clipping one sample can move the gradient by any amount, so no noise
    hides it for certain: there is no epsilon, and the release carries no guarantee. Use `dp` for one.

    Attributes:
        noise_std: standard deviation on the mean gradient's own scale, 0 or more.

    Raises:
        InputError: for a standard deviation that is negative or not finite.
    """

    noise_std: float

    def __post_init__(self) -> None:
        if not (self.noise_std >= 0 and math.isfinite(self.noise_std)):
            raise InputError(f"noise_std must be a finite number of 0 or more, not {self.noise_std:g}.")

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients with independent noise on every entry."""
        return tuple(
            g + self.noise_std * torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)
            for g in gradients
        )
