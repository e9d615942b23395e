"""Gradient pruning: only the largest entries leave the client."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from defenses.base import Gradients, PostProcessor, defense, smallest_sent, sparse_reading
from dpbench.protocol import Reading, Release, parameter


@defense("prune")
class Prune(PostProcessor):
    """Sets the entries of smallest magnitude to zero (Lin et al. 2018; Zhu et al. 2019).

    Attributes:
        prune_ratio: share of entries set to zero, in [0, 1); at least one entry is kept. Entries as large as
            the smallest kept one are kept too.
        prune_scope: `layer`: the share holds for every parameter tensor; `global`: over all of them together.

    Raises:
        InputError: for a ratio outside [0, 1) or an unknown scope.

    Example:
        >>> gradients = (torch.tensor([3.0, -4.0]), torch.tensor([0.1, -0.2]))
        >>> Prune(prune_ratio=0.5).process(gradients, torch.Generator())
        (tensor([ 0., -4.]), tensor([ 0.0000, -0.2000]))
        >>> Prune(prune_ratio=0.5, prune_scope="global").process(gradients, torch.Generator())
        (tensor([ 3., -4.]), tensor([0., 0.]))
    """

    prune_ratio: float = parameter(
        0.9,
        "share of gradient entries that prune sets to zero, in [0, 1)",
        symbol="ratio",
        at_least=0,
        below=1,
    )
    prune_scope: Literal["layer", "global"] = parameter(
        "layer", "where prune looks for the smallest entries", symbol="scope"
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients with small entries at zero; the generator is not used."""
        if self.prune_scope == "layer":
            thresholds = [self._threshold(g) for g in gradients]
        else:
            thresholds = [self._threshold(torch.cat([g.flatten() for g in gradients]))] * len(gradients)
        return tuple(torch.where(g.abs() >= t, g, 0.0) for g, t in zip(gradients, thresholds, strict=True))

    def read(self, release: Release) -> Reading:
        """The entries that are not zero; those that never were are no larger than the smallest sent."""
        together = self.prune_scope == "global"
        smallest = [smallest_sent(each, together) for each in release.each]
        bounds = tuple(torch.stack(same).mean() for same in zip(*smallest, strict=True))
        return sparse_reading(release, bounds)

    def _threshold(self, gradient: Tensor) -> Tensor:
        """Magnitude of the smallest entry that is kept."""
        size = gradient.numel()
        dropped = min(math.floor(round(self.prune_ratio * size, 6)), size - 1)  # 0.29 * 100 is 28.999...
        return gradient.abs().flatten().kthvalue(dropped + 1).values
