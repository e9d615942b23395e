"""The release of DP-SGD, by Opacus: clip each sample, sum, add noise, divide (Abadi et al. 2016)."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses.base import Aggregates, Aggregator, Gradients, defense
from defenses.per_sample import per_sample
from dpbench.protocol import Guarantee, Loss, parameter


@dataclass(frozen=True, kw_only=True)
class _Clipped(Aggregator):
    """What `clip` and `dp` have in common: all but the noise."""

    max_grad_norm: float = parameter(
        1.0, "clip norm C: the l2 bound of each sample's gradient", symbol="C", above=0
    )
    noise_multiplier: ClassVar[float]

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The mean of the clipped gradients, noised by `dp`."""
        return self.aggregates(model, loss, images, labels, generator, 1)[0]

    def aggregates(
        self,
        model: nn.Module,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        count: int,
    ) -> Aggregates:
        """Clipped once, noised `count` times; every step is checked on this very batch.

        Raises:
            InputError: for a model without per-sample gradients, or where clipping or noise went wrong.
        """
        from defenses.clipping import clipped_means  # Opacus takes seconds to import

        samples = per_sample(model, loss, images, labels)
        released = clipped_means(
            samples.gradients,
            max_grad_norm=self.max_grad_norm,
            noise_multiplier=self.noise_multiplier,
            generator=generator,
            count=count,
        )
        return Aggregates(released, samples.method)


@defense("clip")
class Clip(_Clipped):
    """Each sample's gradient scaled down to an l2 norm of at most `max_grad_norm`; no noise, so no privacy.

    Attributes:
        max_grad_norm: C, above 0.

    Raises:
        InputError: for a clip norm that is not a finite number above 0.
    """

    noise_multiplier = 0.0


@defense("dp")
class DPSGD(_Clipped):
    """Clipping plus Gaussian noise of standard deviation `noise_multiplier * max_grad_norm` on the sum.

    Attributes:
        noise_multiplier: sigma, above 0; dpbench.privacy computes it from an epsilon.
        max_grad_norm: C, above 0.
        guarantee: what the noise is worth, by whoever calibrated it; None where nobody says.

    Raises:
        InputError: for a value that is not a finite number above 0.
        ValueError: for a guarantee about another noise or clip norm.
    """

    repeatable = True
    noise_multiplier: float = parameter(
        MISSING,
        "sigma of dp: the noise on the sum of clipped gradients has standard deviation sigma * C",
        symbol="σ",
        above=0,
    )
    guarantee: Guarantee | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        claim = self.guarantee
        if claim and (claim.noise_multiplier, claim.max_grad_norm) != (
            self.noise_multiplier,
            self.max_grad_norm,
        ):
            raise ValueError(
                "The guarantee is about another noise multiplier or clip norm than the release has."
            )
