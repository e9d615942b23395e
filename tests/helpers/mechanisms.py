"""A correct Gaussian mechanism written by hand, and bugs planted in it, all with the same claim."""

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
        epochs=1,
        batch_size=4,
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


# Too little noise


class NoiseDividedTwice(HandWritten):
    def noise(self, count, size, generator):
        return super().noise(count, size, generator) / 4


class NoiseWithoutC(HandWritten):
    """The standard deviation is sigma whatever C is."""

    def noise(self, count, size, generator):
        return super().noise(count, size, generator) / self.max_grad_norm


class NoiseByTotalLength(HandWritten):
    """The whole noise vector has the length that each entry should have."""

    def noise(self, count, size, generator):
        return super().noise(count, size, generator) / size**0.5


class UpsideDown(HandWritten):
    """Releases the negative, with too little noise."""

    def noised_sums(self, samples, count, generator):
        return self.noise(count, samples.shape[1], generator) / 4 - self.summed(samples)


class NoiseBeforeClipping(HandWritten):
    def noised_sums(self, samples, count, generator):
        noise = self.noise(count, samples.numel(), generator).view(count, *samples.shape)
        return clipped(samples + noise, self.max_grad_norm).sum(1)


class TensorNotNoised(HandWritten):
    def noise(self, count, size, generator):
        noise = super().noise(count, size, generator)
        noise[:, size // 2 :] = 0
        return noise


class LastEntriesNotNoised(HandWritten):
    """The last entry of each tensor."""

    def noise(self, count, size, generator):
        noise = super().noise(count, size, generator)
        noise[:, [size // 2 - 1, size - 1]] = 0
        return noise


class SometimesNotNoised(HandWritten):
    """One release in two hundred."""

    def noise(self, count, size, generator):
        kept = torch.rand(count, 1, generator=generator) > 1 / 200
        return kept * super().noise(count, size, generator)


# Noise that depends on other noise


class SameNoiseInTensors(HandWritten):
    """The generator is seeded anew for each tensor."""

    def noise(self, count, size, generator):
        return super().noise(count, size // 2, generator).repeat(1, 2)


class CentredNoise(HandWritten):
    """The mean over the entries is subtracted."""

    def noise(self, count, size, generator):
        noise = super().noise(count, size, generator)
        return noise - noise.mean(1, keepdim=True)


class CommonNoise(HandWritten):
    """A hundredth of the variance is the same in all entries."""

    def noise(self, count, size, generator):
        own, common = (super(CommonNoise, self).noise(count, n, generator) for n in (size, 1))
        return 0.99**0.5 * own + 0.1 * common


class NoiseUsedTwice(HandWritten):
    """For two releases in succession."""

    def noise(self, count, size, generator):
        return super().noise(-(-count // 2), size, generator).repeat_interleave(2, 0)[:count]


class MirroredNoise(HandWritten):
    """Every second noise is the negative of one before, ten places away."""

    def noise(self, count, size, generator):
        noise = super().noise(count, size, generator)
        for i in range(10, count, 20):
            block = noise[i : i + 10]
            block.copy_(-noise[i - 10 : i - 10 + len(block)])
        return noise


class CorrelatedReleases(HandWritten):
    """A tenth of each noise is that of the release before."""

    def noise(self, count, size, generator):
        noise = super().noise(count + 1, size, generator)
        return (noise[1:] + 0.1 * noise[:-1]) / 1.01**0.5


class OwnSeed(HandWritten):
    """Every call starts from seed 0, so that worlds share their noise."""

    def noise(self, count, size, generator):
        return super().noise(count, size, torch.Generator().manual_seed(0))


class SixteenBitSeed(HandWritten):
    """Every release draws a seed of 16 bits for its noise."""

    def noise(self, count, size, generator):
        seeds = torch.randint(2**16, (count,), generator=generator).tolist()
        own = (torch.Generator().manual_seed(seed) for seed in seeds)
        return torch.cat([super(SixteenBitSeed, self).noise(1, size, each) for each in own])


class SixteenBitSeeds(HandWritten):
    """Each tensor has a seed of its own, the release's plus its place, of 16 bits."""

    def noise(self, count, size, generator):
        rows = []
        for seed in torch.randint(2**16, (count,), generator=generator).tolist():
            own = (torch.Generator().manual_seed(seed + place) for place in range(2))
            rows.append(
                torch.cat([super(SixteenBitSeeds, self).noise(1, size // 2, each) for each in own], 1)
            )
        return torch.cat(rows)


class TensorsShareNoise(HandWritten):
    """The second tensor of a release has the noise of the first one three releases before."""

    def noise(self, count, size, generator):
        made = super().noise(count + 3, size // 2, generator)
        return torch.cat([made[3:], made[:-3]], dim=1)


# Noise of another shape, its variance as claimed


class LaplaceNoise(HandWritten):
    def noise(self, count, size, generator):
        uniform = torch.rand(count, size, generator=generator).clamp(1e-6, 1 - 1e-6) - 0.5
        unit = -uniform.sign() * torch.log1p(-2 * uniform.abs()) / 2**0.5
        return self.noise_multiplier * self.max_grad_norm * unit


class RoundedNoise(HandWritten):
    """To multiples of a tenth of its standard deviation."""

    def noise(self, count, size, generator):
        step = self.noise_multiplier * self.max_grad_norm / 10
        return (super().noise(count, size, generator) / step).round() * step


class VaryingNoise(HandWritten):
    """Each release has a standard deviation of its own."""

    def noise(self, count, size, generator):
        scale = torch.where(torch.rand(count, 1, generator=generator) < 0.5, 0.8, 1.36**0.5)
        return scale * super().noise(count, size, generator)


# Private all the same


class MoreNoise(HandWritten):
    def noise(self, count, size, generator):
        return 1.5 * super().noise(count, size, generator)
