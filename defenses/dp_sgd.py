"""The release of DP-SGD, by Opacus: clip each sample, sum, add noise, divide (Abadi et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from defenses.base import Aggregator, Gradients, check_positive, defense
from defenses.grad_sample import per_sample
from dpbench.protocol import Guarantee, Loss


def clipped_mean(
    model: nn.Module,
    loss: Loss,
    images: Tensor,
    labels: Tensor,
    *,
    max_grad_norm: float,
    noise_multiplier: float,
    generator: torch.Generator,
) -> Gradients:
    """(sum of per-sample gradients, each scaled to at most C, + N(0, (sigma C)^2)) / B, by Opacus.

    Raises:
        InputError: for a model that has no per-sample gradients, or that Opacus cannot handle.
    """
    with per_sample(model, loss, images, labels) as parameters:
        optimizer = DPOptimizer(
            torch.optim.SGD(parameters, lr=0.0),
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=len(images),
            generator=generator,
        )
        optimizer.pre_step()
        return tuple(p.grad.detach().clone() for p in parameters)


@defense("clip")
@dataclass(frozen=True, kw_only=True)
class Clip(Aggregator):
    """Each sample's gradient scaled down to an l2 norm of at most `max_grad_norm`; no noise, so no privacy.

    Attributes:
        max_grad_norm: C, above 0.

    Raises:
        InputError: for a clip norm that is not a finite number above 0.
    """

    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        check_positive("The clip norm (max_grad_norm)", self.max_grad_norm)

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The mean of the clipped gradients; the generator is not used."""
        return clipped_mean(
            model,
            loss,
            images,
            labels,
            max_grad_norm=self.max_grad_norm,
            noise_multiplier=0.0,
            generator=generator,
        )


@defense("dp")
@dataclass(frozen=True, kw_only=True)
class DPSGD(Aggregator):
    """Clipping plus Gaussian noise of standard deviation `noise_multiplier * max_grad_norm` on the sum.

    Attributes:
        noise_multiplier: sigma, above 0; dpbench.privacy computes it from an epsilon.
        max_grad_norm: C, above 0.
        guarantee: what the noise is worth, by whoever calibrated it; None where nobody says.

    Raises:
        InputError: for a value that is not a finite number above 0.
        ValueError: for a guarantee about another noise or clip norm.
    """

    noise_multiplier: float
    max_grad_norm: float = 1.0
    guarantee: Guarantee | None = None

    def __post_init__(self) -> None:
        check_positive("The noise multiplier of dp (use clip to clip without noise)", self.noise_multiplier)
        check_positive("The clip norm (max_grad_norm)", self.max_grad_norm)
        claim = self.guarantee
        if claim and (claim.noise_multiplier, claim.max_grad_norm) != (
            self.noise_multiplier,
            self.max_grad_norm,
        ):
            raise ValueError(
                "The guarantee is about another noise multiplier or clip norm than the release has."
            )

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The noised mean of the clipped gradients."""
        return clipped_mean(
            model,
            loss,
            images,
            labels,
            max_grad_norm=self.max_grad_norm,
            noise_multiplier=self.noise_multiplier,
            generator=generator,
        )
