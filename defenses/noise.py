"""Gaussian noise on the gradient, with nothing clipped."""

from __future__ import annotations

import torch

from defenses.base import Gradients, PostProcessor, defense
from dpbench.protocol import parameter


@defense("noise")
class Noise(PostProcessor):
    """N(0, noise_std^2) on every entry of the released gradient.

    **Not differential privacy.** Without clipping one sample can move the gradient by any amount, so no noise
    hides it for certain: there is no epsilon, and the release carries no guarantee. Use `dp` for one.

    Attributes:
        noise_std: standard deviation on the mean gradient's own scale, 0 or more.

    Raises:
        InputError: for a standard deviation that is negative or not finite.
    """

    repeatable = True
    adds_up = True
    noise_std: float = parameter(
        0.01,
        "standard deviation that noise adds to every entry of the mean gradient",
        symbol="std",
        at_least=0,
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients with independent noise on every entry."""
        return tuple(
            g + self.noise_std * torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)
            for g in gradients
        )
