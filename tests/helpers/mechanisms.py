"""A correct Gaussian mechanism written by hand, and bugs planted in its clipping; all make the same claim."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from defenses import Aggregator, Chain
from dpbench import privacy
from dpbench.protocol import Guarantee, Stage


def claim(eps, max_grad_norm=1.0, releases=1):
    return privacy.calibrate(
        eps=eps,
        noise_multiplier=None,
        eps_scope="release",
        delta=1e-5,
        train_size=4,
        train_batch_size=4,
        epochs=1,
        max_grad_norm=max_grad_norm,
        releases=releases,
    )


def chain(defence, guarantee, *stages):
    sigma, bound = guarantee.noise_multiplier, guarantee.max_grad_norm
    return Chain((defence(noise_multiplier=sigma, max_grad_norm=bound, guarantee=guarantee), *stages))


def clipped(vectors, bound):
    """Each row scaled down to a norm of at most `bound`."""
    return vectors * (bound / vectors.norm(dim=-1, keepdim=True).clamp_min(bound))


@dataclass(frozen=True, kw_only=True)
class HandWritten(Aggregator):
    """Correct as it stands, with the claim of dpbench's own dp; each bug overrides one of its parts."""

    name = "hand-written"
    noise_multiplier: float
    max_grad_norm: float = 1.0
    guarantee: Guarantee | None = None

    def summed(self, samples):
        """The sum [d] of per-sample gradients [B, d]."""
        return clipped(samples, self.max_grad_norm).sum(0)

    def noise(self, count, size, generator):
        """[count, size], to be added to the sum."""
        return self.noise_multiplier * self.max_grad_norm * torch.randn(count, size, generator=generator)

    def noised_sums(self, samples, count, generator):
        return self.summed(samples) + self.noise(count, samples.shape[1], generator)

    def aggregate(self, model, loss, images, labels, generator):
        return self.aggregates(model, loss, images, labels, generator, 1)[0]

    def aggregates(self, model, loss, images, labels, generator, count):
        parameters = list(model.parameters())
        rows = []
        for i in range(len(images)):
            gradients = torch.autograd.grad(loss(model(images[i : i + 1]), labels[i : i + 1]), parameters)
            rows.append(torch.cat([g.flatten() for g in gradients]))
        made = self.noised_sums(torch.stack(rows), count, generator) / len(images)
        parts = made.split([p.numel() for p in parameters], dim=1)
        each = (g.view(-1, *p.shape) for g, p in zip(parts, parameters, strict=True))
        return list(zip(*each, strict=True))


class Correct(HandWritten):
    pass


# Sensitivity above C


class BatchClipped(HandWritten):
    """The sum is clipped, not the samples."""

    def summed(self, samples):
        return clipped(samples.sum(0), self.max_grad_norm)


class TensorsClipped(HandWritten):
    """Each of two tensors to C, so that both together reach sqrt(2) C."""

    def summed(self, samples):
        return clipped(samples.unflatten(1, (2, -1)), self.max_grad_norm).flatten(1).sum(0)


class EntriesClipped(HandWritten):
    """The largest entry is C at most, not the l2 norm."""

    def summed(self, samples):
        return samples.clamp(-self.max_grad_norm, self.max_grad_norm).sum(0)


class TensorLeftOut(HandWritten):
    """The norm is taken of the first tensor only."""

    def summed(self, samples):
        norms = samples[:, : samples.shape[1] // 2].norm(dim=1, keepdim=True)
        return (samples * (self.max_grad_norm / norms.clamp_min(self.max_grad_norm))).sum(0)


class NotClipped(HandWritten):
    def summed(self, samples):
        return samples.sum(0)


class PrivateCount(HandWritten):
    """Divided by the number of samples that have a gradient, as if that were public."""

    def noised_sums(self, samples, count, generator):
        share = samples.any(1).sum() / len(samples)
        return super().noised_sums(samples, count, generator) / share


# Sensitivity that depends on the private batch


class MedianNorm(HandWritten):
    """Clips to the median of the batch's own norms, and scales the noise by it."""

    def noised_sums(self, samples, count, generator):
        bound = samples.norm(dim=1).median()
        noise = self.noise(count, samples.shape[1], generator) / self.max_grad_norm
        return clipped(samples, bound).sum(0) + bound * noise


class LargestClippedNorm(HandWritten):
    """Clips to C, and scales the noise by the largest norm that is left in the batch."""

    def noised_sums(self, samples, count, generator):
        left = clipped(samples, self.max_grad_norm)
        noise = self.noise(count, samples.shape[1], generator) / self.max_grad_norm
        return left.sum(0) + left.norm(dim=1).max() * noise


class LargestNorm(HandWritten):
    """Nothing is clipped, the noise is scaled by the batch's own largest norm."""

    def noised_sums(self, samples, count, generator):
        noise = self.noise(count, samples.shape[1], generator) / self.max_grad_norm
        return samples.sum(0) + samples.norm(dim=1).max() * noise


@dataclass(frozen=True, kw_only=True)
class NormsPublished(HandWritten):
    """The gradient is correct; its public description says how large the largest sample was."""

    norms: list[float] = field(default_factory=list)

    def summed(self, samples):
        self.norms.append(float(samples.norm(dim=1).max()))
        return super().summed(samples)

    def stage(self):
        return Stage(self.name, {"largest_norm": self.norms[-1]})


# Private all the same


class MoreNoise(HandWritten):
    def noise(self, count, size, generator):
        return 1.5 * super().noise(count, size, generator)
