"""CENSOR: noise orthogonal to the gradient leaves in its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from defenses.base import Aggregator, Gradients, defense, mean_gradient, read_shares
from dpbench.protocol import Loss, Reading, Release, functional_call, parameter

ROUNDING = 1e-5
"""Relative error of norms and inner products in float32, more rather than less."""


@defense("censor")
class Censor(Aggregator):
    """Per tensor, noise orthogonal to the gradient and as long; the best of n draws (Zhang et al. 2025).

    Best is the draw with the lowest loss of the batch after a step of `censor_step` along it. The public code
    divides by the gradient's norm where its square belongs, so what it sends is not orthogonal; here it is,
    as in the paper. What leaks: the exact norm of each tensor's gradient, a direction it is known to be
    orthogonal to, and whatever the choice among the draws, made on private data, gives away. No guarantee.

    Attributes:
        censor_trials: n, draws among which the loss chooses.
        censor_step: learning rate of the step that they are judged by, above 0.

    Raises:
        InputError: for a value outside its range.
    """

    repeatable = True
    censor_trials: int = parameter(
        20, "draws of noise among which censor takes the one of lowest loss", symbol="n", at_least=1
    )
    censor_step: float = parameter(
        1e-4, "learning rate of the step that censor judges a draw by", symbol="lr", above=0
    )

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """Noise orthogonal to the mean gradient; the model's weights are put back as they were."""
        gradients = mean_gradient(model, loss, images, labels)
        draws = [orthogonal(gradients, generator) for _ in range(self.censor_trials)]
        if len(draws) == 1:
            return draws[0]
        losses = [self._after(model, loss, images, labels, draw) for draw in draws]
        return draws[int(torch.stack(losses).argmin())]

    def read(self, release: Release) -> Reading:
        """Nothing: the release is orthogonal to the gradient, so that no entry is an estimate of it."""
        return read_shares(release, [torch.zeros_like(g) for g in release.gradients])

    def log_likelihood(self, release: Release, gradients: Gradients) -> Tensor:
        """Of a release where the gradient was `gradients`, a float64 scalar, but for what is common to all.

        A release has the gradient's norm, tensor by tensor, and is orthogonal to it, both to rounding.
        """
        found = torch.zeros((), dtype=torch.float64, device=gradients[0].device)
        for sent, g in zip(release.gradients, gradients, strict=True):
            if g.numel() > 1:
                sent, g = sent.double(), g.double()
                longest = torch.maximum(sent.norm(), g.norm()).clamp_min(torch.finfo(torch.float32).tiny)
                apart = (sent.norm() - g.norm()) / longest, (sent * g).sum() / longest**2
                found -= sum(error.square() for error in apart) / (2 * ROUNDING**2)
        return found

    def _after(self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, step: Gradients) -> Tensor:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        with torch.no_grad():
            moved = {
                name: model.get_parameter(name) - self.censor_step * s
                for name, s in zip(names, step, strict=True)
            }
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # batch norm counts
            return loss(functional_call(model, moved | buffers, (images,)), labels)


def orthogonal(gradients: Sequence[Tensor], generator: torch.Generator) -> Gradients:
    """Gaussian noise for each tensor, orthogonal to it and of its norm; zero where no direction is left.

    Args:
        gradients: any shapes.
        generator: on their device.
    """
    found = []
    for g in gradients:
        noise = torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)
        norm = g.norm()
        unit = g / norm.clamp_min(torch.finfo(g.dtype).tiny)
        for _ in range(2):  # once more for what rounding left
            noise = noise - (noise * unit).sum() * unit
        length = noise.norm().clamp_min(torch.finfo(g.dtype).tiny)
        found.append(noise * (norm / length) if g.numel() > 1 else torch.zeros_like(g))
    return tuple(found)
