"""Bugs planted in the noise of the correct mechanism; the claim stays the same."""

from __future__ import annotations

import torch

from tests.helpers.mechanisms import HandWritten, clipped

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
