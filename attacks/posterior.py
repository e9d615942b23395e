"""How well images explain a release with Gaussian noise, in nats, and the gradient of that."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.adaptation import clip_norm
from attacks.engine.twice import operation_of, refusal, twice_differentiable
from attacks.public_prior import Centred, PublicPrior
from attacks.reading import linear
from dpbench.protocol import Knowledge, Release

LEAST = 1e-6
"""Least noise variance, relative to the squared norm of the released sum: a release without noise is matched
to a thousandth of its norm."""


class Misfit:
    """How far sums of gradients are from a released one.

    Clipping is done sample by sample, as the defence does it. Entries count as their noise says, those of
    which nothing is known do not.

    Args:
        release: what left the client; of several releases only the mean matters.
        knowledge: the victim and its loss.
        labels: int64 [B].
    """

    def __init__(self, release: Release, knowledge: Knowledge, labels: Tensor) -> None:
        self.knowledge, self.labels = knowledge, labels
        self.parameters = [p for p in knowledge.model.parameters() if p.requires_grad]
        self.clip = clip_norm(release)
        seen = linear(release)
        self.weights, self.target = seen.weights, seen.weighted(seen.values)
        self.variance = torch.clamp_min(LEAST * self.target.square().sum(), seen.noise**2)
        if not bool(self.variance > 0):  # nothing is known of any entry
            self.variance = torch.ones_like(self.variance)

    def residuals(self, images: Tensor) -> Tensor:
        """What `images` [B, C, H, W] leave unexplained, [P], in standard deviations of the noise."""
        total = self._sum(images)
        total = total if self.weights is None else total * self.weights
        return (total - self.target) / self.variance.sqrt()

    def _sum(self, images: Tensor) -> Tensor:
        """The sum of the samples' gradients as the defence takes it, flat."""
        if self.clip is None:
            return len(images) * self._gradient(images, self.labels)
        total = torch.zeros_like(self.target)
        for x, y in zip(images.split(1), self.labels.split(1), strict=True):
            gradient = self._gradient(x, y)
            total = total + gradient * (self.clip / gradient.norm()).clamp(max=1)
        return total

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self.knowledge.loss(self.knowledge.model(images), labels)
        found = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])


class Posterior(Misfit):
    """Minus the log-likelihood of entries of a prior, in nats, less its constant.

    |sum over samples of clipped gradients - released sum|^2 / (2 tau^2), tau the noise on the sum.

    Args:
        release: as for `Misfit`.
        knowledge: likewise.
        labels: likewise.
        prior: how images follow from entries.
    """

    def __init__(
        self, release: Release, knowledge: Knowledge, labels: Tensor, prior: PublicPrior | Centred
    ) -> None:
        super().__init__(release, knowledge, labels)
        self.prior = prior

    def __call__(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Nats (a scalar) and their gradient [B, C, H, W] at `entries`; the prior's are not counted.

        Raises:
            InputError: where the victim has an operation without a second derivative.
        """
        entries = entries.detach().requires_grad_()
        with torch.enable_grad():
            images = self.prior.images(entries)
        try:
            with torch.enable_grad(), twice_differentiable():
                nats = self.residuals(images).square().sum() / 2
                (gradient,) = torch.autograd.grad(nats, entries)
        except RuntimeError as error:
            if (operation := operation_of(error)) is None:
                raise
            raise refusal(self.knowledge.model, images, operation) from error
        return nats.detach(), gradient
