"""The release of DP-SGD, by Opacus: clip each sample, sum, add noise, divide (Abadi et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from defenses.base import Aggregates, Aggregator, Gradients, defense, mean_gradient
from defenses.per_sample import per_sample
from dpbench.protocol import Guarantee, Loss, parameter

Means = Callable[[float, int], list[Gradients]]
"""(sigma, count) -> that many noisy means of gradients that were clipped once."""


@dataclass(frozen=True, kw_only=True)
class _Clipped(Aggregator):
    """What `clip` and `dp` have in common: all but the noise."""

    adds_up = True
    max_grad_norm: float = parameter(
        1.0, "clip norm C: the l2 bound of each sample's gradient", symbol="C", above=0
    )
    unit: Literal["record", "user"] = parameter(
        "record",
        "whose gradient is clipped to C and protected: each record's, or the sum over all records of a user, "
        "who is a client",
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
        means, method = self.clipped(model, loss, images, labels, generator)
        return Aggregates(means(self.noise_multiplier, count), method)

    def clipped(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Means, str]:
        """What is clipped, once: a function (sigma, count) -> noisy means, and `Release.per_sample`.

        Raises:
            InputError: for a model without per-sample gradients, or where clipping or noise went wrong.
        """
        if self.unit == "user":
            mean = mean_gradient(model, loss, images, labels)
            return self._clipped_whole(mean, len(images), generator), ""
        samples = per_sample(model, loss, images, labels)
        return self._clipped(samples.gradients, len(images), generator), samples.method

    @property
    def takes_updates(self) -> bool:
        """A user's update is clipped as a whole; noise that is correlated over releases is not offered."""
        return self.unit == "user" and not self.remembers

    def of_update(
        self, update: Gradients, images: int, generator: torch.Generator, count: int
    ) -> list[Gradients]:
        """Its sum over the images clipped to C, noised `count` times (DP-FedAvg, McMahan et al. 2018)."""
        if not self.takes_updates:
            return super().of_update(update, images, generator, count)
        return self._clipped_whole(update, images, generator)(self.noise_multiplier, count)

    def _clipped_whole(self, mean: Gradients, images: int, generator: torch.Generator) -> Means:
        """Of a user, whose gradient is the sum over all its images."""
        return self._clipped([g.detach()[None] * images for g in mean], images, generator)

    def _clipped(self, gradients: Sequence[Tensor], images: int, generator: torch.Generator) -> Means:
        from defenses.clipping import clipped_means  # Opacus takes seconds to import

        def means(noise_multiplier: float, count: int) -> list[Gradients]:
            return clipped_means(
                gradients,
                max_grad_norm=self.max_grad_norm,
                noise_multiplier=noise_multiplier,
                generator=generator,
                count=count,
                batch_size=images,
            )

        return means


@defense("clip")
class Clip(_Clipped):
    """Each sample's gradient scaled down to an l2 norm of at most `max_grad_norm`; no noise, so no privacy.

    Attributes:
        max_grad_norm: C, above 0.
        unit: `record`, or `user` to scale the sum over the whole batch instead.

    Raises:
        InputError: for a clip norm that is not a finite number above 0.
    """

    noise_multiplier = 0.0


@defense("dp")
class DPSGD(_Clipped):
    """Clipping plus Gaussian noise of standard deviation `noise_multiplier * max_grad_norm` on the sum.

    Under `unit` user it is the sum over the client's whole batch that is clipped to C (McMahan et al. 2018,
    "Learning Differentially Private Recurrent Language Models"), so that the guarantee is for all its records
    at once. A client that clips the mean over B records to c has C = B c.

    Attributes:
        noise_multiplier: sigma, above 0; dpbench.privacy computes it from an epsilon.
        max_grad_norm: C, above 0.
        unit: `record` or `user`.
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
