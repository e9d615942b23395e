"""How well images explain a release of the largest entries, by what is known of those that were not sent."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.posterior import Misfit
from attacks.reading import reading_of
from dpbench.protocol import Knowledge, Release

FEW = 0.005
"""Share of entries sent from which on bounds do not count. With the largest 0.1 % they brought images nearer;
with 1 % and more that is not shown (docs/findings/2026-11-posterior-defences.md)."""


class Bounded(Misfit):
    """A misfit that also counts what of an entry that was not sent exceeds the most that it can have been.

    Where nothing of the kind is known, or `FEW` or more were sent, it is the `Misfit`. In searches,
    `masked.Masked` does this.

    Args:
        release: as for `Misfit`.
        knowledge: likewise.
        labels: likewise.
    """

    def __init__(self, release: Release, knowledge: Knowledge, labels: Tensor) -> None:
        super().__init__(release, knowledge, labels)
        self.bounds, seen = None, reading_of(release)
        if seen is None or seen.bounds is None:
            return
        sent = sum(int(share.count_nonzero()) for share in seen.shares)
        if sent < FEW * self.target.numel():
            most = torch.finfo(self.target.dtype).max
            pairs = zip(seen.shares, seen.bounds, strict=True)
            bounds = [torch.where(share > 0, most, bound).flatten() for share, bound in pairs]
            self.bounds = (torch.cat(bounds) * release.batch_size).clamp(max=most)

    def residuals(self, images: Tensor) -> Tensor:
        """See `Misfit.residuals`; of an entry that was not sent, by how much it is too large."""
        total = self._sum(images)
        left = (total if self.weights is None else total * self.weights) - self.target
        if self.bounds is not None:
            left = left + total - torch.clamp(total, -self.bounds, self.bounds)
        return left / self.variance.sqrt()
