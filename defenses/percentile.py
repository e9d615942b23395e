"""NVFlare's percentile filter: small entries out, large ones clamped."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from defenses.base import Gradients, PostProcessor, defense, smallest_sent, sparse_reading
from dpbench.protocol import Reading, Release, parameter


@defense("percentile")
class Percentile(PostProcessor):
    """Zeroes what is below a percentile of all magnitudes, and clamps the rest to +-gamma.

    The rule of NVFlare's `PercentilePrivacy` for one local step, from what its code does: at the default of
    10 it is the smallest tenth that is dropped, where its documentation says that the largest tenth is sent.
    Nothing is random and no sensitivity is bounded per sample: no guarantee.

    Attributes:
        percentile: share of all entries that is dropped, in percent, in [0, 100).
        percentile_gamma: the largest magnitude that leaves, above 0.

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> gradients = (torch.tensor([0.001, -0.004]), torch.tensor([0.02, -0.03]))
        >>> Percentile(percentile=30).process(gradients, torch.Generator())
        (tensor([ 0.0000, -0.0040]), tensor([ 0.0100, -0.0100]))
    """

    percentile: float = parameter(
        10.0, "percentile of magnitudes below which an entry is dropped", unit="%", at_least=0, below=100
    )
    percentile_gamma: float = parameter(
        0.01, "magnitude to which percentile clamps every entry", symbol="γ", above=0
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients less their smallest entries, clamped; the generator is not used."""
        cutoff, gamma = self._cutoff(torch.cat([g.abs().flatten() for g in gradients])), self.percentile_gamma
        return tuple(torch.where(g.abs() >= cutoff, g, 0.0).clamp(-gamma, gamma) for g in gradients)

    def read(self, release: Release) -> Reading:
        """The entries that are not zero; of those at +-gamma only that they are as large at least.

        Where all that was sent is at +-gamma, nothing tells how large the dropped entries are.
        """
        largest = self.percentile_gamma * (1 - 1e-6)
        clamped = tuple(
            torch.stack([g.abs() >= largest for g in same]).any(0) for same in zip(*release.each, strict=True)
        )
        smallest = [smallest_sent(each, together=True) for each in release.each]
        bounds = tuple(
            torch.stack([torch.where(s < largest, s, torch.finfo(s.dtype).max) for s in same]).amax(0)
            for same in zip(*smallest, strict=True)
        )
        return replace(sparse_reading(release, bounds), saturated=clamped)

    def _cutoff(self, magnitudes: Tensor) -> Tensor:
        """The percentile, interpolated linearly; `torch.quantile` takes 16 million entries at most."""
        place = self.percentile / 100 * (magnitudes.numel() - 1)
        below = int(place)
        low = magnitudes.kthvalue(below + 1).values
        if below == place:
            return low
        return torch.lerp(low, magnitudes.kthvalue(below + 2).values, place - below)
