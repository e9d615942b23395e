"""A Gaussian image prior from public statistics, and what a nat of it weighs beside a gradient distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.adaptation import NOISY, SPARSE, mean_bound
from attacks.reading import reading_of
from attacks.regularisers import Regulariser
from dpbench.protocol import ImageStatistics, Knowledge, Release

ROUNDING = 1 / 12 / 255**2
"""Variance that 8-bit pixels carry whatever they show; no frequency of a photograph has less power."""


class Whitening(nn.Module):
    """The linear map under which images of these statistics have independent standard normal entries.

    Principal colours, then the orthonormal 2-D Hartley transform, then each entry over the root of its power.
    The Hartley transform is the real part of the Fourier transform less its imaginary part, so it stays in
    real numbers. A spectrum is the same at a frequency and its opposite, so the two transforms whiten alike.

    Args:
        statistics: of public images.
    """

    def __init__(self, statistics: ImageStatistics) -> None:
        super().__init__()
        self.register_buffer("mean_image", statistics.mean_image)
        self.register_buffer("colours", statistics.colours)
        self.register_buffer("deviation", (statistics.spectrum + ROUNDING).sqrt())
        height, width = statistics.spectrum.shape[1:]
        for name, size in (("rows", height), ("columns", width)):
            places = torch.arange(size, dtype=torch.float64)
            angles = 2 * math.pi / size * (torch.outer(places, places) % size)
            waves = torch.stack([angles.cos(), angles.sin()]) / math.sqrt(size)
            self.register_buffer(name, waves.to(statistics.spectrum))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] as entries of the same shape; the mean image as zeros."""
        mean_image, deviation = self._as(images, "mean_image", "deviation")
        return self.coefficients(images - mean_image) / deviation

    def inverse(self, entries: Tensor) -> Tensor:
        """The images of such entries, not clamped."""
        mean_image, deviation = self._as(entries, "mean_image", "deviation")
        return self.turned(entries * deviation) + mean_image

    def turned(self, coefficients: Tensor) -> Tensor:
        """Differences of images, from their coefficients of waves and principal colours; of equal norm."""
        (colours,) = self._as(coefficients, "colours")
        return torch.einsum("kc,bkhw->bchw", colours, self._hartley(coefficients))

    def coefficients(self, differences: Tensor) -> Tensor:
        """The inverse of `turned`."""
        (colours,) = self._as(differences, "colours")
        return self._hartley(torch.einsum("kc,bchw->bkhw", colours, differences))

    def _hartley(self, x: Tensor) -> Tensor:
        """cos(a + b) + sin(a + b) of row and column angles, summed over pixels; its own inverse."""
        (cos, sin), (along, across) = self._as(x, "rows", "columns")
        return cos @ (x @ (along + across)) + sin @ (x @ (along - across))

    def _as(self, like: Tensor, *names: str) -> list[Tensor]:
        return [self.get_buffer(name).to(like.dtype) for name in names]


class GaussianPrior(Regulariser):
    """Minus the log-density of a stationary Gaussian field in nats, less its constant.

    Half the squared length of the whitened images. The minimum is the mean image; a typical image has half as
    many nats as entries.

    Args:
        weight: of a nat.
        statistics: of public images as large as those attacked.
        mean: per-channel mean that the normalised pixels are measured from, length C.
        std: per-channel standard deviation that they are measured in.
    """

    squares = True

    def __init__(
        self, weight: float, statistics: ImageStatistics, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(weight)
        self.whitening = Whitening(statistics)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).to(statistics.mean_image)[:, None, None])

    def penalty(self, z: Tensor, activations: Sequence[Tensor] = ()) -> Tensor:
        """Nats of normalised pixels [B, C, H, W], summed over the batch."""
        return self._entries(z).square().sum() / 2

    def residuals(self, z: Tensor) -> Tensor:
        """Entries [B, C, H, W] whose sum of squares is twice the weighted penalty."""
        return self.weight.to(z.dtype).sqrt() * self._entries(z)

    def _entries(self, z: Tensor) -> Tensor:
        return self.whitening(z * self.std.to(z.dtype) + self.mean.to(z.dtype))


UNINFORMED = (
    "There were no statistics of public images of this size, so total variation took the place of the "
    "Gaussian prior."
)
UNDEFENDED = 1e-6
"""Weight of a nat beside `Cosine` where the release is exact; tuned, see docs/search.md."""


def nat_weight(release: Release) -> float:
    """What a nat of the prior weighs beside `objectives.Cosine`, given what is known of the defence.

    Let g be the release, tau the standard deviation of its noise and n the norm of the gradient beneath it.
    A trial gradient of that norm has minus log-likelihood (n |g| / tau^2) (1 - cos) plus a constant, so a nat
    weighs tau^2 / (n |g|). n follows from |g| less the noise's expected share, and is at most the clip norm.
    Noise that the last stage is itself, such as rounding, counts like any other. The weight does not fall
    below that of an exact release over the root of the share of entries kept.

    Example:
        >>> exact = Release(("weight",), (torch.tensor([3.0, 4.0]),), 1)
        >>> nat_weight(exact)
        1e-06
    """
    stages = {stage.name for stage in release.defense}
    entries = sum(g.numel() for g in release.gradients)
    sparse = not SPARSE.isdisjoint(stages)
    kept = sum(int(g.count_nonzero()) for g in release.gradients) if sparse else entries
    least = UNDEFENDED * math.sqrt(entries / max(1, kept))
    variance = (release.noise_on_sum() / release.batch_size) ** 2 / len(release.each)
    if (seen := reading_of(release)) is not None:
        variance += sum(float(v.double().sum()) for v in seen.variances) / entries
    squared = sum(float(g.double().square().sum()) for g in release.gradients)
    if variance == 0 or squared == 0:
        return least
    # no estimate below the standard deviation of the noise's squared norm
    beneath = math.sqrt(max(squared - kept * variance, variance * math.sqrt(2 * kept)))
    if (bound := mean_bound(release)) is not None:
        beneath = min(beneath, bound)
    return max(least, variance / (beneath * math.sqrt(squared)))


def weighed(stages: Sequence[str]) -> bool:
    """Whether such a defence changes `nat_weight`."""
    return not (NOISY | SPARSE).isdisjoint(stages)


def suits(knowledge: Knowledge) -> bool:
    """Whether there are statistics of public images of this size."""
    statistics = knowledge.image_statistics
    return statistics is not None and statistics.mean_image.shape == torch.Size(knowledge.image_shape)


def prior_term(release: Release, knowledge: Knowledge, weight: float, adaptive: bool) -> list[GaussianPrior]:
    """The prior as a list of one; an empty list where there are no statistics of images of this size.

    Args:
        release: the update that is attacked.
        knowledge: with `image_statistics`.
        weight: in units of the one that the defence calls for.
        adaptive: `nat_weight` says which that is, rather than `UNDEFENDED`.
    """
    if not weight or not suits(knowledge):
        return []
    unit = nat_weight(release) if adaptive else UNDEFENDED
    return [GaussianPrior(weight * unit, knowledge.image_statistics, knowledge.mean, knowledge.std)]


def annealed(regularisers: Sequence[Regulariser], times: float, iterations: int) -> Tensor:
    """Factors [iterations, regularisers]: of a prior they fall from `times` to 1 geometrically; else 1."""
    factors = torch.ones(iterations, len(regularisers))
    for i, each in enumerate(regularisers):
        if isinstance(each, GaussianPrior):
            factors[:, i] = torch.logspace(math.log10(times), 0, iterations)
    return factors
